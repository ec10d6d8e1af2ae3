"""What the model sees of earlier runs: chosen once a run, by user, agent and session, and read without the rest of the session."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from agno_workers.core.agent import Agent, History
from agno_workers.core.messages import user
from agno_workers.core.tool import Effect
from agno_workers.database.pool import jsonb
from agno_workers.engine.plan import AgentPlan
from agno_workers.errors import InvalidTool, ModelUnavailable
from agno_workers.models.scripted import Turn
from agno_workers.sessions.compose import Exchange
from agno_workers.sessions.history import HistoryStore
from agno_workers.tools import tool
from tests.database import RunDatabase, result, unknown_id
from tests.database import said as answer
from tests.integration.engine.conftest import Scenario, ScriptedReplies
from tests.steps import execute_run, execute_step

ERROR = {"type": "RunFailed", "message": "no key", "ids": {}}
BARE = History(summary=False, search_past_sessions=0, tools=False)
SHIPS = Exchange("old", "r", "Which ship?", "The Argo.", datetime(2026, 11, 24, tzinfo=UTC), 0.9)


@tool(effect=Effect.PURE)
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def ended(db: RunDatabase, text: str, status: str = "done", **fields: Any) -> str:
    """Store a run of the session whose answer is its input in capitals; a run that is not done has no answer."""
    run = {
        "id": unknown_id(),
        "agent": "a",
        "status": status,
        "queue": "agents",
        "session_id": "s",
        "created_at": db.queries.now(),
    }
    run |= {"ended_at": None if status == "running" else db.queries.now()} | fields
    names = ", ".join(run)
    db.sql(
        f"INSERT INTO agno.run ({names}) SELECT {names} FROM jsonb_populate_record(NULL::agno.run, %(run)s) AS given",
        run=jsonb(run),
    )
    for seq, message in enumerate([user(text), *(answer(text.upper()) if status == "done" else [])]):
        db.sql(
            "INSERT INTO agno.message (run_id, seq, content) VALUES (%(id)s, %(seq)s, %(content)s)",
            id=run["id"],
            seq=seq,
            content=jsonb(message),
        )
    return str(run["id"])


def ended_before_all(db: RunDatabase, text: str, **fields: Any) -> str:
    """Store a run that would be in every history that is decided after it."""
    return ended(db, text, created_at=db.queries.now() - timedelta(hours=1), **fields)


def texts(messages: Any) -> list[str]:
    return [message.text for message in messages]


def asked(scenario: Scenario, history: History = BARE, **options: Any) -> list[str]:
    """Return what the model of a new run sees before its input."""
    replies = ScriptedReplies(Turn(text="ok"))
    agent = Agent(name="a", model=replies.model, history=history)
    run = scenario.run(agent, "now", **{"session_id": "s", **options})
    *before, last = replies.asked[-1].messages
    assert last == user("now")
    assert scenario.handle(run.id).history == before
    return texts(before)


def adding(*numbers: int) -> Turn:
    return Turn(calls=tuple(("add", {"a": number, "b": 1}) for number in numbers))


# The runs in it.


def test_history_has_done_runs_of_the_session_the_agent_and_the_user(scenario: Scenario) -> None:
    db = scenario.db
    ended(db, "kept", tenant="default")
    ended(db, "other session", session_id="t")
    ended(db, "other agent", agent="b")
    ended(db, "other user", user_id="ann")
    ended(db, "other tenant", tenant="shop")
    ended(db, "cancelled", "cancelled", reason="cancelled")
    ended(db, "failed", "failed", error=ERROR)
    ended(db, "under way", "running")
    ended(db, "rolled back", rolled_back_at=db.queries.now())
    ended(db, "interrupted", "cancelled", reason="interrupted")
    good = ["kept", "KEPT", "interrupted", "(This answer was interrupted.)"]
    assert asked(scenario) == good
    every = msgspec.structs.replace(BARE, only="all")
    assert asked(scenario, every)[:-2] == [
        *good[:2], "cancelled", "(This run was cancelled.)", "failed", "(This run failed: no key)", *good[2:],
    ]  # fmt: skip


def test_runs_are_in_the_order_of_the_session_and_those_without_a_place_come_first(
    scenario: Scenario,
) -> None:
    db = scenario.db
    for position, text in ((None, "earlier code"), (2, "second"), (1, "first"), (4, "later")):
        ended(db, text, session_position=position)
    now = scenario.submit("a", "now", session_id="s")
    db.sql("UPDATE agno.run SET session_position = 3 WHERE id = %(id)s", id=now.run_id)
    replies = ScriptedReplies(Turn(text="ok"))
    execute_run(scenario.engine(Agent(name="a", model=replies.model, history=BARE)), now)
    assert texts(replies.asked[-1].messages)[::2] == ["earlier code", "first", "second", "now"]


def test_history_has_large_texts(scenario: Scenario) -> None:
    scenario.run(Agent(name="a", model=ScriptedReplies(Turn(text="ok")).model), "x" * 100_000, session_id="s")
    assert asked(scenario, msgspec.structs.replace(BARE, tokens=60_000)) == ["x" * 100_000, "ok"]


def test_older_run_that_can_not_be_read_is_left_out(scenario: Scenario) -> None:
    odd = ended(scenario.db, "odd")
    scenario.db.sql("UPDATE agno.message SET content = '7' WHERE run_id = %(id)s", id=odd)
    ended(scenario.db, "good")
    assert asked(scenario, msgspec.structs.replace(BARE, runs=1)) == ["good", "GOOD"]


def test_summary_and_exchanges_of_earlier_sessions_lead(scenario: Scenario) -> None:
    for text in "abcd":
        ended(scenario.db, text * 400, user_id="ann")
    scenario.db.sql(
        "INSERT INTO agno.session (id, user_id, summary) VALUES ('s', 'ann', 'It was about letters.')"
        " ON CONFLICT (tenant, id) DO UPDATE SET summary = excluded.summary, user_id = excluded.user_id"
    )
    scenario.exchanges = [SHIPS]
    lead, *rest = asked(scenario, History(runs=1, tokens=520), user_id="ann")
    assert "It was about letters." in lead
    assert "Which ship?" in lead
    assert rest[-2:] == ["d" * 400, "D" * 400]
    assert "a" * 400 not in rest
    assert scenario.searched == [
        {
            "tenant": "default",
            "user_id": "ann",
            "agent": "a",
            "query": "now",
            "limit": 3,
            "without_session": "s",
        }
    ]


def test_nobodys_sessions_are_not_searched(scenario: Scenario) -> None:
    scenario.exchanges = [SHIPS]
    assert asked(scenario, History()) == []
    assert scenario.searched == []


def test_run_goes_on_without_a_search_that_fails(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**_: Any) -> list[Exchange]:
        raise ModelUnavailable("the embedder is away", retry_after_s=None)

    monkeypatch.setattr(scenario, "search", fails)
    assert asked(scenario, History(), user_id="ann") == []


# All turns of a run see the same.


def test_turns_of_a_run_see_what_its_first_turn_saw(scenario: Scenario) -> None:
    db, replies = scenario.db, ScriptedReplies(adding(1), adding(2), Turn(text="ok"))
    agent = Agent(name="a", model=replies.model, tools=[add], history=History())
    ended(db, "before", user_id="ann")
    scenario.exchanges = [SHIPS]
    now = scenario.submit("a", "now", session_id="s", user_id="ann")
    assert db.journal_of("dead").claim_turn(now.run_id, now.step_id, 0)
    scenario.db.expire(now.step_id)
    todo = [now]
    while todo:  # each step in a process of its own
        todo += execute_step(scenario.engine(agent), todo.pop(0)).sends
        ended_before_all(db, f"meanwhile {len(replies.asked)}", user_id="ann")
        scenario.exchanges = []
    before = [request.messages[:3] for request in replies.asked]
    assert len(before) == 3
    assert before[0] == before[1] == before[2]
    assert "Which ship?" in before[0][0].text
    assert texts(before[0][1:]) == ["before", "BEFORE"]
    assert len(scenario.searched) == 1


def test_first_turn_that_is_repeated_sends_the_same_history(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(error=ModelUnavailable("later", retry_after_s=0.0)), Turn(text="ok"))
    agent = Agent(name="a", model=replies.model, history=BARE)
    ended(scenario.db, "before")
    now = scenario.submit("a", "now", session_id="s")
    execute_step(scenario.engine(agent), now)
    ended_before_all(scenario.db, "meanwhile")
    scenario.let_time_pass()
    execute_step(scenario.engine(agent), now)
    assert texts(replies.asked[0].messages) == texts(replies.asked[1].messages) == ["before", "BEFORE", "now"]


def test_two_workers_at_the_same_first_turn_see_the_same(scenario: Scenario) -> None:
    db = scenario.db
    ended(db, "before")
    claim = db.turn(text="now", session_id="s", agent="a")
    with db.transaction() as one, db.transaction() as two:
        first = HistoryStore(one).at_turn(claim, BARE, list)
        ended_before_all(db, "meanwhile")
        second = two.begin(lambda: HistoryStore(two).at_turn(claim, BARE, list))
        assert db.waits(second, two)
        one.commit()
        assert texts(second.result()) == texts(first) == ["before", "BEFORE"]


def test_fork_sees_the_history_of_the_run_that_it_was_forked_from(scenario: Scenario) -> None:
    replies = ScriptedReplies(Turn(text="ok"))
    agent = Agent(name="a", model=replies.model, history=BARE)
    ended(scenario.db, "before")
    run = scenario.run(agent, "now", session_id="s")
    fork = scenario.handle(run.id).fork(None, "instead")
    scenario.execute_pending(scenario.engine(agent), fork.id)
    assert texts(replies.asked[1].messages) == ["before", "BEFORE", "instead"]


def test_history_costs_one_statement_a_run(scenario: Scenario) -> None:
    replies = ScriptedReplies(adding(1), Turn(text="ok"))
    agent = Agent(name="a", model=replies.model, tools=[add], history=History())
    engine = scenario.engine(agent)
    execute_run(engine, scenario.submit("a", session_id="s"))
    assert scenario.pool.ran == ["claim", "history", "finish", "claim", "finish", "claim", "finish"]
    # In another process, the next turn reads what the first one has decided.
    replies = ScriptedReplies(adding(1), Turn(text="ok"))
    agent = Agent(name="a", model=replies.model, tools=[add], history=History())
    (call,) = execute_step(scenario.engine(agent), scenario.submit("a", session_id="s")).sends
    (turn,) = execute_step(scenario.engine(agent), call).sends
    scenario.pool.ran = []
    execute_step(scenario.engine(agent), turn)
    assert scenario.pool.ran == ["claim", "history", "finish"]


def test_definition_of_earlier_code_means_what_it_meant() -> None:
    plan = AgentPlan.of(Agent(name="a", model="scripted:echo", history=History()))
    then = plan.as_begun({"history": {"runs": 2}}).agent.history
    assert (then.runs, then.summary, then.search_past_sessions, then.tools) == (2, False, 0, False)
    assert plan.as_begun({"history": {"runs": 0}}).agent.history.is_empty
    assert plan.as_begun(plan.definition.content).agent.history == History()


def test_history_reads_as_much_of_a_long_session_as_of_a_short_one(scenario: Scenario) -> None:
    db = scenario.db
    session = """
        WITH runs AS (
            INSERT INTO agno.run (id, agent, status, queue, session_id, session_position, ended_at)
            SELECT gen_random_uuid(), 'a', 'done', 'agents', %(session)s, place, now() FROM generate_series(1, %(size)s) place RETURNING id)
        INSERT INTO agno.message (run_id, seq, content)
        SELECT id, seq, jsonb_build_object('role', role, 'parts', jsonb_build_array(jsonb_build_object('type', 'text', 'text', repeat('ship ', 300))))
        FROM runs, (VALUES (0, 'user'), (1, 'assistant')) AS parts (seq, role)"""
    read = (
        "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM agno.past_runs(%(run)s, false, 5, 105, 24000)"
    )
    pages = []
    for size in (10, 3000):
        db.sql(session, session=f"of {size}", size=size)
        now = db.submit(agent="a", session_id=f"of {size}").run_id
        db.sql("UPDATE agno.run SET session_position = 9999 WHERE id = %(id)s", id=now)
        db.sql(read, run=now)  # the plans are made
        plan = db.value(read, run=now)[0]["Plan"]
        assert plan["Actual Rows"] == 8
        pages.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
    assert pages[1] <= 1.3 * pages[0] + 10


# Tools.


def called(scenario: Scenario, name: str, arguments: dict[str, Any] | None = None, **options: Any) -> Any:
    """Return the result of a tool that the agent's model calls."""
    replies = ScriptedReplies(Turn(calls=((name, arguments or {"n": 10}),)), Turn(text="ok"))
    agent = Agent(name="a", model=replies.model, history=History(runs=0, summary=False))
    run = scenario.run(agent, "now", **{"session_id": "s", **options})
    (content,) = scenario.results(run.id)
    return msgspec.json.decode(content)


