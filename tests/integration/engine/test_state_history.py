"""State as it was: restore, undo and the reading of an earlier time, against a model that keeps every value."""

from __future__ import annotations

import uuid
from collections import defaultdict
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from agno_workers.core.state import _identity, after
from agno_workers.database.pool import jsonb
from agno_workers.errors import InvalidInput, RunNotFound
from agno_workers.runs.prune import pruning
from agno_workers.sessions.state import StateStore
from tests.database import RunDatabase, Transaction
from tests.integration.engine.test_state import PARALLEL

MISSING = object()
NUMBERS = st.integers(-5, 5) | st.sampled_from([0.1, 0.25, 2.0, -1.5])
ITEMS = NUMBERS | st.sampled_from(["a", "b", True, None]) | st.just({"x": [1]})
INCREMENT = st.tuples(st.just("increment"), NUMBERS)
FEW_ITEMS = st.lists(st.sampled_from(["a", "b", 1]), max_size=2)
ADD = st.tuples(st.sampled_from(["append", "extend", "union"]), FEW_ITEMS)
ANY = st.one_of(
    INCREMENT,
    st.tuples(st.sampled_from(["append", "extend", "union"]), st.lists(ITEMS, max_size=3)),
    st.tuples(st.sampled_from(["max", "min"]), NUMBERS | st.sampled_from(["a", "B", "é", "z"])),
    st.tuples(st.just("update"), st.dictionaries(st.sampled_from("pq"), ITEMS)),
    st.tuples(
        st.just("set"),
        ITEMS | st.lists(ITEMS, max_size=3) | st.dictionaries(st.sampled_from("pq"), ITEMS),
    ),
    st.just(("delete", None)),
)
OPERATIONS = {"count": INCREMENT, "list": ADD, "any": ANY}
"""By key, so that operations which can be undone beside others meet often."""


class Change(NamedTuple):
    run: int | None
    operation: str
    operand: Any
    before: Any
    after: Any
    is_undo: bool = False

    @property
    def added(self) -> list[Any]:
        return list(self.after[0 if self.before is MISSING else len(self.before) :])


class Session:
    """A session with three runs, whose state is changed in SQL."""

    def __init__(self, db: RunDatabase) -> None:
        self._db = db
        self._runs = [db.submit(session_id="s", **PARALLEL).run_id for _ in range(3)]

    def write(self, key: str, steps: list[tuple[str, Any]], run: int | None) -> None:
        changes = [
            {"scope": "session", "owner": "s", "key": key, "operation": operation}
            | ({} if operation == "delete" else {"value": operand})
            for operation, operand in steps
        ]
        if run is None:
            write = "SELECT agno.write_state('default', %(changes)s, NULL, NULL, 'client')"
        else:
            write = "SELECT agno.change_state(%(run)s, %(step)s, %(changes)s)"
        self._db.sql(write, changes=jsonb(changes), run=self._runs[run or 0], step=str(uuid.uuid4()))

    def undo(self, run: int) -> list[str]:
        return [
            row["key"]
            for row in self._db.sql("SELECT * FROM agno.undo_state(%(run)s) AS key", run=self._runs[run])
        ]

    def now(self) -> datetime:
        return datetime.fromisoformat(str(self._db.value("SELECT clock_timestamp()")))


