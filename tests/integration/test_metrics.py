"""What Prometheus is told: each number by rows that it counts, and nothing but `0` of a server that is away."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import psycopg
import pytest
import redis
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from agno_workers.broker.quarantine import Quarantine, Quarantined
from agno_workers.cli.metrics import OTHERS, Collector
from agno_workers.core.messages import user
from agno_workers.core.tool import Effect
from agno_workers.errors import Unavailable
from agno_workers.local import LocalServers
from agno_workers.runs.metrics import counted
from agno_workers.runs.workers import WorkerIdentity, Workers
from agno_workers.settings import Settings
from tests import invariants
from tests.acceptance.terminal import StartProgram, programs
from tests.chaos.proxy import Mode, Network
from tests.database import FEW, RunDatabase, result, said

ERROR = {"type": "ModelRejected", "message": "the secret of customer 17", "ids": {}}
LABELS = {"agent", "queue", "status", "kind", "reason", "knowledge", "state"}
IS_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-")
SOON_S = 8.0
"""Prometheus waits for 10 s."""


@pytest.fixture
def here(settings: Settings, db: RunDatabase, db_url: str) -> Settings:
    """The settings of this process, on the database of `db`."""
    return settings.changed(database={"url": SecretStr(db_url)})


class Scrape:
    """One answer, read as Prometheus reads it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = list(text_string_to_metric_families(text))
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float | None:
        """The value of one time series; None: there is none."""
        return self._values.get((name, frozenset(labels.items())))

    def names(self) -> set[str]:
        return {name for name, _ in self._values}


def scrape(settings: Settings) -> Scrape:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(settings))
    return Scrape(generate_latest(registry).decode())


def bad(reason: str) -> Quarantined:
    return Quarantined(reason, "a secret detail", "agents", "t", "m", "a secret head", 17)


def test_runs_are_counted_by_agent_and_by_how_they_stand(db: RunDatabase, here: Settings) -> None:
    db.submit(agent="queued")
    db.turn(agent="running")
    db.fan_out("a", "b", agent="waiting")
    db.journal.pause(db.submit(agent="paused").run_id)
    failed = db.turn(agent="failed")
    db.journal.fail(failed, ERROR, "model_rejected")
    db.journal.end(db.turn(agent="done"), said("yes"), FEW, "yes", "end")
    db.journal.end(db.turn(agent="old"), said("yes"), FEW, "yes", "end")
    db.sql("UPDATE agno.run SET created_at = created_at - interval '2 h' WHERE agent IN ('old', 'queued')")
    told = scrape(here)
    for status in ("queued", "running", "waiting", "paused"):
        assert told("agno_open_runs", agent=status, status=status) == 1
    assert told("agno_open_runs", agent="done", status="done") is None
    assert told("agno_recent_runs", agent="done", status="done") == 1
    assert told("agno_recent_runs", agent="failed", status="failed") == 1
    assert told("agno_recent_runs", agent="old", status="done") is None
    assert told("agno_recent_runs", agent="queued", status="queued") is None
    assert told("agno_failed_runs", agent="failed") == 1


def test_steps_are_counted_by_queue_kind_and_status(db: RunDatabase, here: Settings) -> None:
    db.submit()
    db.submit(not_before="2999-01-01")
    one, two, three = db.tools("a", "b", "c", effect=Effect.ONCE)
    db.expire(one.step_id)
    db.journal.finish_tool(two, result(two), ERROR, "unknown")
    db.journal.finish_tool(three, result(three), ERROR, "dead")
    told = scrape(here)
    assert told("agno_open_steps", queue="agents", kind="turn", status="ready") == 1
    assert told("agno_open_steps", queue="agents", kind="turn", status="timer") == 1
    assert told("agno_open_steps", queue="tools", kind="tool", status="running") == 1
    assert told("agno_expired_leases") == 1
    assert told("agno_dead_calls", status="unknown") == 1
    assert told("agno_dead_calls", status="dead") == 1


def test_the_age_of_a_queue_is_that_of_its_oldest_step_which_anybody_may_take(
    db: RunDatabase, here: Settings
) -> None:
    db.submit()
    old, paused = db.submit().run_id, db.submit().run_id
    ago = "UPDATE agno.step SET sent_at = now(), created_at = now() - make_interval(secs => %(secs)s) WHERE run_id = %(id)s"
    db.sql(ago, secs=100, id=old)
    db.sql(ago, secs=1000, id=paused)
    db.journal.pause(paused)
    age_s = scrape(here)("agno_oldest_ready_step_age_seconds", queue="agents")
    assert age_s is not None
    assert 100 <= age_s < 500


def test_what_should_have_been_sent_is_counted(db: RunDatabase, here: Settings) -> None:
    db.submit()
    db.sql("UPDATE agno.outbox SET due_at = now() - interval '1 s'")
    assert scrape(here)("agno_overdue_messages") == 1
    db.sql("UPDATE agno.outbox SET due_at = now() + interval '1 h'")
    assert scrape(here)("agno_overdue_messages") == 0


