"""With a signing key, unsigned, changed and replayed messages are not executed."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, chain, chord, group
from celery.canvas import Signature

import agno_workers
from agno_workers import Client
from agno_workers.broker.app import AgnoCelery
from agno_workers.broker.signing import NONCE, SIGNED_AT, sign
from agno_workers.wiring import Services
from tests import invariants
from tests.agents import caller, echo, shouter
from tests.conftest import StartWorker, Worker
from tests.contract.canvas.conftest import DUE
from tests.messages import NOTHING_AFTER, Message, Quarantined, decoded, encoded, message

WAIT_S = 30
PLAIN = ("-I", "tests.contract.canvas.plain,tests.acceptance.retrying")
KEY = "a key of these tests, and of nothing else"


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    """All processes of these tests sign."""
    return environment | {"AGNO_SIGNING__KEYS": KEY}


@pytest.fixture
def worker(keep_worker: StartWorker) -> Worker:
    return keep_worker(*PLAIN)


@pytest.fixture
def quarantine(database_url: str) -> Quarantined:
    return Quarantined(database_url)


@pytest.fixture
def stranger(environment: dict[str, str]) -> Iterator[Celery]:
    """A Celery app that shares only the broker with us."""
    celery = Celery("stranger", broker=environment["AGNO_BROKER_URL"], set_as_current=False)
    yield celery
    celery.close()


@pytest.fixture(autouse=True)
def _nothing_is_left_over(database_url: str, start_worker: StartWorker) -> Iterator[None]:
    yield
    invariants.hold(database_url)


def plain(app: Celery, name: str, *args: Any, **kwargs: Any) -> Signature:
    return app.signature(f"plain.{name}", args=args, kwargs=kwargs)


def note(app: Celery, path: Path) -> Signature:
    return plain(app, "note", "x", str(path)).set(queue="agents")


def test_every_way_of_celery_to_send_a_task_signs_it(
    start_worker: StartWorker, app: AgnoCelery, quarantine: Quarantined, tmp_path: Path
) -> None:
    start_worker(*PLAIN, pool="prefork", concurrency=2)
    start_worker(*PLAIN)
    linked = tmp_path / "linked"
    results = [
        chord([echo.s("a"), echo.s("b"), plain(app, "upper", "c")], plain(app, "join")).delay(),
        chain(echo.s("a"), shouter.s(), plain(app, "upper")).delay(),
        (plain(app, "add", 1, 2) | group(plain(app, "same"), plain(app, "same"), app=app) | plain(app, "join")).delay(),
        app.signature("retrying.third_time").delay(),
        plain(app, "becomes_a_chain", "a").delay(),
        caller.delay('add {"a": 1, "b": 2}\nadd {"a": 3, "b": 4}'),
        echo.apply_async(("l",), link=plain(app, "note", str(linked))),
        plain(app, "fail").apply_async(link_error=plain(app, "note", str(tmp_path / "failed"))),
    ]  # fmt: skip
    assert [result.get(timeout=WAIT_S) for result in results[:-1]] == [
        "<a>+<b>+C", "<A>", "3+3", 2, "<A>", "3 | 7", "<l>",
    ]  # fmt: skip
    invariants.until(lambda: linked.exists() and (tmp_path / "failed").exists())
    assert quarantine() == []


def test_delayed_task_is_signed_again_when_it_is_sent(
    worker: Worker, app: AgnoCelery, services: Services, quarantine: Quarantined
) -> None:
    result = plain(app, "upper", "a").apply_async(countdown=3600)
    find = services.database.pool.run
    invariants.until(lambda: find("SELECT id FROM agno.delayed_task"))
    find(DUE)
    assert result.get(timeout=WAIT_S) == "A"
    assert quarantine() == []


def test_an_unsigned_message_is_not_executed(
    worker: Worker, stranger: Celery, app: AgnoCelery, client: Client, quarantine: Quarantined, tmp_path: Path
) -> None:
    note(stranger, tmp_path / "ledger").delay()
    run = stranger.send_task("agno.run", ["a"], {"agent": "echo"}, queue="agents")
    stranger.send_task("nobody.knows", queue="agents")
    assert quarantine.reasons(3) == ["unsigned"] * 3
    assert echo.delay("behind").get(timeout=WAIT_S) == "<behind>"
    assert not (tmp_path / "ledger").exists()
    with pytest.raises(agno_workers.AgnoError, match="no run"):
        client.runs.get(run.id).result(timeout=0.1)
    assert KEY not in "".join(worker.lines) + json.dumps(quarantine(), default=str)


@pytest.mark.parametrize("way", ["sign", "attach"])
def test_messages_of_another_app_that_signs_are_executed(
    worker: Worker, stranger: Celery, services: Services, client: Client, quarantine: Quarantined, way: str
) -> None:
    if way == "sign":
        sign(stranger, KEY)
    else:
        agno_workers.attach(stranger)
    sent = stranger.send_task("agno.run", ["a"], {"agent": "echo"}, queue="agents", compression="zlib")
    invariants.until(lambda: services.database.queries.runs(limit=1))
    assert client.runs.get(sent.id).result(timeout=WAIT_S) == "<a>"
    assert quarantine() == []


def other_task(real: Message) -> None:
    real["headers"]["task"] = "plain.big"


def other_id(real: Message) -> None:
    real["headers"]["id"] = "5c7c39a7-9a47-4ec5-97a1-92b2b3a0a7e1"


def other_root(real: Message) -> None:
    real["headers"]["root_id"] = "x"


def another_chord(real: Message) -> None:
    real["headers"]["group"] = "x"


def extra_header(real: Message) -> None:
    real["headers"]["chain"] = [{"task": "plain.big", "args": [1]}]


def missing_header(real: Message) -> None:
    del real["headers"]["expires"]


def no_time_limit(real: Message) -> None:
    real["headers"]["timelimit"] = [None, 1]


def other_arguments(real: Message) -> None:
    args, *rest = decoded(real["body"])
    real["body"] = encoded([["y", args[1]], *rest])


def extra_callback(real: Message) -> None:
    args, kwargs, _ = decoded(real["body"])
    real["body"] = encoded(
        [args, kwargs, {**NOTHING_AFTER, "callbacks": [{"task": "plain.big", "args": [1]}]}]
    )


def other_nonce(real: Message) -> None:
    real["headers"][NONCE] = "0" * 32


def later_time(real: Message) -> None:
    real["headers"][SIGNED_AT] += 1


def other_queue(real: Message) -> None:
    real["properties"]["delivery_info"]["routing_key"] = "tools"


def invalid_signature(real: Message) -> None:
    real["headers"]["agno_sig"] = "ä" * 64


CHANGES: list[Callable[[Message], None]] = [
    other_task, other_id, other_root, another_chord, extra_header, missing_header, no_time_limit, other_arguments, extra_callback,
    other_nonce, later_time, other_queue, invalid_signature,
]  # fmt: skip


def test_a_changed_message_is_not_executed(
    start_worker: StartWorker, app: AgnoCelery, redis_client: redis.Redis, quarantine: Quarantined, tmp_path: Path
) -> None:  # fmt: skip
    ledger = tmp_path / "ledger"
    note(app, ledger).delay()
    real = redis_client.rpop("agents")
    assert isinstance(real, bytes)
    worker = start_worker(*PLAIN)
    for change in CHANGES:
        changed = json.loads(real)
        change(changed)
        redis_client.lpush("agents", json.dumps(changed))
    assert quarantine.reasons(len(CHANGES)) == ["altered"] * len(CHANGES)
    assert not ledger.exists()
    redis_client.lpush("agents", real)
    invariants.until(ledger.exists)
    assert worker.process.poll() is None


def test_a_message_signed_with_an_unknown_key_is_not_executed(
    worker: Worker, stranger: Celery, quarantine: Quarantined, tmp_path: Path
) -> None:
    sign(stranger, "a key that the worker has not")
    note(stranger, tmp_path / "ledger").delay()
    assert quarantine.reasons(1) == ["altered"]
    assert not (tmp_path / "ledger").exists()


def test_a_replayed_message_is_not_executed(
    start_worker: StartWorker, app: AgnoCelery, redis_client: redis.Redis, quarantine: Quarantined, tmp_path: Path
) -> None:  # fmt: skip
    ledger = tmp_path / "ledger"
    note(app, ledger).delay()
    run = echo.delay("hi")
    messages = redis_client.lrange("agents", 0, -1)
    workers = [start_worker(*PLAIN) for _ in range(2)]
    redis_client.lpush("agents", *messages, *messages)
    assert run.get(timeout=WAIT_S) == "<hi>"
    assert quarantine.reasons(4) == ["replayed"] * 4
    assert sorted(row["task"] for row in quarantine()) == ["agno.turn"] * 2 + ["plain.note"] * 2
    assert ledger.read_text() == "x\n"
    assert [step.attempt for step in run.handle.steps] == [1]
    assert [worker.process.poll() for worker in workers] == [None, None]


def test_a_step_that_the_keeper_sends_again_is_not_a_replay(
    start_worker: StartWorker, app: AgnoCelery, redis_client: redis.Redis, quarantine: Quarantined
) -> None:
    runs = [echo.delay(str(number)) for number in range(20)]
    redis_client.flushdb()
    start_worker(*PLAIN)
    assert [run.get(timeout=WAIT_S) for run in runs] == [f"<{number}>" for number in range(20)]
    assert quarantine() == []


def test_a_message_that_a_stopping_worker_requeues_is_not_a_replay(
    start_worker: StartWorker, app: AgnoCelery, redis_client: redis.Redis, quarantine: Quarantined, tmp_path: Path
) -> None:  # fmt: skip
    held, ledger = tmp_path / "held", tmp_path / "ledger"
    held.touch()
    ending = start_worker(*PLAIN, concurrency=1)
    plain(app, "hold", str(held)).delay()
    invariants.until(Path(f"{held}.running").exists)
    note(app, ledger).delay()
    invariants.until(lambda: not redis_client.llen("agents"))
    ending.kill(signal.SIGTERM)
    ending.wait_for("Warm shutdown")
    ending.kill(signal.SIGQUIT)  # it requeues what it can, and does not wait for active tasks
    ending.process.wait(timeout=WAIT_S)
    start_worker(*PLAIN)
    invariants.until(ledger.exists)
    assert ledger.read_text() == "x\n"
    assert quarantine() == []


def test_a_replayed_step_does_nothing_even_after_redis_lost_its_nonces(
    start_worker: StartWorker, app: AgnoCelery, redis_client: redis.Redis, quarantine: Quarantined
) -> None:
    run = echo.delay("hi")
    real = redis_client.lindex("agents", 0)
    assert isinstance(real, bytes)
    worker = start_worker(*PLAIN)
    assert run.get(timeout=WAIT_S) == "<hi>"
    redis_client.flushdb()
    redis_client.lpush("agents", real)
    for _ in range(2):
        worker.wait_for("Task agno.turn[")
    assert [step.attempt for step in run.handle.steps] == [1]


def test_a_key_is_replaced_without_downtime(
    start_worker: StartWorker, stranger: Celery, app: AgnoCelery, quarantine: Quarantined, tmp_path: Path
) -> None:
    start_worker(*PLAIN, AGNO_SIGNING__KEYS=f"the next key of these tests, {KEY}")
    assert echo.delay("signed with the old one").get(timeout=WAIT_S) == "<signed with the old one>"
    sign(stranger, "the next key of these tests")
    note(stranger, tmp_path / "ledger").delay()
    invariants.until((tmp_path / "ledger").exists)
    assert quarantine() == []


def test_only_steps_are_executed_when_their_signature_is_too_old(
    start_worker: StartWorker, app: AgnoCelery, quarantine: Quarantined, tmp_path: Path
) -> None:
    note(app, tmp_path / "ledger").delay()
    run, sent_at = echo.delay("hi"), time.monotonic()
    invariants.until(lambda: time.monotonic() - sent_at > 1.5)
    start_worker(*PLAIN, AGNO_SIGNING__MAX_AGE_S="1")
    assert run.get(timeout=WAIT_S) == "<hi>"
    assert quarantine.reasons(1) == ["replayed"]
    assert "clock" in quarantine()[0]["detail"]
    assert not (tmp_path / "ledger").exists()


def test_a_bad_message_is_unreadable_rather_than_unsigned(
    worker: Worker, redis_client: redis.Redis, quarantine: Quarantined
) -> None:
    redis_client.lpush("agents", b"hello", json.dumps(message(body=[1])), json.dumps(message()))
    assert quarantine.reasons(3) == ["unreadable", "unreadable", "unsigned"]
