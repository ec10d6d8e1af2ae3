"""Explain why a run has not ended. Pure: takes rows and the time, returns sentences, each with the next move if there is one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from agno_workers.cli.screen import count, dollars, length
from agno_workers.core.run import Run, RunKind, Step, StepKind, StepStatus, WaitsFor
from agno_workers.core.session import SessionStatus
from agno_workers.runs.queries import RunDiagnostics, Waiting
from agno_workers.runs.workers import Worker

ASKS = {
    WaitsFor.CONFIRMATION: "a person to approve or reject it",
    WaitsFor.ANSWER: "a person to fill in",
    WaitsFor.EXECUTION: "someone outside to make the call",
    WaitsFor.RESOLUTION: "a person to find out whether it took effect",
}
Consumed = Mapping[str, Sequence[Worker]]
"""The living workers of each queue."""
_KEEPER_HANDOVER = timedelta(seconds=5)
"""No keeper leads while one worker's keeper replaces another's."""
_ON_TIMEOUT = {
    "reject": "it is rejected in {}",
    "approve": "it is approved in {}",
    "fail": "the run fails in {}",
}


def diagnose(run: Run, steps: Sequence[Step], around: RunDiagnostics, consumed: Consumed | None) -> list[str]:
    """Return what each open step waits for, and what will end the run; empty when it has ended.

    `consumed` is None if the workers are unknown.
    """
    if run.status.is_terminal:
        return []
    if not steps:
        return ["It has no steps of its own: it ends together with the run that has its idempotency key."]
    open_steps = [step for step in steps if step.status.is_open]
    if run.kind is RunKind.INGESTION:
        return [
            *_paused(run, around.now),
            *_ingestion(run, open_steps, around, consumed),
            *_ends(run, around),
        ]
    if not open_steps:
        fork = f"`agno-workers runs fork {run.id} --at STEP` starts a new run from its last step"
        return [f"No step is open, which should not happen, and nothing will end the run: {fork}; cancel this one."]  # fmt: skip
    return [
        *_paused(run, around.now),
        *_fan_out(steps, open_steps),
        *(sentence for step in open_steps for sentence in _waits(run, step, around, consumed)),
        *_ends(run, around),
    ]


def moves(waiting: Waiting, step: str | None = None) -> list[str]:
    """Return the commands that answer a step; `step` replaces its id."""
    step = step or waiting.step_id
    match waiting.waits_for:
        case WaitsFor.CONFIRMATION:
            moves = [f"approve {step}", f"reject {step}"]
        case WaitsFor.ANSWER:
            moves = [
                f"answer {step} {' '.join(f'{field}=…' for field in waiting.policy.fields)}",
                f"reject {step}",
            ]
        case WaitsFor.EXECUTION:
            moves = [f"complete {step} RESULT", f"reject {step}"]
        case _:
            moves = [f"resolve {step} --happened | --again | --did-not-happen"]
    return [f"agno-workers runs {move}" for move in moves]


def expiry(waiting: Waiting, now: datetime) -> str:
    """Return what happens if nobody answers; empty if it waits without a limit."""
    if waiting.expires_at is None:
        return ""
    outcome = _ON_TIMEOUT[waiting.policy.on_timeout]
    if waiting.waits_for is WaitsFor.RESOLUTION:
        outcome = "the model is told in {} that the outcome is unknown"
    elif waiting.policy.on_timeout == "approve" and waiting.waits_for is not WaitsFor.CONFIRMATION:
        outcome = _ON_TIMEOUT["reject"]
    return f"unless answered, {outcome.format(length(waiting.expires_at - now))}"


def _paused(run: Run, now: datetime) -> Iterator[str]:
    if run.paused_at:
        yield (
            f"The run has been paused for {length(now - run.paused_at)}, and starts no further step: "
            f"`agno-workers runs resume {run.id}` continues it."
        )


def _fan_out(steps: Sequence[Step], open_steps: Sequence[Step]) -> Iterator[str]:
    """Count the open calls of a turn, if some have ended."""
    if any(step.kind is StepKind.TURN or step.arrival is not None for step in open_steps):
        return
    turn = open_steps[0].key.split(":")[1]
    of_turn = {
        step.key
        for step in steps
        if step.kind is not StepKind.TURN and step.key.partition(":")[2].split(":")[0] == turn
    }
    if len(open_steps) < len(of_turn):
        yield f"{len(open_steps)} of {len(of_turn)} tool calls are open; the next turn starts when the last one ends."


def _ingestion(
    run: Run, open_steps: Sequence[Step], around: RunDiagnostics, consumed: Consumed | None
) -> Iterator[str]:
    """Summarize the steps of an ingestion, which may have thousands."""
    if not open_steps:
        yield "No step is open at the moment: the keeper schedules the next one within a second."
    yield from (_running(step, around) for step in open_steps if step.status is StepStatus.RUNNING)
    ready = [step for step in open_steps if step.status is StepStatus.READY]
    if ready and run.paused_at is None:
        others = len(ready) - 1
        more = (
            f" {count(others, 'more step')} {'waits' if others == 1 else 'wait'} with it." if others else ""
        )
        yield f"{_queued(run, ready[0], around.now, consumed)}{more}"
    if waiting := sum(step.status is StepStatus.WAITING for step in open_steps):
        verb = "is" if waiting == 1 else "are"
        yield f"{count(waiting, 'step')} {verb} not sent yet: an ingestion has only a few in the queue at a time."


def _waits(run: Run, step: Step, around: RunDiagnostics, consumed: Consumed | None) -> Iterator[str]:
    match step.status:
        case StepStatus.RUNNING:
            yield _running(step, around)
        case StepStatus.WAITING if step.waits_for is WaitsFor.RUN:
            yield _delegated(step, around)
        case StepStatus.WAITING if step.waits_for is WaitsFor.TIMER:
            yield _sleeps(step, around)
        case StepStatus.WAITING if step.waits_for is WaitsFor.SIGNAL:
            yield _listens(run, step, around.now)
        case StepStatus.WAITING if step.waits_for is WaitsFor.SESSION:
            yield _in_session(run, step, around)
        case StepStatus.WAITING:
            yield from (
                _asks(waiting, around.now) for waiting in around.waiting if waiting.step_id == step.id
            )
        case _ if run.paused_at is None:
            yield _queued(run, step, around.now, consumed)


def _running(step: Step, around: RunDiagnostics) -> str:
    name, now = _named(step), around.now
    on = f"on {step.worker}" + (f", attempt {step.attempt}" if step.attempt > 1 else "")
    since = f" for {length(now - step.started_at)}" if step.started_at else ""
    lease = around.leases.get(step.id)
    if lease is None:
        return f"{name} has been running{since} {on}."
    if lease.until > now:
        return f"{name} has been running{since} {on}; its lease ends in {length(lease.until - now)} unless renewed."
    expired = f"{name} was running {on}, and its lease expired {length(now - lease.until)} ago"
    if not _has_keeper(around):
        return f"{expired}; no keeper is alive to recover it. Each worker has one: start a worker."
    return f"{expired}: the keeper {'fails it' if lease.last else 'sends it again'} within seconds."


def _delegated(step: Step, around: RunDiagnostics) -> str:
    status = next((child.status for child in around.children if child.id == step.child_run_id), None)
    which = f", whose run is {status}" if status else ""
    what = "Delegated to" if step.arrival is None else f"{_named(step)} waits for"
    return f"{what} {step.name}{which}: `agno-workers runs show {step.child_run_id}`."


def _sleeps(step: Step, around: RunDiagnostics) -> str:
    if step.expires_at is None or step.expires_at > around.now:
        left = f" for {length(step.expires_at - around.now)} more" if step.expires_at else ""
        return f"{_named(step)} is a timer, and waits{left}."
    keeper = (
        "the keeper ends it within seconds"
        if _has_keeper(around)
        else "no keeper is alive to end it, so start a worker"
    )
    return f"{_named(step)} is a timer that was due {length(around.now - step.expires_at)} ago: {keeper}."


def _listens(run: Run, step: Step, now: datetime) -> str:
    since = f" {length(now - step.created_at)}" if step.created_at else ""
    then = (
        f" (it gives up in {length(step.expires_at - now)})"
        if step.expires_at and step.expires_at > now
        else ""
    )
    move = f"agno-workers runs signal {run.id} {shlex.quote(step.name)} JSON"
    return f"{_named(step)} has waited{since} for the signal {step.name!r}{then}: `{move}` sends it."


def _in_session(run: Run, step: Step, around: RunDiagnostics) -> str:
    """Return what a run waits for that may not begin yet."""
    name, place = f"session {run.session_id!r}", around.session
    if step.not_before is not None:
        return f"It is due in {length(step.not_before - around.now)}, and takes its place in {name} then."
    since = length(around.now - step.created_at) if step.created_at else ""
    ahead = f", after {count(place.before, 'other run')}" if place and place.before else ""
    if place and place.status is SessionStatus.PAUSED:
        return f"It has waited {since} for its turn in {name}{ahead}, which is paused: `agno-workers sessions resume {run.session_id}` continues it."
    if place and place.live:
        return f"It has waited {since} for its turn in {name}{ahead}: `agno-workers runs show {place.live}` shows the live run."
    return f"It has waited {since} for its turn in {name}{ahead}, and begins now."


def wanted(waiting: Waiting) -> str:
    """Return what a call waits for, such as `an answer for iban`."""
    fields = f" {', '.join(waiting.policy.fields)}" if waiting.waits_for is WaitsFor.ANSWER else ""
    return f"{ASKS[waiting.waits_for]}{fields}"


def _asks(waiting: Waiting, now: datetime) -> str:
    what = wanted(waiting)
    then = expiry(waiting, now)
    move, *others = moves(waiting)
    since = length(now - waiting.created_at)
    subject = f"Approval {waiting.name!r}" if waiting.kind is StepKind.WAIT else f"Tool {waiting.name}"
    return (
        f"{subject} has waited {since} for {what}{f' ({then})' if then else ''}: "
        f"`{move}`{', or `runs reject`' if others else ''}."
    )


def _queued(run: Run, step: Step, now: datetime, consumed: Consumed | None) -> str:
    name, error = _named(step), _message(step)
    due_in = length(step.not_before - now) if step.not_before is not None and step.not_before > now else None
    if due_in and not step.returns:
        return f"{name} is due in {due_in}{f', after {error}' if error else ''}."
    ready_at = step.created_at if step.returns else step.ready_at or step.sent_at
    since = f" {length(now - ready_at)}" if ready_at else ""
    workers = [] if consumed is None else consumed.get(step.queue, [])
    if consumed is not None and not workers:
        return f"No worker consumes the queue {step.queue!r}, where {name[0].lower()}{name[1:]} has waited{since}: start one with `-Q {step.queue}`."  # fmt: skip
    if (
        workers
        and step.kind in (StepKind.TURN, StepKind.TOOL)
        and not any(each.knows(run.agent) for each in workers)
    ):
        return f"{name} has waited{since}, and {unknown_agent(run.agent, step.queue, workers)}"
    if step.returns:
        again = f"is sent again in {due_in}" if due_in else "is sent again now"
        return f"{name} could not begin on its workers {count(step.returns, 'time')}, and {again}: {error}."
    again = f" after {error}" if error else ""
    return f"{name} has waited{since} in the queue {step.queue!r} for a free worker{again}."


def unknown_agent(agent: str, queue: str, workers: Sequence[Worker]) -> str:
    """Return the end of a sentence about work for an agent that none of the workers of its queue knows."""
    verb = "does" if len(workers) == 1 else "do"
    return (
        f"{count(len(workers), 'worker')} of the queue {queue!r} {verb} not know the agent {agent!r}: "
        "add the module that defines it to AGNO_IMPORTS of one, and start that again."
    )


def _ends(run: Run, around: RunDiagnostics) -> Iterator[str]:
    """Name the limits that end the run, whatever it is doing."""
    if run.deadline_at and run.deadline_at > around.now:
        yield f"The run ends at its deadline, in {length(run.deadline_at - around.now)}."
    elif run.deadline_at:
        keeper = (
            "the keeper ends it" if _has_keeper(around) else "no keeper is alive to end it, so start a worker"
        )
        yield f"The deadline of the run passed {length(around.now - run.deadline_at)} ago: {keeper}."
    if around.limits and around.limits.cost_usd is not None:
        yield f"The run has cost {dollars(run.cost_usd)}, and ends at {dollars(around.limits.cost_usd)}."


def _has_keeper(around: RunDiagnostics) -> bool:
    return around.keeper_until is not None and around.keeper_until > around.now - _KEEPER_HANDOVER


def _named(step: Step) -> str:
    match step.kind:
        case _ if step.arrival is not None:
            return f"Step {step.key!r}"
        case StepKind.TURN:
            return f"Turn {step.key.split(':')[1]}"
        case StepKind.TOOL | StepKind.DELEGATE:
            return f"Tool {step.name}"
        case StepKind.COMPACT:
            return "The summary of the oldest messages"
        case StepKind.SCAN:
            return "The search for documents"
        case StepKind.INGEST:
            return "A batch of documents"
        case StepKind.EMBED:
            return "A batch of vectors"
        case _:
            return "The last step"


def _message(step: Step) -> str:
    """Return the error of the last attempt; empty if there was none."""
    if not step.error:
        return ""
    return f"{step.error.get('type', 'an error')}: {step.error.get('message', '')}".rstrip(": ")
