"""Live text comes after the start of its step, and before its end."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from agno_workers.runs.queries import Event
from agno_workers.sdk.events import in_order
from agno_workers.streams import Streamed

NOW = datetime(2026, 11, 30, tzinfo=UTC)


def ordered(pieces: str, events: str) -> str:
    """Return the order of pieces (`step.attempt:text`) and events (`Name:subject.attempt`)."""
    live, happened = [], []
    for number, each in enumerate(pieces.split()):
        step, _, text = each.partition(":")
        name, _, attempt = step.partition(".")
        live.append(Streamed(str(number), name, int(attempt or 1), text))
    for number, each in enumerate(events.split(), 1):
        event, _, subject = each.partition(":")
        name, _, attempt = subject.partition(".")
        happened.append(Event(number, event, name, NOW, attempt=int(attempt or 1)))
    found = in_order(live, happened)
    return " ".join(
        each.text if isinstance(each, Streamed) else f"{each.event}:{each.subject}" for each in found
    )


@pytest.mark.parametrize(
    ("pieces", "events", "order"),
    [
        ("t:x t:y", "", "x y"),
        ("t:x t:y", "RunStarted:r ModelCallStarted:t", "RunStarted:r ModelCallStarted:t x y"),
        ("t:x", "ModelCallStarted:t ModelCallCompleted:t RunCompleted:r", "ModelCallStarted:t x ModelCallCompleted:t RunCompleted:r"),
        ("t:x", "ModelCallStarted:t ModelCallCompleted:t ToolCallStarted:a", "ModelCallStarted:t x ModelCallCompleted:t ToolCallStarted:a"),
        (
            "t:x a:l b:m a:n u:y",
            "ModelCallStarted:t ModelCallCompleted:t ToolCallStarted:a ToolCallStarted:b ToolCallError:a ToolCallCompleted:b ModelCallStarted:u",
            "ModelCallStarted:t x ModelCallCompleted:t ToolCallStarted:a ToolCallStarted:b l n ToolCallError:a m ToolCallCompleted:b ModelCallStarted:u y",
        ),
        ("t.1:x t.2:y", "ModelCallStarted:t.1 ModelCallStarted:t.2", "ModelCallStarted:t x ModelCallStarted:t y"),
        ("t.1:x t.2:y", "ModelCallStarted:t.2 ModelCallCompleted:t.2", "x ModelCallStarted:t y ModelCallCompleted:t"),
        ("t.0:x", "ModelCallStarted:t.1", "ModelCallStarted:t x"),
        ("t:x", "RunCancelled:r", "x RunCancelled:r"),
    ],
)  # fmt: skip
def test_live_text_comes_between_the_start_and_the_end_of_its_step(
    pieces: str, events: str, order: str
) -> None:
    assert ordered(pieces, events) == order
