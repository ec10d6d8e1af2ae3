"""A chord survives data loss in Redis and SIGKILL, and its body runs once. The control: stock Celery's does not survive."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from celery import Celery, chord, group
from celery.canvas import Signature
from celery.exceptions import TimeoutError as CeleryTimeoutError

from agno_workers import signals
from agno_workers.broker.app import AgnoCelery
from agno_workers.core.run import StepKind
from agno_workers.core.step import CanvasContinuation, StepMessage
from agno_workers.errors import InvalidInput
from agno_workers.local import LocalServers
from agno_workers.runs.submit import Chord
from agno_workers.sdk.verbs import run_signature
from agno_workers.wiring import Services
from tests import invariants
from tests.agents import caller, echo, holding, running, shouter
from tests.conftest import ROOT, StartWorker
from tests.contract.canvas import stock
from tests.contract.canvas.conftest import PLAIN, WAIT_S, Plain, sections
from tests.forking import inherited

_PARTS_OF_OPEN_CHORDS = """
    SELECT count(*) FROM agno.chord_part p JOIN agno.barrier b ON b.id = p.barrier_id WHERE b.fired_at IS NULL"""


# Redis loses everything.


@pytest.mark.parametrize("body", ["run", "plain task", "chain", "group", "chord"])
def test_chord_survives_a_redis_that_loses_everything(
    plain: Plain, held: Path, database: psycopg.Connection, redis_client: redis.Redis, body: str
) -> None:
    bodies: dict[str, tuple[Any, Any]] = {
        "run": (echo.s(), sections("<a>", "released", "B")),
        "plain task": (plain("join"), "<a>+released+B"),
        "chain": (plain("join") | shouter.s(), "<A>+RELEASED+B"),
        "group": (group([plain("join"), echo.s()]), ["<a>+released+B", sections("<a>", "released", "B")]),
        "chord": (chord([plain("join"), echo.si("c")], plain("join")), "<a>+released+B+<c>"),
    }
    signature, expected = bodies[body]
    result = chord([echo.s("a"), caller.s(holding(held)), plain("upper", "b")], signature)()
    invariants.until(running(held))
    invariants.until(lambda: database.execute(_PARTS_OF_OPEN_CHORDS).fetchone() == (2,))
    redis_client.flushdb()
    held.unlink()
    assert result.get(timeout=WAIT_S) == expected


def test_nested_chord_survives_a_redis_that_loses_everything(
    plain: Plain, held: Path, redis_client: redis.Redis
) -> None:
    inner = chord([caller.s(holding(held)), echo.s("a")], shouter.s())
    result = chord([inner | echo.s(), echo.s("b")], plain("join"))()
    invariants.until(running(held))
    redis_client.flushdb()
    held.unlink()
    assert result.get(timeout=WAIT_S) == "<[1]\nRELEASED\n\n[2]\n<A>>+<b>"


def test_header_that_redis_lost_before_a_worker_received_it_is_sent_again(
    start_worker: StartWorker, redis_client: redis.Redis
) -> None:
    result = chord([echo.s(letter).set(queue="late") for letter in "abc"], echo.s())()
    assert redis_client.llen("late") == 3
    redis_client.flushdb()
    start_worker(queues="late")
    assert result.get(timeout=WAIT_S) == sections("<a>", "<b>", "<c>")


def test_chord_is_accepted_while_redis_is_down_and_runs_later(
    environment: dict[str, str], app: AgnoCelery
) -> None:
    program = (
        "from celery import chord; from tests.agents import echo, shouter; "
        "print(chord([echo.s('a'), echo.s('b')], echo.s() | shouter.s())().id)"
    )
    away = inherited() | environment | {"AGNO_BROKER_URL": "redis://127.0.0.1:1/0"}
    said = subprocess.run(
        [sys.executable, "-c", program], env=away, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert app.AsyncResult(said.stdout.strip()).get(timeout=WAIT_S) == sections("<A>", "<B>").upper()


def test_stock_celery_chord_does_not_survive_a_redis_that_loses_everything(
    servers: LocalServers, held: Path, tmp_path: Path, redis_client: redis.Redis
) -> None:
    """The negative control. Redis held the count of the chord: with it the body is gone, silently. Both header tasks have
    succeeded when the wait for the body begins, and there is nothing else that it could be waiting for.
    """
    command = [sys.executable, "-m", "celery", "-A", "tests.contract.canvas.stock", "worker", "-Q", "stock"]
    started = subprocess.Popen(
        [*command, "-P", "threads", "-c", "2", "-l", "ERROR"],
        cwd=ROOT,
        env={**os.environ, "STOCK_REDIS_URL": servers.broker_url},
    )
    celery: Celery = stock.connected(servers.broker_url)
    try:
        header = [celery.signature("stock.same", ["a"]), celery.signature("stock.hold", [str(held)])]
        body = celery.signature("stock.join", kwargs={"path": str(tmp_path / "body ran")})
        result = chord(header, body, app=celery)()
        invariants.until(running(held))
        invariants.until(result.parent[0].ready)
        redis_client.flushdb()
        held.unlink()
        waited_for = [celery.AsyncResult(result.parent[1].id), celery.AsyncResult(result.id)]
        assert waited_for[0].get(timeout=WAIT_S) == "released"
        with pytest.raises(CeleryTimeoutError):
            waited_for[1].get(timeout=3)
        assert not (tmp_path / "body ran").exists()
        # A stock result unsubscribes when it goes, which must not be after Redis has gone.
        while waited_for:
            celery.backend.remove_pending_result(waited_for.pop())
        del result
        gc.collect()
    finally:
        started.kill()
        started.wait(timeout=30)
        celery.close()


# The submit is cut off.


class CutOff(BaseException):
    """The end of the process that submits, at a signal."""


@pytest.fixture
def cut_off_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that makes the next such signal the last thing that this process does."""

    def cut(name: str) -> None:
        def listener(reached: str, **_: object) -> None:
            if reached == name:
                listeners.clear()
                raise CutOff

        listeners = [listener]
        monkeypatch.setattr(signals, "_listeners", listeners)

    return cut


