"""The elements of a declared workflow, and what can be wrong with them.

The id of a step is its path: the names of the named elements around it, the number of the iteration in a loop, and its own name, such as
`research/3/draft`. It does not depend on what stands before or after it, so steps may be added and removed while runs are under way.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from agno_workers.core.checks import Count, Positive, brief, misfit
from agno_workers.core.fields import Fields
from agno_workers.core.flow import ALL, BEST_EFFORT, FIRST, MOST_ID_CHARS, Join
from agno_workers.core.policy import Retry
from agno_workers.core.runnable import Runnable
from agno_workers.core.tool import Tool
from agno_workers.core.words import did_you_mean
from agno_workers.engine.calls import StepCalls
from agno_workers.errors import InvalidInput
from agno_workers.tools.signature import describe, underlying
from agno_workers.workflows.declared_values import StepInput

OnError = Literal["fail", "skip", "retry", "compensate"]
_CALLS = StepCalls()
_JOINS = {"all": ALL, "first": FIRST, "best_effort": BEST_EFFORT}
_ROOM = 24
"""Characters of an id for the numbers of iterations and attempts."""


class Element(msgspec.Struct, metaclass=Fields, frozen=True):
    """A part of a workflow."""


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
        "human_review": "an Approval(...) before or after it",
    }


class Parallel(Element, frozen=True, kw_only=True, metaclass=_InOrder):
    """Steps side by side: `Parallel(risk, docs, name="checks")`. A list among them is a branch of several steps."""

    steps: Sequence[Any] = ()
    """Its branches."""
    name: str = ""
    """The first part of the ids of its steps, and the name of its output, whose content is a dict of theirs; it may be left out."""
    join: Join | Literal["all", "first", "best_effort"] = "all"
    """When they are enough: `"all"`, `"first"`, `quorum(n)`, or `"best_effort"`: those that succeed in time. The others are cancelled."""
    deadline_s: Positive | None = None
    """Seconds after which it continues with what is there; with all needed, it fails."""
    on_error: OnError | None = None
    """The policy when too few of its steps succeed; errors of its steps are theirs."""

    if TYPE_CHECKING:

        def __init__(
            self,
            *steps: Any,
            name: str = "",
            join: Join | Literal["all", "first", "best_effort"] = "all",
            deadline_s: float | None = None,
            on_error: OnError | None = None,
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
    on_error: OnError | None = None
    """The policy when the evaluator raises."""


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
    on_error: OnError | None = None
    """The policy when the end condition raises."""


class Router(Element, frozen=True):
    """Steps that a function chooses."""

    selector: Any
    """A function of the `StepInput` that returns a choice, its name, or a list of them, which are executed one after another."""
    choices: Sequence[Any]
    """The steps to choose from."""
    name: str = ""
    """The first part of the ids of its steps, and the name of its output; it may be left out."""
    on_error: OnError | None = None
    """The policy when the selector raises, or returns something else."""


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
    on_error: OnError | None = None
    """The policy when it fails."""


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
    on_error: OnError | None = None
    """The policy when it is rejected."""


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
    on_error: OnError | None = None
    """The policy when `until` raises."""


class WaitForSignal(Element, frozen=True):
    """A signal to the run, see `RunHandle.signal`; one that was sent before is kept. Its payload is the content."""

    name: str
    """The signal; also its name and id."""
    timeout_s: Positive | None = None
    """Seconds after which it fails; None: until the run ends."""
    on_error: OnError | None = None
    """The policy when it does not come in time."""


def label(found: Element) -> str:
    """Return the name of an element's output; empty for one without a name, whose steps count as those of the element around it."""
    match found:
        case Step():
            return found.name or _name_of(called_by(found))
        case Map():
            return found.name or _name_of(found.do)
    return getattr(found, "name", "")


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


def parts(found: Element) -> list[Any]:
    """Return the agents, teams, workflows and functions that an element calls."""
    match found:
        case Step():
            return [each for each in (called_by(found), found.compensate) if each is not None]
        case Map():
            return [found.do]
    return []