def test_chat_history_has_the_last_questions_of_the_session(scenario: Scenario) -> None:
    for text in "abc":
        ended(scenario.db, text, user_id="ann")
    ended(scenario.db, "other", session_id="t", user_id="ann")
    found = called(scenario, "read_chat_history", {"n": 2}, user_id="ann")
    assert [(each["question"], each["answer"]) for each in found] == [("c", "C"), ("b", "B")]


def test_answer_of_a_history_tool_is_bounded(scenario: Scenario) -> None:
    for _ in range(10):
        ended(scenario.db, "long " * 1000)
    found = called(scenario, "read_chat_history")
    assert 0 < len(found) < 10
    assert len(found[0]["question"]) == 2001


def test_search_finds_in_all_sessions_of_the_user(scenario: Scenario) -> None:
    scenario.exchanges = [SHIPS]
    (found,) = called(scenario, "search_history", {"query": "ship", "days": 30}, user_id="ann")
    assert (found["question"], found["answer"], found["session_id"]) == ("Which ship?", "The Argo.", "old")
    assert scenario.searched[-1] == {
        "tenant": "default",
        "user_id": "ann",
        "agent": "a",
        "query": "ship",
        "limit": 10,
        "days": 30,
    }


def test_search_without_a_user_stays_in_the_session(scenario: Scenario) -> None:
    scenario.exchanges = [SHIPS]
    assert len(called(scenario, "search_history", {"query": "ship"})) == 1
    assert (scenario.searched[-1]["user_id"], scenario.searched[-1]["session_id"]) == (None, "s")
    assert called(scenario, "search_history", {"query": "ship"}, session_id=None) == []


