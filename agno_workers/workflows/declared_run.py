"""The run of a declared workflow: its elements as calls of a Flow.

Nothing is kept between turns: at each turn the elements are visited from the first one, and the Flow knows the results of the calls that
have ended.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

import msgspec

from agno_workers.core.checks import brief
from agno_workers.core.flow import Flow, StepResult
from agno_workers.core.messages import Text
from agno_workers.core.policy import delay_s
from agno_workers.core.program import ResultOf
from agno_workers.core.request import first_message
from agno_workers.core.runnable import Runnable
from agno_workers.errors import InvalidInput, StepFailed, message_of
from agno_workers.tools.result import Unserialisable, to_json_text
from agno_workers.workflows.declared import (
    Approval,
    Condition,
    Element,
    Loop,
    Map,
    OnError,
    Parallel,
    Router,
    Step,
    Steps,
    Wait,
    WaitForSignal,
    branches,
    called_by,
    element,
    how_called,
    join,
    label,
)
from agno_workers.workflows.declared_values import StepInput, StepOutput, as_text, in_sections

_OUTPUT_FIELDS = frozenset(StepOutput.__dataclass_fields__)


def run(flow: Flow, steps: Sequence[Any], input: Any, on_error: OnError, output: str | None) -> Any:
    """Visit the elements of a workflow, and return the content of its run. Raises StepFailed."""
    execution = _Execution(flow, on_error)
    given = _Given(
        input=input, additional_data=flow.metadata, run_id=flow.run_id, session_id=flow.session_id, user_id=flow.user_id
    )  # fmt: skip
    try:
        outputs, last = execution.sequence(steps, "", given)
    except _Decided as decided:
        raise execution.failure(decided, decided.undoes) from None
    if execution.is_undoing:  # a deploy has removed the step that failed
        raise execution.failure(StepFailed("the steps of the workflow were undone"), True)
    is_stopped = bool(outputs) and outputs[-1].stop
    if output is None or is_stopped:
        return last.previous_step_content
    return last.get_step_content(output)


@dataclass(frozen=True)
class _Output(StepOutput):
    """An output on its way to later steps."""

    stored: Any = None
    """JSON that stands for its content in the arguments of functions; None: the content itself."""
    passes: bool = False
    """True: the next step gets the content of the step before."""
    is_by_name: bool = False
    """True: the content is a dict of the contents of several steps."""


@dataclass(frozen=True)
class _Given(StepInput[Any]):
    """A StepInput on its way to later steps."""

    before: _Output = field(default_factory=_Output)
    """The output whose content is that of the step before."""


class _Decided(StepFailed):
    """The failure of an element whose `on_error` is `fail` or `compensate`: it ends the workflow."""

    def __init__(self, error: StepFailed, undoes: bool) -> None:
        super().__init__(message_of(error), **error.ids)
        self.undoes = undoes


class _Done(NamedTuple):
    """A step that was done, with its content as the one of the step before."""

    id: str
    step: Step
    given: _Given


class _Execution:
    """One visit of the elements."""

    def __init__(self, flow: Flow, on_error: OnError) -> None:
        self._flow = flow
        self._default = on_error
        self._done: list[_Done] = []
        self.is_undoing = any(key.endswith("/undo") for key in flow.known)

    def sequence(self, steps: Sequence[Any], path: str, given: _Given) -> tuple[list[_Output], _Given]:
        """Visit elements one after another; return their outputs, and what a step after them is given."""
        outputs: list[_Output] = []
        for each in steps:
            output = self._visit(element(each), path, given)
            if output is not None:
                outputs.append(output)
                given = _after(given, output)
                if output.stop:
                    break
        return outputs, given

    def _visit(self, found: Element, path: str, given: _Given) -> _Output | None:
        """Return the output of an element; None if it has none, such as a condition that does not hold. Raises _Decided."""
        key = join(path, label(found))
        try:
            return self._output(found, key, path, given)
        except _Decided:
            raise
        except StepFailed as error:
            return self._failed(found, key, error)

    def _output(self, found: Element, id: str, path: str, given: _Given) -> _Output | None:
        match found:
            case Step():
                return self._step(found, id, given)
            case Parallel():
                return self._parallel(found, id, given)
            case Steps(steps=steps):
                return self._group(found, id, *self.sequence(steps, id, given))
            case Condition():
                steps = found.steps if self._ask(found, id, found.evaluator, given) else found.else_steps
                return self._group(found, id, *self.sequence(steps, id, given))
            case Loop():
                return self._loop(found, id, path, given)
            case Router():
                return self._group(found, id, *self.sequence(self._chosen(found, id, given), id, given))
            case Map():
                return self._map(found, id, given)
            case Approval():
                return self._approval(found, id, given)
            case Wait():
                return self._wait(found, id, given)
            case WaitForSignal(name=name):
                self._check_new(id)
                value = self._flow.wait_for_signal(name, id=id, timeout_s=found.timeout_s)
                return _Output(value, label(found), id, stored=ResultOf(id))
        raise AssertionError(found)

    def _check_new(self, id: str) -> None:
        """Refuse new work after steps were undone: a retry of the run undoes the rest, and does not go on. Raises StepFailed."""
        if self.is_undoing and id not in self._flow.known:
            raise StepFailed(
                f"step {id!r} failed before, and the steps before it were undone: submit the workflow again",
                step=id,
            )

    # Steps.

    def _step(self, step: Step, id: str, given: _Given) -> _Output:
        """Call a step until it succeeds. A retry of the run knows the attempt that succeeded, and not those before it."""
        most = step.retry.attempts if self._on_error(step) == "retry" else 1
        keys = [id, *(f"{id}/try-{attempt}" for attempt in range(2, most + 1))]
        first = next((place for place, key in enumerate(keys) if key in self._flow.known), 0)
        for attempt, key in enumerate(keys[first:], first + 1):
            try:
                output = self._call(step, id, key, given)
            except StepFailed:
                wait = f"{id}/wait-{attempt + 1}"
                if attempt >= most or (self.is_undoing and wait not in self._flow.known):
                    raise
                self._flow.sleep(id=wait, seconds=delay_s(step.retry, attempt, random.random()))
                continue
            if step.compensate is not None:
                self._done.append(_Done(id, step, _after(given, output)))
            return output
        raise AssertionError(id)

    def _call(self, step: Step, id: str, key: str, given: _Given) -> _Output:
        """Return the output of a call. Its input is made once, by the turn that makes the call. Raises StepFailed also for one that reports a
        failure.
        """
        what = called_by(step)
        try:
            asked = () if key in self._flow.known else self._input(step, what, key, given)
            self._check_new(key)
            options = {} if step.timeout_s is None else {"timeout_s": step.timeout_s}
            (value,) = self._flow.gather(self._flow.step(key, what, *asked, **options))
        except (InvalidInput, Unserialisable) as error:
            raise StepFailed(f"step {key!r} could not be called: {message_of(error)}", step=key) from error
        if isinstance(value, dict) and {"content", "success", "stop"} <= value.keys() <= _OUTPUT_FIELDS:
            value = StepOutput(**value)  # of a function without an annotation
        if not isinstance(value, StepOutput):
            return _Output(value, label(step), id, stored=ResultOf(key))
        if not value.success:
            raise StepFailed(f"step {id!r} failed: {value.error or 'it reported no success'}", step=key)
        return _Output(value.content, label(step), id, stop=value.stop, stored=ResultOf(key, "content"))

    def _input(self, step: Step, what: Any, key: str, given: _Given) -> Sequence[Any]:
        """Return the message of an agent, with the input's images and files, or the arguments of a function."""
        content = given.input if given.previous_step_content is None else given.previous_step_content
        if step.input is not None:
            content = _as_json(self._ask(step, key, step.input, given))
        if not isinstance(what, Runnable):
            kind = how_called(what)
            return [] if kind == "alone" else [_stored(given) if kind == "step_input" else content]
        is_from_before = step.input is None
        text = in_sections(content) if is_from_before and given.before.is_by_name else as_text(content)
        if is_from_before and not text.strip():
            text = as_text(given.input)
        others = [part for part in self._flow.input.parts if not isinstance(part, Text)]
        return first_message([Text(text), *others], what.name).parts

    # Elements of several steps.

    def _group(self, found: Element, id: str, outputs: Sequence[_Output], last: _Given) -> _Output | None:
        """Return the output of steps that followed each other."""
        if not outputs:
            return None
        return replace(
            last.before, step_name=label(found), step_id=id, stop=outputs[-1].stop, steps=list(outputs),
            passes=all(each.passes for each in outputs),
        )  # fmt: skip

    def _parallel(self, found: Parallel, id: str, given: _Given) -> _Output:
        failed: list[_Decided] = []

        def branch(step: Any) -> _Output | None:
            try:
                return self._visit(element(step), id, given)
            except _Decided as decided:
                failed.append(decided)
                raise

        functions = [lambda step=step: branch(step) for step in found.steps]
        try:
            ended = self._flow.parallel(
                *functions, join=found.join, deadline_s=found.deadline_s, id=id or "Parallel"
            )
        except StepFailed as error:
            if any(each.undoes for each in failed):
                raise _Decided(error, True) from None
            raise
        outputs = [
            output
            for each, step in zip(ended, found.steps, strict=True)
            if (output := _output_of(each, id, _label(step))) is not None
        ]
        used = {name: each for output in outputs for name, each in _contents(output).items()}
        return _Output(
            {name: content for name, (content, _) in used.items()}, label(found), id, stop=any(each.stop for each in outputs), steps=list(outputs),
            stored={name: stored for name, (_, stored) in used.items()}, is_by_name=True,
        )  # fmt: skip

    def _loop(self, found: Loop, id: str, path: str, given: _Given) -> _Output | None:
        inside = join(path, found.name or "loop")
        outputs: list[_Output] = []
        last = given
        for number in range(1, found.max_iterations + 1):
            outputs, last = self.sequence(found.steps, f"{inside}/{number}", given)
            if any(each.stop for each in outputs):
                break
            if found.end_condition is not None and self._ask(found, id, found.end_condition, outputs):
                break
            if found.forward_iteration_output:
                given = last
        return self._group(found, id, outputs, last)

    def _chosen(self, found: Router, id: str, given: _Given) -> list[Any]:
        """Return the choices of a router's selector."""
        answer = self._ask(found, id, found.selector, given)
        chosen = list(answer) if isinstance(answer, list | tuple) else [] if answer is None else [answer]
        by_label = {_label(each): each for each in found.choices}
        steps: list[Any] = []
        for each in chosen:
            same = (one for one in found.choices if one is each or one == each)
            step = by_label.get(each) if isinstance(each, str) else next(same, None)
            if step is None or any(step is other for other in steps):
                wrong = "twice" if step else f"which is not one of its choices ({', '.join(by_label)})"
                raise StepFailed(
                    f"Router {id or 'without a name'!r}: the selector returned {brief(each)}, {wrong}",
                    step=id,
                )
            steps.append(step)
        return steps

    def _map(self, found: Map, id: str, given: _Given) -> _Output:
        items = () if id in self._flow.known else self._items(found, id, given)
        self._check_new(id)
        on_error: Literal["collect", "fail"] = "collect" if self._on_error(found) == "skip" else "fail"
        (value,) = self._flow.gather(
            self._flow.map(id, items, found.do, window=found.window, on_error=on_error)
        )
        if isinstance(value, list):
            value = [None if isinstance(each, StepFailed) else each for each in value]
        return _Output(value, label(found), id)

    def _items(self, found: Map, id: str, given: _Given) -> list[Any]:
        is_name = isinstance(found.items, str)
        items = given.get_step_content(found.items) if is_name else self._ask(found, id, found.items, given)
        if not isinstance(items, list | tuple):
            raise StepFailed(f"Map {id!r}: items must be a list, got {brief(items)}", step=id)
        return list(items)

    # Waits.

    def _approval(self, found: Approval, id: str, given: _Given) -> _Output:
        self._check_new(id)
        shown = {} if id in self._flow.known else {"content": _as_json(given.previous_step_content)}
        answer = self._flow.approve(
            found.question, id=id, within_s=found.within_s, on_timeout=found.on_timeout, **shown
        )
        return _Output(answer, label(found), id, stored=ResultOf(id), passes=True)

    def _wait(self, found: Wait, id: str, given: _Given) -> _Output:
        time: dict[str, Any] = {each: getattr(found, each) or 0 for each in ("seconds", "hours", "days")}
        if found.until is not None and id not in self._flow.known:
            until = self._ask(found, id, found.until, given)
            if not isinstance(until, datetime):
                raise StepFailed(f"Wait {id!r}: until must be a time, got {brief(until)}", step=id)
            time = {"until": until if until.tzinfo else until.replace(tzinfo=UTC)}
        self._check_new(id)
        self._flow.sleep(id=id, **time)
        return _Output(None, label(found), id, passes=True)

    # Failures.

    def _ask(self, found: Element, id: str, function: Any, given: Any) -> Any:
        """Call code between steps. Raises StepFailed where it raises."""
        if not callable(function):
            return function
        try:
            return function(given)
        except Exception as error:
            name = f"{type(found).__name__} {id!r}" if id else type(found).__name__
            raise StepFailed(
                f"{name}: its code raised {type(error).__name__}: {message_of(error)}", step=id
            ) from error  # fmt: skip

    def _on_error(self, found: Element) -> OnError:
        own: OnError | None = getattr(found, "on_error", None)
        if own is None and isinstance(found, Approval | WaitForSignal) and self._default == "skip":
            return "fail"  # a policy for all steps does not replace a person or a payment
        return own or self._default

    def _failed(self, found: Element, id: str, error: StepFailed) -> _Output:
        """Return the output of an element that failed and is skipped. Raises _Decided for one that ends the workflow."""
        policy = self._on_error(found)
        if policy == "retry" and self._default != "retry":
            policy = self._default  # it had its attempts
        if policy == "skip":
            return _Output(None, label(found), id, success=False, error=message_of(error), passes=True)
        raise _Decided(error, policy == "compensate")

    def failure(self, error: StepFailed, undoes: bool) -> StepFailed:
        """Undo the steps that are done, the last one first, where that is asked for; return the error of the run."""
        text = message_of(error).removesuffix(".")
        undone: list[str] = []
        left: list[str] = []
        for done in reversed(self._done) if undoes or self.is_undoing else ():
            try:
                self._undo(done)
                undone.append(done.id)
            except StepFailed as why:
                left.append(f"{done.id} ({message_of(why).removesuffix('.')})")
        if undone:
            text += f". Undone: {', '.join(undone)}"
        if left:
            text += (
                f". Not undone: {', '.join(left)}. Undo them yourself, or retry the run, which tries it again"
            )
        reason = "not_undone" if left else error.reason or "step_failed"
        return StepFailed(f"{text}.", **{**error.ids, "reason": reason})

    def _undo(self, done: _Done) -> None:
        key, function = f"{done.id}/undo", done.step.compensate
        is_known = key in self._flow.known
        asked = () if is_known else self._input(Step(function=function), function, key, done.given)
        self._flow.gather(self._flow.step(key, function, *asked))


