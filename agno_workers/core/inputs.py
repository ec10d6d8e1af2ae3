"""The arguments of a workflow's function as the input of a run, and back.

The input of a run is text. One argument is its text, or its JSON; several are a JSON object by their names. Each is converted to the type
of its parameter, once before the submit and once at the turn, so that input which does not fit is refused where it comes from.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, get_args, get_type_hints

import msgspec
import pydantic

from agno_workers.core.checks import brief
from agno_workers.core.messages import AnyPart
from agno_workers.core.output import readable
from agno_workers.errors import InvalidInput, message_of

_NO_TYPE = (inspect.Parameter.empty, Any)
_PARTS = get_args(AnyPart)
_JSON = pydantic.TypeAdapter(Any)


class Inputs:
    """The parameters of a workflow's function after `flow`. Raises InvalidInput for a function that can't be one."""

    def __init__(self, name: str, function: Callable[..., Any]) -> None:
        self._name = name
        for is_kind, text in _REFUSED.items():
            if is_kind(function):
                raise self._fault(
                    f"{text}: write def, since its code runs again at each turn and waits in flow.step"
                )
        parameters = [*inspect.signature(function).parameters.values()]
        for each in parameters:
            if each.kind not in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD):
                raise self._fault(
                    f"parameter {each.name!r} can't be sent: write a plain parameter for each argument"
                )
        if not parameters:
            raise self._fault("its function takes no flow: write def name(flow: Flow, ...)")
        self._parameters = rest = parameters[1:]
        self._required = [each.name for each in rest if each.default is each.empty]
        try:
            hints = get_type_hints(function, include_extras=True)
        except Exception as error:  # an annotation is code: it may raise anything
            raise self._fault(
                f"an annotation can't be resolved ({message_of(error)}): define its names at module level"
            ) from error
        self._types = {each.name: self._type(each.name, hints.get(each.name, Any)) for each in rest}

    def encoded(self, given: Sequence[Any]) -> list[Any]:
        """Return the inputs of a run for the arguments of a call. Raises InvalidInput where they do not fit."""
        if any(isinstance(each, _PARTS) for each in given):
            return list(given)  # images and files: the function reads flow.input
        match list(given):
            case [] if self._required:
                raise self._fault(f"it takes {self._told()}, got no arguments")
            case []:
                encoded = "{}"
            case [str(text)]:
                encoded = text
            case [value]:
                encoded = self._json(value)
            case values:
                if len(values) > len(self._parameters):
                    raise self._fault(f"it takes {self._told()}, got {len(values)} arguments")
                encoded = self._json(
                    {each.name: value for each, value in zip(self._parameters, values, strict=False)}
                )
        self.values(encoded)
        return [encoded]

    def values(self, text: str) -> list[Any]:
        """Return the arguments in the input of a run. Raises InvalidInput where it does not fit."""
        named = self._named(text)
        if named is None:
            if len(self._required) > 1:
                raise self._fault(
                    f"it takes {self._told()}, as arguments or as one JSON object, got {brief(text)}"
                )
            named = {each.name: self._from_text(each.name, text) for each in self._parameters[:1]}
        else:
            named = {name: self._converted(name, value) for name, value in named.items()}
        return [named.get(each.name, each.default) for each in self._parameters]

    def _named(self, text: str) -> Mapping[str, Any] | None:
        """Return the JSON object of several arguments by their names; None for the first argument alone."""
        if text == "{}" and not self._required:
            return {}
        if len(self._parameters) < 2 or not text.lstrip().startswith("{"):
            return None
        found = _decoded(text)
        names = {each.name for each in self._parameters}
        is_named = isinstance(found, dict) and names >= set(found) >= set(self._required)
        return found if is_named else None

    def _from_text(self, name: str, text: str) -> Any:
        """Return the argument that is the whole input: text, or JSON that fits its type."""
        known = self._types[name]
        if known is None:
            return _decoded(text) if text.lstrip().startswith(("{", "[")) else text
        try:
            return known.validate_python(text, strict=True)  # a type that takes text gets it as it is
        except pydantic.ValidationError:
            return self._converted(name, _decoded(text))

    def _converted(self, name: str, value: Any) -> Any:
        known = self._types[name]
        if known is None:
            return value
        try:
            return known.validate_python(value)
        except pydantic.ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            what = "; ".join(
                f"{'.'.join(map(str, (name, *each['loc'])))}: {each['msg']}" for each in problems
            )
            raise self._fault(f"the input does not fit: {what}, got {brief(value)}") from error

    def _type(self, name: str, hint: Any) -> pydantic.TypeAdapter[Any] | None:
        if hint in _NO_TYPE:
            return None
        try:
            return pydantic.TypeAdapter(readable(hint))
        except Exception as error:  # as above
            raise self._fault(f"parameter {name!r} has a type that JSON can't be converted to: use a pydantic model, a dataclass, str, int ...") from error  # fmt: skip

    def _json(self, value: Any) -> str:
        try:
            return _JSON.dump_json(value, fallback=msgspec.to_builtins).decode()
        except (ValueError, TypeError) as error:
            raise self._fault(f"{brief(value)} can't be sent as JSON: {message_of(error)}") from error

    def _told(self) -> str:
        names = (
            each.name if each.default is each.empty else f"{each.name}={each.default!r}"
            for each in self._parameters
        )
        return ", ".join(names) or "no arguments"

    def _fault(self, fault: str) -> InvalidInput:
        return InvalidInput(f"workflow {self._name!r}: {fault}.", agent=self._name)


_REFUSED = {
    inspect.iscoroutinefunction: "its function is async",
    inspect.isgeneratorfunction: "its function is a generator",
    inspect.isasyncgenfunction: "its function is an async generator",
}


def _decoded(text: str) -> Any:
    """Return the value of JSON; other text stays as it is."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return text


@lru_cache(1_000)
def inputs_of(name: str, function: Callable[..., Any]) -> Inputs:
    """Return the parameters of a workflow's function. Raises InvalidInput."""
    return Inputs(name, function)
