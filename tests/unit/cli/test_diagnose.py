"""What the command line says of runs that are not over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from agno_workers.cli.diagnose import expiry, moves, diagnose
from agno_workers.core.agent import Limits
from agno_workers.core.messages import ToolCall
from agno_workers.core.run import Run, RunKind, RunStatus, Step, StepKind, StepStatus, WaitsFor
from agno_workers.core.tool import Policy
from agno_workers.runs.queries import Child, Lease, RunDiagnostics, Waiting

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


RUN = Run("r", "writer", RunStatus.RUNNING)
TURN = Step("s", "r", "turn:2", StepKind.TURN, StepStatus.READY, "agents", sent_at=ago(3))
WORKED = replace(TURN, status=StepStatus.RUNNING, started_at=ago(20), worker="w1", attempt=2)
ASKED = Step("t", "r", "tool:1:0", StepKind.TOOL, StepStatus.WAITING, "tools", "pay")
DELEGATED = replace(ASKED, kind=StepKind.DELEGATE, name="clerk", waits_for=WaitsFor.RUN, child_run_id="c")
WAITING = Waiting(
    "t", "r", 0, "tool:1:0", 2, 0, "writer", "pay", WaitsFor.CONFIRMATION, ToolCall("call", "pay"), Policy(), ago(60)
)  # fmt: skip
KEPT = RunDiagnostics(NOW, keeper_until=ago(-1))


def lease(seconds: float, *, last: bool = False, keeper_s: float = 1) -> RunDiagnostics:
    """A lease that ends so many seconds from now, and a keeper that leads until then."""
    return RunDiagnostics(NOW, leases={"s": Lease(ago(-seconds), last)}, keeper_until=ago(-keeper_s))


def asks(need: WaitsFor, **policy: object) -> RunDiagnostics:
    return RunDiagnostics(NOW, waiting=(replace(WAITING, waits_for=need, policy=Policy(**policy)),))  # type: ignore[arg-type]  # a table of cases


WHY = {
    "a free worker": (TURN, KEPT, {"agents"}, "Turn 2 waits in queue 'agents' since 3 s for a free worker."),
    "unknown who listens": (TURN, KEPT, None, "Turn 2 waits in queue 'agents' since 3 s for a free worker."),
    "no worker": (
        TURN,
        KEPT,
        {"tools"},
        "Turn 2 waits in queue 'agents' since 3 s, and no worker listens to it: start one with `-Q agents`.",
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
        "Turn 2 is due in 8 s after ModelUnavailable: 429.",
    ),
    "its work": (WORKED, KEPT, None, "Turn 2 is being worked on for 20 s by w1, attempt 2."),
    "its work, under a lease": (
        WORKED,
        lease(12),
        None,
        "Turn 2 is being worked on for 20 s by w1, attempt 2; if that worker falls silent, its lease ends in 12 s.",
    ),
    "the keeper, after a dead worker": (
        WORKED,
        lease(-3),
        None,
        "Turn 2 was with w1, attempt 2, whose lease ended 3 s ago: the keeper will send it again within seconds.",
    ),
    "the keeper, after the last attempt": (
        WORKED,
        lease(-3, last=True),
        None,
        "Turn 2 was with w1, attempt 2, whose lease ended 3 s ago: the keeper will give it up within seconds.",
    ),
    "a keeper, after the last worker has died": (
        WORKED,
        lease(-30, keeper_s=-28),
        None,
        (
            "Turn 2 was with w1, attempt 2, whose lease ended 30 s ago, and no keeper is alive to see to it: each worker brings one, "
            "so start a worker."
        ),
    ),
    "a delegated run": (
        DELEGATED,
        RunDiagnostics(NOW, children=(Child("c", "clerk", RunStatus.QUEUED),)),
        None,
        "clerk has a run of its own, which is queued: `agno-workers runs show c`.",
    ),
    "a confirmation": (
        ASKED,
        asks(WaitsFor.CONFIRMATION),
        None,
        "Tool pay waits for a person to approve or reject it, for 1 min 0 s now: `agno-workers runs approve t`, or `runs reject`.",
    ),
    "an answer": (
        ASKED,
        asks(WaitsFor.ANSWER, fields=("iban", "by_when")),
        None,
        (
            "Tool pay waits for a person to fill in iban, by_when, for 1 min 0 s now: "
            "`agno-workers runs answer t iban=… by_when=…`, or `runs reject`."
        ),
    ),
    "an execution": (
        ASKED,
        asks(WaitsFor.EXECUTION),
        None,
        (
            "Tool pay waits for somebody outside to make the call, for 1 min 0 s now: `agno-workers runs complete t RESULT`, "
            "or `runs reject`."
        ),
    ),
    "a resolution": (
        ASKED,
        asks(WaitsFor.RESOLUTION),
        None,
        (
            "Tool pay waits for a person to find out whether it took effect, for 1 min 0 s now: "
            "`agno-workers runs resolve t --happened | --again | --did-not-happen`."
        ),
    ),
}


@pytest.mark.parametrize("case", WHY)
def test_a_step_says_what_it_waits_for(case: str) -> None:
    step, around, listening, said = WHY[case]
    assert diagnose(RUN, [step], around, listening) == [said]


@pytest.mark.parametrize(
    ("need", "policy", "said"),
    [
        (WaitsFor.CONFIRMATION, Policy(), "in 5 s it is rejected"),
        (WaitsFor.CONFIRMATION, Policy(on_timeout="approve"), "in 5 s it is approved"),
        (WaitsFor.EXECUTION, Policy(on_timeout="fail"), "in 5 s the run fails"),
        (WaitsFor.RESOLUTION, Policy(), "in 5 s the model is told that nobody knows"),
    ],
)
def test_what_follows_when_nobody_comes_is_said(need: WaitsFor, policy: Policy, said: str) -> None:
    waiting = replace(WAITING, waits_for=need, policy=policy, expires_at=NOW + timedelta(seconds=5))
    assert expiry(waiting, NOW) == said
    assert expiry(replace(waiting, expires_at=None), NOW) == ""
    (sentence,) = diagnose(RUN, [ASKED], RunDiagnostics(NOW, waiting=(waiting,)), None)
    assert f"({said})" in sentence


def test_what_a_person_can_say_is_a_command_each() -> None:
    assert moves(WAITING) == ["agno-workers runs approve t", "agno-workers runs reject t"]


def test_tools_that_are_out_are_counted() -> None:
    done = replace(ASKED, id="a", status=StepStatus.DONE)
    held = replace(
        ASKED, id="b", key="tool:1:1", name="hold", status=StepStatus.RUNNING, started_at=ago(1), worker="w"
    )
    first, second = diagnose(RUN, [done, held], KEPT, None)
    assert first == "1 of 2 tool calls are out; the last one in wakes the next turn."
    assert second == "Tool hold is being worked on for 1 s by w."


def test_a_paused_run_says_how_it_goes_on_and_not_that_a_worker_is_missing() -> None:
    paused = replace(RUN, paused_at=ago(90))
    (said,) = diagnose(paused, [TURN], KEPT, set())
    assert (
        said == "Paused for 1 min 30 s: no further step begins. `agno-workers runs resume r` lets it go on."
    )
    assert len(diagnose(paused, [WORKED], lease(3), None)) == 2  # what is under way ends


@pytest.mark.parametrize(
    ("seconds", "keeper_s", "said"),
    [
        (90, 1, "Its deadline comes in 1 min 30 s: then it ends with what it has."),
        (-3, 1, "Its deadline came 3 s ago: the keeper ends it."),
        (-30, -29, "Its deadline came 30 s ago: no keeper is alive to end it: start a worker."),
    ],
)
def test_a_deadline_is_told(seconds: float, keeper_s: float, said: str) -> None:
    run = replace(RUN, deadline_at=NOW + timedelta(seconds=seconds))
    assert diagnose(run, [TURN], RunDiagnostics(NOW, keeper_until=ago(-keeper_s)), None)[-1] == said


def test_a_budget_is_told() -> None:
    around = RunDiagnostics(NOW, limits=Limits(cost_usd=2.0))
    said = diagnose(replace(RUN, cost_usd=0.25), [TURN], around, None)[-1]
    assert said == "It has spent $0.25 of $2.00, and ends when that is spent."


def test_a_run_that_is_over_waits_for_nothing() -> None:
    assert diagnose(replace(RUN, status=RunStatus.DONE), [TURN], KEPT, None) == []


def test_a_run_that_nothing_moves_says_how_to_go_on() -> None:
    (said,) = diagnose(RUN, [replace(TURN, status=StepStatus.DONE)], KEPT, None)
    assert "`agno-workers runs fork r --at STEP`" in said


def test_a_run_without_steps_ends_as_another_one_does() -> None:
    (said,) = diagnose(RUN, [], KEPT, None)
    assert "idempotency key" in said


INGESTION = Run("r", "knowledge:docs", RunStatus.RUNNING, RunKind.INGESTION)
BATCH = Step("s", "r", "ingest:1", StepKind.INGEST, StepStatus.READY, "knowledge", sent_at=ago(3))


def test_of_an_ingestion_the_steps_that_wait_are_counted() -> None:
    done = replace(BATCH, kind=StepKind.SCAN, key="scan", status=StepStatus.DONE)
    reading = replace(BATCH, status=StepStatus.RUNNING, started_at=ago(20), worker="w1", attempt=1)
    later = replace(
        BATCH, kind=StepKind.EMBED, key="embed:1", status=StepStatus.WAITING, waits_for=WaitsFor.WINDOW
    )
    said = diagnose(INGESTION, [done, reading, BATCH, BATCH, later, later], lease(5), {"knowledge"})
    assert said == [
        "A batch of documents is being worked on for 20 s by w1; if that worker falls silent, its lease ends in 5 s.",
        "A batch of documents waits in queue 'knowledge' since 3 s for a free worker. So do 1 more steps.",
        "2 step(s) wait for their turn: only so many of one ingestion are sent at a time.",
    ]


def test_an_ingestion_between_two_steps_is_not_stuck() -> None:
    (said,) = diagnose(INGESTION, [replace(BATCH, status=StepStatus.DONE)], KEPT, None)
    assert "within a second" in said
