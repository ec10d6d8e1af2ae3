"""What follows a reply: a row for each case."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import pytest

from agno_workers.core.agent import Limits
from agno_workers.core.decide import AskAgain, FanOut, Move, SoFar, decide, not_called
from agno_workers.core.messages import Message, Reply, StopReason, Text, ToolCall, ToolResult, Usage
from agno_workers.core.moves import End, Fail

CALL = ToolCall("call_1", "search", '{"query": "x"}')
OTHER = ToolCall("call_2", "search", "{}")
EARLY = SoFar(turns=1, tool_calls=1, usage=Usage())
LIMITS = Limits(turns=10, tool_calls=10, tokens=1000)


def reply(stop: StopReason, *calls: ToolCall, text: str = "so far") -> Reply:
    return Reply(Message("assistant", (Text(text), *calls)), stop)


@pytest.mark.parametrize(
    ("stop", "move"),
    [
        (StopReason.END, End("content", "end")),
        (StopReason.TOOL_CALLS, End("content", "end")),  # it says so, but calls nothing
        (StopReason.LENGTH, End("content", "length")),
        (StopReason.REFUSAL, End("so far", "refusal")),
        (StopReason.PAUSED, AskAgain()),
    ],
)
def test_a_reply_without_calls_ends_the_run_or_goes_on_by_its_stop_reason(
    stop: StopReason, move: Move
) -> None:
    assert decide(reply(stop), EARLY, LIMITS, content="content") == move


@pytest.mark.parametrize("calls", [(), (CALL,)], ids=["no calls", "calls"])
def test_a_full_context_window_fails_the_run_and_says_what_to_do(calls: tuple[ToolCall, ...]) -> None:
    move = decide(reply(StopReason.CONTEXT_WINDOW, *calls), EARLY, LIMITS, content="content")
    assert isinstance(move, Fail)
    assert move.reason == "context_window"
    assert "shorten" in move.message


@pytest.mark.parametrize("stop", [StopReason.TOOL_CALLS, StopReason.END, StopReason.PAUSED])
def test_calls_of_a_whole_reply_are_made_whatever_word_it_ends_with(stop: StopReason) -> None:
    assert decide(reply(stop, CALL, OTHER), EARLY, LIMITS) == FanOut((CALL, OTHER))


@pytest.mark.parametrize(("stop", "reason"), [(StopReason.LENGTH, "length"), (StopReason.REFUSAL, "refusal")])
def test_calls_of_a_reply_that_was_cut_off_or_refused_are_not_made(stop: StopReason, reason: str) -> None:
    assert decide(reply(stop, CALL), EARLY, LIMITS, content="content") == End("so far", reason)


@pytest.mark.parametrize("stop", list(StopReason))
def test_no_move_but_a_fan_out_or_an_end_follows_a_reply_with_calls(stop: StopReason) -> None:
    """Another turn right away would show the model calls without results, which no provider takes."""
    for misfit in (None, "no JSON"):
        for grace in (0, 2):
            assert not isinstance(decide(reply(stop, CALL), EARLY, LIMITS, misfit, grace), AskAgain)


@pytest.mark.parametrize("reason", ["limit:turns", "length"])
def test_each_call_that_is_not_made_gets_a_result_that_says_so(reason: str) -> None:
    first, second = not_called(reply(StopReason.END, CALL, OTHER), reason)
    text = f"search was not called: the run ended ({reason})."
    assert first == Message("tool", (ToolResult("call_1", "search", text, True),))
    assert second == Message("tool", (ToolResult("call_2", "search", text, True),))
    assert not_called(reply(StopReason.END), reason) == ()


@pytest.mark.parametrize(
    ("so_far", "limits", "reason"),
    [
        (SoFar(3, 1, Usage()), Limits(turns=3), "limit:turns"),
        (SoFar(4, 1, Usage()), Limits(turns=3), "limit:turns"),
        (SoFar(1, 1, Usage()), Limits(turns=1), "limit:turns"),
        (SoFar(2, 1, Usage()), Limits(turns=3), None),
        (SoFar(1, 4, Usage()), Limits(tool_calls=3), "limit:tool_calls"),
        (SoFar(1, 3, Usage()), Limits(tool_calls=3), None),
        (SoFar(1, 1, Usage()), Limits(tool_calls=0), "limit:tool_calls"),
        (SoFar(1, 1, Usage(600, 400)), Limits(tokens=1000), "limit:tokens"),
        (SoFar(1, 1, Usage(600, 399)), Limits(tokens=1000), None),
        (SoFar(1, 1, Usage(10**9, 10**9)), Limits(tokens=None), None),
        (SoFar(1, 1, Usage(600, 399, cached_tokens=600, reasoning_tokens=399)), Limits(tokens=1000), None),
        (SoFar(3, 9, Usage(600, 400)), Limits(turns=3, tool_calls=1, tokens=1), "limit:turns"),
    ],
)
@pytest.mark.parametrize(
    ("stop", "calls", "misfit", "goes_on"),
    [
        (StopReason.TOOL_CALLS, (CALL,), None, FanOut((CALL,))),
        (StopReason.END, (CALL,), None, FanOut((CALL,))),
        (StopReason.PAUSED, (), None, AskAgain()),
        (StopReason.END, (), "no JSON", AskAgain),
    ],
    ids=["calls", "calls with stop=end", "paused", "misfit"],
)
@pytest.mark.parametrize("on_limit", ["fail", "return"])
def test_limit_ends_the_run_where_another_turn_would_follow(
    so_far: SoFar, limits: Limits, reason: str | None, on_limit: Literal["fail", "return"],
    stop: StopReason, calls: tuple[ToolCall, ...], misfit: str | None, goes_on: Any,
) -> None:  # fmt: skip
    limits = msgspec.structs.replace(limits, on_limit=on_limit)
    move = decide(reply(stop, *calls), so_far, limits, misfit, grace=1)
    if reason is not None and on_limit == "return":
        assert move == End("so far", reason)
    elif reason is not None:
        assert isinstance(move, Fail)
        assert (move.reason, move.type, move.content) == (reason, "LimitReached", "so far")
        assert reason.partition(":")[2] in move.message
    elif isinstance(goes_on, type):
        assert isinstance(move, goes_on)
    else:
        assert move == goes_on


def test_a_limit_does_not_take_away_an_answer_that_is_there() -> None:
    used_up = SoFar(turns=99, tool_calls=99, usage=Usage(10**6, 10**6))
    assert decide(reply(StopReason.END), used_up, LIMITS, content="content") == End("content", "end")
    assert decide(reply(StopReason.LENGTH), used_up, LIMITS, content="content") == End("content", "length")


@pytest.mark.parametrize("stop", [StopReason.END, StopReason.LENGTH, StopReason.TOOL_CALLS])
def test_an_answer_that_does_not_fit_is_asked_for_again_with_the_reason_while_there_is_grace(
    stop: StopReason,
) -> None:
    move = decide(reply(stop), EARLY, LIMITS, misfit="age: not a number", grace=1)
    assert isinstance(move, AskAgain)
    assert move.note is not None
    assert move.note.role == "user"
    assert "age: not a number" in move.note.text


@pytest.mark.parametrize("grace", [0, -1])
def test_an_answer_that_does_not_fit_fails_the_run_without_grace(grace: int) -> None:
    move = decide(reply(StopReason.END), EARLY, LIMITS, misfit="age: not a number", grace=grace)
    assert move == Fail("the answer does not fit output_schema: age: not a number", "output_schema")


@pytest.mark.parametrize(
    ("stop", "move"), [(StopReason.REFUSAL, End("so far", "refusal")), (StopReason.PAUSED, AskAgain())]
)
def test_a_refusal_or_a_pause_is_not_held_against_the_schema(stop: StopReason, move: Move) -> None:
    assert decide(reply(stop), EARLY, LIMITS, misfit="no JSON", grace=0) == move


@pytest.mark.parametrize("content", ["", None, {"a": 1}, 0])
def test_an_answer_is_whatever_it_reads_as(content: Any) -> None:
    assert decide(reply(StopReason.END, text=""), EARLY, LIMITS, content=content) == End(content, "end")
