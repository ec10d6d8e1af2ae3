"""The elements of a declared workflow, and what can be wrong with them.

The id of a step is its path: the names of the named elements around it, the number of the iteration in a loop, and its own name, such as
`research/3/draft`. It does not depend on what stands before or after it, so steps may be added and removed while runs are under way.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_origin, get_type_hints

import msgspec

from agno_workers.core.checks import Count, Positive, brief, misfit
from agno_workers.core.fields import Fields
from agno_workers.core.flow import MOST_ID_CHARS, AnyJoin, join_of
from agno_workers.core.policy import Retry
from agno_workers.core.runnable import Runnable
from agno_workers.core.tool import Tool
from agno_workers.core.words import did_you_mean
from agno_workers.engine.calls import StepCalls
from agno_workers.errors import InvalidInput
from agno_workers.tools.signature import describe, underlying
from agno_workers.workflows.declared_values import StepInput

OnError = Literal["fail", "skip", "retry", "compensate"]
OnFailure = Literal["fail", "skip", "compensate"]
_CALLS = StepCalls()
_CALLED = ("agent", "team", "workflow", "function")
_ROOM = 24
"""Characters of an id for the numbers of iterations and attempts."""


class Element(msgspec.Struct, metaclass=Fields, frozen=True):
    """A part of a workflow."""

    agno: ClassVar[dict[str, str]] = {
        "description": "name=..., or the description of the agent",
        "human_review": "an Approval(...) before or after it",
        "requires_confirmation": "an Approval(...) before it",
    }


class _InOrder(Fields):
    """The type of elements that take steps as positional arguments."""

    def __call__(cls, *steps: Any, **fields: Any) -> Any:
        return super().__call__(**({"steps": steps} if steps else {}), **fields)


class Step(Element, frozen=True):
    """An agent, a team, a workflow or a function as a step. Each of them is a step too, without a `Step` around it."""

    name: str = ""
    """Its name, which is the last part of its id; by default the name of what it calls."""
    agent: Any = None
    """The agent that it runs."""
    team: Any = None
    """The team that it runs."""
    workflow: Any = None
    """The workflow that it runs."""
    function: Any = None
    """The function that a worker calls: with a `StepInput` where its parameter is annotated so, else with the content of the step before."""
    input: Any = None
    """A function of the `StepInput` that makes the message of the agent, or the argument of the function, without a step of its own."""
    on_error: OnError | None = None
    """The policy for its failure: `fail`, `skip`, `retry` or `compensate`; None: the one of the workflow."""
    retry: Retry = Retry()
    """The attempts, and the waits between, for `on_error="retry"`."""
    compensate: Any = None
    """The function that undoes it when a later step fails with `on_error="compensate"`; it is called as `function`, with the content of this step."""
    timeout_s: Positive | None = None
    """Seconds for a run of an agent, a team or a workflow; then it fails."""

    agno: ClassVar[dict[str, str]] = {
        "executor": "function=...",
        "max_retries": 'on_error="retry", retry=Retry(attempts=...)',
        "skip_on_failure": 'on_error="skip"',
        "step_id": "name=...",
        "add_workflow_history": "history=History(...) of the agent, and a session_id at the submit",
        "num_history_runs": "history=History(runs=...) of the agent",
        **Element.agno,
    }


class Parallel(Element, frozen=True, kw_only=True, metaclass=_InOrder):
    """Steps side by side: `Parallel(risk, docs, name="checks")`. A list among them is a branch of several steps."""

    steps: Sequence[Any] = ()
    """Its branches."""
    name: str = ""
    """The first part of the ids of its steps, and the name of its output, whose content is a dict of theirs; it may be left out."""
    join: AnyJoin = "all"
    """When they are enough: `"all"`, `"first"`, `quorum(n)`, or `"best_effort"`: those that succeed in time. The others are cancelled."""
    deadline_s: Positive | None = None
    """Seconds after which it continues with what is there; with all needed, it fails. It then needs a name."""
    on_error: OnFailure | None = None
    """The policy when too few of its steps succeed; errors of its steps are theirs."""

    if TYPE_CHECKING:

        def __init__(
            self,
            *steps: Any,
            name: str = "",
            join: AnyJoin = "all",
            deadline_s: float | None = None,
            on_error: OnFailure | None = None,
        ) -> None: ...


class Steps(Element, frozen=True, kw_only=True):
    """Steps one after another, as one element. A list is the same without a name."""

    steps: Sequence[Any]
    """Its steps."""
    name: str = ""
    """The first part of the ids of its steps, and the name of its output; it may be left out."""


class Condition(Element, frozen=True):
    """Steps that are executed if a condition holds."""

    evaluator: Any = True
    """A function of the `StepInput` that returns True or False, or such a value."""
    steps: Sequence[Any] = ()
    """The steps if it holds."""
    else_steps: Sequence[Any] = ()
    """The steps if not."""
    name: str = ""
    """The first part of the ids of its steps, and the name of its output; it may be left out."""


class Loop(Element, frozen=True):
    """Steps that are repeated until a condition holds."""

    steps: Sequence[Any]
    """The steps of an iteration."""
    max_iterations: Count = 3
    """The most iterations."""
    end_condition: Any = None
    """A function of the outputs of an iteration, a list of `StepOutput`, that returns True after the last one; None: all are executed."""
    forward_iteration_output: bool = False
    """True: an iteration sees the outputs of the one before; False: each begins with those before the loop."""
    name: str = ""
    """The first part of the ids of its steps, before the number of the iteration, and the name of its output; without one, ids have `loop`."""


class Router(Element, frozen=True):
    """Steps that a function chooses."""

    selector: Any
    """A function of the `StepInput` that returns a choice, its name, or a list of them, which are executed one after another."""
    choices: Sequence[Any]
    """The steps to choose from."""
    name: str = ""
    """The first part of the ids of its steps, and the name of its output; it may be left out."""


class Map(Element, frozen=True):
    """The same for each item of a list, a window of them at a time. Its content is the list of the results, in order; for a long one see `flow.map`."""

    items: Any
    """A function of the `StepInput` that returns the list, the list, or the name of the step whose content it is."""
    do: Any
    """The agent, team, workflow or function that gets each item."""
    window: Count = 20
    """The most items at a time."""
    name: str = ""
    """Its name and id; by default the name of what it does."""
    on_error: OnFailure | None = None
    """The policy when an item fails: `skip` has None as its result, and goes on with the others."""


class Approval(Element, frozen=True):
    """A person approves the content of the step before, which is shown with the question; then the next step gets it. A rejection is a failure."""

    question: str
    """The question for the person."""
    within_s: Positive | None = None
    """Seconds for the answer; None: until the run ends."""
    on_timeout: Literal["reject", "approve", "fail"] = "reject"
    """When nobody answers in time: the person is taken to have rejected or approved, or the run fails."""
    name: str = "approval"
    """Its name and id. The content of its output is the answer: `by`, `note` and others."""
    on_error: OnFailure | None = None
    """The policy when it is rejected; None: the one of the workflow, but `fail` in place of `skip`."""


class Wait(Element, frozen=True, kw_only=True):
    """A time, which may be weeks: `Wait(hours=24)`. The next step gets the content of the one before."""

    seconds: Positive | None = None
    """Seconds to wait."""
    hours: Positive | None = None
    """Hours to wait."""
    days: Positive | None = None
    """Days to wait."""
    until: Any = None
    """A time, or a function of the `StepInput` that returns it; a naive time is in UTC."""
    name: str = "wait"
    """Its name and id."""


class WaitForSignal(Element, frozen=True):
    """A signal to the run, see `RunHandle.signal`; one that was sent before is kept. Its payload is the content."""

    name: str
    """The signal; also its name and id."""
    timeout_s: Positive | None = None
    """Seconds after which it fails; None: until the run ends."""
    on_error: OnFailure | None = None
    """The policy when it does not come in time; None: the one of the workflow, but `fail` in place of `skip`."""


def label(found: Element) -> str:
    """Return the name of an element's output; empty for one without a name, whose steps count as those of the element around it."""
    what = called_by(found)
    name: str = getattr(found, "name", "") or ("" if what is None else _name_of(what))
    return name


