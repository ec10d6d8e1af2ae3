"""A claim of a turn reads the messages that its worker process does not know; what it returns is the whole transcript."""

from __future__ import annotations

from typing import Any

import pytest

from agno_workers.core.messages import Message, user
from agno_workers.core.step import ClaimedStep, StepMessage
from agno_workers.runs.transcripts import Transcript, Transcripts
from tests.database import FEW, AllRepositories, RunDatabase, claimed, said

TURNS = 5


def claim(journal: AllRepositories, send: StepMessage) -> ClaimedStep:
    return claimed(journal.claim_turn(send.run_id, send.step_id, send.generation))


def next_turn(journal: AllRepositories, turn: ClaimedStep, text: str) -> StepMessage:
    (send,) = journal.next_turn(turn, said(text), FEW, "agents").sends
    assert isinstance(send, StepMessage)
    return send


def texts(turn: ClaimedStep) -> list[str]:
    return [message.text for message in turn.messages]


def test_turn_reads_only_the_new_messages(db: RunDatabase, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    claims = db.journal.store._claim

    def reading(*args: Any, **kwargs: Any) -> Any:
        rows = claims(*args, **kwargs)
        read.extend(row["transcript"].count('"role"') for row in rows if row)
        return rows

    monkeypatch.setattr(db.journal.store._claims, "_together", reading)
    send = claimed(db.submit("hi").send)
    for number in range(TURNS):
        turn = claim(db.journal, send)
        assert texts(turn) == ["hi", *map(str, range(number))]
        send = next_turn(db.journal, turn, str(number))
    assert read == [1] * TURNS


def test_another_attempt_of_a_turn_reads_nothing_again(db: RunDatabase) -> None:
    turn = db.turn()
    db.expire(turn.step_id)
    again = claim(db.journal, StepMessage(None, turn.run_id, turn.step_id, 0, turn.kind, ""))
    assert (again.attempt, again.messages) == (2, turn.messages)


def test_turns_of_another_worker_and_a_retry_come_between(db: RunDatabase) -> None:
    other = db.journal_of("w2")
    turn = db.turn()
    turn = claim(db.journal, next_turn(db.journal, turn, "1"))
    turn = claim(other, next_turn(db.journal, turn, "2"))
    db.journal.fail(turn, {"type": "E", "message": "m", "ids": {}}, "error", said("forgotten"), FEW)
    db.journal.retry_run(turn.run_id)
    (again,) = db.sql("SELECT id, run_id, generation FROM agno.step WHERE status = 'ready'")
    retried = claim(
        db.journal, StepMessage(None, again["run_id"], again["id"], again["generation"], turn.kind, "")
    )
    assert texts(retried) == ["hi", "1", "2"]
    last = claim(other, next_turn(db.journal, retried, "3"))
    assert texts(last) == ["hi", "1", "2", "3"]


def test_messages_that_were_replaced_are_read_again(db: RunDatabase) -> None:
    """As after the restore of a backup, from which the run went on in another way."""
    turn = claim(db.journal, next_turn(db.journal, db.turn(), "1"))
    send = next_turn(db.journal, turn, "2")
    db.sql("DELETE FROM agno.message WHERE seq = 1")
    other = '{"role": "assistant", "parts": [{"type": "text", "text": "other"}]}'
    db.sql(
        "INSERT INTO agno.message (run_id, seq, content) VALUES (%(id)s, 1, %(other)s)",
        id=turn.run_id,
        other=other,
    )
    assert texts(claim(db.journal, send)) == ["hi", "other", "2"]


def test_transcript_of_an_ended_run_is_dropped(db: RunDatabase) -> None:
    turn = db.turn()
    kept = db.journal.store.transcripts
    assert kept.of(turn.run_id)
    db.journal.end(turn, said("ok"), FEW, "ok", "end")
    assert kept.of(turn.run_id) is None


def test_transcripts_that_were_not_used_for_longest_are_dropped() -> None:
    kept = Transcripts(max_size=10)
    small, large = transcript(4), transcript(11)
    for run_id in ("a", "b", "a", "c"):
        kept.keep(run_id, small)
    assert [kept.of(run_id) for run_id in ("a", "b", "c")] == [small, None, small]
    kept.keep("d", large)
    assert [kept.of(run_id) for run_id in ("a", "c", "d")] == [None] * 3
    kept.keep("a", small)
    assert kept.of("a") == small


def transcript(size: int) -> Transcript:
    message: Message = user("hi")
    return Transcript().extended((message,), size, 0, 1)
