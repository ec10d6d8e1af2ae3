"""The documents, the timeline and the check of the demo."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from agno_workers.cli.bars import Bar, bars, cells, overlap
from agno_workers.core.messages import Message, Text, ToolResult, user
from agno_workers.core.run import Run, RunStatus, Step, StepKind, StepStatus
from agno_workers.errors import InvalidInput
from agno_workers.local.demo.documents import Document, pick
from agno_workers.local.demo.pipeline import Recorded, problems

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


# Documents.


def test_the_texts_of_a_folder_are_copied_and_cut(tmp_path: Path) -> None:
    notes, room = tmp_path / "notes", tmp_path / "room"
    (notes / "deep").mkdir(parents=True)
    (notes / "a.md").write_text("0123456789")
    (notes / "deep" / "b.txt").write_text("short")
    (notes / ".hidden.md").write_text("hidden")
    (notes / "image.png").write_bytes(b"\x89PNG")
    (notes / "latin.txt").write_bytes("café".encode("latin-1"))
    (notes / "empty.md").write_text(" \n")
    picked = pick(notes, room, most=5, max_chars=6)
    assert picked.documents == [Document("a.md", "012345", 4), Document("deep/b.txt", "short", 0)]
    assert picked.left_out == 2  # no UTF-8; nothing in it
    assert (room / "a.md").read_text() == "0123456789"
    assert (room / "deep" / "b.txt").exists()


def test_documents_past_the_limit_are_counted(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.md").write_text(name)
    picked = pick(tmp_path, tmp_path / "room", most=2, max_chars=10)
    assert [doc.name for doc in picked.documents] == ["a.md", "b.md"]
    assert picked.left_out == 1


def test_a_file_is_read_without_the_others_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("any suffix will do for a file that is named")
    (tmp_path / "b.md").write_text("beside it")
    picked = pick(tmp_path / "a.py", tmp_path / "room", most=5, max_chars=100)
    assert [doc.name for doc in picked.documents] == ["a.py"]
    assert [path.name for path in (tmp_path / "room").iterdir()] == ["a.py"]


def test_without_a_path_there_are_documents_to_read(tmp_path: Path) -> None:
    assert pick(None, tmp_path, most=3, max_chars=100).documents


@pytest.mark.parametrize(
    ("name", "said"), [("missing", "does not exist"), ("empty", "contains no text to read")]
)
def test_nothing_to_read_is_an_error_with_the_next_move(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput, match=said):
        pick(tmp_path / name, tmp_path / "room", most=3, max_chars=100)


# The timeline.


def bar(created: float, started: float, ended: float) -> Bar:
    return Bar("", StepKind.TOOL, created, started, ended)


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (bar(0, 5, 10), (0, 5, 5)),
        (bar(2, 2, 4), (2, 0, 2)),
        (bar(9.99, 9.995, 10), (9, 0, 1)),
        (bar(0, 0.01, 0.02), (0, 0, 1)),
    ],
)
def test_a_bar_fills_the_cells_of_its_time(drawn: Bar, expected: tuple[int, int, int]) -> None:
    assert cells(drawn, span_s=10, width=10) == expected


def test_a_bar_never_exceeds_its_line() -> None:
    for begin in range(100):
        assert sum(cells(bar(begin / 10, begin / 10, 10), span_s=10, width=7)) <= 7


def test_steps_that_overlap_are_counted() -> None:
    group = overlap([bar(0, 0, 2), bar(0, 1, 3), bar(0, 3, 4)])
    assert (group.steps, group.wall_s, group.sum_s, group.most) == (3, 4, 5, 2)


def test_bars_are_named_by_document_agent_or_tool() -> None:
    run = Run("r", "analyst", RunStatus.DONE, metadata={"document": "a.md"})
    other = Run("o", "researcher", RunStatus.DONE, tool_calls=1)
    turn = Step(
        "1",
        "r",
        "turn:1",
        StepKind.TURN,
        StepStatus.DONE,
        "q",
        created_at=at(0),
        started_at=at(1),
        ended_at=at(3),
    )
    call = replace(turn, key="tool:1:0", kind=StepKind.TOOL, name="links")
    drawn = bars([(run, [turn]), (other, [turn, call])])
    assert [each.label for each in drawn] == ["a.md", "researcher, turn 1", "  links"]
    assert (drawn[0].waited_s, drawn[0].ran_s) == (1, 2)


def test_without_ended_steps_there_are_no_bars() -> None:
    assert bars([]) == []


# The check.

DOCUMENTS = [Document("a.md", "text", 0)]


def recorded(agent: str, tools: int = 0) -> Recorded:
    turns = 2 if tools else 1
    steps = [Step(f"{n}", "r", f"turn:{n}", StepKind.TURN, StepStatus.DONE, "q") for n in range(turns)]
    steps += [
        Step(f"t{n}", "r", f"tool:{n}", StepKind.TOOL, StepStatus.DONE, "q", "links") for n in range(tools)
    ]
    said = Message("assistant", (Text("words"),))
    metadata = {"document": "a.md"} if agent == "analyst" else {}
    return Recorded(
        Run("r", agent, RunStatus.DONE, metadata=metadata), steps, [user("text"), *[said] * len(steps)]
    )


ALL = [recorded("analyst"), recorded("editor"), recorded("researcher", tools=8)]


def test_a_correct_demo_has_no_problems() -> None:
    assert problems(ALL, DOCUMENTS) == []


FAULTS = {
    "a body that ran twice": ([*ALL, recorded("editor")], "editor ran 2 times instead of once"),
    "a document read twice": ([*ALL, recorded("analyst")], "each document needs one analyst's run"),
    "a missing tool": ([*ALL[:2], recorded("researcher", tools=7)], "the researcher called 7 tools instead of 8"),
    "a run that failed": (
        [Recorded(replace(ALL[0].run, status=RunStatus.FAILED), ALL[0].steps, ALL[0].transcript), *ALL[1:]],
        "analyst r is failed",
    ),
    "a result recorded twice": (
        [Recorded(ALL[0].run, ALL[0].steps, [*ALL[0].transcript, user("again")]), *ALL[1:]],
        "1 steps left 2 messages",
    ),
    "a step that is not done": (
        [Recorded(ALL[0].run, [replace(ALL[0].steps[0], status=StepStatus.DEAD)], ALL[0].transcript), *ALL[1:]],
        "not done: turn:0",
    ),
    "a tool that failed": (
        [*ALL[:2], Recorded(ALL[2].run, ALL[2].steps, [*ALL[2].transcript[:-1], Message("tool", (ToolResult("c", "links", "no", True),))])],
        "tool links: no",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_the_demo_reports(fault: str) -> None:
    rows, said = FAULTS[fault]
    assert any(said in problem for problem in problems(rows, DOCUMENTS))