def test_quarantined_messages_are_counted_by_reason_and_ever(db: RunDatabase, here: Settings) -> None:
    before = scrape(here)("agno_quarantined_messages_total")
    assert before is not None
    quarantine = Quarantine(db.pool)
    for reason in ("unsigned", "unsigned", "unreadable"):
        quarantine.store(bad(reason))
    told = scrape(here)
    assert told("agno_quarantine_messages", reason="unsigned") == 2
    assert told("agno_quarantine_messages", reason="unreadable") == 1
    assert told("agno_quarantined_messages_total") == before + 3
    db.sql("DELETE FROM agno.quarantine")
    assert scrape(here)("agno_quarantined_messages_total") == before + 3


def test_ingestions_are_counted_with_how_far_they_are(db: RunDatabase, here: Settings) -> None:
    knowledges = db.database.knowledge
    knowledges.ensure("docs")
    run_id = knowledges.submit("docs", ["/tmp/a"]).run_id
    db.sql("UPDATE agno.ingestion SET total = 40, scanned_at = now()")
    count = "INSERT INTO agno.ingest_count (run_id, shard, documents, unchanged, duplicates, failed) VALUES (%(id)s, %(shard)s, 4, 3, 2, 1)"
    for shard in (0, 1):
        db.sql(count, id=run_id, shard=shard)
    told = scrape(here)
    assert told("agno_open_ingestions", knowledge="docs") == 1
    assert told("agno_open_ingestion_documents", knowledge="docs") == 40
    assert told("agno_open_ingestion_settled_documents", knowledge="docs") == 20
    assert told("agno_open_runs", agent="knowledge:docs", status="queued") == 1
    db.journal.cancel(run_id)
    assert scrape(here)("agno_open_ingestions", knowledge="docs") is None


def test_an_ingestion_between_two_steps_is_open(db: RunDatabase, here: Settings) -> None:
    knowledges = db.database.knowledge
    knowledges.ensure("docs")
    knowledges.submit("docs", ["/tmp/a"])
    db.sql("UPDATE agno.step SET status = 'done', ended_at = now()")
    assert scrape(here)("agno_open_ingestions", knowledge="docs") == 1


def test_workers_are_counted_by_whether_they_are_heard_of(db: RunDatabase, here: Settings) -> None:
    workers = Workers(db.pool)
    for name in ("alive", "lost", "stopped"):
        workers.seen(WorkerIdentity(name, "h", 1, "1", "threads"), concurrency=1, queues=["slow"], steps=0)
    db.sql("UPDATE agno.worker SET seen_at = now() - interval '1 h' WHERE name = 'lost'")
    workers.stopped("stopped")
    told = scrape(here)
    counts = {state: told("agno_workers", state=state) for state in ("alive", "silent", "lost", "stopped")}
    assert counts == {"alive": 1, "silent": 0, "lost": 1, "stopped": 1}


def test_messages_in_redis_are_counted_in_all_priorities_of_all_queues(
    db: RunDatabase, here: Settings, redis_client: redis.Redis
) -> None:
    Workers(db.pool).seen(
        WorkerIdentity("w", "h", 1, "1", "threads"), concurrency=1, queues=["slow"], steps=0
    )
    db.journal.submit(user("hi"), agent="a", queue="special")
    for key in ("agents", "agents\x06\x163", "slow", "special", "special"):
        redis_client.rpush(key, "m")
    told = scrape(here)
    lengths = {
        queue: told("agno_queue_messages", queue=queue) for queue in ("agents", "tools", "slow", "special")
    }
    assert lengths == {"agents": 2, "tools": 0, "slow": 1, "special": 2}


def test_a_thousand_agents_are_no_thousand_time_series(db: RunDatabase, here: Settings) -> None:
    for number in range(60):
        db.submit(agent=f"a{number}")
    db.submit(agent="a59")
    told = scrape(here)
    series = [
        sample for family in told.families if family.name == "agno_open_runs" for sample in family.samples
    ]
    assert len(series) == 51
    assert sum(sample.value for sample in series) == 61
    assert told("agno_open_runs", agent=OTHERS, status="queued") == 10
    assert told("agno_open_runs", agent="a59", status="queued") == 2


def test_names_are_as_prometheus_wants_them_and_say_no_id_and_no_text(
    db: RunDatabase, here: Settings
) -> None:
    db.journal.fail(db.turn(user_id="customer 17"), ERROR, "model_rejected")
    db.fan_out("a")
    Quarantine(db.pool).store(bad("unsigned"))
    told = scrape(here)
    for family in told.families:
        assert re.fullmatch(r"agno_[a-z_]+", family.name)
        assert family.documentation.endswith(".")
        assert family.type in ("gauge", "counter")
        for sample in family.samples:
            assert sample.name.endswith("_total") == (family.type == "counter")
            assert set(sample.labels) <= LABELS
    assert not IS_ID.search(told.text)
    assert "secret" not in told.text
    assert "customer" not in told.text


# Servers that are away.


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as opened:
        yield opened