def branches(found: Element) -> list[Sequence[Any]]:
    """Return the sequences of steps inside an element."""
    match found:
        case Parallel(steps=each) | Router(choices=each):
            return [step if isinstance(step, list | tuple) else [step] for step in each]
        case Condition():
            return [found.steps, *([found.else_steps] if found.else_steps else [])]
        case Loop(steps=steps) | Steps(steps=steps):
            return [steps]
    return []


def called_by(found: Element) -> Any:
    """Return the agent, team, workflow or function that an element calls; None for one that calls none."""
    if isinstance(found, Map):
        return found.do
    return next((what for each in _CALLED if (what := getattr(found, each, None)) is not None), None)


def _fault(found: Element) -> str | None:
    """Return what is wrong with an element, or None."""
    if wrong := misfit(type(found), found):
        return f"{wrong[0]} {wrong[1]}"
    match found:
        case Step():
            return _step_fault(found)
        case Parallel(join=given, steps=steps):
            if found.deadline_s is not None and not found.name:
                return "has a deadline_s and no name: set name=..., which is the id of the deadline"
            try:
                join_of(given, len(steps))
            except InvalidInput as error:
                return f"can't be joined: {str(error).removesuffix('.')}"
        case Condition(evaluator=evaluator) if not isinstance(evaluator, bool):
            return _code_fault("evaluator", evaluator)
        case Loop(end_condition=condition) if condition is not None:
            return _code_fault("end_condition", condition)
        case Router(selector=selector):
            return _code_fault("selector", selector)
        case Map(items=items, do=do):
            problem = None if isinstance(do, Runnable) else function_fault(do)
            return problem or (None if isinstance(items, str | list | tuple) else _code_fault("items", items))
        case Wait(until=until):
            if (until is None) is not any((found.seconds, found.hours, found.days)):
                return "takes seconds, hours or days, or until"
            return None if until is None or isinstance(until, datetime) else _code_fault("until", until)
    return None


