"""The type of an agent's answer: its JSON schema for providers, and its reading.

Providers take an object only. Another type, such as a union or a list, is the `result` of an object, and taken out again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pydantic

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
        answer: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(schema)
        described = _object(answer.json_schema())
        whole = None
        if described is None:
            whole = pydantic.TypeAdapter(
                pydantic.create_model("Answer", __config__={"extra": "forbid"}, result=(schema, ...))
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


def _object(schema: dict[str, Any]) -> dict[str, Any] | None:
    """Return the schema if it is that of an object; that of a recursive type is behind a reference."""
    if reference := schema.get("$ref", ""):
        schema = schema["$defs"][reference.rpartition("/")[2]] | {"$defs": schema["$defs"]}
    return schema if schema.get("type") == "object" else None


def _name(schema: Any) -> str:
    """Return a name of 1 to 64 letters, digits, _ and -, as providers take it: `Wrap_Item` for `Wrap[Item]`."""
    name = getattr(schema, "__name__", "") if isinstance(schema, type) else ""
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", name).strip("_")[:64] or "answer"
