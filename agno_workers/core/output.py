"""The type of an agent's answer: its JSON schema for providers, and its reading.

Providers take an object only. Another type, such as a union or a list, is the `result` of an object, and taken out again.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from dataclasses import dataclass
from functools import partial
from typing import Any

import pydantic
import typing_extensions

from agno_workers.core.messages import OutputSpec
from agno_workers.errors import InvalidInput, message_of


@dataclass(frozen=True)
class OutputType:
    """An `output_schema` that works; `output_type` makes it."""

    spec: OutputSpec
    answer: pydantic.TypeAdapter[Any]
    whole: pydantic.TypeAdapter[Any] | None
    """The object around the answer, for a type that is not an object."""

    def read(self, text: str) -> tuple[Any, str | None]:
        """Parse an answer; return `(content, misfit)`, where `misfit` describes why it does not fit, or is None."""
        try:
            if self.whole is None:
                value = self.answer.validate_json(text)
            else:
                value = self._unwrapped(self.whole, text)
        except pydantic.ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            return None, "; ".join(
                f"{'.'.join(map(str, each['loc'])) or 'answer'}: {each['msg']}" for each in problems
            )
        return self.answer.dump_python(value, mode="json"), None

    def _unwrapped(self, whole: pydantic.TypeAdapter[Any], text: str) -> Any:
        """Return the result; a server that does not follow schemas may leave the object around it out."""
        try:
            return whole.validate_json(text).result
        except pydantic.ValidationError as error:
            try:
                return self.answer.validate_json(text)
            except pydantic.ValidationError:
                raise error from None


def output_type(agent: str, schema: Any) -> OutputType:
    """Return the type of an agent's answers. Raises InvalidInput for what has no JSON schema."""
    try:
        if inspect.isroutine(schema) or isinstance(
            schema, partial | str
        ):  # pydantic takes these for other things
            raise TypeError("it is not a type")
        known = readable(schema)
        answer: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(known)
        described = _object(answer.json_schema())
        whole = None
        if described is None:
            whole = pydantic.TypeAdapter(
                pydantic.create_model("Answer", __config__={"extra": "forbid"}, result=(known, ...))
            )
            described = whole.json_schema()
    except Exception as error:  # pydantic raises many kinds, and an annotation is code
        reason = re.split(r"\.(?:\s|$)|\n", message_of(error))[0]
        raise InvalidInput(
            f"agent {agent!r}: output_schema={schema!r} has no JSON schema ({type(error).__name__}: {reason}): "
            "use a pydantic model, a dataclass, a TypedDict, or a union or list of such types.",
            agent=agent,
        ) from error
    return OutputType(OutputSpec(_name(schema), described), answer, whole)


def readable(kind: Any) -> Any:
    """Return the type with each `typing.TypedDict` in it as the one of typing_extensions: pydantic reads only those before Python
    3.12.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if sys.version_info < (3, 12) and typing.is_typeddict(kind) and type(kind).__module__ == "typing":
        hints = typing.get_type_hints(kind, include_extras=True)
        keys = {name: _key(kind, name, hint) for name, hint in hints.items()}
        return typing_extensions.TypedDict(kind.__name__, keys)  # type: ignore[operator]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(map(readable, arguments))]  # noqa: UP007 - of any length
    if origin is typing.Annotated:
        return typing.Annotated.__class_getitem__((readable(arguments[0]), *arguments[1:]))
    if isinstance(origin, type) and (
        issubclass(origin, list | tuple | dict | set | frozenset) or hasattr(origin, "__parameters__")
    ):
        return origin[tuple(map(readable, arguments))]  # type: ignore[index]
    return kind


def _key(kind: Any, name: str, hint: Any) -> Any:
    """Return the hint of a key of a TypedDict, marked as required or not."""
    marked = typing.get_origin(hint) in (typing.Required, typing.NotRequired)
    mark = (
        typing.get_origin(hint)
        if marked
        else typing.Required
        if name in kind.__required_keys__
        else typing.NotRequired
    )
    return mark[readable(typing.get_args(hint)[0] if marked else hint)]


def _object(schema: dict[str, Any]) -> dict[str, Any] | None:
    """Return the schema if it is that of an object; that of a recursive type is behind a reference."""
    if reference := schema.get("$ref", ""):
        schema = schema["$defs"][reference.rpartition("/")[2]] | {"$defs": schema["$defs"]}
    return schema if schema.get("type") == "object" else None


def _name(schema: Any) -> str:
    """Return a name of 1 to 64 letters, digits, _ and -, as providers take it: `Wrap_Item` for `Wrap[Item]`."""
    name = getattr(schema, "__name__", "") if isinstance(schema, type) else ""
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", name).strip("_")[:64] or "answer"
