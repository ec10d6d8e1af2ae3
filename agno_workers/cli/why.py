"""Why a run is not over, in words. Pure: rows and the time in, sentences out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from agno_workers.cli.screen import length
from agno_workers.core.run import Run, Step, StepKind, StepStatus


def why_waiting(
    run: Run, steps: Sequence[Step], now: datetime, consumed: Collection[str] | None
) -> list[str]:
    """What each open step of a run is waiting for; empty when the run is over.

    `consumed`: the queues that a worker listens to; None: not known.
    """
    if run.status.is_terminal:
        return []
    open_steps = [step for step in steps if step.status in (StepStatus.READY, StepStatus.RUNNING)]
    if not open_steps:
        return ["No step is open: the workers' keeper should end this run within seconds."]
    tools = [step for step in steps if step.kind is StepKind.TOOL and step.status is StepStatus.DONE]
    sentences = [_why(step, now, consumed) for step in open_steps]
    if all(step.kind is StepKind.TOOL for step in open_steps) and tools:
        turn = open_steps[0].key.split(":")[1]
        of_turn = [step for step in steps if step.kind is StepKind.TOOL and step.key.split(":")[1] == turn]
        sentences.insert(
            0, f"{len(open_steps)} of {len(of_turn)} tool calls are out; the last one in wakes the next turn."
        )
    return sentences


def _why(step: Step, now: datetime, consumed: Collection[str] | None) -> str:
    name = _named(step)
    if step.status is StepStatus.RUNNING:
        since = f" for {length(now - step.started_at)}" if step.started_at else ""
        attempt = f", attempt {step.attempt}" if step.attempt > 1 else ""
        return f"{name} is being worked on{since} by {step.worker}{attempt}."
    if step.not_before is not None and step.not_before > now:
        cause = f" after {_message(step)}" if step.error else ""
        return f"{name} is due in {length(step.not_before - now)}{cause}."
    since = f" since {length(now - step.sent_at)}" if step.sent_at else ""
    if consumed is not None and step.queue not in consumed:
        return f"{name} waits in queue {step.queue!r}{since}, and no worker listens to it: start one with `-Q {step.queue}`."
    again = f", once more after {_message(step)}" if step.error else ""
    return f"{name} waits in queue {step.queue!r}{since} for a free worker{again}."


def _named(step: Step) -> str:
    return f"Tool {step.name}" if step.kind is StepKind.TOOL else f"Turn {step.key.split(':')[1]}"


def _message(step: Step) -> str:
    error = step.error or {}
    return f"{error.get('type', 'an error')}: {error.get('message', '')}".rstrip(": ")
