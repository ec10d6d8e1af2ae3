"""The agents, teams, workflows and functions that the steps of a program call."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache, wraps
from types import FunctionType
from typing import Any, get_type_hints

import msgspec
import pydantic

from agno_workers.core.agent import model_agent
from agno_workers.core.checks import brief
from agno_workers.core.mapping import Mapped, MapResult, read_item
from agno_workers.core.messages import ToolSpec
from agno_workers.core.output import output_type, readable
from agno_workers.core.program import Call, CallKind, Progress, ResultOf
from agno_workers.core.request import first_message
from agno_workers.core.runnable import Runnable
from agno_workers.core.step import ClaimedStep
from agno_workers.core.tool import Tool
from agno_workers.errors import InvalidInput, RunFailed, StepFailed
from agno_workers.tools.decorate import FunctionTool
from agno_workers.tools.execute import MAX_RESULT_BYTES
from agno_workers.tools.result import Unserialisable, to_json_text
from agno_workers.tools.signature import describe, read_signature


class StepCalls:
    """The calls of steps, see `core.flow.Calls`. A function must be a global of a module of these packages; None allows all."""

    def __init__(self, packages: Collection[str] | None = None) -> None:
        self._packages = packages
        self._names: dict[FunctionType, str] = {}
        """The names of plain functions, which each turn asks for."""

        self.map_results: Callable[[str, int, int], list[dict[str, Any]]] = lambda *_: []
        """Return a page of results of a map; the engine sets it."""

    def identify(self, what: Any) -> tuple[CallKind, str]:
        if isinstance(what, Mapped):
            return CallKind.MAP, self.identify(what.what)[1]
        if isinstance(what, str):
            what = model_agent(what)
        if isinstance(what, Runnable):
            return CallKind.RUN, what.name
        if type(what) is FunctionType:
            name = self._names.get(what) or self._names.setdefault(what, self.name_of(what))
            return CallKind.FUNCTION, name
        return CallKind.FUNCTION, self.name_of(what)

    def call(self, id: str, what: Any, input: Sequence[Any], options: Mapping[str, Any]) -> Call:
        if isinstance(what, Mapped):
            if isinstance(what.what, str):
                what = what._replace(what=model_agent(what.what))
            if not isinstance(what.what, Runnable):
                self.only_parameter(id, what.what)
            return Call(key=id, kind=CallKind.MAP, name=self.identify(what)[1], what=what)
        if isinstance(what, str):
            what = model_agent(what)
        if isinstance(what, Runnable):
            if unknown := set(options) - {"timeout_s"}:
                raise InvalidInput(
                    f"step {id!r}: the {what.kind} {what.name!r} takes its input and timeout_s, got {', '.join(sorted(unknown))}.",
                    step=id,
                )
            return Call(
                key=id, kind=CallKind.RUN, name=what.name, what=what, input=first_message(what.encoded(input), what.name), within_s=options.get("timeout_s"),
            )  # fmt: skip
        name = self.name_of(what)
        tool = self.tool(name)
        arguments, results = _arguments(id, tool, input, options)
        return Call(
            key=id, kind=CallKind.FUNCTION, name=name, what=tool, arguments=arguments, results=results
        )

    def read(self, what: Any, value: Any) -> Any:
        if isinstance(what, Mapped):
            return self._read_map(what.what, value)
        reader = _reader(what)
        if reader is None:
            return value
        try:
            return reader.validate_python(value)
        except pydantic.ValidationError as error:
            reason = error.errors()[0]["msg"]
            if isinstance(what, Runnable):  # a refusal, or text that was cut off
                text = f"{_told(what)} gave an answer that is not of its output_schema ({reason}): {brief(value)}"
                raise StepFailed(
                    text, reason="misfit", error={"type": "StepFailed", "message": text}
                ) from error
            text = f"the stored result of {_told(what)} does not fit its type any more: {reason}."
            raise RunFailed(text, reason="result_changed") from error

    def _read_map(self, what: Any, value: dict[str, Any]) -> list[Any] | MapResult:
        def read(first: int, stored: list[dict[str, Any]]) -> list[Any]:
            return [read_item(first + place, each, lambda found: self.read(what, found)) for place, each in enumerate(stored)]  # fmt: skip

        if "results" in value:
            return read(0, value["results"])
        result = MapResult(value["run_id"], value["count"], value["failed"])
        return result.reading(lambda run_id, first, limit: read(first, self.map_results(run_id, first, limit)))  # fmt: skip

    def only_parameter(self, id: str, function: Any) -> str:
        """Return the parameter that an item of a map becomes. Raises InvalidInput for a function that does not take one value."""
        tool = self.tool(self.name_of(function))
        given = msgspec.json.decode(_arguments(id, tool, (None,), {})[0])
        (name,) = given
        if given[name] is not None:
            raise InvalidInput(f"step {id!r}: {describe(tool.function)} takes any number of values: map over a function with one parameter.", step=id)  # fmt: skip
        return str(name)

    def name_of(self, function: Any) -> str:
        """Return `module:name` of a function, by which any worker finds it. Raises InvalidInput."""
        plain = function.function if isinstance(function, Tool) else function
        module, name = getattr(plain, "__module__", None), getattr(plain, "__qualname__", "")
        if not callable(plain) or isinstance(plain, type) or not module:
            raise InvalidInput(
                f"a step calls an agent, a team, a workflow or a function, got {brief(function)}."
            )
        found = _global(module, name)
        if found is not function and getattr(found, "function", found) is not plain:
            raise InvalidInput(
                f"{describe(plain)} can't be a step, since workers find functions by their names: define it with def at the top of a module."
            )
        if self._packages is not None and module.partition(".")[0] not in self._packages:
            raise InvalidInput(
                f"{describe(plain)} can't be a step: it is not in a package of AGNO_IMPORTS ({', '.join(sorted(self._packages))}). "
                "Call it in a function of yours."
            )
        return f"{module}:{name}"

    def tool(self, name: str) -> Tool:
        """Return the function of a step as a tool. Raises InvalidInput where this process has no such function."""
        module, _, rest = name.partition(":")
        if self._packages is not None and module.partition(".")[0] not in self._packages:
            raise InvalidInput(f"{name} is not in a package of AGNO_IMPORTS.")
        found = _global(module, rest)
        if found is None:
            raise InvalidInput(f"no worker here has the function {name}")
        return found if isinstance(found, Tool) else _as_tool(found)


def with_results(claim: ClaimedStep, progress: Callable[[ClaimedStep], Progress]) -> ClaimedStep:
    """Return a step with the results of other steps at their places in its arguments, as `Call.results` names them."""
    stored = claim.call or {}
    if not stored.get("results"):
        return claim
    calls = progress(claim).calls
    arguments = msgspec.json.decode(stored["arguments"])
    for (*path, last), result in msgspec.convert(stored["results"], list[tuple[list[str | int], ResultOf]]):
        outcome = calls[result.step].outcome
        assert outcome is not None
        place = arguments
        for key in path:
            place = place[key]
        place[last] = outcome.value if result.field is None else outcome.value[result.field]
    return msgspec.structs.replace(
        claim, call={**stored, "arguments": msgspec.json.encode(arguments).decode()}
    )


def _global(module: str, name: str) -> Any:
    """Return a value of a module that is loaded; None: there is none."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


