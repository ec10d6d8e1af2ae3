"""`agno-workers doctor`: what runs need, one line each, with the next move where something is wrong."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import psycopg
import typer
from rich.text import Text

from agno_workers.broker.checks import redis_problems, redis_warnings, unsigned_warnings
from agno_workers.broker.quarantine import Quarantine
from agno_workers.cli import connection, screen
from agno_workers.cli.consumers import by_queue, known, state
from agno_workers.database import functions
from agno_workers.database.functions import database_problems
from agno_workers.database.migrations import NEWEST
from agno_workers.database.pool import Pool
from agno_workers.errors import AgnoError
from agno_workers.runs.dead import Which
from agno_workers.runs.queries import Stuck
from agno_workers.runs.workers import Worker
from agno_workers.settings import Settings

app = typer.Typer(pretty_exceptions_enable=False)
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
_RECENTLY = timedelta(days=1)
_HOUR = timedelta(hours=1)
_MANY_DEAD = 10
_UNCLAIMED = timedelta(minutes=2)  # the keeper sends a step again after one
_OVERDUE = timedelta(minutes=1)  # the keeper needs well under a second
_KEEPERS_CHANGE = timedelta(seconds=10)
_CLOCKS_WARN = timedelta(seconds=1)
_CLOCKS_FAIL = timedelta(seconds=30)
_PGVECTOR_NEEDED, _PGVECTOR_WANTED = "0.8", "0.8.4"
_PACKAGES = ("agno-workers", "celery", "kombu", "redis", "psycopg")


@dataclass(frozen=True)
class Finding:
    """One line of the report. `text` ends with the next move, where there is one."""

    level: str
    """`ok`, `warn` or `fail`."""
    about: str
    text: str


@app.command()
def doctor(json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Check what runs need. Exits 1 when something is broken, 0 when there are at most warnings."""
    settings = connection.settings()
    findings = []
    for finding in examine(settings):
        findings.append(finding)
        if not json:
            _print(finding)
    if json:
        typer.echo(screen.as_json(findings))
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(1)


def examine(settings: Settings) -> Iterator[Finding]:
    """Every check, in the order in which one rests on the other."""
    yield Finding("ok", "versions", _versions())
    postgres = yield from _check("Postgres", lambda: _postgres(settings))
    if postgres:
        yield from _check("schema", lambda: _schema(settings))
        yield from _check("pgvector", lambda: _pgvector(settings))
        yield from _check("messages", lambda: _messages(settings))
    redis = yield from _check("Redis", lambda: _redis(settings))
    if postgres:
        yield from _check("queues", lambda: _queues(settings))
        yield from _check("workers", lambda: _workers(settings))
        yield from _check("runs", lambda: _runs(settings))
        yield from _check("knowledge", lambda: _knowledge(settings))
    if postgres and redis:
        yield from _check("clocks", lambda: _clocks(settings))


def _check(about: str, look: Callable[[], list[Finding]]) -> Generator[Finding, None, bool]:
    """What one check found; what it could not do is a finding as well. Gives whether the next may rest on it."""
    try:
        findings = look()
    except (AgnoError, psycopg.Error) as error:
        findings = [Finding("fail", about, " ".join(str(error).split()))]
    yield from findings
    return all(finding.level != "fail" for finding in findings)


def _print(finding: Finding) -> None:
    line = Text.assemble(
        (f"{finding.level:<5}", _COLOURS[finding.level]), (f"{finding.about:<10}", "bold"), finding.text
    )
    screen.console().print(screen.hanging(line, 15))


def _versions() -> str:
    return ", ".join(
        [f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in _PACKAGES)]
    )


def _postgres(settings: Settings) -> list[Finding]:
    url = connection.database_url(settings)
    with psycopg.connect(url, connect_timeout=connection.PATIENCE_S) as opened:
        number = opened.info.server_version // 10_000
    where = connection.without_password(url)
    if number < 14:
        return [Finding("fail", "Postgres", f"{number} at {where} is too old: use 14 or newer.")]
    return [Finding("ok", "Postgres", f"{number} at {where}")]


def _schema(settings: Settings) -> list[Finding]:
    url = connection.database_url(settings)
    current, newest = functions.state(url, connection.PATIENCE_S).revision, NEWEST
    if not database_problems(url):
        return [Finding("ok", "schema", f"at {current}, the newest")]
    return [
        Finding(
            "fail",
            "schema",
            f"at {current or 'nothing'}, and this code wants {newest}: run `agno-workers db upgrade`.",
        )
    ]


