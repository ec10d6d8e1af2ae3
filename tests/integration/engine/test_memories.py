"""Memories in runs: what the model sees, the same in every turn, and the tools with which it remembers."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from agno_workers.core.agent import Agent, Memory
from agno_workers.core.run import RunStatus
from agno_workers.core.tool import Effect
from agno_workers.engine.turn import Engine
from agno_workers.models.scripted import Turn
from agno_workers.sessions.memory import MemoryService
from agno_workers.sessions.memory_store import MemoryOwner, MemoryStore
from agno_workers.tools import tool
from tests.integration.engine.conftest import Scenario, ScriptedReplies
from tests.steps import execute_run, execute_step

ANN, BOB = MemoryOwner("user", "ann"), MemoryOwner("user", "bob")


@pytest.fixture
def store(scenario: Scenario) -> MemoryStore:
    return MemoryStore(scenario.db.pool)


def engine_of(scenario: Scenario, agent: Agent, **options: Any) -> Engine:
    memories = MemoryService(MemoryStore(scenario.db.pool), **options)
    return replace(scenario.engine(agent), extensions=(memories.extension(),))


def run(scenario: Scenario, agent: Agent, *, user_id: str | None = "ann", **options: Any) -> str:
    """Run an agent to its end, and return the id of the run."""
    step = scenario.submit(agent.name, "What should I cook?", user_id=user_id)
    execute_run(engine_of(scenario, agent, **options), step)
    assert scenario.queries.run(step.run_id).status is RunStatus.DONE
    return step.run_id


def remembering(*turns: Turn, **memory: Any) -> tuple[ScriptedReplies, Agent]:
    replies = ScriptedReplies(*turns)
    return replies, Agent(name="cook", model=replies.model, instructions="Cook.", memory=Memory(**memory))


def test_run_recalls_memories_of_its_user_only(scenario: Scenario, store: MemoryStore) -> None:
    tea = store.add(ANN, "Ann likes tea.", "preference", actor="ann")
    store.add(BOB, "Bob likes beer.", actor="bob")
    replies, agent = remembering(Turn(text="Tea."))
    run_id = run(scenario, agent)
    assert f"- [{tea.id[-8:]}] Ann likes tea. (preference, " in replies.asked[0].system
    assert replies.asked[0].system.startswith("Cook.\n\nMemories of earlier conversations about the user.")
    (recalled,) = scenario.handle(run_id).memories
    assert (recalled.id, recalled.version, recalled.text) == (tea.id, 1, "Ann likes tea.")
    assert store.get(tea.id).uses == 1
    run(scenario, agent, user_id=None)
    assert replies.asked[1].system == "Cook."


def test_all_turns_of_a_run_see_the_same_memories(scenario: Scenario, store: MemoryStore) -> None:
    @tool(effect=Effect.PURE)
    def look() -> str:
        """Look."""
        store.edit(tea.id, "Ann likes coffee.", actor="ann")
        store.add(ANN, "Ann is in a hurry.", actor="ann")
        return "seen"

    tea = store.add(ANN, "Ann likes tea.", actor="ann")
    replies, agent = remembering(Turn(calls=(("look", {}),)), Turn(text="Tea."), Turn(text="Coffee."))
    agent = Agent(name="cook", model=replies.model, memory=Memory(), tools=[look])
    run(scenario, agent)
    run(scenario, agent)
    first, second, next_run = (each.system for each in replies.asked)
    assert first == second
    assert "Ann likes coffee." in next_run
    assert store.get(tea.id).uses == 2  # once a run


def test_memory_that_is_locked_delays_no_run(scenario: Scenario, store: MemoryStore) -> None:
    tea, bread = (store.add(ANN, f"Ann likes {it}.", actor="ann") for it in ("tea", "bread"))
    replies, agent = remembering(Turn(text="Tea."))
    with scenario.db.transaction() as other:
        other.run("SELECT FROM agno.memory WHERE id = %(id)s FOR UPDATE", {"id": tea.id})
        run(scenario, agent)
    assert [store.get(each.id).uses for each in (tea, bread)] == [0, 1]
    assert "Ann likes tea." in replies.asked[0].system


def test_user_who_switched_memory_off_is_not_remembered(scenario: Scenario, store: MemoryStore) -> None:
    store.add(ANN, "Ann is ill.", "health", actor="ann")
    store.add(ANN, "Ann likes tea.", actor="ann")
    deny = "INSERT INTO agno.consent (user_id, category, allowed) VALUES ('ann', %(category)s, false)"
    scenario.db.sql(deny, category="memory:health")
    call = ("remember", {"text": "Ann has a cold.", "kind": "health"})
    replies, agent = remembering(
        Turn(calls=(call,)), Turn(text="ok"), Turn(calls=(call,)), Turn(text="ok"), learn="agentic"
    )
    run_id = run(scenario, agent)
    assert "Ann likes tea." in replies.asked[0].system
    assert "ill" not in replies.asked[0].system
    assert scenario.results(run_id) == ["the user has switched this off: nothing was changed."]
    scenario.db.sql(deny, category="memory")
    run(scenario, agent)
    assert replies.asked[2].system == "Cook."
    assert len(store.memories(ANN)) == 2


def test_model_remembers_changes_and_forgets(scenario: Scenario, store: MemoryStore) -> None:
    old, wrong = (store.add(ANN, text, actor="ann") for text in ("Ann likes tea.", "Ann is old."))
    calls = [
        ("remember", {"text": "Ann eats no meat.", "kind": "preference"}),
        ("update_memory", {"id": f"[{old.id[-8:]}]", "text": "Ann likes green tea."}),
        ("forget", {"id": wrong.id[-8:]}),
    ]
    replies, agent = remembering(Turn(calls=tuple(calls)), Turn(text="ok"), learn="both")
    run_id = run(scenario, agent)
    assert [re.sub(r"\[\w{8}\]", "[ID]", result) for result in scenario.results(run_id)] == [
        "Remembered as [ID].",
        "[ID] is changed.",
        "[ID] is forgotten.",
    ]
    assert {each.text for each in store.memories(ANN)} == {"Ann likes green tea.", "Ann eats no meat."}
    (_, edited) = store.history(old.id)
    assert (edited.actor, edited.run_id) == ("agent:cook", run_id)
    assert {"remember", "update_memory", "forget"} == {each.name for each in replies.asked[0].tools}


def test_model_reads_why_a_memory_can_not_be_changed(scenario: Scenario, store: MemoryStore) -> None:
    bobs = store.add(BOB, "Bob likes beer.", actor="bob")
    calls = [("forget", {"id": bobs.id}), ("forget", {"id": "12345678"}), ("remember", {"text": "x" * 3000, "kind": "fact"})]  # fmt: skip
    turns = [turn for call in calls for turn in (Turn(calls=(call,)), Turn(text="ok"))]
    turns += [Turn(calls=(("remember", {"text": "Ann.", "kind": "fact"}),)), Turn(text="ok")] * 2
    _, agent = remembering(*turns, learn="agentic")
    results = [scenario.results(run(scenario, agent))[0] for _ in calls]
    assert f"no memory {bobs.id!r} of user:ann in this database" in results[0]
    assert "no memory '12345678' of user:ann in this database" in results[1]
    assert "at most 2,000 characters" in results[2]
    assert store.get(bobs.id).is_open
    refused = run(scenario, agent, user_id=None)
    assert "this run has no user" in scenario.results(refused)[0]
    tainted = run(scenario, agent, may_remember=lambda _: False)
    assert "may not change memories" in scenario.results(tainted)[0]
    assert store.memories(ANN) == []


@pytest.mark.parametrize(
    ("memory", "user_id", "asked"),
    [
        (Memory(), "ann", [("learn", "user:ann")]),
        (Memory(learn="both"), "ann", [("learn", "user:ann")]),
        (Memory(scope="agent"), None, [("learn", "agent:cook")]),
        (Memory(scope="session"), None, [("learn", "session:s1")]),
        (Memory(scope="global"), None, [("learn", "global:")]),
        (Memory(), None, []),
        (Memory(learn="agentic"), "ann", []),
        (Memory(learn="off"), "ann", []),
        (None, "ann", []),
    ],
)
def test_end_of_a_run_asks_for_learning(
    memory: Memory | None, user_id: str | None, asked: list[tuple[str, str]], scenario: Scenario
) -> None:
    agent = Agent(name="cook", model=ScriptedReplies(Turn(text="ok")).model, memory=memory)
    execute_step(engine_of(scenario, agent), scenario.submit("cook", user_id=user_id, session_id="s1"))
    items = scenario.db.sql("SELECT kind, owner FROM agno.background_item")
    assert [(each["kind"], each["owner"]) for each in items] == asked


def test_run_with_an_empty_session_id_has_no_memories_of_a_session(
    scenario: Scenario, store: MemoryStore
) -> None:
    store.add(MemoryOwner("session", ""), "Ann is ill.", actor="ann")
    replies, agent = remembering(Turn(text="ok"), scope="session")
    execute_step(engine_of(scenario, agent), scenario.submit("cook", user_id="bob", session_id=""))
    assert replies.asked[0].system == "Cook."
    assert scenario.db.count("background_item") == 0