def _after(given: _Given, output: _Output) -> _Given:
    """Return what the step after an output is given. The steps of an element without a name count as those of the element around it."""
    if not output.passes:
        given = replace(given, previous_step_content=output.content, before=output)
    named = {each.step_name or "": each for each in _named(output)}
    return replace(given, previous_step_outputs={**given.previous_step_outputs, **named})


def _named(output: StepOutput) -> Iterator[StepOutput]:
    if output.step_name:
        yield output
    else:
        for each in output.steps:
            yield from _named(each)


def _label(step: Any) -> str:
    """Return the name of a branch: its own, or that of its last step."""
    found = element(step)
    return label(found) or _label(branches(found)[0][-1])


def _output_of(ended: Any, id: str, name: str) -> _Output | None:
    """Return the output of a branch, which its join may have left out."""
    if not isinstance(ended, StepResult) or (ended.is_used and ended.error is None):
        value: _Output | None = ended.value if isinstance(ended, StepResult) else ended
        return value
    error = message_of(ended.error) if ended.error else "it was not needed, or came too late"
    return _Output(None, name, join(id, name), success=False, error=error)


def _contents(output: _Output) -> dict[str, tuple[Any, Any]]:
    """Return the contents that a branch adds to those of its Parallel, and what stands for them: that of the branch, or of its last step."""
    if output.is_by_name and not output.step_name:
        return {name: (content, output.stored[name]) for name, content in output.content.items()}
    named = [each for each in _named(output) if each is output or not getattr(each, "passes", False)]
    return {each.step_name or "": (output.content, _content(output)) for each in named[-1:] if output.success}


def _stored(given: _Given) -> dict[str, Any]:
    """Return a StepInput as JSON for a worker. Results of steps are references, which the worker replaces."""
    outputs: dict[str, Any] = given.previous_step_outputs
    return {
        "input": given.input,
        "previous_step_content": _content(given.before),
        "previous_step_outputs": {name: _stored_output(each) for name, each in outputs.items()},
        "additional_data": given.additional_data,
        "run_id": given.run_id,
        "session_id": given.session_id,
        "user_id": given.user_id,
    }


def _stored_output(output: _Output) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "content": _content(output),
        "step_name": output.step_name,
        "step_id": output.step_id,
    }
    if output.error:
        fields |= {"success": output.success, "error": output.error}
    if output.stop:
        fields["stop"] = True
    if output.steps:
        fields["steps"] = [_stored_output(each) for each in output.steps]  # type: ignore[arg-type]
    return fields


def _content(output: _Output) -> Any:
    return _as_json(output.content) if output.stored is None else output.stored


def _as_json(value: Any) -> Any:
    return msgspec.json.decode(to_json_text(value))
