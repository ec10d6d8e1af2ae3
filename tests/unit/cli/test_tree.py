"""The tree of a run and of those below it, as lines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from msgspec.structs import replace

from agno_workers.cli.tree import _rows, _spent, is_tree
from agno_workers.core.messages import Usage
from agno_workers.core.run import Run, RunKind, RunStatus, Step, StepKind, StepStatus, WaitsFor
from agno_workers.runs.tree import RunTree

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def run(id: str, agent: str, kind: RunKind = RunKind.AGENT) -> Run:
    usage = Usage(10, 5) if kind is RunKind.AGENT else Usage()
    return Run(
        id=id, agent=agent, status=RunStatus.DONE, kind=kind, usage=usage, cost_usd=0.5, created_at=NOW
    )


def step(key: str, kind: StepKind, name: str = "", child_run_id: str | None = None) -> Step:
    return Step(
        id=key, run_id="r", key=key, kind=kind, status=StepStatus.DONE, queue="q", name=name, child_run_id=child_run_id,
        created_at=NOW, ended_at=NOW + timedelta(seconds=1),
    )  # fmt: skip


def test_workflow_shows_steps_with_their_runs_and_no_turns_of_its_own() -> None:
    child = RunTree(
        run("c", "judge"), (step("turn:1", StepKind.TURN), step("tool:1:0", StepKind.TOOL, "search"))
    )
    again = RunTree(run("d", "judge"), (step("turn:1", StepKind.TURN),))
    steps = (
        step("turn:1", StepKind.TURN), step("risk", StepKind.DELEGATE, "judge", child_run_id="c"),
        step("judge:2", StepKind.DELEGATE, "judge", child_run_id="d"),
        step("count", StepKind.TOOL, "app.work:count_words"),
        replace(step("paid", StepKind.WAIT, "paid"), status=StepStatus.WAITING, waits_for=WaitsFor.SIGNAL),
    )  # fmt: skip
    tree = RunTree(run("r", "onboard", RunKind.WORKFLOW), steps, (child, again))
    rows = list(_rows(tree))
    assert [row.label for row in rows] == [
        "onboard", "├ risk: judge", "│ ├ turn 1", "│ └ search", "├ judge:2", "│ └ turn 1", "├ count: count_words", "└ paid",
    ]  # fmt: skip
    assert rows[-1].status == "waiting (signal)"
    assert _spent(rows[0]) == ("30", "$1.50")


def test_run_without_others_below_is_no_tree() -> None:
    assert not is_tree(RunTree(run("r", "judge"), (step("turn:1", StepKind.TURN),)))
