"""What people do with memories: list, edit, undo, forget, redact, delete, export, consolidate; and how few are found among many."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agno_workers import Client, InvalidInput, MemoryChanged, MemoryNotFound
from agno_workers.core.agent import Memory
from agno_workers.sessions.memory import MemoryService, within
from agno_workers.sessions.memory_consolidate import Suggested, Suggestion, accepted
from agno_workers.sessions.memory_proposal import Proposal, ProposedChange
from agno_workers.sessions.memory_store import Found, MemoryOwner, MemoryStore
from tests.database import RunDatabase

ANN = MemoryOwner("user", "ann")


@pytest.fixture
def store(db: RunDatabase) -> MemoryStore:
    return MemoryStore(db.pool)


@pytest.fixture
def people(db: RunDatabase) -> Iterator[Client]:
    with Client(db.pool.url) as client:
        yield client


def texts(people: Client, **asked: Any) -> list[str | None]:
    return [each.text for each in people.memories.list("ann", **asked)]


def test_edit_keeps_versions_and_refuses_a_version_that_is_not_the_newest(people: Client) -> None:
    tea = people.memories.add("Ann likes tea.", "ann")
    edited = people.memories.edit(tea.id, "Ann likes green tea.", expected_version=1, by="support")
    assert (edited.version, edited.text) == (2, "Ann likes green tea.")
    with pytest.raises(MemoryChanged, match="at version 2, not 1: somebody changed it") as caught:
        people.memories.edit(tea.id, "Ann hates tea.", expected_version=1)
    assert caught.value.version == 2
    versions = people.memories.history(tea.id)
    assert [(each.change, each.text, each.actor) for each in versions] == [
        ("added", "Ann likes tea.", "ann"),
        ("edited", "Ann likes green tea.", "support"),
    ]


def test_second_of_two_edits_at_the_same_time_reads_the_first(store: MemoryStore, db: RunDatabase) -> None:
    tea = store.add(ANN, "Ann likes tea.", actor="ann")
    with db.transaction() as first, db.transaction() as second:
        MemoryStore(first).edit(tea.id, "Ann likes green tea.", actor="a", expected_version=1)
        late = second.begin(
            lambda: MemoryStore(second).edit(tea.id, "Ann hates tea.", actor="b", expected_version=1)
        )
        assert db.waits(late, second)
        first.commit()
        with pytest.raises(MemoryChanged):
            late.result()
    assert store.get(tea.id).text == "Ann likes green tea."


def test_same_text_is_stored_once_also_by_callers_at_the_same_time(people: Client) -> None:
    ways = ["Ann likes tea.", "ann likes  tea", "ANN LIKES TEA!"] * 4
    with ThreadPoolExecutor(4) as pool:
        added = list(pool.map(lambda text: people.memories.add(text, "ann").id, ways))
    assert len(set(added)) == 1
    coffee = people.memories.add("Ann likes coffee.", "ann")
    with pytest.raises(InvalidInput, match="has this text already: forget one"):
        people.memories.edit(coffee.id, "Ann likes tea")


def test_undo_walks_back_and_opens_what_was_superseded(people: Client, store: MemoryStore) -> None:
    old = people.memories.add("Ann lives in Berlin.", "ann")
    people.memories.edit(old.id, "Ann lives in West Berlin.")
    with store.changing(ANN) as connection:
        new = store.add(ANN, "Ann lives in Rome.", actor="learning", connection=connection)
        store.supersede(store.get(old.id), new, actor="learning", run_id=None, connection=connection)
    assert texts(people) == ["Ann lives in Rome."]
    people.memories.undo(new.id)
    assert texts(people) == [
        "Ann lives in West Berlin."
    ]  # the addition is undone, so the old one is open again
    assert people.memories.undo(old.id).text == "Ann lives in Berlin."
    people.memories.undo(old.id)
    assert texts(people) == []
    with pytest.raises(InvalidInput, match="undone to before its beginning"):
        people.memories.undo(old.id)
    forgotten = people.memories.add("Ann likes tea.", "ann")
    people.memories.forget(forgotten.id)
    assert texts(people) == []
    assert people.memories.undo(forgotten.id).is_open


def test_undo_of_a_superseded_memory_keeps_both(people: Client, store: MemoryStore) -> None:
    old, new = (
        people.memories.add("Ann lives in Berlin.", "ann"),
        people.memories.add("Ann works in Rome.", "ann"),
    )
    with store.changing(ANN) as connection:
        store.supersede(old, new, actor="learning", run_id=None, connection=connection)
    people.memories.undo(old.id)
    assert sorted(map(str, texts(people))) == ["Ann lives in Berlin.", "Ann works in Rome."]


def test_list_travels_in_time(people: Client) -> None:
    before = datetime.now(UTC) - timedelta(hours=1)
    tea = people.memories.add("Ann likes tea.", "ann", kind="preference")
    added = people.memories.history(tea.id)[0].at
    people.memories.edit(tea.id, "Ann likes coffee.")
    people.memories.forget(tea.id)
    forgotten = people.memories.history(tea.id)[2].at
    people.memories.undo(tea.id)
    assert texts(people, at=before) == []
    assert texts(people, at=added) == ["Ann likes tea."]
    assert texts(people, at=forgotten) == []
    assert texts(people, at=datetime.now(UTC) + timedelta(hours=1), kind="preference") == [
        "Ann likes coffee."
    ]
    assert texts(people, kind="goal") == []


def test_redacted_text_is_nowhere_in_the_database(
    people: Client, store: MemoryStore, db: RunDatabase
) -> None:
    phone = people.memories.add("Ann has the number 0171-SECRET.", "ann")
    people.memories.edit(phone.id, "Ann has the number 0172-SECRET.")
    other = people.memories.add("Ann has a phone.", "ann")
    run_id, consolidation = db.turn(user_id="ann").run_id, db.turn(user_id="ann").run_id
    store.recall(run_id, store.find(ANN, "ann", "phone", 10))
    merge = ProposedChange("merge", (phone.id, other.id), "Ann has a phone, 0172-SECRET.", "fact")
    with db.pool.connection() as connection:
        store.propose(consolidation, Proposal("user:ann", {phone.id: 2, other.id: 1}, (merge,)), connection)
    assert "SECRET" in dump(db)
    redacted = people.memories.redact(phone.id, by="officer")
    assert (redacted.text, redacted.is_open) == (None, False)
    assert "SECRET" not in dump(db)
    assert [each.change for each in people.memories.history(phone.id)] == ["added", "edited", "redacted"]
    assert sorted(str(each.text) for each in people.runs.get(run_id).memories) == ["Ann has a phone.", "None"]
    assert people.memories.redact(phone.id).version == 3  # safe to repeat
    with pytest.raises(InvalidInput, match="is redacted: its text is gone"):
        people.memories.undo(phone.id)


def dump(db: RunDatabase) -> str:
    return str(db.everything())


def test_memories_of_others_look_as_if_they_did_not_exist(people: Client) -> None:
    bobs = people.memories.add("Bob is bald.", "bob")
    for verb in ("get", "history", "undo", "forget", "redact"):
        with pytest.raises(MemoryNotFound, match=f"no memory '{bobs.id}' of user:ann"):
            getattr(people.memories, verb)(bobs.id, user_id="ann")
    with pytest.raises(MemoryNotFound):
        people.memories.edit(bobs.id, "Bob is not bald.", user_id="ann")
    with pytest.raises(MemoryNotFound):
        people.memories.get("no id")
    assert people.memories.get(bobs.id, user_id="bob") == bobs
    assert texts(people) == []


def test_delete_all_deletes_versions_and_what_is_still_to_be_learned(people: Client, db: RunDatabase) -> None:
    people.memories.add("Ann likes tea.", "ann")
    people.memories.add("Bob likes tea.", "bob")
    run_id = db.turn(user_id="ann").run_id
    for owner in ("user:ann", "user:bob"):
        db.sql("INSERT INTO agno.background_item (kind, owner, run_id) VALUES ('learn', %(owner)s, %(run_id)s)", owner=owner, run_id=run_id)  # fmt: skip
    assert people.memories.delete_all("ann") == 1
    assert people.memories.export("ann")["memories"] == []
    assert [db.count("memory"), db.count("memory_version")] == [1, 1]
    assert db.value("SELECT owner FROM agno.background_item") == "user:bob"


def test_export_has_all_versions_and_what_is_switched_off(people: Client, db: RunDatabase) -> None:
    tea = people.memories.add("Ann likes tea.", "ann")
    people.memories.forget(tea.id)
    db.sql("INSERT INTO agno.consent (user_id, category, allowed) VALUES ('ann', 'memory:health', false)")
    exported = people.memories.export("ann")
    (memory,) = exported["memories"]
    assert [each["change"] for each in memory["versions"]] == ["added", "forgotten"]
    assert exported["consent"][0]["category"] == "memory:health"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, 'whose memories\\? Name the owner: user_id="ann"'),
        ({"user_id": ""}, "whose memories"),
        ({"user_id": "ann", "scope": "agent"}, "use either it, or scope and owner"),
        ({"scope": "agent"}, 'scope="agent", owner='),
        ({"scope": "agnt", "owner": "a"}, "no scope 'agnt'. Did you mean 'agent'"),
        ({"user_id": "ann", "kind": "prefrence"}, "no kind 'prefrence'. Did you mean 'preference'"),
        ({"user_id": "ann", "limit": 0}, "limit must be a whole number >= 1"),
    ],
)
def test_wrong_arguments_get_one_clear_sentence(asked: dict[str, Any], said: str, people: Client) -> None:
    with pytest.raises(InvalidInput, match=said):
        people.memories.list(**asked)


@pytest.mark.parametrize("text", ["", " \n", None, "x" * 2_001])
def test_text_that_is_not_a_memory_is_refused(text: Any, people: Client) -> None:
    with pytest.raises(InvalidInput, match="a memory"):
        people.memories.add(text, "ann")


# Recall.


def test_among_many_memories_those_of_the_question_are_found(store: MemoryStore, db: RunDatabase) -> None:
    for number in range(60):
        store.add(ANN, f"Ann has seen the film number {number}.", actor="ann")
    sister = store.add(ANN, "Ann's sister Clara plays the violin in Vienna.", actor="ann")
    store.add(MemoryOwner("user", "bob"), "Bob's sister plays the violin in Vienna.", actor="bob")
    found = MemoryService(store).search(
        Memory(recall=5), ANN, "ann", "Which instrument is played by my sister?"
    )
    assert found[0].id == sister.id
    assert len(found) == 5
    vectors = MemoryService(store, closeness=lambda _, texts: [float("number 50." in text) for text in texts])
    found = vectors.search(Memory(recall=5), ANN, "ann", "Which instrument is played by my sister?")
    assert {found[0].text, found[1].text} == {sister.text, "Ann has seen the film number 50."}
    broken = MemoryService(store, closeness=lambda *_: [1 / 0])
    assert broken.search(Memory(recall=5), ANN, "ann", "violin sister")[0].id == sister.id


def test_old_memories_rank_lower_with_a_half_life_and_used_ones_higher(
    store: MemoryStore, db: RunDatabase
) -> None:
    ids = [store.add(ANN, f"Ann likes tea of kind {number}.", actor="ann").id for number in range(4)]
    db.sql(
        "UPDATE agno.memory SET recorded_at = now() - interval '60 days' WHERE id = ANY(%(ids)s::uuid[])",
        ids=ids[2:],
    )
    db.sql("UPDATE agno.memory SET uses = 20 WHERE id = %(id)s", id=ids[2])
    by_use = [each.id for each in store.find(ANN, "ann", "tea", 2)]
    by_age = {each.id for each in store.find(ANN, "ann", "tea", 2, half_life_days=30)}
    assert by_use[0] == ids[2]
    assert by_age == set(ids[:2])


def test_contradicting_memories_come_together_within_the_tokens() -> None:
    when = datetime(2026, 1, 1, tzinfo=UTC)
    found = [
        Found(id=f"00000000-{name}", version=1, kind="fact", text=text, valid_from=when, root=root)
        for name, text, root in [
            ("a", "short", "a"),
            ("b", "x" * 400, "b"),
            ("c", "y" * 400, "b"),
            ("d", "short", "d"),
        ]
    ]
    assert [each.root for each in within(found, 10, 10_000)] == ["a", "b", "b", "d"]
    assert [each.root for each in within(found, 10, 150)] == ["a", "d"]
    assert [each.root for each in within(found, 2, 10_000)] == ["a", "b", "b"]


# Consolidation.


def test_suggestions_that_name_other_or_used_memories_are_left_out(store: MemoryStore) -> None:
    first, second, third = (store.add(ANN, f"Ann {number}.", actor="ann") for number in range(3))
    one, two, three = (each.id[-8:] for each in (first, second, third))
    suggested = [
        Suggestion("merge", [one, "00000000"], "made up", "fact"),
        Suggestion("merge", [one], "one alone", "fact"),
        Suggestion("merge", [f"[{one}]", two], "Ann 0 and 1.", "fact"),
        Suggestion("close", [two], "used already", "fact"),
        Suggestion("close", [three], "no use", "fact"),
        Suggestion("add", [], " ", "fact"),
        Suggestion("add", [], "Ann counts.", "event"),
    ]
    found = accepted(Suggested(suggested), [first, second, third])
    assert [(each.action, each.ids, each.text) for each in found] == [
        ("merge", (first.id, second.id), "Ann 0 and 1."),
        ("close", (third.id,), "no use"),
        ("add", (), "Ann counts."),
    ]


def test_consolidation_is_a_run_of_the_agent_that_ran_last(people: Client, db: RunDatabase) -> None:
    with pytest.raises(InvalidInput, match="no agent has run for user:ann"):
        people.memories.consolidate("ann")
    db.turn(user_id="ann", agent="first")
    last = db.turn(user_id="ann", agent="last")
    db.turn(user_id="bob", agent="others")
    learn = """SELECT agno.request_background(%(id)s, '[{"kind": "learn", "owner": "user:ann"}]')"""
    db.sql(learn, id=last.run_id)
    run = people.runs.get(people.memories.consolidate("ann")).run
    assert (run.agent, run.metadata) == ("last", {"kind": "consolidate", "owner": "user:ann"})
    assert people.memories.consolidate("ann", agent="first") == run.id  # one at a time
    with pytest.raises(InvalidInput, match="agent 'frist' has not run"):
        people.memories.consolidate("ann", agent="frist")


def test_kind_that_memories_do_not_have_cannot_be_denied(people: Client) -> None:
    for kind in ("helth", ""):
        with pytest.raises(InvalidInput, match=f"memories have no kind '{kind}'"):
            people.consent("ann").deny(f"memory:{kind}")
    people.consent("ann").deny("memory:health")
    assert people.consent("ann").categories() == {"memory:health": False}


def test_proposals_of_another_tenant_stay(people: Client, db: RunDatabase, store: MemoryStore) -> None:
    run_id, tea = (
        db.submit(tenant="other", user_id="ann").run_id,
        people.memories.add("Ann likes tea.", "ann"),
    )
    with db.pool.connection() as connection:
        store.propose(run_id, Proposal("user:ann", {tea.id: 1}, ()), connection)
    people.memories.redact(tea.id)
    people.memories.delete_all("ann")
    assert db.count("run_context") == 1


def test_proposal_applies_at_once_or_says_what_has_changed(
    people: Client, store: MemoryStore, db: RunDatabase
) -> None:
    first, second, third = (
        people.memories.add(f"Ann likes {tea}.", "ann") for tea in ("tea", "green tea", "noise")
    )
    run_id = db.turn(user_id="ann").run_id
    db.sql(
        """UPDATE agno.run SET kind = 'background', metadata = '{"kind": "consolidate", "owner": "user:ann"}' WHERE id = %(id)s""",
        id=run_id,
    )
    with pytest.raises(InvalidInput, match="has not ended: wait for it"):
        people.memories.apply(run_id)
    seen = {each.id: 1 for each in (first, second, third)}
    changes = (
        ProposedChange("merge", (first.id, second.id), "Ann likes green tea best.", "preference"),
        ProposedChange("close", (third.id,), "nobody likes noise", "fact"),
        ProposedChange("add", (), "Ann drinks hot drinks.", "fact"),
    )
    with db.pool.connection() as connection:
        store.propose(run_id, Proposal("user:ann", seen, changes), connection)
    assert people.memories.proposal(run_id).changes == changes
    people.memories.edit(first.id, "Ann loves tea.")
    late = people.memories.add("Ann is late.", "ann")
    with pytest.raises(
        MemoryChanged, match=rf"{first.id[-8:]} was edited; {late.id[-8:]} is new\): consolidate again"
    ):
        people.memories.apply(run_id)
    people.memories.forget(late.id)
    people.memories.undo(first.id)
    with db.pool.connection() as connection:
        store.propose(run_id, Proposal("user:ann", seen | {first.id: 3}, changes), connection)
    made = people.memories.apply(run_id, by="ann")
    assert sorted(map(str, texts(people))) == ["Ann drinks hot drinks.", "Ann likes green tea best."]
    assert people.memories.get(second.id).replaced_by == made[0].id
    with pytest.raises(MemoryChanged, match="is closed"):
        people.memories.apply(run_id)  # a second time
    people.memories.undo(made[0].id)
    assert {"Ann likes tea.", "Ann likes green tea."} <= set(texts(people))
    with pytest.raises(InvalidInput, match="is not a consolidation of memories"):
        people.memories.proposal(db.turn().run_id)