Part = Callable[..., Signature]
RUNS_ONLY: dict[str, tuple[Callable[[Part], Signature], int, int, Any]] = {
    # The canvas; its runs that are stored at the submit, and in all; its result.
    "run": (lambda run: run("a"), 1, 1, "<a>"),
    "chain": (lambda run: run("a") | run(), 1, 2, "<<a>>"),
    "group": (lambda run: group([run("a"), run("b")]), 2, 2, ["<a>", "<b>"]),
    "group from a generator": (lambda run: group(run(text) for text in "ab"), 2, 2, ["<a>", "<b>"]),
    "chord": (lambda run: chord([run("a"), run("b")], run()), 2, 3, sections("<a>", "<b>")),
    "chord of one": (lambda run: chord([run("a")], run()), 1, 2, sections("<a>")),
    "group piped into a chain": (lambda run: group([run("a"), run("b")]) | run() | run(), 2, 4, f"<{sections('<a>', '<b>')}>"),
    "chord of chains": (lambda run: chord([run("a") | run(), run("b")], run()), 2, 4, sections("<<a>>", "<b>")),
    "chord with a group for its body": (
        lambda run: chord([run("a"), run("b")], group([run(), run()])), 2, 4, [sections("<a>", "<b>")] * 2,
    ),
    "chord in a chord": (
        lambda run: chord([chord([run("a"), run("b")], run()), run("c")], run()), 3, 5, sections(sections("<a>", "<b>"), "<c>"),
    ),
    "group of chords": (
        lambda run: group([chord([run("a"), run("b")], run()), chord([run("c")], run())]), 3, 5,
        [sections("<a>", "<b>"), sections("<c>")],
    ),
    "more than a statement holds": (lambda run: group([run(str(n)) for n in range(3)]), 3, 3, ["<0>", "<1>", "<2>"]),
}  # fmt: skip


