"""The sentences that explain why a run has not ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from agno_workers.cli.diagnose import diagnose, expiry, moves
from agno_workers.core.agent import Limits
from agno_workers.core.messages import ToolCall
from agno_workers.core.run import Run, RunKind, RunStatus, Step, StepKind, StepStatus, WaitsFor
from agno_workers.core.session import SessionStatus
from agno_workers.core.tool import Policy
from agno_workers.runs.queries import Child, InSession, Lease, RunDiagnostics, Waiting
from agno_workers.runs.workers import Worker

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


RUN = Run("r", "writer", RunStatus.RUNNING, session_id="s")
TURN = Step("s", "r", "turn:2", StepKind.TURN, StepStatus.READY, "agents", sent_at=ago(3))
WORKED = replace(TURN, status=StepStatus.RUNNING, started_at=ago(20), worker="w1", attempt=2)
ASKED = Step("t", "r", "tool:1:0", StepKind.TOOL, StepStatus.WAITING, "tools", "pay")
DELEGATED = replace(ASKED, kind=StepKind.DELEGATE, name="clerk", waits_for=WaitsFor.RUN, child_run_id="c")
SLEEPS = Step(
    "w", "r", "sleep", StepKind.WAIT, StepStatus.WAITING, "agents", arrival=0, waits_for=WaitsFor.TIMER, expires_at=ago(-90),
)  # fmt: skip
LISTENS = replace(
    SLEEPS, key="wait", name="all paid", waits_for=WaitsFor.SIGNAL, expires_at=None, created_at=ago(40)
)
WAITING = Waiting(
    "t", "r", 0, "tool:1:0", 2, 0, "writer", "pay", WaitsFor.CONFIRMATION, ToolCall("call", "pay"), Policy(), ago(60)
)  # fmt: skip
IN_SESSION = replace(
    TURN, status=StepStatus.WAITING, waits_for=WaitsFor.SESSION, sent_at=None, created_at=ago(40)
)
KEPT = RunDiagnostics(NOW, keeper_until=ago(-1))


def lease(seconds: float, *, last: bool = False, keeper_s: float = 1) -> RunDiagnostics:
    """Return a lease that ends in `seconds`, and a keeper that leads for `keeper_s`."""
    return RunDiagnostics(NOW, leases={"s": Lease(ago(-seconds), last)}, keeper_until=ago(-keeper_s))


def asks(need: WaitsFor, **policy: object) -> RunDiagnostics:
    return RunDiagnostics(NOW, waiting=(replace(WAITING, waits_for=need, policy=Policy(**policy)),))  # type: ignore[arg-type]  # a table of cases


def in_session(status: SessionStatus = SessionStatus.ACTIVE, **place: Any) -> RunDiagnostics:
    return RunDiagnostics(NOW, session=InSession(status, "waiting", **place))


def serving(queue: str, *agents: tuple[str, ...] | None) -> dict[str, list[Worker]]:
    """A worker of earlier code, or one for each of these tuples of agents."""
    return {
        queue: [Worker(f"w{place}", "h", 1, "0.1.0", "threads", 1, (queue,), 0, NOW, NOW, 0.0, None, known) for place, known in enumerate(agents or (None,))]
    }  # fmt: skip


def given_back(error: str, seconds: float, **ids: object) -> Step:
    described = {"type": error, "message": "raised", "ids": {"returns": 3, **ids}}
    return replace(TURN, error=described, sent_at=None, created_at=ago(40), not_before=ago(-seconds))


WHY = {
    "a worker with the agent": (
        given_back("UnknownAgent", 8),
        KEPT,
        serving("agents", ("other",), ()),
        "Turn 2 has waited 40 s, and 2 workers of the queue 'agents' do not know the agent 'writer': add the module that defines it to AGNO_IMPORTS of one, and start that again.",
    ),
    "another worker": (
        given_back("UnknownAgent", 8),
        KEPT,
        serving("agents", ("writer",), ()),
        "Turn 2 could not begin on its workers 3 times, and is sent again in 8 s: UnknownAgent: raised.",
    ),
    "a worker that can begin it": (
        given_back("ImportError", -1),
        KEPT,
        serving("agents", ("writer",)),
        "Turn 2 could not begin on its workers 3 times, and is sent again now: ImportError: raised.",
    ),
    "the first worker with the agent": (
        TURN,
        KEPT,
        serving("agents", ()),
        "Turn 2 has waited 3 s, and 1 worker of the queue 'agents' does not know the agent 'writer': add the module that defines it to AGNO_IMPORTS of one, and start that again.",
    ),
    "a free worker": (
        TURN,
        KEPT,
        serving("agents"),
        "Turn 2 has waited 3 s in the queue 'agents' for a free worker.",
    ),
    "unknown consumers": (TURN, KEPT, None, "Turn 2 has waited 3 s in the queue 'agents' for a free worker."),
    "no worker": (
        TURN,
        KEPT,
        serving("tools"),
        "No worker consumes the queue 'agents', where turn 2 has waited 3 s: start one with `-Q agents`.",
    ),
    "its time": (
        replace(TURN, not_before=NOW + timedelta(seconds=60)),
        KEPT,
        None,
        "Turn 2 is due in 1 min 0 s.",
    ),
    "another try": (
        replace(
            TURN, not_before=NOW + timedelta(seconds=8), error={"type": "ModelUnavailable", "message": "429"}
        ),
        KEPT,
        None,
        "Turn 2 is due in 8 s, after ModelUnavailable: 429.",
    ),
    "its work": (WORKED, KEPT, None, "Turn 2 has been running for 20 s on w1, attempt 2."),
    "its work, under a lease": (
        WORKED,
        lease(12),
        None,
        "Turn 2 has been running for 20 s on w1, attempt 2; its lease ends in 12 s unless renewed.",
    ),
    "the keeper, after a dead worker": (
        WORKED,
        lease(-3),
        None,
        "Turn 2 was running on w1, attempt 2, and its lease expired 3 s ago: the keeper sends it again within seconds.",
    ),
    "the keeper, after the last attempt": (
        WORKED,
        lease(-3, last=True),
        None,
        "Turn 2 was running on w1, attempt 2, and its lease expired 3 s ago: the keeper fails it within seconds.",
    ),
    "a keeper, after the last worker has died": (
        WORKED,
        lease(-30, keeper_s=-28),
        None,
        (
            "Turn 2 was running on w1, attempt 2, and its lease expired 30 s ago; no keeper is alive to recover it. "
            "Each worker has one: start a worker."
        ),
    ),
    "a delegated run": (
        DELEGATED,
        RunDiagnostics(NOW, children=(Child("c", "clerk", RunStatus.QUEUED),)),
        None,
        "Delegated to clerk, whose run is queued: `agno-workers runs show c`.",
    ),
    "a confirmation": (
        ASKED,
        asks(WaitsFor.CONFIRMATION),
        None,
        "Tool pay has waited 1 min 0 s for a person to approve or reject it: `agno-workers runs approve t`, or `runs reject`.",
    ),
    "an answer": (
        ASKED,
        asks(WaitsFor.ANSWER, fields=("iban", "by_when")),
        None,
        (
            "Tool pay has waited 1 min 0 s for a person to fill in iban, by_when: "
            "`agno-workers runs answer t iban=… by_when=…`, or `runs reject`."
        ),
    ),
    "the live run of its session": (
        IN_SESSION,
        in_session(live="l", before=2),
        None,
        "It has waited 40 s for its turn in session 's', after 2 other runs: `agno-workers runs show l` shows the live run.",
    ),
    "a paused session": (
        IN_SESSION,
        in_session(SessionStatus.PAUSED),
        None,
        "It has waited 40 s for its turn in session 's', which is paused: `agno-workers sessions resume s` continues it.",
    ),
    "its time in its session": (
        replace(IN_SESSION, not_before=NOW + timedelta(seconds=60)),
        in_session(live="l"),
        None,
        "It is due in 1 min 0 s, and takes its place in session 's' then.",
    ),
    "a timer": (
        SLEEPS,
        KEPT,
        None,
        "Step 'sleep' is a timer, and waits for 1 min 30 s more.",
    ),
    "a timer that is due": (
        replace(SLEEPS, expires_at=ago(3)),
        KEPT,
        None,
        "Step 'sleep' is a timer that was due 3 s ago: the keeper ends it within seconds.",
    ),
    "a signal": (
        LISTENS,
        KEPT,
        None,
        "Step 'wait' has waited 40 s for the signal 'all paid': `agno-workers runs signal r 'all paid' JSON` sends it.",
    ),
    "a signal in time": (
        replace(LISTENS, name="paid", expires_at=ago(-90)),
        KEPT,
        None,
        "Step 'wait' has waited 40 s for the signal 'paid' (it gives up in 1 min 30 s): `agno-workers runs signal r paid JSON` sends it.",
    ),
    "the run of a step": (
        replace(DELEGATED, key="profile", arrival=0),
        RunDiagnostics(NOW, children=(Child("c", "clerk", RunStatus.QUEUED),)),
        None,
        "Step 'profile' waits for clerk, whose run is queued: `agno-workers runs show c`.",
    ),
    "an approval": (
        replace(SLEEPS, id="t", waits_for=WaitsFor.CONFIRMATION),
        RunDiagnostics(NOW, waiting=(replace(WAITING, name="manual check", kind=StepKind.WAIT),)),
        None,
        "Approval 'manual check' has waited 1 min 0 s for a person to approve or reject it: `agno-workers runs approve t`, or `runs reject`.",
    ),
    "an execution": (
        ASKED,
        asks(WaitsFor.EXECUTION),
        None,
        (
            "Tool pay has waited 1 min 0 s for someone outside to make the call: `agno-workers runs complete t RESULT`, "
            "or `runs reject`."
        ),
    ),
    "a resolution": (
        ASKED,
        asks(WaitsFor.RESOLUTION),
        None,
        (
            "Tool pay has waited 1 min 0 s for a person to find out whether it took effect: "
            "`agno-workers runs resolve t --happened | --again | --did-not-happen`."
        ),
    ),
}


@pytest.mark.parametrize("case", WHY)
def test_each_step_reports_what_it_waits_for(case: str) -> None:
    step, around, listening, said = WHY[case]
    assert diagnose(RUN, [step], around, listening) == [said]


@pytest.mark.parametrize(
    ("need", "policy", "said"),
    [
        (WaitsFor.CONFIRMATION, Policy(), "unless answered, it is rejected in 5 s"),
        (WaitsFor.CONFIRMATION, Policy(on_timeout="approve"), "unless answered, it is approved in 5 s"),
        (WaitsFor.EXECUTION, Policy(on_timeout="fail"), "unless answered, the run fails in 5 s"),
        (
            WaitsFor.RESOLUTION,
            Policy(),
            "unless answered, the model is told in 5 s that the outcome is unknown",
        ),
    ],
)
def test_expiry_reports_what_happens_if_nobody_answers(need: WaitsFor, policy: Policy, said: str) -> None:
    waiting = replace(WAITING, waits_for=need, policy=policy, expires_at=NOW + timedelta(seconds=5))
    assert expiry(waiting, NOW) == said
    assert expiry(replace(waiting, expires_at=None), NOW) == ""
    (sentence,) = diagnose(RUN, [ASKED], RunDiagnostics(NOW, waiting=(waiting,)), None)
    assert f"({said})" in sentence


def test_moves_are_commands() -> None:
    assert moves(WAITING) == ["agno-workers runs approve t", "agno-workers runs reject t"]


def test_open_tool_calls_are_counted() -> None:
    done = replace(ASKED, id="a", status=StepStatus.DONE)
    held = replace(
        ASKED, id="b", key="tool:1:1", name="hold", status=StepStatus.RUNNING, started_at=ago(1), worker="w"
    )
    first, second = diagnose(RUN, [done, held], KEPT, None)
    assert first == "1 of 2 tool calls are open; the next turn starts when the last one ends."
    assert second == "Tool hold has been running for 1 s on w."


def test_paused_run_names_the_resume_command_and_no_missing_worker() -> None:
    paused = replace(RUN, paused_at=ago(90))
    (said,) = diagnose(paused, [TURN], KEPT, {})
    assert said == (
        "The run has been paused for 1 min 30 s, and starts no further step: `agno-workers runs resume r` continues it."
    )
    assert len(diagnose(paused, [WORKED], lease(3), None)) == 2  # a running step finishes


@pytest.mark.parametrize(
    ("seconds", "keeper_s", "said"),
    [
        (90, 1, "The run ends at its deadline, in 1 min 30 s."),
        (-3, 1, "The deadline of the run passed 3 s ago: the keeper ends it."),
        (
            -30,
            -29,
            "The deadline of the run passed 30 s ago: no keeper is alive to end it, so start a worker.",
        ),
    ],
)
def test_deadline_is_reported(seconds: float, keeper_s: float, said: str) -> None:
    run = replace(RUN, deadline_at=NOW + timedelta(seconds=seconds))
    assert diagnose(run, [TURN], RunDiagnostics(NOW, keeper_until=ago(-keeper_s)), None)[-1] == said


def test_cost_limit_is_reported() -> None:
    around = RunDiagnostics(NOW, limits=Limits(cost_usd=2.0))
    said = diagnose(replace(RUN, cost_usd=0.25), [TURN], around, None)[-1]
    assert said == "The run has cost $0.25, and ends at $2.00."


def test_ended_run_waits_for_nothing() -> None:
    assert diagnose(replace(RUN, status=RunStatus.DONE), [TURN], KEPT, None) == []


def test_run_without_an_open_step_names_the_fork_command() -> None:
    (said,) = diagnose(RUN, [replace(TURN, status=StepStatus.DONE)], KEPT, None)
    assert "`agno-workers runs fork r --at STEP`" in said


def test_run_without_steps_names_the_run_with_its_key() -> None:
    (said,) = diagnose(RUN, [], KEPT, None)
    assert "idempotency key" in said


INGESTION = Run("r", "knowledge:docs", RunStatus.RUNNING, RunKind.INGESTION)
BATCH = Step("s", "r", "ingest:1", StepKind.INGEST, StepStatus.READY, "knowledge", sent_at=ago(3))


def test_waiting_steps_of_an_ingestion_are_counted() -> None:
    done = replace(BATCH, kind=StepKind.SCAN, key="scan", status=StepStatus.DONE)
    reading = replace(BATCH, status=StepStatus.RUNNING, started_at=ago(20), worker="w1", attempt=1)
    later = replace(
        BATCH, kind=StepKind.EMBED, key="embed:1", status=StepStatus.WAITING, waits_for=WaitsFor.WINDOW
    )
    said = diagnose(INGESTION, [done, reading, BATCH, BATCH, later, later], lease(5), serving("knowledge"))
    assert said == [
        "A batch of documents has been running for 20 s on w1; its lease ends in 5 s unless renewed.",
        "A batch of documents has waited 3 s in the queue 'knowledge' for a free worker. 1 more step waits with it.",
        "2 steps are not sent yet: an ingestion has only a few in the queue at a time.",
    ]


def test_ingestion_between_two_steps_is_not_stuck() -> None:
    (said,) = diagnose(INGESTION, [replace(BATCH, status=StepStatus.DONE)], KEPT, None)
    assert "within a second" in said