class Model(RuleBasedStateMachine):
    """The state of one session, changed by three runs and a client."""

    db: RunDatabase

    @initialize()
    def begin(self) -> None:
        self.db.empty()
        self.store = StateStore(self.db.pool)
        self.session = Session(self.db)
        self.changes: dict[str, list[Change]] = defaultdict(list)
        self.times: list[tuple[datetime, dict[str, Any]]] = []

    def now(self, key: str) -> Any:
        return self.changes[key][-1].after if self.changes[key] else MISSING

    def values(self) -> dict[str, Any]:
        return {key: value for key in sorted(self.changes) if (value := self.now(key)) is not MISSING}

    def note(self, key: str, change: Change) -> None:
        if same(change.before) != same(change.after):
            self.changes[key].append(change)

    @rule(key=st.sampled_from(list(OPERATIONS)), run=st.none() | st.integers(0, 2), data=st.data())
    def change(self, key: str, run: int | None, data: st.DataObject) -> None:
        steps = data.draw(st.lists(OPERATIONS[key], min_size=1, max_size=2))
        made, value = [], self.now(key)
        try:
            for operation, operand in steps:
                before = value
                value = after(
                    key, operation, before is not MISSING, None if before is MISSING else before, operand
                )
                value = MISSING if operation == "delete" else value
                made.append(Change(run, operation, operand, before, value))
        except InvalidInput:
            with pytest.raises(InvalidInput, match="does not fit"):
                self.session.write(key, steps, run)
            return
        self.session.write(key, steps, run)
        for each in made:
            self.note(key, each)

    @rule()
    def remember(self) -> None:
        self.times.append((self.session.now(), self.values()))

    @rule(place=st.integers(0, 9))
    def restore(self, place: int) -> None:
        if self.times:
            when, then = self.times[place % len(self.times)]
            assert same(self.store.at("session", "s", when)) == same(then)
            self.store.restore("session", "s", when, actor="test")
            for key in list(self.changes):
                value = then.get(key, MISSING)
                self.note(key, Change(None, "restore", value, self.now(key), value))

    @rule(run=st.integers(0, 2))
    def undo(self, run: int) -> None:
        left = [key for key in sorted(self.changes) if self.is_left(key, run)]
        assert self.session.undo(run) == left

    def is_left(self, key: str, run: int) -> bool:
        """Undo the changes of a run to a key in the model; return True where they cannot be told from those of others."""
        changes = self.changes[key]
        undone = {each.run for each in changes if each.is_undo}
        own = [each for each in changes if each.run == run]
        if not own or run in undone:
            return False
        since = [each for each in changes[changes.index(own[0]) :] if each.run not in undone]
        operations, value = {each.operation for each in since}, self.now(key)
        if all(each.run == run for each in since):
            value = own[0].before
        elif operations == {"increment"}:
            for each in own:
                value = after(key, "increment", True, value, -each.operand)
        elif operations <= {"append", "extend", "union"}:
            for item in (item for each in own for item in each.added):
                places = [place for place, other in enumerate(value) if same(other) == same(item)]
                value = [other for place, other in enumerate(value) if place not in places[-1:]]
        else:
            return True
        self.note(key, Change(run, "undo", None, self.now(key), value, is_undo=True))
        return False

    @invariant()
    def database_has_the_same_values(self) -> None:
        assert same(self.store.all("session", "s")) == same(self.values())


def same(value: Any) -> str:
    return "missing" if value is MISSING else _identity(value)


