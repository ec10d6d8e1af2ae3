"""Why a run is not over, in words. Pure: rows and the time in, sentences out, each with the next move where there is one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime, timedelta

from agno_workers.cli.screen import dollars, length
from agno_workers.core.run import Run, RunKind, Step, StepKind, StepStatus, WaitsFor
from agno_workers.runs.queries import RunDiagnostics, Waiting

ASKS = {
    WaitsFor.CONFIRMATION: "a person to approve or reject it",
    WaitsFor.ANSWER: "a person to fill in",
    WaitsFor.EXECUTION: "somebody outside to make the call",
    WaitsFor.RESOLUTION: "a person to find out whether it took effect",
}
_KEEPERS_CHANGE = timedelta(seconds=5)
"""While one worker's keeper takes over from another's, none leads."""
_THEN = {"reject": "it is rejected", "approve": "it is approved", "fail": "the run fails"}


def diagnose(
    run: Run, steps: Sequence[Step], around: RunDiagnostics, consumed: Collection[str] | None
) -> list[str]:
    """What each open step of a run is waiting for, and what will end the run; empty when it is over.

    `consumed`: the queues that a worker listens to; None: not known.
    """
    if run.status.is_terminal:
        return []
    if not steps:
        return ["It does no work of its own: it ends as the run does that has its idempotency key."]
    open_steps = [step for step in steps if step.status.is_open]
    if run.kind is RunKind.INGESTION:
        return [
            *_paused(run, around.now),
            *_ingestion(run, open_steps, around, consumed),
            *_ends(run, around),
        ]
    if not open_steps:
        move = (
            f"`agno-workers runs fork {run.id} --at STEP` goes on from its last step, `runs cancel` ends it"
        )
        return [f"No step is open, so nothing will move it, which should not happen: {move}."]
    return [
        *_paused(run, around.now),
        *_fan_out(steps, open_steps),
        *(said for step in open_steps for said in _why(run, step, around, consumed)),
        *_ends(run, around),
    ]


def moves(waiting: Waiting) -> list[str]:
    """The commands that end a wait for a person."""
    step = waiting.step_id
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
    """What follows when nobody comes; empty where that may take for ever."""
    if waiting.expires_at is None:
        return ""
    what = _THEN[waiting.policy.on_timeout]
    if waiting.waits_for is WaitsFor.RESOLUTION:
        what = "the model is told that nobody knows"
    elif waiting.policy.on_timeout == "approve" and waiting.waits_for is not WaitsFor.CONFIRMATION:
        what = _THEN["reject"]
    return f"in {length(waiting.expires_at - now)} {what}"


def _paused(run: Run, now: datetime) -> Iterator[str]:
    if run.paused_at:
        yield (
            f"Paused for {length(now - run.paused_at)}: no further step begins. "
            f"`agno-workers runs resume {run.id}` lets it go on."
        )


def _fan_out(steps: Sequence[Step], open_steps: Sequence[Step]) -> Iterator[str]:
    """How many calls of a turn are still out, where some are in."""
    if any(step.kind is StepKind.TURN for step in open_steps):
        return
    turn = open_steps[0].key.split(":")[1]
    of_turn = {
        step.key
        for step in steps
        if step.kind is not StepKind.TURN and step.key.partition(":")[2].split(":")[0] == turn
    }
    if len(open_steps) < len(of_turn):
        yield f"{len(open_steps)} of {len(of_turn)} tool calls are out; the last one in wakes the next turn."


def _ingestion(
    run: Run, open_steps: Sequence[Step], around: RunDiagnostics, consumed: Collection[str] | None
) -> Iterator[str]:
    """Of an ingestion, which may have thousands of steps."""
    if not open_steps:
        yield "No step is open at this moment: the keeper of a worker says within a second what follows."
    yield from (_under_way(step, around) for step in open_steps if step.status is StepStatus.RUNNING)
    ready = [step for step in open_steps if step.status is StepStatus.READY]
    if ready and run.paused_at is None:
        more = f" So do {len(ready) - 1} more steps." if len(ready) > 1 else ""
        yield f"{_in_queue(ready[0], around.now, consumed)}{more}"
    if waiting := sum(step.status is StepStatus.WAITING for step in open_steps):
        yield f"{waiting} step(s) wait for their turn: only so many of one ingestion are sent at a time."


def _why(run: Run, step: Step, around: RunDiagnostics, consumed: Collection[str] | None) -> Iterator[str]:
    match step.status:
        case StepStatus.RUNNING:
            yield _under_way(step, around)
        case StepStatus.WAITING if step.waits_for is WaitsFor.RUN:
            yield _delegated(step, around)
        case StepStatus.WAITING:
            yield from (
                _asks(waiting, around.now) for waiting in around.waiting if waiting.step_id == step.id
            )
        case _ if run.paused_at is None:
            yield _in_queue(step, around.now, consumed)


def _under_way(step: Step, around: RunDiagnostics) -> str:
    name, now = _named(step), around.now
    since = f" for {length(now - step.started_at)}" if step.started_at else ""
    attempt = f", attempt {step.attempt}" if step.attempt > 1 else ""
    said = f"{name} is being worked on{since} by {step.worker}{attempt}"
    lease = around.leases.get(step.id)
    if lease is None:
        return f"{said}."
    if lease.until > now:
        return f"{said}; if that worker falls silent, its lease ends in {length(lease.until - now)}."
    dead = f"{name} was with {step.worker}{attempt}, whose lease ended {length(now - lease.until)} ago"
    if not _is_kept(around):
        return f"{dead}, and no keeper is alive to see to it: each worker brings one, so start a worker."
    return f"{dead}: the keeper will {'give it up' if lease.last else 'send it again'} within seconds."


def _delegated(step: Step, around: RunDiagnostics) -> str:
    for child in around.children:
        if child.id == step.child_run_id:
            return f"{step.name} has a run of its own, which is {child.status}: `agno-workers runs show {child.id}`."
    return f"{step.name} has a run of its own: `agno-workers runs show {step.child_run_id}`."


def _asks(waiting: Waiting, now: datetime) -> str:
    what = ASKS[waiting.waits_for]
    if waiting.waits_for is WaitsFor.ANSWER:
        what = f"{what} {', '.join(waiting.policy.fields)}"
    then = expiry(waiting, now)
    move, *others = moves(waiting)
    told = f"`{move}`{', or `runs reject`' if others else ''}"
    since = length(now - waiting.created_at)
    return f"Tool {waiting.name} waits for {what}, for {since} now{f' ({then})' if then else ''}: {told}."


def _in_queue(step: Step, now: datetime, consumed: Collection[str] | None) -> str:
    name = _named(step)
    if step.not_before is not None and step.not_before > now:
        cause = f" after {_message(step)}" if step.error else ""
        return f"{name} is due in {length(step.not_before - now)}{cause}."
    since = f" since {length(now - step.sent_at)}" if step.sent_at else ""
    if consumed is not None and step.queue not in consumed:
        return f"{name} waits in queue {step.queue!r}{since}, and no worker listens to it: start one with `-Q {step.queue}`."
    again = f", once more after {_message(step)}" if step.error else ""
    return f"{name} waits in queue {step.queue!r}{since} for a free worker{again}."


def _ends(run: Run, around: RunDiagnostics) -> Iterator[str]:
    """What will end the run, whatever it is doing then."""
    if run.deadline_at and run.deadline_at > around.now:
        yield f"Its deadline comes in {length(run.deadline_at - around.now)}: then it ends with what it has."
    elif run.deadline_at:
        keeper = "the keeper ends it" if _is_kept(around) else "no keeper is alive to end it: start a worker"
        yield f"Its deadline came {length(around.now - run.deadline_at)} ago: {keeper}."
    if around.limits and around.limits.cost_usd is not None:
        yield f"It has spent {dollars(run.cost_usd)} of {dollars(around.limits.cost_usd)}, and ends when that is spent."


def _is_kept(around: RunDiagnostics) -> bool:
    return around.keeper_until is not None and around.keeper_until > around.now - _KEEPERS_CHANGE


def _named(step: Step) -> str:
    match step.kind:
        case StepKind.TURN:
            return f"Turn {step.key.split(':')[1]}"
        case StepKind.TOOL | StepKind.DELEGATE:
            return f"Tool {step.name}"
        case StepKind.SCAN:
            return "The look for documents"
        case StepKind.INGEST:
            return "A batch of documents"
        case StepKind.EMBED:
            return "A batch of vectors"
        case StepKind.FINALIZE:
            return "Tidying up"


def _message(step: Step) -> str:
    error = step.error or {}
    return f"{error.get('type', 'an error')}: {error.get('message', '')}".rstrip(": ")