@pytest.mark.parametrize("shape", RUNS_ONLY)
def test_canvas_of_runs_whose_submit_is_cut_off_is_stored_whole_or_not_at_all(
    cut_off_at: Callable[[str], None],
    database: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    shape: str,
) -> None:
    """It is repeated with the keys of its runs, and each of them works once."""
    if shape == "more than a statement holds":
        monkeypatch.setattr("agno_workers.runs.submit._AT_ONCE", 2)
    make, stored, runs, expected = RUNS_ONLY[shape]
    key = str(uuid.uuid4())

    def send() -> Any:
        number = count()
        return make(lambda *texts: echo.s(*texts, idempotency_key=f"{key} {next(number)}")).delay()

    def rows() -> tuple[int, int]:
        found = database.execute(
            "SELECT (SELECT count(*) FROM agno.run WHERE idempotency_key LIKE %s), (SELECT count(*) FROM agno.barrier WHERE size IS NULL)",
            [f"{key}%"],
        ).fetchone()
        assert found is not None
        return found

    for at, expected_rows in {"submit.asked": (0, 0), "submit.committed": (stored, 0)}.items():
        before = database.execute("SELECT count(*) FROM agno.barrier").fetchone()
        cut_off_at(at)
        with pytest.raises(CutOff):
            send()
        if at == "submit.asked":
            assert database.execute("SELECT count(*) FROM agno.barrier").fetchone() == before
        assert rows()[1] == 0
        assert rows()[0] >= expected_rows[0]
    invariants.until(lambda: rows() == (runs, 0))
    assert send().get(timeout=WAIT_S) == expected
    worked = (
        "SELECT count(*) FROM agno.step s JOIN agno.run r ON r.id = s.run_id WHERE r.idempotency_key LIKE %s"
    )
    assert database.execute(worked, [f"{key}%"]).fetchone() == (runs,)


@pytest.mark.parametrize("shape", ["group", "chain", "chord", "chord in a chord", "group of chords"])
def test_canvas_with_fixed_ids_is_submitted_twice_and_runs_once(
    database: psycopg.Connection, shape: str
) -> None:
    make, _, runs, expected = RUNS_ONLY[shape]
    canvas = make(echo.s)
    canvas.freeze()
    before = database.execute("SELECT count(*) FROM agno.run").fetchone()
    results = [canvas.apply_async() for _ in range(2)]
    assert [result.get(timeout=WAIT_S) for result in results] == [expected] * 2
    assert before is not None
    assert database.execute("SELECT count(*) FROM agno.run").fetchone() == (before[0] + runs,)


def test_generator_of_a_group_may_wait_for_a_run_of_its_own() -> None:
    texts = (echo.run(text, timeout=WAIT_S).content for text in "ab")
    assert group(echo.s(text) for text in texts)().get(timeout=WAIT_S) == ["<<a>>", "<<b>>"]


def test_refused_run_in_a_canvas_leaves_nothing_behind(database: psycopg.Connection) -> None:
    count = "SELECT (SELECT count(*) FROM agno.run), (SELECT count(*) FROM agno.barrier)"
    before = database.execute(count).fetchone()
    unknown = run_signature("ecko", ["b"], {}, None)
    for canvas in (
        group([echo.s("a"), unknown]),
        chord([echo.s("a"), run_signature("echo", ["b"], {"usr_id": "x"}, None)], echo.s()),
    ):
        with pytest.raises(InvalidInput, match=r"'echo'|user_id"):
            canvas.delay()
    assert database.execute(count).fetchone() == before
    assert echo.delay("a").get(timeout=WAIT_S) == "<a>"


# A worker dies.


def test_chord_survives_a_worker_that_is_killed_in_the_middle(
    plain: Plain, start_worker: StartWorker, tmp_path: Path, database: psycopg.Connection
) -> None:
    """Hold more tools than one worker has threads, so that the worker that is killed runs some."""
    doomed = start_worker(*PLAIN)
    paths = [tmp_path / f"held{n}" for n in range(12)]
    for path in paths:
        path.touch()
    header = [caller.s(f'{holding(path)}\nadd {{"a": 1, "b": {n}}}') for n, path in enumerate(paths)]
    result = chord(header, plain("note", path=str(tmp_path / "notes")))()
    pid = str(doomed.process.pid)
    invariants.until(
        lambda: any(Path(f"{path}.running").read_text() == pid for path in paths if running(path)())
    )
    doomed.kill()
    for path in paths:
        path.unlink()
    assert result.get(timeout=WAIT_S) == [f"released | {1 + n}" for n in range(12)]
    assert len((tmp_path / "notes").read_text().splitlines()) == 1
    run_ids = [part.id for part in result.parent]
    steps = "SELECT count(*), count(DISTINCT key || run_id), max(attempt) FROM agno.step WHERE run_id = ANY(%s::uuid[])"
    assert database.execute(steps, [run_ids]).fetchone() == (4 * 12, 4 * 12, 2)


# Everything is sent twice.