def test_state_follows_its_model(db: RunDatabase) -> None:
    class Bound(Model):
        pass

    Bound.db = db
    run_state_machine_as_test(
        Bound,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


# Cases that the model meets rarely.


@pytest.mark.parametrize(
    ("changes", "undone", "value", "left"),
    [
        ([(0, "set", 1), (0, "increment", 1)], [0], MISSING, []),
        ([(None, "set", 5), (0, "set", 1), (0, "delete", None)], [0], 5, []),
        ([(0, "increment", 0.1), (None, "increment", 1), (0, "increment", 0.2)], [0], 1, []),
        ([(0, "increment", 5), (None, "increment", 1)], [0, 0], 1, []),
        ([(0, "increment", 5), (1, "increment", 1), (None, "increment", 2)], [1, 0], 2, []),
        ([(0, "increment", 5), (1, "increment", 1)], [1, 0], MISSING, []),
        ([(None, "append", ["a"]), (0, "append", ["a"]), (1, "append", ["b"])], [0], ["a", "b"], []),
        (
            [(None, "append", ["a", "b"]), (0, "append", ["a"]), (1, "append", ["c"])],
            [0],
            ["a", "b", "c"],
            [],
        ),
        ([(None, "append", ["a"]), (0, "union", ["a", "b"]), (1, "append", ["c"])], [0], ["a", "c"], []),
        ([(0, "append", []), (1, "append", ["c"])], [0], ["c"], []),
        ([(0, "set", 1), (1, "set", 2)], [0], 2, ["k"]),
        ([(0, "max", 1), (1, "increment", 2)], [0], 3, ["k"]),
        ([(0, "increment", 1), (1, "set", 2), (1, "increment", 1)], [0], 3, ["k"]),
    ],
)
def test_undo_of_the_changes_of_runs(
    db: RunDatabase,
    changes: list[tuple[int | None, str, Any]],
    undone: list[int],
    value: Any,
    left: list[str],
) -> None:
    session = Session(db)
    for run, operation, operand in changes:
        session.write("k", [(operation, operand)], run)
    assert [key for run in undone for key in session.undo(run)] == left
    assert same(StateStore(db.pool).all("session", "s").get("k", MISSING)) == same(value)


def test_earlier_value_is_found_through_operations_of_every_kind(db: RunDatabase) -> None:
    session, store = Session(db), StateStore(db.pool)
    steps: list[tuple[str, Any]] = [
        ("update", {"p": 1}), ("update", {"p": 2, "q": 1}), ("set", []), ("append", [1]), ("extend", [2, 1]), ("union", [1, 3]), ("set", 1),
        ("increment", 2), ("max", 9), ("min", 0), ("delete", None), ("append", ["x" * 100_000]), ("append", ["y"]),
    ]  # fmt: skip
    seen = []
    for step in steps:
        session.write("k", [step], None)
        seen.append((session.now(), store.all("session", "s")))
    assert [store.at("session", "s", when) for when, _ in seen] == [values for _, values in seen]


# Pruning.


def age(db: RunDatabase, days: int) -> None:
    """Make all that happened so far older."""
    for column in (
        "state_change SET at = at",
        "state SET updated_at = updated_at",
        "run SET ended_at = ended_at",
        "blob SET used_at = used_at",
    ):
        db.sql(f"UPDATE agno.{column} - make_interval(days => %(days)s)", days=days)


def prune(db: RunDatabase, days: int = 30) -> None:
    with pruning(db.pool, timedelta(days=days)) as found:
        found.delete()


def test_prune_keeps_the_newest_old_change_of_each_key(db: RunDatabase) -> None:
    store = StateStore(db.pool)
    for number in range(3):
        store.change("session", "s", "n", "set", number, actor="c")
    store.change("session", "s", "gone", "set", ["x" * 100_000], actor="c")
    store.change("session", "s", "gone", "delete", actor="c")
    age(db, 40)
    store.change("session", "s", "n", "set", 3, actor="c")
    (before_prune,) = db.sql(
        "SELECT clock_timestamp() - interval '20 days' AS at, clock_timestamp() - interval '50 days' AS long_ago"
    )
    prune(db)
    assert [each.value for each in store.history("session", "s", "n", 10)] == [3, 2]
    assert store.history("session", "s", "gone", 10) == []
    assert (db.count("blob"), db.count("state")) == (0, 1)
    assert store.at("session", "s", before_prune["at"]) == {"n": 2}
    with pytest.raises(InvalidInput, match="were pruned: choose a later time"):
        store.at("session", "s", before_prune["long_ago"])


def test_prune_keeps_the_large_values_of_state(db: RunDatabase) -> None:
    store = StateStore(db.pool)
    large = ["x" * 100_000]
    store.change("user", "ann", "large", "set", large, actor="c")
    age(db, 40)
    prune(db)
    assert store.get("user", "ann", "large").value == large


def test_prune_deletes_the_state_of_a_run_with_it(db: RunDatabase) -> None:
    run_id = db.submit().run_id
    db.sql(
        "SELECT agno.change_state(%(run)s, NULL, %(changes)s)",
        run=run_id,
        changes=jsonb([{"scope": "run", "owner": run_id, "key": "n", "operation": "increment", "value": 1}]),
    )
    db.journal.cancel(run_id)
    age(db, 40)
    prune(db)
    assert (db.count("run"), db.count("state"), db.count("state_change")) == (0, 0, 0)


# Times.


def test_state_at_the_end_of_a_run_is_that_of_its_session_then(db: RunDatabase) -> None:
    store, run_id = StateStore(db.pool), db.submit(session_id="s").run_id
    store.change("session", "s", "n", "set", 1, actor="c")
    with pytest.raises(InvalidInput, match="has not ended"):
        store.at("session", "s", run_id)
    db.journal.cancel(run_id)
    store.change("session", "s", "n", "set", 2, actor="c")
    store.change("session", "s", "later", "set", 2, actor="c")
    assert store.at("session", "s", run_id) == {"n": 1}
    assert store.restore("session", "s", run_id, actor="c") == 2
    assert store.all("session", "s") == {"n": 1}
    with pytest.raises(RunNotFound, match="is not a run id"):
        store.at("session", "s", "yesterday")
    unknown = str(uuid.uuid4())
    with pytest.raises(InvalidInput, match=f"no run {unknown} in this database"):
        store.at("session", "s", unknown)


# Locks.


def test_changes_of_the_same_keys_in_any_order_do_not_deadlock(db: RunDatabase) -> None:
    """Two calls name the keys in opposite orders, one key exists, and both wait for a third transaction that holds a key between."""

    def changes(*keys: str) -> list[dict[str, Any]]:
        return [
            {"scope": "global", "owner": "", "key": key, "operation": "increment", "value": 1} for key in keys
        ]

    def write(transaction: Transaction, *keys: str) -> Any:
        transaction.run("SET LOCAL deadlock_timeout = '10ms'")
        statement = "SELECT agno.write_state('default', %(changes)s, NULL, NULL, 'c')"
        return transaction.begin_and_commit(
            lambda: transaction.run(statement, {"changes": jsonb(changes(*keys))})
        )

    StateStore(db.pool).change("global", "", "b", "set", 0, actor="c")
    with db.transaction() as gate, db.transaction() as one, db.transaction() as other:
        gate.run("SELECT FROM agno.state WHERE key = 'b' FOR UPDATE")
        first = write(one, "c", "b", "a")
        assert db.waits(first, one)
        second = write(other, "a", "d", "c", "b")
        assert db.waits(second, other)
        gate.commit()
        first.result(), second.result()
    assert StateStore(db.pool).all("global", "") == {"a": 2, "b": 2, "c": 2, "d": 1}
