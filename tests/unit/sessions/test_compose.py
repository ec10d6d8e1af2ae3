"""The history of a run out of earlier ones: whole groups, one budget, the newest first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agno_workers.core.agent import History
from agno_workers.core.messages import AnyPart, Image, Message, Reasoning, Text, ToolCall, ToolResult, user
from agno_workers.core.tokens import estimate_message
from agno_workers.sessions.compose import Exchange, PastRun, compose

BEGAN = datetime(2026, 11, 27, 9, tzinfo=UTC)
_ids = count()


def said(*parts: str | AnyPart) -> Message:
    return Message("assistant", tuple(Text(part) if isinstance(part, str) else part for part in parts))


def result(id: str, text: str, name: str = "look") -> Message:
    return Message("tool", (ToolResult(id, name, text),))


def past(*messages: Message, **fields: Any) -> PastRun:
    number = next(_ids)
    return PastRun(f"r{number}", BEGAN + timedelta(minutes=number), messages, **fields)


def talk(*texts: str) -> list[PastRun]:
    return [past(user(text), said(text.upper())) for text in texts]


def looking(text: str, found: str, *, id: str = "c") -> PastRun:
    return past(user(text), said("Let me look.", ToolCall(id, "look")), result(id, found), said("found"))


def words(messages: tuple[Message, ...]) -> list[str]:
    return [
        message.text or str([getattr(part, "content", part) for part in message.parts])
        for message in messages
    ]


def results(messages: tuple[Message, ...]) -> list[str]:
    return [part.content for message in messages for part in message.parts if isinstance(part, ToolResult)]


def size(messages: tuple[Message, ...]) -> int:
    return sum(map(estimate_message, messages))


LEFT_OUT = "(Earlier messages of this conversation are left out.)"
SUMMARY = "They spoke about ships."
SHIPS = Exchange("old", "r", "Which ship?", "The Argo.", BEGAN - timedelta(days=3), 0.9)
PORTS = Exchange("older", "r", "Which port?", "Iolcos.", BEGAN - timedelta(days=9), 0.7)


def test_runs_come_oldest_first_and_marked() -> None:
    history = compose(talk("a", "b", "c"), History())
    assert words(history) == ["a", "A", "b", "B", "c", "C"]
    assert all(message.from_history for message in history)


def test_last_runs_are_word_for_word_and_older_ones_compressed() -> None:
    thought = Reasoning("hm", "openai", {"id": "r1"})
    runs = [
        past(user("q"), said(thought, "a")),
        past(user("blank"), said(" ")),
        past(user("q"), said(thought, "a")),
    ]
    assert [message.parts for message in compose(runs, History(runs=1))] == [
        user("q").parts, said("a").parts, user("q").parts, said(thought, "a").parts,
    ]  # fmt: skip


def test_older_runs_can_be_left_out() -> None:
    assert words(compose(talk("a", "b"), History(runs=1, older=False))) == ["b", "B"]
    assert words(compose(talk("a", "b"), History(runs=1, older=False), SUMMARY))[0].endswith(SUMMARY)


def test_repeated_results_of_older_runs_are_there_once() -> None:
    page = "It is a long page about ships. " * 9
    runs = [looking(text, page, id=text) for text in ("a", "b")] + talk("c")
    assert results(compose(runs, History(runs=1))) == ["(the same result as a later call of look)", page]
    assert results(compose(runs, History(runs=3))) == [page, page]


def test_only_the_newest_results_keep_their_text() -> None:
    runs = [looking(text, f"{text} " * 100, id=text) for text in "abc"]
    noted = "(look returned, 200 characters; left out of the history)"
    assert results(compose(runs, History(tool_results=1))) == [noted, noted, "c " * 100]
    assert results(compose(runs, History(tool_results=0))) == [noted] * 3
    assert results(compose([looking("a", "short")], History(tool_results=0))) == ["short"]


@pytest.mark.parametrize(
    ("roles", "seen"),
    [
        (("user",), ["q"]),
        (("assistant",), [LEFT_OUT, "Let me look.", "found"]),
        (("user", "assistant"), ["q", "Let me look.", "found"]),
        ((), []),
    ],
)
def test_messages_are_kept_by_their_roles(roles: Any, seen: list[str]) -> None:
    assert words(compose([looking("q", "page")], History(roles=roles))) == seen


def test_calls_alone_keep_their_results() -> None:
    history = compose([looking("q", "page")], History(roles=("tool",)))
    assert [message.role for message in history] == ["user", "assistant", "tool"]
    assert history[1].parts == (ToolCall("c", "look"),)


def test_call_without_a_result_gets_one_and_a_result_without_a_call_goes() -> None:
    calls = said(ToolCall("a", "look"), ToolCall("b", "look"))
    run = past(
        user("q"), calls, result("b", "page"), result("x", "lost"), status="cancelled", reason="interrupted"
    )
    history = compose([run], History())
    assert results(history) == ["look has no result: its run ended before.", "page"]
    assert history[-1].text == "(This answer was interrupted.)"


def test_failed_runs_are_marked() -> None:
    run = past(user("q"), status="failed", error="no key")
    assert words(compose([run], History())) == ["q", "(This run failed: no key)"]


def test_summary_stands_for_runs_that_are_left_out_only() -> None:
    assert words(compose(talk("a"), History(), SUMMARY)) == ["a", "A"]
    lead, *rest = words(compose(talk("a"), History(), SUMMARY, is_whole=False))
    assert lead.endswith(SUMMARY)
    assert rest == ["a", "A"]


def test_exchanges_lead_with_their_days_the_oldest_first() -> None:
    (lead, *rest) = compose(talk("a"), History(), exchanges=[SHIPS, PORTS])
    assert lead.role == "user"
    assert lead.text.index("[2026-11-18] User: Which port?\nYou: Iolcos.") < lead.text.index(
        "[2026-11-24] User: Which ship?"
    )
    assert words(tuple(rest)) == ["a", "A"]


def test_newest_runs_come_before_what_leads_and_that_before_older_runs() -> None:
    runs = talk(*(f"{place} " * 100 for place in range(20)))
    both, least = size(compose(runs[-1:], History())), size((user(LEFT_OUT),))
    lead = size(compose((), History(), SUMMARY, [SHIPS], is_whole=False))
    only = compose(runs, History(runs=1, tokens=both + least), None, [SHIPS])
    assert words(only) == words(compose(runs[-1:], History()))
    more = compose(runs, History(runs=1, tokens=both + 2 * lead), SUMMARY, [SHIPS])
    assert words(more)[0].startswith("A summary")
    assert "The Argo." in words(more)[0]
    assert len(more) < 5
    older = compose(runs, History(runs=1, tokens=10 * both), SUMMARY, [SHIPS])
    assert len(older) > 10


def test_run_that_does_not_fit_is_cut_between_groups() -> None:
    run = past(user("q " * 500), said(ToolCall("a", "look")), result("a", "page"), said("found"))
    history = compose([run], History(tokens=80))
    assert [message.role for message in history] == ["user", "assistant", "tool", "assistant"]
    assert history[0].text == LEFT_OUT


def test_picture_costs_what_providers_count_and_not_its_bytes() -> None:
    run = past(user("Look: ", Image(data="x" * 50_000)), said("a cat"))
    assert words(compose([*talk("a"), run], History())) == ["a", "A", "Look: ", "a cat"]


# Whatever the runs are.

TEXTS = st.sampled_from(["", " ", "ship", "a long answer about ships " * 20, "page " * 200])


@st.composite
def some_runs(draw: st.DrawFn) -> list[PastRun]:
    runs = []
    for _ in range(draw(st.integers(0, 8))):
        messages = [user(draw(TEXTS))]
        for _ in range(draw(st.integers(0, 3))):
            ids = [str(next(_ids)) for _ in range(draw(st.integers(1, 3)))]
            messages.append(said(draw(TEXTS), *(ToolCall(each, "look") for each in ids)))
            messages += [result(each, draw(TEXTS)) for each in ids if draw(st.integers(0, 9))]
        if draw(st.booleans()):
            messages.append(said(Reasoning("hm"), draw(TEXTS)))
        runs.append(past(*messages, status=draw(st.sampled_from(["done", "done", "failed", "cancelled"]))))
    return runs


OPTIONS = st.builds(
    History,
    runs=st.integers(0, 9),
    tokens=st.integers(1, 3_000),
    tool_results=st.integers(0, 4),
    roles=st.lists(st.sampled_from(["user", "assistant", "tool"]), unique=True).map(tuple),
    older=st.booleans(),
)


@given(
    some_runs(),
    OPTIONS,
    st.none() | st.just("ships " * 50),
    st.lists(st.sampled_from([SHIPS, PORTS])),
    st.booleans(),
)
def test_any_history_fits_its_budget_and_has_whole_groups(
    runs: list[PastRun], options: History, summary: str | None, exchanges: list[Exchange], is_whole: bool
) -> None:
    history = compose(runs, options, summary, exchanges, is_whole=is_whole)
    assert size(history) <= options.tokens
    assert all(message.from_history for message in history)
    assert not history or history[0].role == "user"
    place = 0
    while place < len(history):
        called = [call.id for call in history[place].tool_calls]
        answered = history[place + 1 : place + 1 + len(called)]
        assert [
            part.call_id for message in answered for part in message.parts if isinstance(part, ToolResult)
        ] == called
        assert history[place].role != "tool"
        place += 1 + len(called)


@given(some_runs(), OPTIONS, st.integers(1, 300))
def test_smaller_budget_keeps_the_newest(runs: list[PastRun], options: History, less: int) -> None:
    def of(tokens: int) -> list[Message]:
        bare = History(
            **{**{name: getattr(options, name) for name in options.__struct_fields__}, "tokens": tokens}
        )
        kept = compose(runs, bare)
        return [message for message in kept if not message.text.startswith("(Earlier")]

    small, large = of(options.tokens), of(options.tokens + less)
    assert large[len(large) - len(small) :] == small