@cache
def _as_tool(function: Callable[..., Any]) -> Tool:
    """Return a plain function as a tool: its arguments are converted by its annotations, if it has any."""
    name = f"{function.__module__}:{function.__qualname__}"
    signature = read_signature(_annotated(function), {})
    return FunctionTool(spec=ToolSpec(name, "", signature.schema), function=function, signature=signature)


def _annotated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose parameters without an annotation take any JSON."""

    @wraps(function)
    def annotated(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    signature = inspect.signature(function)
    parameters = [
        each.replace(annotation=Any) if each.annotation is each.empty and each.name != "ctx" else each
        for each in signature.parameters.values()
    ]
    annotated.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return annotated


_Places = list[tuple[tuple[str | int, ...], ResultOf]]


def _arguments(id: str, tool: Tool, input: Sequence[Any], options: Mapping[str, Any]) -> tuple[str, _Places]:
    """Return the arguments of a call as JSON, by their names, without those that a person fills in, and the places of results in them. Raises
    InvalidInput where they do not fit.
    """
    left_out = {"ctx", *tool.policy.fields}
    signature = inspect.signature(tool.function)
    signature = signature.replace(
        parameters=[each for each in signature.parameters.values() if each.name not in left_out]
    )
    places: _Places = []
    try:
        given = dict(signature.bind(*input, **options).arguments)
        text = to_json_text(_without_results(given, (), places))
    except Unserialisable as error:
        text = (
            f"step {id!r}: the arguments of {describe(tool.function)} can't be sent as JSON: {error.reason}."
        )
        raise InvalidInput(text, step=id) from error
    except TypeError as error:
        raise InvalidInput(f"step {id!r}: {describe(tool.function)}: {error}.", step=id) from error
    if (size := len(text.encode())) > MAX_RESULT_BYTES:
        told = f"step {id!r}: its arguments take {size:,} bytes as JSON, and the most is {MAX_RESULT_BYTES:,}: store them elsewhere, and pass a key."
        raise InvalidInput(told, step=id)
    return text, places


def _without_results(value: Any, path: tuple[str | int, ...], places: _Places) -> Any:
    """Return arguments with a text, which a person may see, for each result of another step; add its place to `places`."""
    if isinstance(value, ResultOf):
        places.append((path, value))
        return f"the result of step {value.step!r}"
    if type(value) is dict:
        return {key: _without_results(each, (*path, key), places) for key, each in value.items()}
    if type(value) is list:
        return [_without_results(each, (*path, place), places) for place, each in enumerate(value)]
    return value


def _reader(what: Any) -> pydantic.TypeAdapter[Any] | None:
    """Return the type of the values of a step; None: they are plain JSON."""
    if type(what) is FunctionType:
        return _results(what)
    if isinstance(what, str):
        return None
    if isinstance(what, Runnable):
        if (function := getattr(what, "function", None)) is not None:  # of a written workflow
            return _results(function)
        schema = getattr(what, "output_schema", None)
        return None if schema is None else _answers(schema)
    return _results(what.function if isinstance(what, Tool) else what)


@cache
def _answers(schema: Any) -> pydantic.TypeAdapter[Any]:
    return output_type("", schema).answer


@cache
def _results(function: Callable[..., Any]) -> pydantic.TypeAdapter[Any] | None:
    """Return the type of a function's result by its annotation; None where JSON can't be converted to it."""
    try:
        hint = get_type_hints(function, include_extras=True).get("return")
        return None if hint in (None, Any) else pydantic.TypeAdapter(readable(hint))
    except Exception:  # an annotation is code: it may raise anything
        return None


def _told(what: Any) -> str:
    return (
        f"the {what.kind} {what.name!r}"
        if isinstance(what, Runnable)
        else describe(getattr(what, "function", what))
    )