def _pgvector(settings: Settings) -> list[Finding]:
    with psycopg.connect(connection.database_url(settings), connect_timeout=connection.PATIENCE_S) as opened:
        row = opened.execute(
            "SELECT default_version, installed_version FROM pg_available_extensions WHERE name = 'vector'"
        ).fetchone()
    if row is None:
        return [
            Finding(
                "warn",
                "pgvector",
                "not available, so no knowledge can be searched: install the extension on the server.",
            )
        ]
    available, installed = row
    if _is_older(installed or available, _PGVECTOR_NEEDED):
        move = "update the server's pgvector, then `ALTER EXTENSION vector UPDATE`"
        text = f"{installed or available} is too old: knowledge needs {_PGVECTOR_NEEDED} or newer; {move}."
        return [Finding("fail" if installed else "warn", "pgvector", text)]
    if installed and _is_older(installed, _PGVECTOR_WANTED):
        text = f"{installed} installed; {_PGVECTOR_WANTED} mends faults of its index: update it, then `ALTER EXTENSION vector UPDATE`."
        return [Finding("warn", "pgvector", text)]
    return [Finding("ok", "pgvector", f"{installed} installed" if installed else f"{available} available")]


def _is_older(version: str, than: str) -> bool:
    """Of versions such as 0.8.4."""
    numbers = [[int(part) for part in text.split(".") if part.isdigit()] for text in (version, than)]
    return numbers[0] < numbers[1]


def _messages(settings: Settings) -> list[Finding]:
    url = connection.database_url(settings, migrated=True)
    pool = Pool(url, size=1, timeout_s=connection.PATIENCE_S, statement_timeout_s=30.0)
    try:
        kept = Quarantine(pool).count_recent(_RECENTLY)
    finally:
        pool.close()
    if not kept:
        return [Finding("ok", "messages", "none was quarantined within a day")]
    counted = ", ".join(f"{count.messages} {count.reason}" for count in kept)
    text = f"quarantined within a day: {counted}. The table agno.quarantine has them, and docs/reference-messages.md says what to do."
    return [Finding("warn", "messages", text)]


def _redis(settings: Settings) -> list[Finding]:
    with connection.redis_client(settings) as client:
        problems, warnings = redis_problems(client), redis_warnings(client)
        server = client.info("server")
    name = (
        f"{server.get('server_name', 'redis')} {server.get('valkey_version') or server.get('redis_version')}"
    )
    where = connection.without_password(settings.broker.url.get_secret_value())
    warnings += unsigned_warnings(where, signed=bool(settings.signing.keys))
    found = [Finding("fail", "Redis", text) for text in problems] + [
        Finding("warn", "Redis", text) for text in warnings
    ]
    return found or [Finding("ok", "Redis", f"{name} at {where}, noeviction, append-only file on")]


def _queues(settings: Settings) -> list[Finding]:
    living = [worker for worker in known(settings) if state(worker, settings) in ("alive", "silent")]
    workers = by_queue(living)
    found = [
        Finding("ok", "queues", f"{queue}: {len(names)} worker(s)")
        for queue, names in sorted(workers.items())
    ]
    with connection.look(settings) as look:
        waiting, now = look.queues(), look.now()
    for queue, (ready, oldest) in sorted(waiting.items()):
        if queue not in workers:
            since = screen.length(now - oldest)
            text = f"{queue}: {ready} step(s) wait, for up to {since}, and no worker listens: start one with `-Q {queue}`."
            found.append(Finding("fail", "queues", text))
    return found or [
        Finding("warn", "queues", "no worker is there, and nothing waits: `agno-workers up` starts workers.")
    ]


def _workers(settings: Settings) -> list[Finding]:
    """Only what is wrong with them: the queues tell that they are there."""
    workers = known(settings)
    living = [worker for worker in workers if state(worker, settings) == "alive"]
    replaced = {worker.node for worker in living}
    found = [
        Finding(
            "warn", "workers", f"{worker.name} has said nothing for {_since(worker)}: is it still running?"
        )
        for worker in workers
        if state(worker, settings) in ("silent", "lost") and worker.node not in replaced
    ]
    if len(versions := sorted({worker.version for worker in living})) > 1:
        text = f"of different versions: {', '.join(versions)}. Fine for the minutes of a deploy; restart the old ones."
        found.append(Finding("warn", "workers", text))
    return found


def _since(worker: Worker) -> str:
    return screen.length(timedelta(seconds=round(worker.silent_s)))


