"""The arguments of a workflow as the input of a run, and back: those of its function, or the one of its `input_schema`.

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
from agno_workers.core.output import output_type, readable
from agno_workers.errors import InvalidInput, message_of

_PARTS = get_args(AnyPart)
_JSON = pydantic.TypeAdapter(Any)


class Inputs:
    """The arguments of a run, by their parameters and the types of these; None: any JSON."""

    def __init__(
        self, name: str, parameters: Sequence[inspect.Parameter], types: Mapping[str, pydantic.TypeAdapter[Any] | None]
    ) -> None:  # fmt: skip
        self._name = name
        self._parameters = parameters
        self._required = [each.name for each in parameters if each.default is each.empty]
        self._types = types

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

    def schema(self) -> dict[str, Any] | None:
        """Return the JSON schema of the input; None: it is text."""
        known = {name: {} if each is None else each.json_schema() for name, each in self._types.items()}
        if len(known) > 1:
            return {"type": "object", "properties": known, "required": self._required}
        return next((each for each in known.values() if each not in ({}, {"type": "string"})), None)

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


def _decoded(text: str) -> Any:
    """Return the value of JSON; other text stays as it is."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return text


@lru_cache(1_000)
def input_of(name: str, schema: Any) -> Inputs:
    """Return the input of a workflow with an `input_schema`. Raises InvalidInput."""
    parameter = inspect.Parameter("input", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return Inputs(name, [parameter], {"input": output_type(name, schema).answer})


@lru_cache(1_000)
def inputs_of(name: str, function: Callable[..., Any]) -> Inputs:
    """Return the parameters of a workflow's function after `flow`. Raises InvalidInput for a function that can't be one."""

    def fault(text: str) -> InvalidInput:
        return InvalidInput(f"workflow {name!r}: {text}.", agent=name)

    for is_kind, text in _REFUSED.items():
        if is_kind(function):
            raise fault(f"{text}: write def, since its code runs again at each turn and waits in flow.step")
    parameters = [*inspect.signature(function).parameters.values()]
    for each in parameters:
        if each.kind not in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD):
            raise fault(f"parameter {each.name!r} can't be sent: write a plain parameter for each argument")
    if not parameters:
        raise fault("its function takes no flow: write def name(flow: Flow, ...)")
    try:
        hints = get_type_hints(function, include_extras=True)
    except Exception as error:  # an annotation is code: it may raise anything
        raise fault(
            f"an annotation can't be resolved ({message_of(error)}): define its names at module level"
        ) from error
    types: dict[str, pydantic.TypeAdapter[Any] | None] = {}
    for each in parameters[1:]:
        hint = hints.get(each.name, Any)
        try:
            types[each.name] = None if hint is Any else pydantic.TypeAdapter(readable(hint))
        except Exception as error:  # as above
            raise fault(f"parameter {each.name!r} has a type that JSON can't be converted to: use a pydantic model, a dataclass, str, int ...") from error  # fmt: skip
    return Inputs(name, parameters[1:], types)


_REFUSED = {
    inspect.iscoroutinefunction: "its function is async",
    inspect.isgeneratorfunction: "its function is a generator",
    inspect.isasyncgenfunction: "its function is an async generator",
}