def test_messages_that_come_twice_run_the_body_once(
    held: Path, services: Services, database: psycopg.Connection
) -> None:
    header = [caller.s(f'add {{"a": 1, "b": 2}}\n{holding(held)}'), echo.s("a")]
    result = chord(header, echo.s())()
    run_ids = [part.id for part in result.parent]
    invariants.until(running(held))
    resend(services, database, run_ids)
    held.unlink()
    assert result.get(timeout=WAIT_S) == sections("3 | released", "<a>")
    resend(services, database, [*run_ids, result.id])
    invariants.until(lambda: services.redis.llen("agents") + services.redis.llen("tools") == 0)
    attempts = "SELECT sum(attempt), count(*) FROM agno.step WHERE run_id = ANY(%s::uuid[])"
    assert database.execute(attempts, [[*run_ids, result.id]]).fetchone() == (6, 6)


@pytest.mark.parametrize("kind", ["run", "chain", "group", "chord"])
def test_callbacks_that_are_pending_twice_are_sent_once(
    services: Services, database: psycopg.Connection, plain: Plain, kind: str
) -> None:
    """After a crash between sending and deleting, the same callbacks are pending again, after a run and after a chord."""
    bodies = {
        "run": echo.s(),
        "chain": echo.s() | shouter.s(),
        "group": group([echo.s(), shouter.s()]),
        "chord": chord([echo.s(), shouter.s()], echo.s()),
    }
    linked = bodies[kind].clone()
    linked_result = linked.freeze()
    first = echo.s("a").set(link=linked)
    result = (chord([first, echo.s("b")], bodies[kind].clone()) | plain("same")).delay()
    answers = [result.get(timeout=WAIT_S), linked_result.get(timeout=WAIT_S)]
    invariants.until(lambda: database.execute("SELECT 1 FROM agno.outbox").fetchall() == [])
    count = "SELECT (SELECT count(*) FROM agno.run), (SELECT count(*) FROM agno.step), (SELECT count(*) FROM agno.barrier)"
    before = database.execute(count).fetchone()
    database.execute(
        "INSERT INTO agno.outbox (ended_run_id, due_at) SELECT id, now() FROM agno.run WHERE canvas IS NOT NULL"
    )
    database.execute(
        "INSERT INTO agno.outbox (chord_id, due_at) SELECT id, now() FROM agno.barrier WHERE run_id IS NULL"
    )
    invariants.until(lambda: database.execute("SELECT 1 FROM agno.outbox").fetchall() == [])
    assert database.execute(count).fetchone() == before
    assert [result.get(timeout=WAIT_S), linked_result.get(timeout=WAIT_S)] == answers


def test_callbacks_that_many_processes_continue_are_sent_once(
    services: Services, plain: Plain, database: psycopg.Connection, tmp_path: Path
) -> None:
    """A keeper and a slow worker read the same row. A plain task would run once for each message."""
    chord_id = str(uuid.uuid4())
    body = plain("note", path=str(tmp_path / "notes"))
    told = body.freeze()
    services.database.submissions.submit_canvas([], [Chord(chord_id, dict(body))])
    services.database.results.chord_part(chord_id, str(uuid.uuid4()), 0, "SUCCESS", "a")
    database.execute("UPDATE agno.barrier SET size = 1, fired_at = now() WHERE id = %s", [chord_id])
    late = "INSERT INTO agno.outbox (chord_id, due_at) VALUES (%s, now() + interval '1.9 s') RETURNING id"  # for a keeper
    (row,) = database.execute(late, [chord_id]).fetchall()
    owed = CanvasContinuation(row[0], chord_id=chord_id)
    many = [
        partial(services.dispatch.continue_canvases, [owed]),
        partial(services.dispatch.continue_chord, chord_id),
    ] * 4
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda go_on: go_on(), many))
    services.dispatch.continue_canvases([owed])
    assert told.get(timeout=WAIT_S) == ["a"]
    invariants.until(lambda: services.redis.llen("agents") == 0)
    assert (tmp_path / "notes").read_text() == "['a']\n"


def resend(services: Services, database: psycopg.Connection, run_ids: list[str]) -> None:
    """Send the message of each step of these runs twice more."""
    rows = database.execute(
        "SELECT run_id::text, id::text, generation, kind, queue FROM agno.step WHERE run_id = ANY(%s::uuid[])",
        [run_ids],
    ).fetchall()
    sends = [
        StepMessage(None, run, step, generation, StepKind(kind), queue)
        for run, step, generation, kind, queue in rows
    ]
    assert services.dispatch.send(sends * 2)
