"""The pure parts of compaction: where a transcript is cut, what a summary is made of, and what is learned from a refusal."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agno_workers.core.agent import Agent, Compaction
from agno_workers.core.messages import Message, ModelRequest, Reply, Text, ToolCall, ToolResult, Usage, user
from agno_workers.core.run import StepKind
from agno_workers.core.step import ClaimedStep, Compacted, CompactionOrder, CompactionRecord
from agno_workers.core.tokens import estimate, estimate_message, estimate_messages
from agno_workers.errors import ModelRejected
from agno_workers.models.windows import refused_window, window_of
from agno_workers.sessions.compaction import compacted, cut, group_start, level, transcript_text
from agno_workers.sessions.offload import bounded, lines_of, matching
from agno_workers.sessions.window import newest

texts = st.text("ab \n", max_size=200)


@st.composite
def transcripts(draw: st.DrawFn) -> list[Message]:
    """A task, and groups: an answer with the results of its calls, an answer without calls, or a question."""
    messages = [user(draw(texts))]
    for number in range(draw(st.integers(0, 6))):
        match draw(st.sampled_from(["calls", "answer", "question"])):
            case "calls":
                calls = [ToolCall(f"{number}.{place}", "look") for place in range(draw(st.integers(1, 3)))]
                messages.append(Message("assistant", (Text(draw(texts)), *calls)))
                messages += [Message("tool", (ToolResult(call.id, "look", draw(texts)),)) for call in calls]
            case "answer":
                messages.append(Message("assistant", (Text(draw(texts)),)))
            case _:
                messages.append(user(draw(texts)))
    return messages


def is_whole(messages: list[Message]) -> bool:
    """Return True if each call has its results, and each result its call, as providers want it."""
    asked: set[str] = set()
    for message in messages:
        results = {part.call_id for part in message.parts if isinstance(part, ToolResult)}
        if not results and asked:
            return False
        if results - asked:
            return False
        asked = (asked - results) | {call.id for call in message.tool_calls}
    return not asked


@given(transcripts(), st.integers(0, 300), st.integers(0, 5))
def test_cut_leaves_whole_groups_of_at_most_so_many_tokens(
    messages: list[Message], keep: int, start: int
) -> None:
    start = min(start, len(messages))
    place = cut(messages, start, keep)
    assert start <= place <= len(messages)
    assert place == start or (is_whole(messages[:place]) and is_whole(messages[place:]))
    assert place == start or estimate_messages(messages[place:]) <= keep
    more = [
        at
        for at in range(start, place)
        if messages[at].role != "tool" and estimate_messages(messages[at:]) <= keep
    ]
    assert not more, "it keeps as much as it may"


@given(transcripts())
def test_last_group_is_whole(messages: list[Message]) -> None:
    assert is_whole(messages[group_start(messages) :])


@given(st.lists(st.integers(0, 500)), st.integers(0, 2_000))
def test_level_cuts_the_longest_parts_only(sizes: list[int], budget: int) -> None:
    most = level(sizes, budget)
    assert sum(min(size, most) for size in sizes) <= max(budget, 0)
    assert sum(sizes) > budget or most >= max(sizes, default=0)


@given(transcripts(), st.integers(50, 400))
def test_text_to_summarize_fits_its_tokens(messages: list[Message], tokens: int) -> None:
    parts = sum(len(message.parts) for message in messages)
    assert (
        estimate(transcript_text(messages, tokens)) <= tokens + 25 * parts
    )  # headings, and marks of what is left out


@given(st.text(max_size=2_000))
def test_lines_are_the_text(content: str) -> None:
    assert "".join(lines_of(content)) == content.replace("\n", "")
    assert max(map(len, lines_of(content))) <= 500


@given(st.lists(st.text("abc", max_size=500)))
def test_lines_of_one_call_are_bounded(lines: list[str]) -> None:
    shown = bounded(lines)
    assert shown == lines[: len(shown)]
    assert sum(len(line) + 1 for line in shown) <= 8_000
    assert bool(shown) == bool(lines)


def test_lines_match_that_have_all_words_in_any_case() -> None:
    assert matching(["Error in a", "no error", "in B: error"], "ERROR in") == [
        (1, "Error in a"),
        (3, "in B: error"),
    ]


def test_newest_history_begins_with_a_question() -> None:
    history = [
        user("a" * 40),
        Message("assistant", (Text("b" * 40),)),
        user("c" * 40),
        Message("assistant", (Text("d" * 40),)),
    ]
    assert [message.text[0] for message in newest(history, 1_000)] == ["a", "b", "c", "d"]
    assert [message.text[0] for message in newest(history, 50)] == ["c", "d"]
    assert newest(history, 20) == ()


@pytest.mark.parametrize(
    ("text", "tokens"), [("", 0), ("a", 1), ("abcd", 1), ("abcde", 2), ("\u4e2d\u6587", 2), ("\ud800", 1)]
)  # fmt: skip
def test_estimate_counts_bytes(text: str, tokens: int) -> None:
    assert estimate(text) == tokens


def test_estimate_of_a_message_counts_calls_and_results() -> None:
    assert estimate_message(Message("assistant", (ToolCall("1", "look", '{"a": "b"}'),))) > 4
    assert estimate_message(Message("tool", (ToolResult("1", "look", "x" * 400),))) > 100


@pytest.mark.parametrize(
    ("words", "window"),
    [
        (
            "This model's maximum context length is 8192 tokens. However, your messages resulted in 9013 tokens.",
            8_192,
        ),
        ("prompt is too long: 210000 tokens > 200000 maximum", 200_000),
        ("input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000", 200_000),
        ("the request exceeds the available context size (4096 tokens)", 4_096),
        ("the request exceeds the available context size", None),
        ("Your input exceeds the context window of this model.", None),
    ],
)
def test_window_is_read_from_a_refusal(words: str, window: int | None) -> None:
    assert refused_window(words) == window


@pytest.mark.parametrize(
    ("model", "window"),
    [("openai:gpt-4.1-mini", 1_047_576), ("openai-chat:gpt-4o", 128_000), ("openai:gpt-4-0613", 8_192), ("local:llama", None)],
)  # fmt: skip
def test_window_of_known_models(model: str, window: int | None) -> None:
    assert window_of(model) == window


# A compaction.

GROUPS = [
    part
    for number in range(8)
    for part in (
        Message("assistant", (ToolCall(f"{number}", "look"),)),
        Message("tool", (ToolResult(f"{number}", "look", f"[Result r{number:08d}: about x]" + "x" * 400),)),
    )
]


def claim_of(messages: list[Message], known: Compacted | None = None) -> ClaimedStep:
    now = datetime.now(UTC)
    return ClaimedStep(
        "s",
        "r",
        0,
        StepKind.COMPACT,
        "compact:1:1",
        99,
        1,
        0,
        "a",
        now,
        transcript=tuple(messages),
        compacted=known,
    )


def summarize(
    claim: ClaimedStep, text: str = "so far", keep: int = 250, **options: float
) -> CompactionRecord | str:
    agent = Agent(name="a", model="scripted:echo", compaction=Compaction(**options))  # type: ignore[arg-type]
    reply = Reply(Message("assistant", (Text(text),)), usage=Usage(7, 1))
    found, used = compacted(agent, claim, CompactionOrder(1, 1_000, keep), lambda _: reply)
    assert used in (Usage(7, 1), Usage())
    return found


def test_summary_takes_the_place_of_the_oldest_groups_after_the_task() -> None:
    found = summarize(claim_of([user("the task"), *GROUPS]))
    assert isinstance(found, CompactionRecord)
    assert (found.until_seq, found.keeps_first) == (13, True)
    assert found.summary.startswith(
        "[A summary of the messages 1 to 12 of this run, which are left out here.]\nso far"
    )
    assert "[Result r00000005: read_result reads it.]" in found.summary
    assert found.tokens_after < found.tokens_before


def test_next_summary_goes_on_where_the_last_one_ended() -> None:
    claim = claim_of([user("the task"), user("[A summary of the messages 1 to 12]"), *GROUPS], Compacted(13))
    assert [seq for seq, _ in claim.numbered] == [0, *range(13, 29)]
    found = summarize(claim)
    assert isinstance(found, CompactionRecord)
    assert found.until_seq == 25
    without = claim_of(
        [user("[A summary of the messages 0 to 12]"), *GROUPS], Compacted(13, keeps_first=False)
    )
    assert [seq for seq, _ in without.numbered] == list(range(13, 29))
    found = summarize(without)
    assert isinstance(found, CompactionRecord)
    assert (found.until_seq, found.keeps_first) == (25, False)
    assert "The task began" not in found.summary


def test_long_task_is_summarized_and_its_beginning_stays() -> None:
    found = summarize(claim_of([user("the task is " + "long " * 500), *GROUPS]))
    assert isinstance(found, CompactionRecord)
    assert not found.keeps_first
    assert found.summary.startswith("[A summary of the messages 0 to 12 of this run")
    assert "The task began: the task is long" in found.summary


def test_compaction_of_nothing_is_declined_with_a_reason() -> None:
    found = summarize(claim_of([user("the task")]), "so far")
    assert isinstance(found, str)
    assert "there is nothing to summarize" in found


def test_request_for_a_summary_that_is_too_long_is_made_shorter() -> None:
    asked: list[int] = []

    def ask(request: ModelRequest) -> Reply:
        asked.append(estimate_messages(request.messages))
        if len(asked) < 3:
            raise ModelRejected("too long", provider="p", model="m", code="context_window")
        return Reply(Message("assistant", (Text("so far"),)))

    agent = Agent(name="a", model="scripted:echo")
    found, _ = compacted(agent, claim_of([user("the task"), *GROUPS]), CompactionOrder(1, 1_000, 0), ask)
    assert isinstance(found, CompactionRecord)
    assert len(asked) == 3
    assert all(shorter < longer for longer, shorter in pairwise(asked))