def test_search_that_finds_nothing_looks_for_words_in_the_session(scenario: Scenario) -> None:
    for text in ("which ship", "a port", "the ship of Jason"):
        ended(scenario.db, text)
    ended(scenario.db, "the ship elsewhere", session_id="t")
    found = called(scenario, "search_history", {"query": "Jason ship", "days": 1})
    assert [each["question"] for each in found] == ["the ship of Jason", "which ship"]


def test_tool_calls_are_those_of_the_user(scenario: Scenario) -> None:
    db = scenario.db
    calls: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("look", "a page", {"session_id": "t", "user_id": "ann"}),
        ("look", "a page", {"session_id": "u", "user_id": "ann"}),
        ("look", "of bob", {"session_id": "v", "user_id": "bob"}),
        ("send", "sent", {"user_id": "ann"}),
        ("look", "of nobody", {"session_id": "nobody's"}),
        ("look", "of somebody", {"session_id": "somebody's"}),
    )
    for name, text, options in calls:
        (call,) = db.tools(name, agent="a", **options)
        db.journal.finish_tool(call, result(call, text))
        db.journal.cancel(call.run_id)
    (call,) = db.tools("look", agent="a", user_id="ann")
    db.journal.finish_tool(call, result(call), {"type": "raised", "message": "no page"})
    found = called(scenario, "read_tool_call_history", {"tool": "look"}, user_id="ann")
    assert (found["calls"], found["worked"]) == (3, 2)
    failed, *worked = found["newest"]
    assert (failed["tool"], failed["error"], failed["arguments"]) == ("look", "no page", "{}")
    assert failed["seconds"] >= 0
    assert [each["result"] for each in worked] == ["a page"] * 2
    without_user = called(scenario, "read_tool_call_history", {"tool": None}, session_id="nobody's")
    assert [each["result"] for each in without_user["newest"]] == ["of nobody"]


def test_history_tools_are_offered_where_the_agent_has_a_history(scenario: Scenario) -> None:
    names = {"read_chat_history", "search_history", "read_tool_call_history"}
    agents: tuple[tuple[Agent, set[str]], ...] = (
        (Agent(name="a", model="scripted:echo", history=History()), names),
        (Agent(name="a", model="scripted:echo"), set()),
    )
    for agent, offered in agents:
        assert set(scenario.engine(agent).plan("a").offered) == offered


def test_tool_of_the_same_name_is_refused(scenario: Scenario) -> None:
    @tool
    def search_history(query: str) -> str:
        """Search."""
        return query

    agent = Agent(name="a", model="scripted:echo", tools=[search_history], history=History())
    with pytest.raises(InvalidTool, match="two tools are named 'search_history'"):
        scenario.engine(agent).plan("a")
