"""Rolling summaries: what a model is asked to sum up, and when, on a real database."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from agno_workers.core.agent import Agent, History, Prices
from agno_workers.core.messages import Emit, Message, ModelRequest, Reply, Text, ToolCall, ToolResult, Usage
from agno_workers.core.run import RunStatus
from agno_workers.core.step import TurnRecord
from agno_workers.database.pool import Pool
from agno_workers.engine.turn import Engine
from agno_workers.runs.agents import RegisteredAgent
from agno_workers.sessions import summary
from agno_workers.sessions.background import Background
from agno_workers.sessions.summary import EVERY, INSTRUCTIONS, Summaries
from tests.database import RunDatabase
from tests.integration.engine.conftest import Scenario, counted_pool, live_streams, scenario
from tests.steps import execute_run

__all__ = ["counted_pool", "live_streams", "scenario"]
CALL = ToolCall("c1", "look", "{}")


class Notes:
    """A model that counts its answers, and keeps what it was asked."""

    name = "scripted:notes"

    def __init__(self) -> None:
        self.asked: list[ModelRequest] = []
        self.texts: list[str] = []

    def ask(self, request: ModelRequest, emit: Emit) -> Reply:
        self.asked.append(request)
        text = self.texts.pop(0) if self.texts else f"notes {len(self.asked)}"
        return Reply(Message("assistant", (Text(text),)), usage=Usage(10, 2))


@dataclass
class Session:
    """The session `s` of an agent, whose runs the test writes."""

    db: RunDatabase
    pool: Pool
    engine: Engine
    model: Notes

    def says(self, *said: tuple[str, str], status: str = "done", reason: str = "end") -> None:
        """Add runs: the user's words, and the answer, after a tool call."""
        for asked, answer in said:
            claim = self.db.turn(text=asked, agent="a")
            record = TurnRecord(
                (
                    Message("assistant", (Text("let me look"), CALL)),
                    Message("tool", (ToolResult("c1", "look", "NOISE"),)),
                    Message("assistant", (Text(answer),)),
                )
            )
            if status == "done":
                self.db.journal.store.end(claim, record, answer, reason)
            else:
                self.db.journal.store.fail(claim, {"type": "E", "message": "no", "ids": {}}, reason, record)
            self.place(claim.run_id)

    def place(self, run_id: str) -> None:
        """Make it the next run of the session."""
        self.db.sql(
            """WITH here AS (
                   INSERT INTO agno.session AS s (id, next_position) VALUES ('s', 2)
                   ON CONFLICT (tenant, id) DO UPDATE SET next_position = s.next_position + 1 RETURNING next_position - 1 AS position)
               UPDATE agno.run SET session_id = 's', session_position = here.position FROM here WHERE id = %(id)s""",
            id=run_id,
        )

    def sum_up(self) -> RunStatus:
        """Ask for a summary after the last run, make it, and return how its first run ended."""
        self.db.sql(
            """SELECT agno.request_background((SELECT id FROM agno.run WHERE session_id = 's' ORDER BY session_position DESC LIMIT 1),
                   '[{"kind": "summary", "owner": "s"}]')"""
        )
        background = Background(self.engine, self.pool, {summary.KIND: Summaries(self.pool)})
        first = None
        while steps := self.db.sql(
            "SELECT run_id::text, id::text, generation FROM agno.step WHERE kind = 'background' AND status = 'ready' AND not_before IS NULL"
        ):
            background.run(steps[0]["run_id"], steps[0]["id"], steps[0]["generation"])
            first = first or steps[0]["run_id"]
        assert first is not None
        return self.db.queries.run(first).status

    @property
    def summary(self) -> tuple[str | None, int]:
        (row,) = self.db.sql("SELECT summary, summary_until FROM agno.session")
        return row["summary"], row["summary_until"]


@pytest.fixture
def session(scenario: Scenario) -> Session:
    model = Notes()
    history = History(runs=2, summary=True)
    engine = scenario.engine(Agent(name="a", model=model, history=history, prices=Prices(1e6, 1e6)))
    return Session(scenario.db, scenario.pool, engine, model)


def test_a_summary_covers_all_but_the_newest_runs(session: Session) -> None:
    session.says(
        ("my dog is Rex", "noted"), ("I live in Bonn", "noted, too"), ("and?", "yes"), ("so?", "well")
    )
    assert session.sum_up() is RunStatus.DONE
    assert session.summary == ("notes 1", 2)
    (request,) = session.model.asked
    assert request.system == INSTRUCTIONS
    assert request.messages[0].text == (
        "Exchanges:\n\nUser: my dog is Rex\nAssistant: noted\n\nUser: I live in Bonn\nAssistant: noted, too"
    )
    (run,) = session.db.sql(
        "SELECT content, input_tokens, cost_usd::float8 FROM agno.run WHERE kind = 'background'"
    )
    assert run == {"content": {"exchanges": 2, "until": 2}, "input_tokens": 10, "cost_usd": 12.0}


def test_the_next_summary_extends_the_last_one(session: Session) -> None:
    session.says(*((f"question {number}", "answer") for number in range(4)))
    session.sum_up()
    session.says(("question 4", "answer"))
    session.sum_up()
    assert session.summary == ("notes 2", 3)
    assert session.model.asked[1].messages[0].text == (
        "Notes so far:\nnotes 1\n\nExchanges:\n\nUser: question 2\nAssistant: answer"
    )


