"""What the command line says of times and of runs that are not over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from agno_workers.cli.connection import without_password
from agno_workers.cli.screen import age, length, one_line, table
from agno_workers.cli.why import why_waiting
from agno_workers.core.run import Run, RunStatus, Step, StepKind, StepStatus

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
RUN = Run("r", "writer", RunStatus.RUNNING)
TURN = Step("s", "r", "turn:2", StepKind.TURN, StepStatus.READY, "agents", sent_at=NOW - timedelta(seconds=3))


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.00423, "4.2 ms"),
        (0.0423, "42 ms"),
        (1.25, "1.2 s"),
        (3, "3 s"),
        (59.99, "1 min 0 s"),
        (125, "2 min 5 s"),
        (3 * 3600 + 600, "3 h 10 min"),
        (80 * 3600, "3 d"),
        (-1, "0 s"),
    ],
)
def test_a_length_of_time_is_said_as_people_say_it(seconds: float, said: str) -> None:
    assert length(timedelta(seconds=seconds)) == said


def test_an_age_has_one_unit() -> None:
    assert age(ago(125), NOW) == "2 min"
    assert age(None, NOW) == ""


def test_a_text_is_cut_to_one_line() -> None:
    assert one_line("a\n  b", 10) == "a b"
    assert one_line("abcdef", 4) == "abc…"


def test_only_the_last_column_of_a_table_gives_way() -> None:
    built = table(20, ("id", "text"), [("0123456789", "long " * 10)])
    assert [column.width for column in built.columns] == [10, 8]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("redis://:secret@host/0", "redis://:***@host/0"),
        ("redis://host/0", "redis://host/0"),
        ("postgresql://agno@/agno?host=/tmp/s", "postgresql://agno@/agno?host=/tmp/s"),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


WHY = {
    "a free worker": (TURN, {"agents"}, "Turn 2 waits in queue 'agents' since 3 s for a free worker."),
    "unknown who listens": (TURN, None, "Turn 2 waits in queue 'agents' since 3 s for a free worker."),
    "no worker": (
        TURN,
        {"tools"},
        "Turn 2 waits in queue 'agents' since 3 s, and no worker listens to it: start one with `-Q agents`.",
    ),
    "its time": (replace(TURN, not_before=NOW + timedelta(seconds=60)), None, "Turn 2 is due in 1 min 0 s."),
    "another try": (
        replace(
            TURN, not_before=NOW + timedelta(seconds=8), error={"type": "ModelUnavailable", "message": "429"}
        ),
        None,
        "Turn 2 is due in 8 s after ModelUnavailable: 429.",
    ),
    "its work": (
        replace(TURN, status=StepStatus.RUNNING, started_at=ago(2), worker="w1", attempt=2),
        None,
        "Turn 2 is being worked on for 2 s by w1, attempt 2.",
    ),
}


@pytest.mark.parametrize("case", WHY)
def test_a_step_says_what_it_waits_for(case: str) -> None:
    step, listening, said = WHY[case]
    assert why_waiting(RUN, [step], NOW, listening) == [said]


def test_tools_that_are_out_are_counted() -> None:
    tools = [
        Step("a", "r", "tool:1:0", StepKind.TOOL, StepStatus.DONE, "tools", "add"),
        Step(
            "b",
            "r",
            "tool:1:1",
            StepKind.TOOL,
            StepStatus.RUNNING,
            "tools",
            "hold",
            started_at=ago(1),
            worker="w",
        ),
    ]
    first, second = why_waiting(RUN, tools, NOW, None)
    assert first == "1 of 2 tool calls are out; the last one in wakes the next turn."
    assert second == "Tool hold is being worked on for 1 s by w."


def test_a_run_that_is_over_waits_for_nothing() -> None:
    assert why_waiting(replace(RUN, status=RunStatus.DONE), [TURN], NOW, None) == []


def test_a_run_without_an_open_step_is_the_keepers() -> None:
    assert "keeper" in why_waiting(RUN, [], NOW, None)[0]