@pytest.mark.parametrize("mode", [Mode.SILENT, Mode.RESET])
def test_of_a_postgres_that_is_away_no_more_is_told_than_that(
    here: Settings, network: Network, mode: Mode, redis_client: redis.Redis
) -> None:
    parts = urlsplit(here.database.url.get_secret_value())
    folder = re.search(r"host=([^&]+)", parts.query)
    assert folder
    proxy = network.proxy(f"{folder[1]}/.s.PGSQL.5432")
    line = here.changed(
        database={"url": SecretStr(f"postgresql://agno:hush@127.0.0.1:{proxy.port}{parts.path}")}
    )
    redis_client.rpush("agents", "m")
    assert scrape(line)("agno_up") == 1
    proxy.set(mode)
    began = time.monotonic()
    told = scrape(line)
    assert time.monotonic() - began < SOON_S
    assert told("agno_up") == 0
    assert told.names() == {"agno_up", "agno_redis_up", "agno_queue_messages"}
    assert told("agno_queue_messages", queue="agents") == 1
    proxy.set(Mode.PASS)
    assert scrape(line)("agno_up") == 1


@pytest.mark.parametrize("mode", [Mode.SILENT, Mode.RESET])
def test_of_a_redis_that_is_away_no_more_is_told_than_that(
    db: RunDatabase, here: Settings, servers: LocalServers, network: Network, mode: Mode
) -> None:
    proxy = network.proxy(urlsplit(servers.redis_url).path)
    line = here.changed(broker={"url": SecretStr(f"redis://127.0.0.1:{proxy.port}/0")})
    db.submit(agent="a")
    assert scrape(line)("agno_redis_up") == 1
    proxy.set(mode)
    began = time.monotonic()
    told = scrape(line)
    assert time.monotonic() - began < SOON_S
    assert (told("agno_up"), told("agno_redis_up")) == (1, 0)
    assert told("agno_open_runs", agent="a", status="queued") == 1
    assert "agno_queue_messages" not in told.names()


def test_a_postgres_that_stands_still_in_the_middle_is_given_up(db: RunDatabase, db_url: str) -> None:
    """Its own time limit stands still with it."""
    with psycopg.connect(db_url) as holder, ThreadPoolExecutor(1) as threads:
        holder.execute("LOCK TABLE agno.step IN ACCESS EXCLUSIVE MODE")
        counting = threads.submit(counted, db_url, timeout_s=2, recent_s=60)
        asked = "SELECT pid FROM pg_stat_activity WHERE application_name = 'agno-workers-metrics' AND wait_event_type = 'Lock'"
        invariants.until(lambda: db.sql(asked))
        pid = int(db.value(asked))
        os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(Unavailable, match="did not answer"):
                counting.result(timeout=10)
        finally:
            os.kill(pid, signal.SIGCONT)


def test_a_postgres_that_is_busy_is_given_up(db: RunDatabase, db_url: str) -> None:
    with psycopg.connect(db_url) as holder:
        holder.execute("LOCK TABLE agno.step IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(Unavailable, match="statement timeout"):
            counted(db_url, timeout_s=1, recent_s=60)


def test_scrapes_at_once_take_one_connection(db: RunDatabase, here: Settings, db_url: str) -> None:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(here))
    most, over = 0, threading.Event()

    def watch() -> None:
        nonlocal most
        with psycopg.connect(db_url, autocommit=True) as connection:
            asked = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'agno-workers-metrics'"
            while not over.is_set():
                ((count,),) = connection.execute(asked).fetchall()
                most = max(most, count)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(8) as threads:
        texts = list(threads.map(lambda _: generate_latest(registry).decode(), range(24)))
    over.set()
    watcher.join()
    assert all("agno_up 1.0" in text for text in texts)
    assert 1 <= most <= 2  # the server may still see one that has just gone


# The command.


@pytest.fixture
def start_program(environment: dict[str, str]) -> Iterator[StartProgram]:
    yield from programs(environment)


def test_it_answers_on_a_port_until_it_is_ended(start_program: StartProgram) -> None:
    program = start_program("metrics", "--port", "0")
    url = re.search(r"http://\S+/metrics", program.wait_for("Metrics at"))
    assert url
    assert url[0].startswith("http://127.0.0.1:")
    with urllib.request.urlopen(url[0], timeout=30) as answer:
        told = Scrape(answer.read().decode())
    assert (told("agno_up"), told("agno_redis_up")) == (1, 1)
    taken = start_program("metrics", "--port", url[0].split(":")[2].split("/")[0])
    assert "cannot listen on 127.0.0.1:" in taken.wait_for("agno-workers:")
    assert taken.end() == 2
    program.signal(signal.SIGTERM)
    assert program.end() == 0


def test_once_it_writes_them_and_ends(start_program: StartProgram) -> None:
    program = start_program("metrics", "--once")
    program.wait_for("agno_up 1.0")
    assert program.end() == 0


def test_it_says_once_that_postgres_is_away_without_the_password(start_program: StartProgram) -> None:
    program = start_program("metrics", "--once", AGNO_DATABASE_URL="postgresql://agno:hush@127.0.0.1:1/none")
    program.wait_for("agno_up 0.0")
    assert program.end() == 0
    assert "hush" not in "".join(program.lines)
    assert sum("Postgres can't be reached" in line for line in program.lines) == 1