def test_summary_and_what_it_is_made_of_are_bounded(session: Session) -> None:
    session.says(*((f"question {number}", "answer") for number in range(3)))
    session.db.sql(  # many messages joined the first run
        "INSERT INTO agno.message (run_id, seq, content) SELECT r.id, 100 + n, m.content FROM agno.run r, generate_series(1, 20) n, "
        "LATERAL (SELECT jsonb_build_object('role', 'user', 'parts', jsonb_build_array(jsonb_build_object('type', 'text', 'text', repeat('x', 9000)))) AS content) m "
        "WHERE r.session_position = 1"
    )
    session.model.texts = ["w" * 1_000_000]
    session.sum_up()
    assert session.summary == ("w" * 20_000, 1)
    assert len(session.model.asked[0].messages[0].text) < 25_000


def test_nothing_new_asks_no_model(session: Session) -> None:
    session.says(("one", "a"), ("two", "b"))
    assert session.sum_up() is RunStatus.DONE
    assert session.model.asked == []
    assert session.summary == (None, 0)


def test_an_ended_session_is_summed_up_to_its_end(session: Session) -> None:
    session.says(("one", "a"), ("two", "b"))
    session.db.sql("UPDATE agno.session SET status = 'ended', ended_at = clock_timestamp()")
    session.sum_up()
    assert session.summary == ("notes 1", 2)


def test_failed_and_rolled_back_runs_are_left_out(session: Session) -> None:
    session.says(("kept", "a"), ("rolled back", "b"))
    session.db.sql("UPDATE agno.run SET rolled_back_at = clock_timestamp() WHERE session_position = 2")
    session.says(("failed", "c"), status="failed", reason="error")
    session.says(("newest but one", "d"), ("newest", "e"))
    session.sum_up()
    assert session.summary == ("notes 1", 1)
    assert "kept" in session.model.asked[0].messages[0].text
    assert "rolled back" not in session.model.asked[0].messages[0].text
    session.says(("more", "f"))
    session.sum_up()
    assert session.summary == ("notes 2", 4)
    assert "failed" not in session.model.asked[1].messages[0].text


def test_a_summary_does_not_pass_a_run_that_is_open(session: Session) -> None:
    session.says(("one", "a"))
    slow = session.db.turn(agent="a")
    session.place(slow.run_id)
    session.says(("three", "c"), ("four", "d"), ("five", "e"))
    session.sum_up()
    assert session.summary == ("notes 1", 1)


def test_a_long_past_takes_several_calls_and_runs(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "_TOKENS_A_CALL", 30)
    monkeypatch.setattr(summary, "_CALLS_A_RUN", 2)
    session.says(*((f"{number} {'x' * 100}", "ok") for number in range(7)))
    session.sum_up()
    assert session.summary == ("notes 5", 5)
    runs = session.db.sql("SELECT content FROM agno.run WHERE kind = 'background' ORDER BY created_at, id")
    assert [run["content"]["until"] for run in runs] == [2, 4, 5]


def test_a_rollback_during_a_summary_makes_it_again(session: Session) -> None:
    session.says(("one", "a"), ("two", "b"), ("three", "c"), ("four", "d"))
    rolled_back = "UPDATE agno.run SET rolled_back_at = clock_timestamp() WHERE session_position >= 2 AND kind = 'agent'"
    ask = session.model.ask

    def roll_back(request: ModelRequest, emit: Emit) -> Reply:
        session.db.sql(rolled_back)
        return ask(request, emit)

    session.model.ask = roll_back  # type: ignore[method-assign]
    session.sum_up()
    assert session.summary == (None, 0)
    assert session.db.value("SELECT error->>'message' FROM agno.step WHERE kind = 'background'").startswith(
        "session 's' was rolled back while its summary was made"
    )


def test_a_model_without_words_fails_the_run(session: Session) -> None:
    session.says(("one", "a"), ("two", "b"), ("three", "c"))
    session.model.texts = [" "]
    assert session.sum_up() is RunStatus.FAILED
    assert session.summary == (None, 0)


def test_runs_ask_for_a_summary_at_every_fifth_run_after_the_immediate_history(scenario: Scenario) -> None:
    model = Notes()
    agents = [
        Agent(name="a", model=model, history=History(runs=2, summary=True)),
        Agent(name="without", model=model, history=History(runs=2, summary=False)),
    ]
    base = scenario.engine(*agents)
    engine = Engine(
        base.journal, base.agent, base.streams, base.resolve, "agents", "tools", base.active, (summary.extension(),)
    )  # fmt: skip
    scenario.db.database.agents.register([RegisteredAgent("a", "agents", "later")])

    def asked(agent: str, position: int, session_id: str | None = None) -> int:
        step = scenario.submit(agent, session_id=f"{agent}'s" if session_id is None else session_id)
        scenario.db.sql(
            "UPDATE agno.run SET session_position = %(at)s WHERE id = %(id)s", at=position, id=step.run_id
        )
        execute_run(engine, step)
        return int(
            scenario.db.value(
                "SELECT count(*) FROM agno.background_item WHERE run_id = %(id)s", id=step.run_id
            )
        )

    assert [position for position in range(1, 14) if asked("a", position)] == [2 + EVERY, 2 + 2 * EVERY]
    assert not asked("without", 2 + EVERY)
    assert not asked("a", 2 + EVERY, session_id="")
    assert scenario.db.sql("SELECT DISTINCT queue, metadata FROM agno.run WHERE kind = 'background'") == [
        {"queue": "later", "metadata": {"kind": "summary", "owner": "a's"}}
    ]
