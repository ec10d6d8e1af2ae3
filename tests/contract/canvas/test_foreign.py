"""Other Celery apps: a plain one that only sends, and one that stores its results here through `agno_workers.attach`."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from celery import Celery, chain, chord, group
from celery.canvas import Signature
from celery.exceptions import ChordError, ImproperlyConfigured, NotRegistered
from celery.signals import before_task_publish

import agno_workers
from agno_workers import Client
from agno_workers.broker.app import AgnoCelery
from agno_workers.core.run import RunStatus
from agno_workers.errors import InvalidInput, ModelRejected, RunNotFound
from agno_workers.local import LocalServers
from agno_workers.runs.results import barrier_id
from tests import invariants
from tests.agents import echo, failing, shouter
from tests.conftest import ROOT, Worker
from tests.contract.canvas.conftest import WAIT_S, run_of, sections
from tests.forking import inherited


@pytest.fixture(scope="module")
def shop_worker(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """The shop's own worker: stock Celery, its own queue."""
    command = [sys.executable, "-m", "celery", "-A", "tests.contract.canvas.shop", "worker"]
    command += ["-Q", "shop,notes,packing"]
    started = subprocess.Popen(
        [*command, "-P", "threads", "-c", "4", "-l", "WARNING"],
        cwd=ROOT,
        env=inherited() | environment,
        text=True,
    )
    yield started
    started.kill()
    started.wait(timeout=30)


# A plain app that sends.


def test_send_task_submits_a_run(stranger: Celery, client: Client) -> None:
    sent = stranger.send_task(
        "agno.run", ["a"], {"agent": "echo", "user_id": "u1"}, queue="agents", priority=6
    )
    handle = client.runs.get(sent.id)
    invariants.until(lambda: known(client, sent.id))
    assert handle.result(timeout=WAIT_S) == "<a>"
    assert (handle.run.user_id, handle.run.agent) == ("u1", "echo")


def test_a_message_that_comes_twice_is_one_run(stranger: Celery, client: Client) -> None:
    task_id = str(uuid.uuid4())
    for text in ("a", "b"):
        stranger.send_task("agno.run", [text], {"agent": "echo"}, queue="agents", task_id=task_id)
    last = stranger.send_task("agno.run", ["c"], {"agent": "echo"}, queue="agents")
    invariants.until(lambda: known(client, task_id) and known(client, last.id))
    assert client.runs.get(task_id).result(timeout=WAIT_S) in ("<a>", "<b>")
    assert len(client.runs.get(task_id).steps) == 1


def test_run_of_an_agent_that_is_deployed_later_is_stored(stranger: Celery, client: Client) -> None:
    """The message is consumed: refused, the run would be lost."""
    sent = stranger.send_task("agno.run", ["a"], {"agent": "tomorrow"}, queue="agents")
    invariants.until(lambda: known(client, sent.id))
    assert client.runs.get(sent.id).cancel()


def test_chain_continues_with_an_agent_that_is_deployed_later(stranger: Celery, client: Client) -> None:
    result = chain(run_of(stranger, "echo", "a"), run_of(stranger, "tomorrow")).apply_async()
    invariants.until(lambda: known(client, result.id))
    assert client.runs.get(result.id).cancel()


def test_chain_and_links_continue_after_each_run(stranger: Celery, client: Client) -> None:
    linked = run_of(stranger, "echo")
    linked_id = linked.freeze().id
    steps = chain(run_of(stranger, "echo", "a"), run_of(stranger, "shouter"), run_of(stranger, "echo"))
    result = steps.apply_async(link=linked)
    invariants.until(lambda: known(client, result.id) and known(client, linked_id))
    assert [client.runs.get(run_id).result(timeout=WAIT_S) for run_id in (result.id, linked_id)] == [
        "<<A>>",
        "<<<A>>>",
    ]