def _runs(settings: Settings) -> list[Finding]:
    """Work that does not move, and what has died lately."""
    living = [worker for worker in known(settings) if state(worker, settings) == "alive"]
    with connection.database(settings) as database:
        look = database.queries
        stuck = look.stuck(unclaimed=_UNCLAIMED, overdue=_OVERDUE, person=_RECENTLY)
        now, silent_s = look.now(), look.keeper_silent_s()
        died = sum(group.letters for group in database.dead_letters.groups(Which(within=_HOUR), limit=1000))
    no_keeper = silent_s is None or silent_s > _KEEPERS_CHANGE.total_seconds()
    found = [finding for each in stuck if (finding := _stuck(each, now, living, no_keeper=no_keeper))]
    if died >= _MANY_DEAD:
        text = f"{died} have died within an hour: `agno-workers dead ls --since 1h` says of what."
        found.append(Finding("warn", "runs", text))
    return found or [Finding("ok", "runs", "none is stuck")]


def _knowledge(settings: Settings) -> list[Finding]:
    """Models that nobody is getting ready any more. Ingestions that don't move are found among the runs and queues."""
    with connection.database(settings) as database:
        overview = database.knowledge_stats
        bases, unfinished = overview.bases(), overview.unfinished()
    found = [
        Finding(
            "warn",
            "knowledge",
            f"{each.knowledge}: {each.vectors:,} of {each.chunks:,} vectors of {each.model} were made, and nobody goes on: "
            f"`agno-workers knowledge reindex {each.knowledge}`.",
        )
        for each in unfinished
    ]
    if found or not bases:
        return found
    documents = sum(base.documents for base in bases)
    return [
        Finding(
            "ok", "knowledge", f"{len(bases)} knowledge base(s), {documents:,} documents, none half built"
        )
    ]


def _stuck(stuck: Stuck, now: datetime, living: Sequence[Worker], *, no_keeper: bool) -> Finding | None:
    """None for what another finding tells: a queue without a worker."""
    count, since = stuck.count, screen.length(now - stuck.since)
    keeper = (
        "no keeper is alive, and each worker brings one: start a worker"
        if no_keeper
        else "the log of the worker that is keeper says why (`SELECT value FROM agno.meta WHERE key = 'keeper'`)"
    )
    match stuck.what:
        case "no_step":
            text = f"{count} run(s) have no open step, so nothing moves them: `agno-workers runs show {stuck.sample}`."
            return Finding("fail", "runs", text)
        case "lease":
            text = f"{count} step(s) are with workers whose lease ended up to {since} ago; {keeper}."
            return Finding("fail", "runs", text)
        case "outbox":
            text = f"{count} message(s) should have gone to Celery up to {since} ago; {keeper}."
            return Finding("fail", "runs", text)
        case "unclaimed":
            listening = [worker for worker in living if stuck.queue in worker.queues]
            if not listening:
                return None
            free = sum(max(0, worker.concurrency - worker.steps) for worker in listening)
            move = (
                f"with {free} of their slots free: `agno-workers runs show {stuck.sample}`, and the workers' logs"
                if free
                else "whose slots are all in use: start more workers"
            )
            text = f"{stuck.queue}: {count} step(s) were sent up to {since} ago, and not taken by {len(listening)} worker(s), {move}."
            return Finding("warn", "runs", text)
        case "person":
            text = f"{count} call(s) have waited for a person for up to {since}: `agno-workers runs waiting` lists them."
            return Finding("warn", "runs", text)


def _clocks(settings: Settings) -> list[Finding]:
    with connection.look(settings) as look, connection.redis_client(settings) as client:
        look.now()  # connects
        differences = {"Postgres": _behind(look.now), "Redis": _behind(lambda: _redis_now(client))}
    worst = max(differences.values(), key=abs)
    level = "ok" if abs(worst) < _CLOCKS_WARN else "warn" if abs(worst) < _CLOCKS_FAIL else "fail"
    said = ", ".join(f"{name} {by.total_seconds():+.3f} s from here" for name, by in differences.items())
    move = "" if level == "ok" else ": let NTP set the clocks."
    return [Finding(level, "clocks", said + move)]


def _behind(now: Callable[[], datetime]) -> timedelta:
    """Another clock minus ours, half of the question's way taken off."""
    before = time.time()
    there = now()
    return there - datetime.fromtimestamp((before + time.time()) / 2, UTC)


def _redis_now(client: object) -> datetime:
    seconds, microseconds = client.time()  # type: ignore[attr-defined]  # typed for the async client as well
    return datetime.fromtimestamp(seconds + microseconds / 1e6, UTC)