def called_by(step: Step) -> Any:
    """Return the agent, team, workflow or function of a step."""
    given = (step.agent, step.team, step.workflow, step.function)
    return next((each for each in given if each is not None), None)


def _fault(found: Element) -> str | None:
    """Return what is wrong with an element, or None."""
    if wrong := misfit(type(found), found):
        return f"{wrong[0]} {wrong[1]}"
    match found:
        case Step():
            return _step_fault(found)
        case Parallel(join=given, steps=steps):
            chosen = join_of(given)
            if chosen is None:
                return f"join must be 'all', 'first', 'best_effort' or quorum(n), got {brief(given)}"
            if chosen.kind == "quorum" and chosen.n > len(steps):
                return f"needs {chosen.n} results of {len(steps)} steps"
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


def join_of(given: object) -> Join | None:
    return given if isinstance(given, Join) else _JOINS.get(str(given))


def _step_fault(step: Step) -> str | None:
    fields = [each for each in ("agent", "team", "workflow", "function") if getattr(step, each) is not None]
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


class Placed(NamedTuple):
    """An element and its id; that of an element without a name is empty."""

    id: str
    element: Element


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


def placed(steps: Sequence[Any], path: str = "") -> Iterator[Placed]:
    """Return all elements with their ids, in their order. Raises InvalidInput."""
    for each in steps:
        found = element(each)
        name = label(found)
        inside = join(path, f"{name or 'loop'}/*" if isinstance(found, Loop) else name)
        yield Placed(join(path, name) if name else "", found)
        for branch in branches(found):
            yield from placed(branch, inside)


def check(steps: Any, on_error: Any, output: Any) -> None:
    """Raise InvalidInput for the first thing that is wrong with the steps of a workflow."""
    if not isinstance(steps, list | tuple):
        raise InvalidInput(f"steps must be a list, got {brief(steps)}")
    if on_error not in get_args(OnError):
        raise InvalidInput(f"on_error must be one of {', '.join(get_args(OnError))}, got {brief(on_error)}")
    seen: set[str] = set()
    errors, labels = {on_error}, {""}
    undone: str | None = None
    named = {"output": output} if output is not None else {}
    for key, found in placed(steps):
        kind = type(found).__name__
        name = f"{kind} {key!r}" if key else kind
        if problem := _fault(found):
            raise InvalidInput(f"{name} {problem}")
        if type(found) not in _LEAVES and not all(branches(found) or [()]):
            raise InvalidInput(f"{name} has no steps")
        if type(found) in _LEAVES and not label(found).strip():
            raise InvalidInput(f"{kind} has no name: set one")
        if label(found) == "undo" or "/" in label(found) or label(found) != label(found).strip():
            raise InvalidInput(
                f"{name}: the name of a step has no '/', no blank around it, and is not 'undo': set name=..."
            )
        if len(key) > MOST_ID_CHARS - _ROOM:
            raise InvalidInput(
                f"{name} is too long: the names of an element and of those around it have at most {MOST_ID_CHARS - _ROOM} characters"
            )
        if key and key in seen:
            raise InvalidInput(
                f"two steps have the id {key!r}: give one of them, or an element around it, another name"
            )
        seen.add(key)
        labels.add(label(found))
        errors.add(getattr(found, "on_error", None))
        if isinstance(found, Map) and isinstance(found.items, str):
            named[name] = found.items
        if isinstance(found, Step) and found.compensate is not None:
            undone = key
    if "compensate" in errors and undone is None:
        raise InvalidInput("on_error='compensate' needs a step with compensate=...")
    if undone and "compensate" not in errors:
        raise InvalidInput(
            f"step {undone!r} has compensate=..., and nothing uses it: set on_error='compensate' on the workflow, or on a step after it"
        )
    for user, wanted in named.items():
        if not wanted or wanted not in labels:
            words = "output must be" if user == "output" else f"{user}: items must be a list, a function, or"
            raise InvalidInput(
                f"{words} the name of a step, got {brief(wanted)}.{did_you_mean(str(wanted), labels)}"
            )


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
