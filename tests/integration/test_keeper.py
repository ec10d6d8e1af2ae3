"""The keeper's rounds on a real database and a real Redis, without a worker: what is owed arrives, and nothing more."""

from __future__ import annotations

import math
from typing import Any

import pytest
import redis
from uuid6 import uuid7

from agno_workers.broker import keeper, queues
from agno_workers.broker.keeper import Duties, Keeper
from agno_workers.broker.queues import DEPLOYMENT_KEY, EPOCH_KEY
from agno_workers.core.messages import user
from agno_workers.core.request import RunRequest
from agno_workers.core.run import Canvas, StepKind
from agno_workers.core.step import NOT_RECORDED, CommitResult, ExhaustedStep
from agno_workers.database.pool import statements
from agno_workers.runs.submit import Chord
from agno_workers.wiring import Services
from tests.agents import caller, echo
from tests.steps import first_step


@pytest.fixture
def rounds(services: Services) -> Keeper:
    return services.keeper()


def submit(count: int) -> list[str]:
    return [echo.delay(str(number)).id for number in range(count)]


def age(services: Services, seconds: float) -> None:
    """All steps were written and sent so long ago."""
    columns = ("created_at", "sent_at", "resend_at")
    passed = ", ".join(f"{column} = {column} - make_interval(secs => %(s)s)" for column in columns)
    services.database.pool.run(f"UPDATE agno.step SET {passed}", {"s": seconds})


def remembers(services: Services, client: redis.Redis) -> None:
    client.set(EPOCH_KEY, services.database.maintenance.epoch())


def test_after_a_wipe_a_long_backlog_is_sent_once(
    services: Services, rounds: Keeper, redis_client: redis.Redis
) -> None:
    backlog = 2 * keeper._BATCH + 1
    submit(backlog)
    redis_client.flushdb()
    assert rounds.round()
    assert rounds.round()
    assert queues.length(redis_client, "agents") == backlog
    assert _remembered(redis_client) == services.database.maintenance.epoch()