def test_delayed_run_stays_in_postgres_until_it_is_due(
    stranger: Celery, client: Client, database: psycopg.Connection
) -> None:
    sent = stranger.send_task("agno.run", ["a"], {"agent": "echo"}, queue="agents", countdown=3600)
    invariants.until(lambda: known(client, sent.id))
    waiting = "SELECT not_before > now() + interval '59 minutes' FROM agno.step WHERE run_id = %s AND status = 'ready'"
    assert database.execute(waiting, [sent.id]).fetchall() == [(True,)]
    database.execute("UPDATE agno.step SET not_before = now() WHERE run_id = %s", [sent.id])
    assert client.runs.get(sent.id).result(timeout=WAIT_S) == "<a>"


def test_run_works_in_the_queue_that_its_message_came_from(
    stranger: Celery, client: Client, by_topic: dict[str, Any]
) -> None:
    sent = stranger.send_task("agno.run", ["a"], {"agent": "echo"}, **by_topic)
    invariants.until(lambda: known(client, sent.id))
    assert client.runs.get(sent.id).result(timeout=WAIT_S) == "<a>"


def test_chord_of_an_app_that_is_not_attached_is_logged(
    servers: LocalServers, worker: Worker, client: Client
) -> None:
    """Its header runs, and its body, which waits in another result backend, never starts."""
    celery = Celery("stranger", broker=servers.broker_url, backend=servers.broker_url, set_as_current=False)
    body = run_of(celery, "echo")
    part = chord([run_of(celery, "echo", "a")], body, app=celery)().parent[0]
    line = worker.wait_for("part of a chord that is not in this database")
    assert part.id in line
    invariants.until(lambda: known(client, part.id))
    assert client.runs.get(part.id).result(timeout=WAIT_S) == "<a>"
    celery.close()


def test_run_submitted_while_postgres_is_down_is_not_lost(
    stranger: Celery, servers: LocalServers, database_url: str
) -> None:
    name = urlsplit(database_url).path[1:]
    with psycopg.connect(servers.database_url, autocommit=True) as elsewhere:
        elsewhere.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        elsewhere.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        sent = stranger.send_task("agno.run", ["a"], {"agent": "echo"}, queue="agents")
        queue = stranger.connection_for_read().default_channel.client
        invariants.until(lambda: queue.llen("agents") == 0)  # a worker has the message, and can't store it
        elsewhere.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    with Client(database_url) as client:
        invariants.until(lambda: known(client, sent.id))
        assert client.runs.get(sent.id).result(timeout=WAIT_S) == "<a>"


# An app that is attached.


def test_app_that_is_not_attached_gets_an_error(servers: LocalServers) -> None:
    celery = Celery(
        broker=servers.broker_url, set_as_current=False, backend="agno_workers.broker.backend:PostgresBackend"
    )
    with pytest.raises(ImproperlyConfigured, match="attach"):
        celery.AsyncResult(str(uuid.uuid4())).ready()


def test_an_attached_app_waits_for_runs(customer: Celery) -> None:
    assert run_of(customer, "echo", "a").delay().get(timeout=WAIT_S) == "<a>"
    with pytest.raises(ModelRejected):
        run_of(customer, "failing", "a").delay().get(timeout=WAIT_S)


def test_attached_app_gets_an_error_for_a_wrong_call(customer: Celery) -> None:
    with pytest.raises(InvalidInput, match="user_id"):
        run_of(customer, "echo", "a", usr_id="x").delay().get(timeout=WAIT_S)
    with pytest.raises(InvalidInput, match="order-17"):
        run_of(customer, "echo", "a").apply_async(task_id="order-17").get(timeout=WAIT_S)


def test_the_canvas_of_an_attached_app_over_runs(customer: Celery) -> None:
    letters = [run_of(customer, "echo", letter) for letter in "abc"]
    assert group(letters, app=customer)().get(timeout=WAIT_S) == ["<a>", "<b>", "<c>"]
    assert chord(letters, run_of(customer, "echo"), app=customer)().get(timeout=WAIT_S) == sections(
        "<a>", "<b>", "<c>"
    )
    inner = chord(letters[:2], run_of(customer, "shouter"), app=customer)
    nested = chord([inner, letters[2]], run_of(customer, "shouter"), app=customer)
    assert nested().get(timeout=WAIT_S) == "[1]\n[1]\n<A>\n\n[2]\n<B>\n\n[2]\n<C>"


