"""Stored values are read unchanged: large texts are stored once; only characters that Postgres refuses are replaced."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agno_workers.core.messages import Message, Text, ToolCall, ToolResult, user
from agno_workers.core.step import ToolStep
from agno_workers.core.tool import Effect
from agno_workers.database.pool import Payloads, to_json
from tests.database import FEW, INLINE_MAX_BYTES, RunDatabase, claimed, said

LARGE = "ä" * 50 * 1024  # 100 KiB
BROKEN = "a\0b\ud800c"
MENDED = "a\ufffdb\ufffdc"
STRANGE = ["", " ", "\u2028", "☃🎈", "\U0010ffff", "שלום \u202e", "e\u0301", "\\u0000", "\\\\u0000", '"', "\\", "\x01\x1f\x7f", "%s %(a)s", "'; DROP TABLE agno.run; --"]  # fmt: skip


def digest(text: str) -> str:
    return hashlib.sha256(json.dumps(text, ensure_ascii=False).encode()).hexdigest()


# Large texts.


def test_large_text_in_transcript_and_answer_is_stored_once(
    db: RunDatabase,
) -> None:
    turn = db.turn()
    db.journal.end(turn, said(LARGE), FEW, LARGE, "end")
    assert db.count("blob") == 1
    assert db.value("SELECT sum(octet_length(content::text)) FROM agno.message") < 1024
    assert db.value("SELECT octet_length(content::text) FROM agno.run") < 1024
    assert db.queries.run(turn.run_id).content == LARGE
    assert db.queries.transcript(turn.run_id) == [user("hi"), *said(LARGE)]


def test_large_text_of_two_runs_is_stored_once(db: RunDatabase) -> None:
    runs = [db.submit(LARGE).run_id for _ in range(2)]
    assert db.count("blob") == 1
    assert [db.queries.transcript(run_id) for run_id in runs] == [[user(LARGE)]] * 2


def test_large_text_survives_input_arguments_result_and_answer(db: RunDatabase) -> None:
    texts = [f"{place}{LARGE}" for place in range(4)]
    turn = db.turn(text=texts[0])
    call = ToolCall("call_0", "echo", json.dumps({"text": texts[1]}, ensure_ascii=False))
    asked = Message("assistant", (Text("hm"), call))
    (send,) = db.journal.fan_out(turn, asked, FEW, [ToolStep(call, "tools", Effect.PURE, 3)], "agents").sends  # fmt: skip
    tool = claimed(db.journal.claim_tool(send.run_id, send.step_id, 0))
    assert tool.tool_call == call
    gave = Message("tool", (ToolResult("call_0", "echo", texts[2]),))
    (send,) = db.journal.finish_tool(tool, gave).sends
    last = claimed(db.journal.claim_turn(send.run_id, send.step_id, 0))
    assert last.transcript == (user(texts[0]), asked, gave)
    db.journal.end(last, said("ok"), FEW, {"deep": [{"down": texts[3]}]}, "end")
    assert db.queries.run(turn.run_id).content == {"deep": [{"down": texts[3]}]}
    assert db.queries.runs()[0].asked == texts[0][:200]
    assert db.count("blob") == 4


@pytest.mark.parametrize(("size", "blobs"), [(INLINE_MAX_BYTES, 0), (INLINE_MAX_BYTES + 1, 1)])
def test_text_is_large_by_its_bytes_as_json(db: RunDatabase, size: int, blobs: int) -> None:
    text = "ä" * ((size - 2) // 2) + "a" * (size % 2)
    run_id = db.submit(text).run_id
    assert db.count("blob") == blobs
    assert db.queries.transcript(run_id) == [user(text)]


def test_value_of_many_small_strings_stays_in_its_row(db: RunDatabase) -> None:
    turn = db.turn()
    content = {"numbers": list(range(50_000)), "lines": ["line"] * 10_000}
    db.journal.end(turn, said(""), FEW, content, "end")
    assert db.count("blob") == 0
    assert db.queries.run(turn.run_id).content == content


@pytest.mark.parametrize(
    "wrap",
    [
        lambda reference: reference,
        json.dumps,
        lambda reference: f"see {reference}, {reference}",
        lambda reference: "\\" + reference,
        lambda reference: '"' + reference + '"',
        lambda reference: reference.replace('"', '\\"'),
    ],
)
def test_text_that_looks_like_a_reference_stays_text(db: RunDatabase, wrap: Any) -> None:
    text = wrap('{"$blob": "' + digest(LARGE) + '"}')
    message = user(text, LARGE, text)
    run_id = db.journal.submit(message, agent="echo", queue="agents").run_id
    assert db.value("SELECT encode(sha256, 'hex') FROM agno.blob") == digest(LARGE)
    assert db.queries.transcript(run_id) == [message]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda reference: reference,
        lambda reference: [reference, "", reference],
        lambda reference: {"answer": reference},
        lambda reference: {"$blob": reference},
        lambda reference: reference | {"more": 1},
        lambda reference: {"answer": reference, "large": "x" * INLINE_MAX_BYTES},
    ],
)
def test_answer_that_looks_like_a_reference_reads_no_other_text(db: RunDatabase, wrap: Any) -> None:
    db.submit(LARGE)
    content = wrap({"$blob": digest(LARGE)})
    turn = db.turn()
    db.journal.end(turn, said(""), FEW, content, "end")
    assert db.queries.run(turn.run_id).content == content


def test_large_text_with_references_is_stored_unchanged(db: RunDatabase) -> None:
    text = '{"$blob": "' + digest(LARGE) + '"}' * 1000 + LARGE
    message = user(text, LARGE)
    run_id = db.journal.submit(message, agent="echo", queue="agents").run_id
    assert db.queries.transcript(run_id) == [message]


def test_ten_megabytes_are_stored_unchanged(db: RunDatabase) -> None:
    text = "0123456789" * 1024 * 1024
    turn = db.turn(text=text)
    assert turn.transcript == (user(text),)
    db.journal.end(turn, said(text), FEW, text, "end")
    assert db.queries.run(turn.run_id).content == text
    assert db.count("blob") == 1


def test_refused_result_stores_no_blob(db: RunDatabase) -> None:
    turn = db.turn()
    db.journal.cancel(turn.run_id)
    with db.unchanged():
        db.journal.end(turn, said(LARGE), FEW, LARGE, "end")


# Any text.


@pytest.mark.parametrize("text", STRANGE)
def test_any_text_is_stored_unchanged(db: RunDatabase, text: str) -> None:
    turn = db.turn(text=text, session_id=text, metadata={text: [text]}, idempotency_key=text)
    assert (turn.transcript, turn.session_id, turn.metadata) == ((user(text),), text, {text: [text]})
    db.journal.end(turn, said(text), FEW, text, text)
    run = db.queries.run(turn.run_id)
    assert (run.content, run.reason, run.idempotency_key) == (text, text, text)


def test_characters_that_postgres_refuses_are_replaced(db: RunDatabase) -> None:
    turn = db.turn(
        text=BROKEN, session_id=BROKEN, user_id=BROKEN, idempotency_key=BROKEN, metadata={BROKEN: [BROKEN]}, agent=BROKEN,
    )  # fmt: skip
    assert turn.transcript == (user(MENDED),)
    assert (turn.session_id, turn.user_id, turn.agent, turn.metadata) == (MENDED, MENDED, MENDED, {MENDED: [MENDED]})  # fmt: skip
    call = ToolCall(BROKEN, BROKEN, BROKEN)
    asked = Message("assistant", (Text(BROKEN), call))
    (send,) = db.journal.fan_out(turn, asked, FEW, [ToolStep(call, "tools", Effect.PURE, 3)], "agents").sends  # fmt: skip
    tool = claimed(db.journal.claim_tool(send.run_id, send.step_id, 0))
    assert (tool.name, tool.tool_call) == (MENDED, ToolCall(MENDED, MENDED, MENDED))
    gave = Message("tool", (ToolResult(BROKEN, BROKEN, BROKEN, True),))
    (send,) = db.journal.finish_tool(tool, gave, {"message": BROKEN}).sends
    last = claimed(db.journal.claim_turn(send.run_id, send.step_id, 0))
    db.journal.end(last, said(BROKEN), FEW, {"answer": BROKEN}, "end")
    assert db.queries.run(turn.run_id).content == {"answer": MENDED}
    assert db.queries.transcript(turn.run_id)[2] == Message("tool", (ToolResult(MENDED, MENDED, MENDED, True),))  # fmt: skip
    assert db.step(tool.step_id)["error"] == {"message": MENDED}


def test_cleaned_key_is_still_the_same_key(db: RunDatabase) -> None:
    assert db.submit(idempotency_key=BROKEN).run_id == db.submit(idempotency_key=BROKEN).run_id


def test_cleaned_large_text_is_stored_once(db: RunDatabase) -> None:
    run_id = db.submit(BROKEN + LARGE).run_id
    db.submit(MENDED + LARGE)
    assert db.count("blob") == 1
    assert db.queries.transcript(run_id) == [user(MENDED + LARGE)]


def test_huge_metadata_is_stored_unchanged(db: RunDatabase) -> None:
    metadata = {f"key {place}": {"value": ["x" * 100]} for place in range(10_000)}
    turn = db.turn(metadata=metadata)
    assert turn.metadata == metadata
    assert db.queries.run(turn.run_id).metadata == metadata


# Without a database.

texts = st.text(st.characters(exclude_categories=[]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


def mended(value: Any) -> Any:
    """Return the value without NUL and lone surrogates."""
    match value:
        case str():
            return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace").replace("\0", "\ufffd")
        case list():
            return [mended(item) for item in value]
        case dict():
            return {mended(key): mended(item) for key, item in value.items()}
        case _:
            return value


@settings(deadline=None)
@given(values)
def test_json_is_valid_for_postgres_and_else_unchanged(value: Any) -> None:
    assert msgspec.json.decode(to_json(value)) == mended(value)


@settings(deadline=None)
@given(values, texts)
def test_packed_values_may_be_part_of_values_to_clean(value: Any, text: str) -> None:
    packed = Payloads(1024).pack(value)
    encoded = to_json({"packed": packed, "beside": [text]})
    assert msgspec.json.decode(encoded) == {"packed": mended(value), "beside": [mended(text)]}