def test_round_without_work_is_one_statement_and_mostly_writes_nothing(
    services: Services, rounds: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds._lease_s = 60.0
    assert rounds.round()  # the first one asks for what it has to know
    asked: list[str] = []
    run = services.database.pool.run

    def note(statement: str, params: Any = None) -> Any:
        asked.append(statement)
        return run(statement, params)

    monkeypatch.setattr(services.database.pool, "run", note)
    before = run("SELECT xmin, beat FROM agno.meta WHERE key = 'keeper'")
    rounds._not_before = dict.fromkeys(
        ("database", "leftovers"), math.inf
    )  # all but what it does each minute
    assert rounds.round()
    assert len(asked) == 1
    assert run("SELECT xmin, beat FROM agno.meta WHERE key = 'keeper'") == before


def test_keeper_reports_lost_data_except_on_a_new_database(
    rounds: Keeper, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    submit(1)
    assert rounds.round()
    assert caplog.text == ""
    redis_client.flushdb()
    assert rounds.round()
    assert "Redis lost data: sending every ready step again" in caplog.text


def test_round_that_redis_refuses_to_store_is_no_lost_data(
    rounds: Keeper,
    redis_client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert rounds.round()

    def refuse(*_: Any) -> None:
        raise redis.ResponseError("MISCONF")

    with monkeypatch.context() as patched:
        patched.setattr(rounds._redis, "set", refuse)
        assert rounds.round()
    assert rounds.round()
    assert "lost data" not in caplog.text


def test_redis_that_lost_one_round_is_noticed(
    rounds: Keeper, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    rounds._lease_s = 60.0  # so that no renewal tells the rounds apart
    assert rounds.round()
    before = redis_client.get(EPOCH_KEY)
    assert rounds.round()
    assert isinstance(before, bytes)
    redis_client.set(EPOCH_KEY, before)
    assert rounds.round()
    assert "Redis lost data" in caplog.text


def test_a_step_that_waits_behind_a_backlog_is_sent_again_after_a_minute_and_then_after_two(
    services: Services, rounds: Keeper, redis_client: redis.Redis
) -> None:
    remembers(services, redis_client)
    submit(1)
    sent = []
    for seconds in (30, 35, 30, 25, 75):  # far from the limits, on a slow machine too
        age(services, seconds)
        rounds._not_before.clear()
        rounds.round()
        sent.append(queues.length(redis_client, "agents"))
    assert sent == [1, 2, 2, 2, 3]


def test_timers_of_programs_that_are_due_at_once_start_the_next_turns(
    services: Services, rounds: Keeper, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembers(services, redis_client)
    monkeypatch.setattr(keeper, "_TIMERS", 4)
    services.database.pool.run("""
        WITH r AS (
            INSERT INTO agno.run (id, agent, status, queue, kind)
            SELECT agno.uuid7(), 'sleeper', 'waiting', 'agents', 'workflow' FROM generate_series(1, 10) RETURNING id),
        b AS (
            INSERT INTO agno.barrier (id, run_id, generation, size, body)
            SELECT agno.uuid7(), id, 0, 1, jsonb_build_object('id', agno.uuid7(), 'kind', 'turn', 'key', 'turn:2', 'queue', 'agents', 'seq', 2,
                'max_attempts', 3) FROM r RETURNING id, run_id)
        INSERT INTO agno.step (id, run_id, generation, key, kind, status, queue, name, seq, call, barrier_id, max_attempts, waits_for, expires_at,
            arrival)
        SELECT agno.uuid7(), run_id, 0, 'sleep', 'wait', 'waiting', 'agents', '', 1, '{"kind": "timer"}', id, 1, 'timer', clock_timestamp(), 0
        FROM b""")
    assert rounds.round()
    assert rounds.round()  # the notification of the first one wakes the keeper
    assert queues.length(redis_client, "agents") == 10


def test_one_step_that_can_not_be_ended_keeps_no_other_rule_from_its_work(
    services: Services, redis_client: redis.Redis
) -> None:
    def break_down(step: ExhaustedStep) -> CommitResult:
        raise ValueError(step.step_id)

    rounds = Keeper(
        services.database.maintenance,
        services.database.outbox,
        services.database.journal,
        services.dispatch,
        redis_client,
        Duties(break_down, lambda _: NOT_RECORDED, lambda: 0),
        lease_s=1,
        resend_after_s=1,
    )
    stuck = first_step(services.database.queries, caller.delay("add").id)
    services.database.pool.run("UPDATE agno.step SET max_attempts = 1")
    assert services.database.journal.claim(StepKind.TURN, stuck.run_id, stuck.step_id, 0)
    services.database.journal.end_lease(stuck.step_id)
    echo.apply_async(("later",), countdown=0.0)
    before = queues.length(redis_client, "agents")
    assert rounds.round()
    assert queues.length(redis_client, "agents") > before


def test_a_run_that_can_not_be_ended_keeps_neither_another_nor_any_rule_from_its_work(
    services: Services, rounds: Keeper, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    broken, overdue = submit(2)
    services.database.pool.run(
        """UPDATE agno.run SET deadline_at = created_at, canvas = '{"chord": true, "group_id": "no uuid"}' WHERE id = %(id)s""",
        {"id": broken},
    )
    services.database.pool.run(
        "UPDATE agno.run SET deadline_at = clock_timestamp() WHERE id = %(id)s", {"id": overdue}
    )
    echo.apply_async(("later",), countdown=0.0)
    before = queues.length(redis_client, "agents")
    assert rounds.round()
    assert services.database.queries.run(overdue).status.is_terminal
    assert f"run {overdue} of agent echo ended: " in caplog.text
    assert queues.length(redis_client, "agents") > before
    assert not services.database.queries.run(broken).status.is_terminal


def test_keeper_of_another_deployment_stops_and_tells_once(
    services: Services, redis_client: redis.Redis
) -> None:
    redis_client.set(DEPLOYMENT_KEY, "another-id shop_production")
    told: list[str] = []
    rounds = services.keeper(told.append)
    submit(1)
    age(services, 60)
    before = redis_client.lrange("agents", 0, -1)
    assert [rounds.round() for _ in range(5)] == [False] * 5
    assert ["shop_production" in each for each in told] == [True]
    assert redis_client.lrange("agents", 0, -1) == before
    assert not redis_client.exists(EPOCH_KEY)
    redis_client.delete(DEPLOYMENT_KEY)
    assert services.keeper(told.append).round()
    assert services.keeper(told.append).round()  # the id is stored, and stays
    assert len(told) == 1


def test_while_redis_is_away_leases_are_watched_all_the_same(services: Services) -> None:
    nowhere = redis.Redis(unix_socket_path="/nowhere/redis.sock")
    ended: list[str] = []

    def note(step: ExhaustedStep) -> CommitResult:
        ended.append(step.step_id)
        return NOT_RECORDED

    rounds = Keeper(
        services.database.maintenance,
        services.database.outbox,
        services.database.journal,
        services.dispatch,
        nowhere,
        Duties(note, lambda _: NOT_RECORDED, lambda: 0),
        lease_s=1,
        resend_after_s=1,
    )
    turn = first_step(services.database.queries, echo.delay("x").id)
    services.database.pool.run("UPDATE agno.step SET max_attempts = 1")
    assert services.database.journal.claim(StepKind.TURN, turn.run_id, turn.step_id, 0)
    services.database.journal.end_lease(turn.step_id)
    assert rounds.round()
    assert ended == [turn.step_id]


def _remembered(redis_client: redis.Redis) -> str:
    """The epoch that Redis repeats."""
    value = redis_client.get(EPOCH_KEY)
    assert isinstance(value, bytes)
    return value.decode().partition(" ")[0]


def test_chords_that_wait_in_vain_are_logged_once(
    services: Services, rounds: Keeper, caplog: pytest.LogCaptureFixture
) -> None:
    submissions = services.database.submissions

    def chord(size: int | None, age: str, *canvases: str, body: str = "") -> str:
        """Store a chord of that age, with open runs whose canvas holds its id in these fields; return its id."""
        one = Chord(str(uuid7()), {"task": "shop.total", "options": {"group_id": body}}, size)
        parts = {
            "header": Canvas(chord=True, group_id=one.id),
            "chain": Canvas(chain=[{"task": "shop.price", "options": {"group_id": one.id}}]),
        }
        requests = [RunRequest(agent="echo", input=user("hi"), id=str(uuid7()), canvas=parts[name]) for name in canvases]  # fmt: skip
        submissions.submit_canvas(requests, [one])
        aged = "UPDATE agno.barrier SET created_at = now() - %(age)s::interval WHERE id = %(id)s"
        services.database.pool.run(aged, {"age": age, "id": one.id})
        return one.id

    cut_off = chord(None, "1 hour", "header")
    lost = chord(2, "2 days")
    outer = chord(2, "3 days")
    inner = chord(2, "3 days", body=outer)
    fired = chord(1, "2 days")
    services.database.results.chord_part(fired, str(uuid7()), 0, "SUCCESS", 1)
    chord(None, "1 min")
    chord(2, "1 hour")
    chord(2, "2 days", "header")
    chord(2, "2 days", "chain")
    chord(2, "8 days")
    found = services.database.results.leftovers()
    assert [each.chord_id for each in found] == [inner, lost, cut_off]
    for _ in range(2):
        rounds._not_before.clear()
        rounds.round()
    assert [message for message in caplog.messages if message.startswith("the chord")] == list(
        map(str, found)
    )


def test_open_runs_are_read_once_for_all_chords_that_may_wait_in_vain(services: Services) -> None:
    ids = [str(uuid7()) for _ in range(3)]
    header = RunRequest(
        agent="echo", input=user("hi"), id=str(uuid7()), canvas=Canvas(chord=True, group_id=ids[0])
    )
    services.database.submissions.submit_canvas(
        [header], [Chord(each, {"task": "shop.total"}, 2) for each in ids]
    )
    pool = services.database.pool
    pool.run("UPDATE agno.barrier SET created_at = now() - interval '2 days'")
    statement = "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) " + statements("runs/results")["leftovers"]
    plan = [row["QUERY PLAN"] for row in pool.run(statement, {"limit": 10})]
    assert [line.rpartition("loops=")[2] for line in plan if " on run " in line] == ["1)"]
