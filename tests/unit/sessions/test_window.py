"""Requests near the window of a model: what a process learns of it, and what it does about it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from agno_workers.core.agent import Agent, Compaction
from agno_workers.core.messages import (
    Message,
    ModelRequest,
    ModelSettings,
    Reply,
    Text,
    ToolCall,
    ToolResult,
    Usage,
    user,
)
from agno_workers.core.run import StepKind
from agno_workers.core.step import ClaimedStep, Compacted, Steered
from agno_workers.engine.plan import AgentPlan
from agno_workers.engine.turn import Ask, CompactFirst, Turn
from agno_workers.errors import ModelRejected
from agno_workers.sessions.compaction import cut
from agno_workers.sessions.window import ContextWindows


def turn_of(groups: int, compactions: int = 0, **options: Any) -> Turn:
    """Return a turn after so many tool calls, of about 100 tokens each."""
    made = [
        part
        for number in range(groups)
        for part in (
            Message("assistant", (ToolCall(f"{number}", "look"),)),
            Message("tool", (ToolResult(f"{number}", "look", "x" * 360),)),
        )
    ]
    claim = ClaimedStep(
        "s", "r", 0, StepKind.TURN, "turn:1", len(made) + 1, 1, 0, "a", datetime.now(UTC), transcript=(user("the task"), *made),
        call={"compactions": compactions} if compactions else None,
    )  # fmt: skip
    return Turn(claim, AgentPlan.of(Agent(name="a", model="local:m", **options)))


def answer(input_tokens: int = 0) -> Reply:
    return Reply(Message("assistant", (Text("ok"),)), usage=Usage(input_tokens, 1))


def refusing(words: str = "") -> Ask:
    def ask(_: ModelRequest) -> Reply:
        raise ModelRejected(f"too long: {words}", provider="local", model="m", code="context_window")

    return ask


def test_request_that_the_provider_counts_as_longer_is_compacted_earlier() -> None:
    windows = ContextWindows()
    options: dict[str, Any] = {"compaction": Compaction(window_tokens=4_000)}
    windows.ask(turn_of(20, **options), lambda _: answer(2_000))
    windows.ask(turn_of(20, **options), lambda _: answer(6_000))  # three times what is estimated
    with pytest.raises(CompactFirst) as caught:
        windows.ask(turn_of(20, **options), lambda _: answer())
    assert 1_200 < caught.value.order.window < 1_500


def test_answer_has_room_in_the_window() -> None:
    settings = ModelSettings(max_output_tokens=2_500)
    options: dict[str, Any] = {"compaction": Compaction(window_tokens=4_000)}
    assert ContextWindows().ask(turn_of(20, **options), lambda _: answer())[1].message.text == "ok"
    with pytest.raises(CompactFirst):
        ContextWindows().ask(turn_of(20, settings=settings, **options), lambda _: answer())


def test_each_compaction_before_a_turn_keeps_less_and_the_last_one_nothing() -> None:
    kept = []
    for compactions in range(3):
        with pytest.raises(CompactFirst) as caught:
            ContextWindows().ask(turn_of(30, compactions), refusing())
        kept.append(caught.value.order.keep)
    assert kept[0] > kept[1] > kept[2] == 0
    with pytest.raises(ModelRejected, match="It has been compacted 3 times before this turn"):
        ContextWindows().ask(turn_of(30, 3), refusing())


def test_messages_that_join_a_refused_request_stay_and_others_are_compacted() -> None:
    """The transcript that is compacted does not have them yet."""
    turn = turn_of(3)
    claim = msgspec.structs.replace(turn.claim, steers=(Steered("1", user("x" * 8_000)),))
    with pytest.raises(CompactFirst) as caught:
        ContextWindows().ask(replace(turn, claim=claim), refusing())
    assert cut(turn.claim.messages, 1, caught.value.order.keep) > 1


def test_newest_group_of_a_refused_request_is_compacted_if_nothing_else_is_left() -> None:
    turn = turn_of(1)
    task, *group = turn.claim.messages
    claim = msgspec.structs.replace(
        turn.claim, transcript=(task, user("a long summary " * 160), *group), compacted=Compacted(9)
    )
    with pytest.raises(CompactFirst) as caught:
        ContextWindows().ask(replace(turn, claim=claim), refusing())
    assert caught.value.order.keep == 0


def test_refusal_of_a_short_request_does_not_shorten_later_ones() -> None:
    """The answer that is asked for is longer than the window, not the request."""
    windows = ContextWindows()
    with pytest.raises(ModelRejected):
        windows.ask(turn_of(0), refusing("maximum context length is 8192 tokens"))
    asked: list[ModelRequest] = []

    def ask(request: ModelRequest) -> Reply:
        asked.append(request)
        return answer()

    windows.ask(turn_of(10), ask)
    assert len(asked[0].messages) == 21


def test_learned_window_is_forgotten_after_ten_minutes() -> None:
    """Or one strange refusal would shorten all requests to its model until the process ends."""
    now = [0.0]
    windows = ContextWindows(lambda: now[0])
    with pytest.raises(ModelRejected):
        windows.ask(turn_of(0), refusing())
    with pytest.raises(CompactFirst):
        windows.ask(turn_of(10), lambda _: answer())
    now[0] = 601.0
    assert windows.ask(turn_of(10), lambda _: answer())[1].message.text == "ok"