def _step_fault(step: Step) -> str | None:
    fields = [each for each in _CALLED if getattr(step, each) is not None]
    if len(fields) != 1:
        return f"takes one of agent, team, workflow and function, got {' and '.join(fields) or 'none'}"
    (field,), what = fields, called_by(step)
    if isinstance(what, Runnable) and what.kind != field:
        return f"has the {what.kind} {what.name!r} in {field}=...: write {what.kind}=..."
    if field != "function" and not isinstance(what, Runnable):
        return f"has no {field} in {field}={brief(what)}"
    if field == "function":
        if problem := function_fault(what):
            return problem
        if step.timeout_s is not None:
            return "limits a function by timeout_s: write @tool(timeout_s=...) above the function"
        if step.input is not None and how_called(what) == "step_input":
            return "has both input=... and a function that takes a StepInput: leave one of them"
    if step.input is not None and (problem := _code_fault("input", step.input)):
        return problem
    return None if step.compensate is None else function_fault(step.compensate)


_LEAVES = (Step, Map, Approval, Wait, WaitForSignal)


def element(what: Any) -> Element:
    """Return an entry of a list of steps as an element. Raises InvalidInput for anything else."""
    match what:
        case Element():
            return what
        case Runnable():
            fields: dict[str, Any] = {str(what.kind): what}
            return Step(**fields)
        case list() | tuple():
            return Steps(steps=what)
        case _ if callable(what) and not isinstance(what, type):
            return Step(function=what)
    raise InvalidInput(
        f"{brief(what)} is not a step: write an agent, a team, a workflow, a function, or an element such as Step(...)"
    )


def join(path: str, name: str) -> str:
    return f"{path}/{name}" if path and name else path or name


def placed(steps: Sequence[Any], path: str = "") -> Iterator[tuple[str, Element]]:
    """Return all elements with their ids, in their order; that of an element without a name is empty. Raises InvalidInput."""
    for each in steps:
        found = element(each)
        name = label(found)
        inside = join(path, f"{name or 'loop'}/*" if isinstance(found, Loop) else name)
        yield (join(path, name) if name else ""), found
        for branch in branches(found):
            yield from placed(branch, inside)


def check(steps: Sequence[Any], on_error: OnError, output: str | None) -> None:
    """Raise InvalidInput for the first thing that is wrong with the steps of a workflow."""
    for fault in _faults(steps, on_error, output):
        raise InvalidInput(fault)