def test_a_failed_run_reaches_the_chord_of_an_attached_app(customer: Celery) -> None:
    header = [run_of(customer, "echo", "a"), run_of(customer, "failing", "b")]
    result = chord(header, run_of(customer, "echo"), app=customer)()
    with pytest.raises(ChordError, match="the key is wrong"):
        customer.AsyncResult(result.id).get(timeout=WAIT_S)


def test_a_refused_run_reaches_the_chord_of_an_attached_app(customer: Celery) -> None:
    header = [run_of(customer, "echo", "a"), run_of(customer, "echo", "b", usr_id="x")]
    result = chord(header, run_of(customer, "echo"), app=customer)()
    with pytest.raises(ChordError, match="user_id"):
        customer.AsyncResult(result.id).get(timeout=WAIT_S)


# Plain tasks of an attached app, on its own worker.


def test_plain_tasks_keep_their_results_and_chords_in_postgres(
    customer: Celery, shop_worker: subprocess.Popen[str]
) -> None:
    prices = [customer.signature("shop.price", [item]) for item in ("tea", "мёд")]
    assert group(prices, app=customer)().get(timeout=WAIT_S) == ["price of tea", "price of мёд"]
    total = chord(prices, customer.signature("shop.total"), app=customer)()
    assert total.get(timeout=WAIT_S) == "price of tea + price of мёд"
    broken = chord(
        [*prices, customer.signature("shop.broken")], customer.signature("shop.total"), app=customer
    )()
    with pytest.raises(ChordError, match="out of stock"):
        customer.AsyncResult(broken.id).get(timeout=WAIT_S)


def test_plain_tasks_and_runs_of_two_workers_make_one_chord(
    customer: Celery, shop_worker: subprocess.Popen[str]
) -> None:
    header = [customer.signature("shop.price", ["tea"]), run_of(customer, "echo", "a")]
    total = customer.signature("shop.total")
    assert chord(header, total, app=customer)().get(timeout=WAIT_S) == "price of tea + <a>"
    summary = chord(header, run_of(customer, "echo"), app=customer)()
    assert summary.get(timeout=WAIT_S) == sections("price of tea", "<a>")
    steps = chain(customer.signature("shop.price", ["tea"]), run_of(customer, "shouter"), total.clone())
    assert steps().get(timeout=WAIT_S) == " + ".join("PRICE OF TEA")


def test_link_error_of_an_attached_apps_chord_is_called_once(
    customer: Celery, shop_worker: subprocess.Popen[str], tmp_path: Path
) -> None:
    errback = customer.signature("shop.note", kwargs={"path": str(tmp_path / "notes")})
    told = errback.freeze()
    body = run_of(customer, "echo")
    body.link_error(errback)
    result = chord(
        [run_of(customer, "failing", "a"), customer.signature("shop.broken")], body, app=customer
    )()
    assert told.get(timeout=WAIT_S) == result.id
    assert (tmp_path / "notes").read_text() == f"{result.id}\n"


HOME: dict[str, Callable[[Celery], tuple[Signature, object]]] = {
    "chain": lambda shop: (chain(echo.s("a"), _of(shop, "price")), "price of <a>"),
    "chain with a queue of the task": lambda shop: (echo.s("a") | _of(shop, "wrapped"), "(<a>)"),
    "chain both ways": lambda shop: (_of(shop, "price", "a") | echo.s() | _of(shop, "wrapped") | shouter.s(), "(<PRICE OF A>)"),
    "chain with a retry": lambda shop: (echo.s("a") | _of(shop, "restocked") | _of(shop, "price"), "price of <a>"),
    "chain by names": lambda shop: (run_of(shop, "echo", "a") | shop.signature("shop.price"), "price of <a>"),
    "group": lambda shop: (group(echo.s("a"), _of(shop, "price", "b")), ["<a>", "price of b"]),
    "group after a run": lambda shop: (echo.s("a") | group(_of(shop, "price"), shouter.s(), app=shop), ["price of <a>", "<A>"]),
    "map after a run": lambda shop: (echo.s("a") | shop.tasks["shop.wrapped"].map(["b", "c"]), ["(b)", "(c)"]),
    "chord of runs": lambda shop: (chord([echo.s("a"), echo.s("b")], _of(shop, "total")), "<a> + <b>"),
    "chord, a run first": lambda shop: (chord([echo.s("a"), _of(shop, "price", "b")], _of(shop, "total")), "<a> + price of b"),
    "chord, a task first": lambda shop: (chord([_of(shop, "price", "b"), echo.s("a")], _of(shop, "total")), "price of b + <a>"),
    "chord with a run as its body": lambda shop: (chord([_of(shop, "price", "b"), echo.s("a")], echo.s()), sections("price of b", "<a>")),
    "chord after a run": lambda shop: (
        echo.s("a") | chord([_of(shop, "price"), _of(shop, "wrapped")], _of(shop, "total")) | echo.s(), "<price of <a> + (<a>)>",
    ),
    "chord in a chord": lambda shop: (
        chord([chord([echo.s("a"), echo.s("b")], _of(shop, "total")), echo.s("c")], _of(shop, "total")), "<a> + <b> + <c>",
    ),
}  # fmt: skip
"""Plain tasks of an attached app without a queue, and runs without one."""


