"""The run of a declared workflow: its elements as calls of a Flow.

Nothing is kept between turns: at each turn the elements are visited from the first one, and the Flow knows the results of the calls that
have ended.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
import pydantic

from agno_workers.core.checks import brief
from agno_workers.core.flow import ALL, Flow, StepResult
from agno_workers.core.messages import Message, Text
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
    join_of,
    label,
)
from agno_workers.workflows.declared_values import StepInput, StepOutput, as_text, in_sections

_OUTPUT_FIELDS = frozenset(StepOutput.__dataclass_fields__)
_EMPTY: tuple[Any, ...] = (None, "", [], {})
_NEVER = 2**61
"""An arrival after all others."""


class Declared(msgspec.Struct, frozen=True):
    """The fields of a workflow that its runs need."""

    name: str
    steps: Sequence[Any]
    on_error: OnError
    output: str | None
    schema: pydantic.TypeAdapter[Any] | None


def run(workflow: Declared, flow: Flow) -> Any:
    """Visit the elements of a workflow, and return the content of its run. Raises StepFailed."""
    execution = _Execution(workflow, flow)
    given = _Given(
        input=read_input(workflow.name, workflow.schema, flow.input), additional_data=flow.metadata, run_id=flow.run_id,
        session_id=flow.session_id, user_id=flow.user_id,
    )  # fmt: skip
    try:
        outputs, last = execution.sequence(workflow.steps, "", given)
    except _Decided as decided:
        raise execution.failure(decided, decided.undoes) from None
    if execution.is_undoing:  # a deploy has removed the step that failed
        raise execution.failure(StepFailed(f"the steps of workflow {workflow.name!r} were undone"), True)
    is_stopped = bool(outputs) and outputs[-1].stop
    if workflow.output is None or is_stopped:
        return last.previous_step_content
    return last.get_step_content(workflow.output)


def read_input(name: str, schema: pydantic.TypeAdapter[Any] | None, message: Message) -> Any:
    """Return the input of a workflow: its text, or the value of its `input_schema`. Raises InvalidInput."""
    if schema is None:
        return message.text
    try:
        return schema.validate_json(message.text)
    except pydantic.ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, each['loc'])) or 'input'}: {each['msg']}"
            for each in error.errors(include_url=False, include_context=False, include_input=False)
        )
        raise InvalidInput(
            f"workflow {name!r}: the input does not fit its input_schema: {problems}. Correct it, and submit it again.",
            workflow=name,
        ) from error


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

    stored: Any = None
    """JSON that stands for the content of the step before; None: the content itself."""
    is_by_name: bool = False
    """True: that content is a dict of the contents of several steps."""


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

    def __init__(self, workflow: Declared, flow: Flow) -> None:
        self._workflow = workflow
        self._flow = flow
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
                holds = self._ask(found, id, found.evaluator, given)
                steps = found.steps if holds else found.else_steps
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
                return self._made(found, id, value)
        raise AssertionError(found)

    # Steps.

    def _step(self, step: Step, id: str, given: _Given) -> _Output:
        output = self._attempts(step, id, given)
        if step.compensate is not None:
            self._done.append(
                _Done(id, step, replace(given, previous_step_content=output.content, stored=output.stored))
            )
        return output

    def _attempts(self, step: Step, id: str, given: _Given) -> _Output:
        """Call a step until it succeeds. A retry of the run knows the attempt that succeeded, and not those before it."""
        most = step.retry.attempts if self._on_error(step) == "retry" else 1
        keys = [id, *(f"{id}/try-{attempt}" for attempt in range(2, most + 1))]
        first = next((place for place, key in enumerate(keys) if key in self._flow.known), 0)
        for attempt, key in enumerate(keys[first:], first + 1):
            try:
                return self._made(step, id, self._call(step, key, given), key)
            except StepFailed:
                wait = f"{id}/wait-{attempt + 1}"
                if attempt >= most or (self.is_undoing and wait not in self._flow.known):
                    raise
            self._flow.sleep(id=wait, seconds=delay_s(step.retry, attempt, random.random()))
        raise AssertionError(id)

    def _call(self, step: Step, id: str, given: _Given) -> Any:
        """Return the result of a call. Its input is made once, by the turn that makes the call."""
        what = called_by(step)
        try:
            asked, options = ((), {}) if id in self._flow.known else self._asked(step, what, id, given)
            (value,) = self._flow.gather(self._flow.step(id, what, *asked, **options))
        except (InvalidInput, Unserialisable) as error:
            raise StepFailed(f"step {id!r} could not be called: {message_of(error)}", step=id) from error
        return value

    def _asked(self, step: Step, what: Any, id: str, given: _Given) -> tuple[Sequence[Any], dict[str, Any]]:
        is_run = isinstance(what, Runnable)
        asked = self._message(step, id, given) if is_run else self._arguments(step, what, id, given)
        self._check_new(id)
        return asked, {} if step.timeout_s is None else {"timeout_s": step.timeout_s}

    def _message(self, step: Step, id: str, given: _Given) -> list[Any]:
        """Return the message of an agent: the content of the step before, or the input of the workflow, and the input's images and files."""
        before = given.previous_step_content
        if step.input is not None:
            text = as_text(_as_json(self._ask(step, id, step.input, given)))
        elif before in _EMPTY:
            text = as_text(given.input)
        else:
            text = in_sections(before) if given.is_by_name else as_text(before)
        others = [part for part in self._flow.input.parts if not isinstance(part, Text)]
        return list(first_message([Text(text), *others], called_by(step).name).parts)

    def _arguments(self, step: Step, function: Any, id: str, given: _Given) -> list[Any]:
        match how_called(function):
            case "alone":
                return []
            case "step_input":
                return [_stored(given)]
        if step.input is not None:
            return [_as_json(self._ask(step, id, step.input, given))]
        is_first = given.previous_step_content is None
        return [given.input if is_first else given.previous_step_content]

    def _made(self, found: Element, id: str, value: Any, stored_by: str | None = None) -> _Output:
        """Return the output of a call. Raises StepFailed for one that reports a failure."""
        reference = stored_by or id
        if isinstance(value, dict) and {"content", "success", "stop"} <= value.keys() <= _OUTPUT_FIELDS:
            value = StepOutput(**value)  # of a function without an annotation
        if not isinstance(value, StepOutput):
            return _Output(value, label(found), id, stored=ResultOf(reference))
        if not value.success:
            text = value.error or "it reported no success"
            raise StepFailed(f"step {id!r} failed: {text}", step=id)
        return _Output(
            value.content, label(found), id, stop=value.stop, stored=ResultOf(reference, "content")
        )  # fmt: skip

    # Elements of several steps.

    def _group(self, found: Element, id: str, outputs: Sequence[_Output], last: _Given) -> _Output | None:
        """Return the output of steps that followed each other."""
        if not outputs:
            return None
        return _Output(
            last.previous_step_content, label(found), id, stop=outputs[-1].stop, steps=list(outputs), stored=last.stored, is_by_name=last.is_by_name,
            passes=all(each.passes for each in outputs),
        )  # fmt: skip

    def _parallel(self, found: Parallel, id: str, given: _Given) -> _Output:
        failed: list[_Decided] = []
        chosen = join_of(found.join) or ALL

        def branch(step: Any) -> _Output | None:
            try:
                return self._visit(element(step), id, given)
            except _Decided as decided:
                failed.append(decided)
                raise

        labels = [_label(each) for each in found.steps]
        functions = [lambda step=step: branch(step) for step in found.steps]
        place = id if found.name else join(id, labels[0])
        try:
            ended = self._flow.parallel(*functions, join=chosen, deadline_s=found.deadline_s, id=place)
        except StepFailed as error:
            if any(each.undoes for each in failed):
                raise _Decided(error, True) from None
            raise
        outputs = [
            _branch(each, label, id) if isinstance(each, StepResult) else each
            for each, label in zip(ended, labels, strict=True)
        ]
        late = [each for each in outputs if each and not each.success and not each.passes]
        if chosen == ALL and late:
            text = f"step {late[0].step_name!r} did not end within {found.deadline_s:g} s"
            raise next(iter(failed), None) or StepFailed(text, step=id)
        used = {label: each for label, each in zip(labels, outputs, strict=True) if each and each.success}
        return _Output(
            {label: each.content for label, each in used.items()}, label(found), id, stop=any(each.stop for each in used.values()),
            steps=[each for each in outputs if each], stored={label: each.stored for label, each in used.items()}, is_by_name=True,
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
        steps = []
        for each in chosen:
            step = (
                by_label.get(each)
                if isinstance(each, str)
                else next((one for one in found.choices if one is each or one == each), None)
            )
            if step is None:
                raise StepFailed(
                    f"Router {id or 'without a name'!r}: the selector returned {brief(each)}, which is not one of its choices ({', '.join(by_label)})",
                    step=id,
                )
            steps.append(step)
        return steps

    def _map(self, found: Map, id: str, given: _Given) -> _Output:
        items: Any = ()
        if id not in self._flow.known:
            items = self._items(found, id, given)
            self._check_new(id)
        collects = self._on_error(found) == "skip"
        (value,) = self._flow.gather(
            self._flow.map(
                id, items, found.do, window=found.window, on_error="collect" if collects else "fail"
            )
        )
        if isinstance(value, list):
            value = [None if isinstance(each, StepFailed) else each for each in value]
        return _Output(value, label(found), id)

    def _items(self, found: Map, id: str, given: _Given) -> list[Any]:
        items = found.items
        if isinstance(items, str):
            items = given.get_step_content(items)
        elif callable(items):
            items = self._ask(found, id, items, given)
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
        seconds = (found.seconds or 0) + (found.hours or 0) * 3600 + (found.days or 0) * 86400
        if found.until is not None and id not in self._flow.known:
            until = self._ask(found, id, found.until, given)
            if not isinstance(until, datetime):
                raise StepFailed(f"Wait {id!r}: until must be a time, got {brief(until)}", step=id)
            until = until if until.tzinfo else until.replace(tzinfo=UTC)
            seconds = max(0.0, (until - self._flow.now).total_seconds())
        self._check_new(id)
        self._flow.sleep(id=id, seconds=seconds)
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
        return getattr(found, "on_error", None) or self._workflow.on_error

    def _failed(self, found: Element, id: str, error: StepFailed) -> _Output:
        """Return the output of an element that failed and is skipped. Raises _Decided for one that ends the workflow."""
        policy = self._on_error(found)
        if policy == "retry" and self._workflow.on_error != "retry":
            policy = self._workflow.on_error  # it had its attempts
        if policy == "skip":
            return _Output(
                None, label(found), id, success=False, error=message_of(error), passes=True, steps=[]
            )  # fmt: skip
        raise _Decided(error, policy == "compensate")

    def _check_new(self, id: str) -> None:
        """Refuse new work after steps were undone: a retry of the run undoes the rest, and does not go on. Raises StepFailed."""
        if self.is_undoing and not any(key == id or key.startswith(f"{id}/") for key in self._flow.known):
            raise StepFailed(
                f"step {id!r} failed before, and the steps before it were undone: submit the workflow again",
                step=id, arrival=_NEVER,
            )  # fmt: skip

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
        asked = [] if is_known else self._arguments(Step(function=function), function, key, done.given)
        self._flow.gather(self._flow.step(key, function, *asked))


def _after(given: _Given, output: _Output) -> _Given:
    """Return what the step after an output is given. The steps of an element without a name count as those of the element around it."""
    if not output.passes:
        given = replace(
            given, previous_step_content=output.content, stored=output.stored, is_by_name=output.is_by_name
        )
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


def _branch(result: StepResult, label: str, id: str) -> _Output | None:
    """Return the output of a branch whose join may have left it out."""
    if result.is_used and result.error is None:
        value: _Output | None = result.value
        return value
    error = message_of(result.error) if result.error else "it was not needed, or came too late"
    return _Output(None, label, join(id, label), success=False, error=error)


def _stored(given: _Given) -> dict[str, Any]:
    """Return a StepInput as JSON for a worker. Results of steps are references, which the worker replaces."""
    return {
        "input": given.input,
        "previous_step_content": _content(given.previous_step_content, given.stored),
        "previous_step_outputs": {
            name: _stored_output(each) for name, each in given.previous_step_outputs.items()
        },
        "additional_data": given.additional_data,
        "run_id": given.run_id,
        "session_id": given.session_id,
        "user_id": given.user_id,
    }


def _stored_output(output: Any) -> dict[str, Any]:
    fields = {
        "content": _content(output.content, output.stored),
        "step_name": output.step_name,
        "step_id": output.step_id,
    }
    if output.error:
        fields |= {"success": output.success, "error": output.error}
    if output.stop:
        fields["stop"] = True
    if output.steps:
        fields["steps"] = [_stored_output(each) for each in output.steps]
    return fields


def _content(content: Any, stored: Any) -> Any:
    return _as_json(content) if stored is None else stored


def _as_json(value: Any) -> Any:
    return msgspec.json.decode(to_json_text(value))
