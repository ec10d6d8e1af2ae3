"""What a search over past sessions finds, and whose; and how its index is written and forgotten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from agno_workers.core.agent import Agent, History
from agno_workers.core.messages import Message, Text, ToolCall, ToolResult, user
from agno_workers.core.ports import Embedder
from agno_workers.core.run import StepKind
from agno_workers.core.step import ClaimedStep
from agno_workers.errors import InvalidInput, ModelRejected, ModelUnavailable
from agno_workers.knowledge.embedders.resolve import resolve
from agno_workers.knowledge.talk import NAME, TalkIndex
from agno_workers.models.scripted import Turn
from agno_workers.runs.prune import pruning
from agno_workers.sdk.knowledge import Knowledge
from agno_workers.sessions import history
from agno_workers.sessions.background import Background, Done, Work
from agno_workers.sessions.history import HistoryStore
from agno_workers.sessions.history_tools import HistoryTools
from agno_workers.sessions.index import KIND, extension, worker
from agno_workers.sessions.search import SessionSearch, exchanges
from tests.database import FEW, RunDatabase, said
from tests.ingesting import Shelf
from tests.integration.engine.conftest import Scenario, ScriptedReplies, counted_pool, live_streams, scenario
from tests.steps import execute_run

__all__ = ["counted_pool", "live_streams", "scenario"]
MODELS: dict[str, Callable[[str], Embedder]] = {"with vectors": lambda _: resolve("hash:64")}


def lacking(name: str) -> Embedder:
    raise ModelRejected(f"{name} is not installed")


MODELS["by words"] = lacking


class Past:
    """Sessions of users, their index and the search over it."""

    def __init__(self, db: RunDatabase, embedder: Callable[[str], Embedder]) -> None:
        self.db = db
        self.index = TalkIndex(db.pool, embedder)
        self._search = SessionSearch(db.pool, self.index)

    def run(self, asked: str, answered: Any = "ok", *, days: float = 0, indexed: bool = True, **options: Any) -> str:  # fmt: skip
        """Return the id of a run that has ended; its question was asked `days` ago."""
        turn = self.db.turn(text=asked, **{"session_id": "s", "user_id": "ada", **options})
        assert self.db.journal.end(turn, said(str(answered)), FEW, answered, "end").recorded
        self.db.sql(
            "UPDATE agno.run SET created_at = created_at - make_interval(secs => %(s)s) WHERE id = %(id)s",
            s=days * 86_400, id=turn.run_id,
        )  # fmt: skip
        if indexed:
            self.write(self.work(turn.run_id))
        return turn.run_id

    def work(self, *run_ids: str, tenant: str = "default") -> Done:
        now = self.db.value("SELECT now()")
        claim = ClaimedStep("", "", 0, StepKind.BACKGROUND, "", 0, 1, 0, "echo", now, tenant=tenant)
        agent = Agent(name="echo", model="openai:none")
        work = Work(claim, KIND, "s", agent, lambda model: pytest.fail(f"{model} is not needed"), run_ids, lambda: False)  # fmt: skip
        return worker(self.db.pool, self.index)(work)

    def write(self, done: Done) -> None:
        with self.db.pool.connection() as connection, connection.transaction():
            done.write(connection)

    def found(self, query: str, **options: Any) -> list[str]:
        asked = {"tenant": "default", "user_id": "ada", **options}
        return [each.run_id for each in self._search(query=query, **asked)]


@pytest.fixture(params=MODELS)
def past(db: RunDatabase, request: pytest.FixtureRequest) -> Past:
    return Past(db, MODELS[request.param])


@pytest.fixture
def plain(db: RunDatabase) -> Past:
    return Past(db, MODELS["with vectors"])


def test_exchange_is_found_by_its_question_its_answer_and_its_day(past: Past) -> None:
    cat = past.run("My cat is called Minka.", "A lovely name.", days=3)
    past.run("What is the weather?", "It will rain.", session_id="t")
    (exchange, *_) = past._search(tenant="default", user_id="ada", query="cat's name")
    assert (exchange.run_id, exchange.session_id) == (cat, "s")
    assert (exchange.asked, exchange.answered) == ("My cat is called Minka.", "A lovely name.")
    day = past.db.run(cat)["created_at"]
    assert exchange.at == day
    for query in ("lovely", f"{day.day} {day:%B}"):
        assert past.found(query)[0] == cat


def test_message_is_found_by_what_was_said_around_it(past: Past) -> None:
    """The answer of the second run has no word of the question."""
    past.run("Shall we talk about Portugal?", "Gladly: which town?")
    second = past.run("The one with the trams.", "Lisbon.")
    for number in range(4):
        past.run("Shall we talk?", f"About what, number {number}?", session_id="t")
    assert second in past.found("Portugal town", limit=2)


def test_exchanges_of_others_are_never_found(past: Past) -> None:
    own = {
        "ada": past.run("the secret word is swordfish"),
        "bob": past.run("the secret word is swordfish", session_id="b", user_id="bob"),
        None: past.run("the secret word is swordfish", session_id="n", user_id=None),
    }
    for user_id, run_id in own.items():
        assert past.found("secret word", user_id=user_id) == [run_id]
    for session_id in ("b", "n"):
        assert past.found("secret word", session_id=session_id) == []
    assert past.found("secret word", user_id="%") == past.found("secret word", tenant="other") == []


def test_exchanges_of_others_take_no_places_of_a_users_own(plain: Past) -> None:
    own = plain.run("once I said swordfish, I think")
    others = [plain.run("swordfish", session_id="b", user_id="bob", indexed=False) for _ in range(8)]
    plain.write(plain.work(*others))
    assert plain.found("swordfish", limit=1) == [own]


def test_run_of_another_user_is_not_shown_whatever_the_index_says(plain: Past) -> None:
    run_id = plain.run("swordfish", user_id="bob")

    class Wrong:
        def search(self, *_: Any, **__: Any) -> list[tuple[str, float]]:
            return [(run_id, 1.0)]

    search = SessionSearch(plain.db.pool, Wrong())
    for user_id in ("ada", None):
        assert search(tenant="default", user_id=user_id, query="swordfish") == []


def test_search_is_limited_to_sessions_agents_and_days(plain: Past) -> None:
    old = plain.run("red fox", session_id="one", days=10)
    new = plain.run("red fox", session_id="two", days=1)
    other = plain.run("red fox", session_id="two", agent="writer")
    assert set(plain.found("fox")) == {old, new, other}
    assert plain.found("fox", session_id="one") == [old]
    assert set(plain.found("fox", without_session="one")) == {new, other}
    assert plain.found("fox", agent="writer") == [other]
    assert set(plain.found("fox", days=5)) == {new, other}
    assert len(plain.found("fox", limit=2)) == 2


def test_best_exchange_comes_first_and_of_equals_the_latest(plain: Past) -> None:
    first, second = plain.run("blue whale", session_id="a"), plain.run("blue whale", session_id="b")
    best = plain.run("a blue whale sings, and the blue whale dives", session_id="c")
    assert plain.found("blue whale sings") == [best, second, first]


def test_question_that_no_one_talked_about_finds_nothing(past: Past) -> None:
    assert past.found("anything") == []  # there is no index yet
    past.run("hello")
    assert past.found("   ") == []


def test_tools_and_thinking_are_left_out_and_other_answers_are_json(plain: Past) -> None:
    turn = plain.db.turn(text="how warm is it?", session_id="s", user_id="ada")
    asked = Message("assistant", (Text("I will look."), ToolCall("1", "thermometer", '{"place": "attic"}')))
    result = Message("tool", (ToolResult("1", "thermometer", "elevenish"),))
    assert plain.db.journal.end(turn, [asked, result, *said("x")], FEW, {"degrees": 11}, "end").recorded
    plain.write(plain.work(turn.run_id))
    (exchange,) = plain._search(tenant="default", user_id="ada", query="degrees")
    assert exchange.answered == '{"degrees": 11}'
    words = plain.db.value("SELECT string_agg(content, ' ') FROM agno.chunk")
    assert words == 'how warm is it? {"degrees": 11}'


def test_work_reads_the_beginning_of_long_messages(plain: Past) -> None:
    run_id = plain.run("a" * 1_000_000, "b" * 1_000_000, indexed=False)
    (row,) = exchanges(plain.db.pool, "default", [run_id])
    assert (len(row["asked"]), len(row["answered"])) == (20_000, 20_000)


def test_work_that_is_repeated_writes_a_run_once(past: Past) -> None:
    run_id = past.run("My cat is called Minka.")
    past.write(past.work(run_id))
    first, second = past.work(run_id), past.work(run_id)  # both have read before either writes
    past.write(first)
    past.write(second)
    assert past.db.count("chunk") == 2
    assert past.found("Minka") == [run_id]


def test_run_that_is_rolled_back_is_not_found_nor_indexed(past: Past) -> None:
    kept, gone = past.run("My cat is called Minka."), past.run("My cat is called Tom.")
    late = past.run("The cat sleeps.", indexed=False)
    work = past.work(late)
    past.db.sql("UPDATE agno.run SET rolled_back_at = now() WHERE id = ANY (%(ids)s::uuid[])", ids=[gone, late])  # fmt: skip
    assert past.found("cat") == [kept]
    past.write(work)
    assert past.db.sql("SELECT FROM agno.chunk WHERE run_id = %(id)s", id=late) == []


def test_rollback_waits_for_the_index_that_is_being_written(plain: Past) -> None:
    run_id = plain.run("My cat is called Minka.", indexed=False)
    done = plain.work(run_id)
    roll_back = (
        "WITH gone AS (UPDATE agno.run SET rolled_back_at = now() WHERE id = %(id)s RETURNING id) "
        "SELECT agno.forget_exchanges('default', array_agg(id)) FROM gone"
    )
    with plain.db.transaction() as writing, plain.db.transaction() as rolling_back:
        with writing.connection() as connection:
            done.write(connection)
        rolled_back = rolling_back.begin_and_commit(lambda: rolling_back.run(roll_back, {"id": run_id}))
        assert plain.db.waits(rolled_back, rolling_back)
        writing.commit()
        rolled_back.result(timeout=20)
    assert plain.db.count("chunk") == 0


def test_forgotten_and_deleted_runs_leave_nothing_in_the_index(past: Past) -> None:
    kept, gone = past.run("My cat is called Minka."), past.run("My cat is called Tom.")
    past.db.sql("SELECT agno.forget_exchanges('other', %(ids)s::uuid[])", ids=[gone])
    assert set(past.found("cat")) == {kept, gone}
    past.db.sql("SELECT agno.forget_exchanges('default', %(ids)s::uuid[])", ids=[gone])
    assert past.found("cat") == [kept]
    past.db.sql("UPDATE agno.run SET ended_at = ended_at - interval '100 days'")
    with pruning(past.db.pool, timedelta(days=90)) as found:
        assert found.delete()[0] == 2
    assert past.db.count("document") == past.db.count("chunk") == 0
    assert past.db.value("SELECT chunk_count FROM agno.knowledge") == 0


def test_run_that_is_deleted_while_it_is_indexed_leaves_nothing(past: Past) -> None:
    run_id = past.run("My cat is called Minka.", indexed=False)
    done = past.work(run_id)
    past.db.sql("DELETE FROM agno.run WHERE id = %(id)s", id=run_id)
    past.write(done)
    assert past.db.count("chunk") == past.db.count("document") == 0


def test_long_message_is_found_by_its_end(past: Past) -> None:
    run_id = past.run("Read this. " + "lorem ipsum " * 300 + "The password is swordfish.")
    past.run("And what is lorem ipsum?", session_id="t")
    assert past.found("swordfish")[0] == run_id


def test_reindexing_makes_the_vectors_that_a_worker_could_not_make(db: RunDatabase) -> None:
    run_id = Past(db, lacking).run("My cat is called Minka.")
    shelf = Shelf(db)
    past = Past(db, lambda _: shelf.embedder)
    past.run("And my dog Rex.", session_id="t")
    assert db.count("chunk_embedding") == 2
    assert past.found("Minka")[0] == run_id  # a message without a vector is found by its words
    send = shelf.knowledges.reindex(NAME).send
    assert send is not None
    shelf.carry(send)
    shelf.finish(send.run_id)
    assert db.queries.run(send.run_id).status == "done"
    assert db.count("chunk_embedding") == 4
    assert past.found("Minka")[0] == run_id


def test_messages_wait_for_a_provider_that_is_away_and_questions_do_not(plain: Past) -> None:
    run_id = plain.run("My cat is called Minka.")

    def away(_: str) -> Embedder:
        raise ModelUnavailable("the provider is away")

    cut_off = Past(plain.db, away)
    assert cut_off.found("Minka") == [run_id]
    with pytest.raises(ModelUnavailable):
        cut_off.work(run_id)


def test_users_cannot_take_the_name_of_the_index() -> None:
    with pytest.raises(InvalidInput, match="agno:sessions"):
        Knowledge(NAME)


def test_run_without_words_is_not_indexed(plain: Past) -> None:
    turn = plain.db.journal.submit(user(), agent="echo", queue="agents", session_id="s", user_id="ada")
    assert plain.work(turn.run_id).content == {"messages": 0}
    plain.write(plain.work(turn.run_id))
    assert plain.db.count("chunk") == 0


def test_fact_of_one_session_is_in_the_history_of_the_next(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(text="Noted."))
    agents = (
        Agent(name="clerk", model=replies.model, history=History()),
        Agent(name="forgetful", model=replies.model),
    )
    past = Past(scenario.db, MODELS["with vectors"])
    search = past._search
    extensions = (
        history.extension(HistoryStore(scenario.pool), search, HistoryTools(scenario.pool, search)),
        extension(lambda agent: agent.history.search_past_sessions > 0),
    )
    engine = replace(scenario.engine(*agents), extensions=extensions)
    background = Background(engine, scenario.pool, {KIND: worker(scenario.pool, past.index)})
    for agent in agents:
        execute_run(
            engine,
            scenario.submit(
                agent.name, "My cat is called Minka.", session_id=f"{agent.name} 1", user_id="ada"
            ),
        )
    (step,) = scenario.db.sql(
        "SELECT run_id, id, generation FROM agno.step WHERE kind = 'background'"
    )  # the forgetful one has none
    assert background.run(step["run_id"], step["id"], step["generation"]).recorded
    execute_run(
        engine, scenario.submit("clerk", "What is my cat's name?", session_id="clerk 2", user_id="ada")
    )
    assert any("Minka" in message.text for message in replies.asked[-1].messages)