@pytest.mark.parametrize("shape", HOME)
def test_plain_task_in_a_canvas_goes_to_the_queue_of_its_app(
    customer: Celery, shop_worker: subprocess.Popen[str], shape: str
) -> None:
    canvas, expected = HOME[shape](customer)
    assert canvas.delay().get(timeout=WAIT_S) == expected


def test_chord_is_stored_before_a_plain_task_of_its_header_is_sent(
    app: AgnoCelery, customer: Celery, shop_worker: subprocess.Popen[str]
) -> None:
    """Its worker may be faster than the rest of the submit."""
    stored = []

    def look(headers: dict[str, Any], **_: Any) -> None:
        stored.append(app.dispatch().results.has_chord(barrier_id(headers["group"])))

    before_task_publish.connect(look, sender="shop.price")
    try:
        sent = chord([echo.s("a"), _of(customer, "price", "b")], echo.s()).delay()
    finally:
        before_task_publish.disconnect(look, sender="shop.price")
    assert stored == [True]
    assert sent.get(timeout=WAIT_S) == sections("<a>", "price of b")


@pytest.mark.parametrize("way", ["link", "link_error", "link of the attached app"])
def test_plain_callback_of_a_run_goes_to_the_queue_of_its_app(
    customer: Celery, shop_worker: subprocess.Popen[str], tmp_path: Path, way: str
) -> None:
    notes = tmp_path / "notes"
    callback = customer.tasks["shop.note"].s(path=str(notes))
    run = run_of(customer, "echo", "a") if "attached" in way else (echo if way == "link" else failing).s("a")
    told = callback.freeze()
    sent = run.apply_async(**{way.split(maxsplit=1)[0]: callback})
    assert told.get(timeout=WAIT_S) == (sent.id if way == "link_error" else "<a>")
    assert notes.exists()


def test_run_of_an_attached_app_without_a_queue_goes_to_the_agents(
    servers: LocalServers, app: AgnoCelery
) -> None:
    shop = agno_workers.attach(Celery("own", broker=servers.broker_url, set_as_current=False))
    shop.conf.task_create_missing_queues = False
    with shop:
        assert shop.send_task("agno.run", ["a"], {"agent": "echo"}).get(timeout=WAIT_S) == "<a>"
        named = chain(echo.s("a"), shop.signature("agno.run", kwargs={"agent": "shouter"}), app=shop)
        assert named.delay().get(timeout=WAIT_S) == "<A>"


def test_plain_task_that_no_worker_knows_fails_its_canvas(customer: Celery) -> None:
    last = shouter.s()
    sent = chain(echo.s("a"), customer.signature("shop.missing", queue="agents"), last).delay()
    with pytest.raises(NotRegistered, match="queue 'agents'"):
        sent.parent.get(timeout=WAIT_S)
    with pytest.raises(NotRegistered):
        sent.get(timeout=WAIT_S)


def _of(shop: Celery, name: str, *args: Any) -> Signature:
    return shop.tasks[f"shop.{name}"].s(*args)


def known(client: Client, run_id: str) -> bool:
    """Return True when a worker has submitted the run of a message."""
    try:
        return client.runs.get(run_id).run.status in RunStatus
    except RunNotFound:
        return False