def _faults(steps: Sequence[Any], on_error: OnError, output: str | None) -> Iterator[str]:
    seen: set[str] = set()
    errors: set[str | None] = {on_error}
    labels = {""}
    undone: str | None = None
    named = {"output": output} if output is not None else {}
    for key, found in placed(steps):
        kind, own = type(found).__name__, label(found)
        name = f"{kind} {key!r}" if key else kind
        if problem := _fault(found):
            yield f"{name} {problem}"
        if not isinstance(found, _LEAVES) and not all(branches(found) or [()]):
            yield f"{name} has no steps"
        if isinstance(found, _LEAVES) and not own.strip():
            yield f"{kind} has no name: set one"
        if own == "undo" or own.startswith("turn:") or "/" in own or own != own.strip():
            yield f"{name}: the name of a step has no '/', no blank around it, does not begin with 'turn:', and is not 'undo': set name=..."
        if len(key) > MOST_ID_CHARS - _ROOM:
            yield f"{name} is too long: the names of an element and of those around it have at most {MOST_ID_CHARS - _ROOM} characters"
        if key in seen:
            yield f"two steps have the id {key!r}: give one of them, or an element around it, another name"
        seen |= {key} - {""}
        labels.add(own)
        errors.add(getattr(found, "on_error", None))
        if isinstance(found, Map) and isinstance(found.items, str):
            named[name] = found.items
        if isinstance(found, Step) and found.compensate is not None:
            undone = key
    if "compensate" in errors and undone is None:
        yield "on_error='compensate' needs a step with compensate=..."
    if undone and "compensate" not in errors:
        yield f"step {undone!r} has compensate=..., and nothing uses it: set on_error='compensate' on the workflow, or on a step after it"
    for user, wanted in named.items():
        if not wanted or wanted not in labels:
            words = "output must be" if user == "output" else f"{user}: items must be a list, a function, or"
            yield f"{words} the name of a step, got {brief(wanted)}.{did_you_mean(str(wanted), labels)}"


def _name_of(what: Any) -> str:
    if isinstance(what, Runnable):
        return what.name
    return getattr(underlying(what.function if isinstance(what, Tool) else what), "__name__", "")


def _code_fault(field: str, function: Any) -> str | None:
    """Return what is wrong with code between steps."""
    if isinstance(function, str):
        return f"has text as its {field}: agno's expressions don't work here, write a function, such as lambda step_input: ..."
    if not callable(function) or isinstance(function, type):
        return f"{field} must be a function, got {brief(function)}"
    if inspect.iscoroutinefunction(function):
        return f"{field} {describe(function)} is async: code between steps is called at each turn, make it a plain function"
    with suppress(ValueError):  # a function of C may have no signature
        try:
            inspect.signature(function).bind(None)
        except TypeError:
            return f"{field} {describe(function)} must take one argument"
    return None


def function_fault(function: Any) -> str | None:
    """Return why a function can't be a step, or None."""
    try:
        name = _CALLS.name_of(function)
        how_called(function)
        _CALLS.tool(name)
    except InvalidInput as error:
        return f"can't be executed: {str(error).removesuffix('.')}"
    return None


def how_called(function: Any) -> Literal["step_input", "content", "alone"]:
    """Return whether a function takes a StepInput, the content, or nothing. Raises InvalidInput for what takes more."""
    plain: Callable[..., Any] = function.function if isinstance(function, Tool) else function
    parameters = [each for each in inspect.signature(plain).parameters.values() if each.name != "ctx"]
    needed = [each for each in parameters if each.default is each.empty]
    if len(needed) > 1 or any(each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in parameters):
        raise InvalidInput(
            f"{describe(plain)} takes {', '.join(each.name for each in parameters)}: the function of a step takes one value, or step_input: StepInput, and ctx"
        )
    if not parameters:
        return "alone"
    first = needed[0] if needed else parameters[0]
    if _is_step_input(plain, first):
        return "step_input"
    if first.name == "step_input":
        raise InvalidInput(f"{describe(plain)}: annotate its parameter, step_input: StepInput")
    return "content"


def _is_step_input(function: Callable[..., Any], parameter: inspect.Parameter) -> bool:
    try:
        hint = get_type_hints(underlying(function))[parameter.name]
    except Exception:  # an annotation is code, or for type checkers only
        return "StepInput" in str(parameter.annotation)
    return (get_origin(hint) or hint) is StepInput
