"""Fork a run: start a new run at one of its steps, with other input or arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from agno_workers.core.messages import Message, ToolCall, user
from agno_workers.core.request import check_metadata, check_name, first_message
from agno_workers.core.run import NAMED, Step, StepKind
from agno_workers.database.pool import to_json
from agno_workers.errors import InvalidInput
from agno_workers.runs.control import Control
from agno_workers.runs.queries import RunQueries

_MAX_NAMED = 40
"""Keys of steps in an error."""


class Forks:
    """See the module."""

    def __init__(self, queries: RunQueries, control: Control) -> None:
        self._queries = queries
        self._control = control

    def fork(
        self, run_id: str, at: str | None, input: Sequence[Any] = (), *, arguments: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None, metadata: dict[str, Any] | None = None, deadline_s: float | None = None,
    ) -> str:  # fmt: skip
        """Return the id of the new run; see `RunHandle.fork`. Raises RunNotFound, or InvalidInput when no run can start there."""
        if idempotency_key is not None:
            check_name(idempotency_key, "idempotency_key", "text that is not blank")
        check_metadata(metadata or {})
        run, steps = self._queries.run(run_id), self._queries.steps(run_id)
        if run.kind not in NAMED:
            raise InvalidInput(
                f"run {run_id} is of kind {run.kind} and has no transcript to fork: start it again.",
                run_id=run_id,
            )
        step = _step_at(steps, run_id, at)
        is_program = any(each.arrival is not None for each in steps)
        if is_program and arguments is not None:
            raise InvalidInput(
                f"run {run_id} is of the {run.kind} {run.agent}, whose code makes the arguments of step {step.key}: fork it with other input.",
                run_id=run_id, step_id=step.id,
            )  # fmt: skip
        is_call = step.kind in (StepKind.TOOL, StepKind.DELEGATE) and not is_program
        if arguments is not None and not is_call:
            raise InvalidInput(
                f"step {step.key} of run {run_id} is a turn: fork a turn with input, and a tool call with arguments.",
                run_id=run_id, step_id=step.id,
            )  # fmt: skip
        if input and is_call:
            kind = "tool call" if step.kind is StepKind.TOOL else "delegation"
            raise InvalidInput(
                f"step {step.key} of run {run_id} is a {kind}, which takes arguments=..., not input.",
                run_id=run_id,
            )
        asked = first_message(input, run.agent) if input else None
        call: ToolCall | None = None
        edited: list[tuple[int, Message]] = []
        if arguments is not None:
            written = to_json(dict(arguments)).decode()
            call = replace(self._queries.call(step.id), arguments=written)
            edited = _with_call(self._queries.transcript(run_id), call)
            asked = _task(arguments, step, run_id) if step.kind is StepKind.DELEGATE else None
        if is_call and deadline_s is None:
            # The call is the first step of the fork and may wait long, so its deadline is set here.
            limits = self._queries.diagnostics(run_id).limits
            deadline_s = limits.deadline_s if limits else None
        forked, _ = self._control.fork(
            step.id, asked=asked, messages=edited, call=call, idempotency_key=idempotency_key, metadata=metadata,
            deadline_s=deadline_s,
        )  # fmt: skip
        return forked


def _step_at(steps: Sequence[Step], run_id: str, at: str | None) -> Step:
    """Return the newest step with this key, or the step with this id."""
    wanted = "turn:1" if at is None else at
    for step in reversed(steps):
        if wanted in (step.key, step.id):
            return step
    keys = list(dict.fromkeys(step.key for step in steps))
    known = ", ".join(keys[:_MAX_NAMED]) + (
        f" and {len(keys) - _MAX_NAMED} more" if len(keys) > _MAX_NAMED else ""
    )
    raise InvalidInput(f"run {run_id} has no step {wanted!r}: it has {known}.", run_id=run_id)


def _task(arguments: Mapping[str, Any], step: Step, run_id: str) -> Message:
    """Return the input of the run that a call delegates to."""
    match dict(arguments):
        case {"task": str(task), **rest} if task.strip() and not rest:
            return user(task)
    raise InvalidInput(
        f'step {step.key} of run {run_id} is a delegation to {step.name}, which takes arguments={{"task": "..."}}: the task, with '
        "everything needed to do it, and nothing else.",
        run_id=run_id, step_id=step.id,
    )  # fmt: skip


def _with_call(transcript: Sequence[Message], call: ToolCall) -> list[tuple[int, Message]]:
    """Return the message that made a call, with its position; its call is replaced by this one."""
    return [
        (seq, replace(message, parts=tuple(call if isinstance(part, ToolCall) and part.id == call.id else part for part in message.parts)))
        for seq, message in enumerate(transcript)
        if any(made.id == call.id for made in message.tool_calls)
    ]  # fmt: skip
