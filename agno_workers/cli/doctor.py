"""`agno-workers doctor`: check what runs need, one line for each finding, with the next move if something is wrong."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import redis
import typer
from psycopg.conninfo import conninfo_to_dict
from rich.text import Text

from agno_workers.broker.checks import (
    owner_problem,
    redis_problems,
    redis_refusal,
    redis_space,
    redis_warnings,
    unsigned_warnings,
)
from agno_workers.broker.quarantine import Quarantine
from agno_workers.cli import connection, screen
from agno_workers.cli.consumers import consumers, state
from agno_workers.cli.diagnose import unknown_agent
from agno_workers.cli.screen import count
from agno_workers.database import functions
from agno_workers.database.checks import PGVECTOR, is_older, problems, session_problem
from agno_workers.database.connect import connect, shown
from agno_workers.database.migrations import NEWEST
from agno_workers.errors import AgnoError
from agno_workers.knowledge.store.stats import Sizes
from agno_workers.runs.dead import Which
from agno_workers.runs.queries import Stuck
from agno_workers.runs.workers import Worker
from agno_workers.settings import Settings

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
_RECENTLY = timedelta(days=1)
_HOUR = timedelta(hours=1)
_MANY_DEAD = 10
_UNCLAIMED = timedelta(minutes=2)  # the keeper sends a step again after one minute
_OVERDUE = timedelta(minutes=1)  # the keeper takes well under a second
_KEEPER_HANDOVER = timedelta(seconds=10)
_CLOCKS_WARN = timedelta(seconds=1)
_CLOCKS_FAIL = timedelta(seconds=30)
_PGVECTOR_WANTED = "0.8.4"
_WIDE_ROOTS = {
    *map(Path, ("/", "/dev", "/etc", "/home", "/proc", "/root", "/run", "/sys", "/var")),
    Path.home(),
}
_WIDE = {
    "source_roots": "read the files of this machine, passwords among them",
    "source_variables": "send the value to a host of its choice",
    "source_databases": "query the database of the workers, or one that another variable names",
    "source_objects": "read all buckets that the workers' credentials open",
    "source_allow": "send requests to nearly all private addresses",
}
_LITTLE_SPACE = 1_000_000_000
_WRITE = "CREATE TEMPORARY TABLE agno_doctor ON COMMIT DROP AS SELECT repeat(md5(n::text), 60) AS filling FROM generate_series(1, 512) AS n"
"""A megabyte on the disk, for the length of a transaction."""
_PACKAGES = ("agno-workers", "celery", "kombu", "redis", "psycopg")


@dataclass(frozen=True)
class Finding:
    """One line of the report; `text` ends with the next move if there is one."""

    level: str
    """`ok`, `warn` or `fail`."""
    about: str
    text: str


@app.command()
def doctor(json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """Check what runs need. Exit status 1 if something is broken, 0 if there are only warnings."""
    settings = connection.settings()
    findings = []
    for finding in examine(settings):
        findings.append(finding)
        if not json:
            _print(finding)
    if json:
        screen.echo(screen.as_json(findings))
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(1)


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield the findings of all checks; a check is skipped if one that it depends on failed."""
    yield Finding("ok", "versions", _versions())
    postgres = yield from _check("Postgres", lambda: _postgres(settings))
    tables = False
    if postgres:
        tables = yield from _check("schema", lambda: _schema(settings))
        yield from _check("pgvector", lambda: _pgvector(settings))
    if tables:
        yield from _check("Postgres", lambda: _disk(settings))
        yield from _check("messages", lambda: _messages(settings))
    yield from _check("sources", lambda: wide_lists(settings))
    redis = yield from _check("Redis", lambda: _redis(settings))
    if tables:
        yield from _check("queues", lambda: _queues(settings))
        yield from _check("workers", lambda: _workers(settings))
        yield from _check("runs", lambda: _runs(settings))
        yield from _check("runs", lambda: _returned(settings))
        yield from _check("knowledge", lambda: _knowledge(settings))
    if tables and redis:
        yield from _check("owner", lambda: _owner(settings))
        yield from _check("clocks", lambda: _clocks(settings))


def _check(about: str, look: Callable[[], list[Finding]]) -> Generator[Finding, None, bool]:
    """Yield the findings of one check, and return True if none is a failure. An error is a failure."""
    try:
        findings = look()
    except (AgnoError, psycopg.Error, redis.RedisError) as error:
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
    url = connection.required(settings, "database")
    direct_url = settings.database.direct_url.get_secret_value()
    with connect(url, timeout_s=connection.PATIENCE_S, autocommit=True) as opened:
        number, pooled = opened.info.server_version // 10_000, ", behind a pooler" if opened.is_pooled else ""
        if problem := session_problem(opened, direct_url, connection.PATIENCE_S):
            return [Finding("fail", "Postgres", problem)]
    return [Finding("ok", "Postgres", f"{number} at {shown(url)}{pooled}")]


def _disk(settings: Settings) -> list[Finding]:
    """Try a write, and compare the free space with the size of the database where this machine can see the disk.

    Postgres reports no free space: on another machine, only a failed write tells.
    """
    with connect(connection.required(settings, "database"), timeout_s=connection.PATIENCE_S) as opened:
        (size,) = opened.execute("SELECT pg_database_size(current_database())").fetchone() or (0,)
        try:
            opened.execute(_WRITE)
        except psycopg.errors.InsufficientPrivilege:
            pass  # no temporary tables for this role
        except psycopg.Error as error:
            reason = error.diag.message_primary or " ".join(str(error).split())
            text = f"it can't write: {reason}. Free space on its disk, or correct what it names; submits fail until then."
            return [Finding("fail", "Postgres", text)]
        finally:
            opened.rollback()
        return [_space(size, _free_space(opened))]


def _free_space(opened: psycopg.Connection) -> int | None:
    """Return the free bytes on the disk of a server on this machine; None if we can't see its folder."""
    host = opened.info.host
    if not host.startswith("/") and host not in ("localhost", "127.0.0.1", "::1"):
        return None
    try:
        (folder,) = opened.execute("SHOW data_directory").fetchone() or ("",)
        if folder == "/proc/self/cwd":  # an embedded server: see local/postgres.py
            folder = f"/proc/{opened.info.backend_pid}/cwd"
        return shutil.disk_usage(folder).free
    except (psycopg.errors.InsufficientPrivilege, OSError):
        return None


def _space(size: int, free: int | None) -> Finding:
    """Return what is known of the disk: the size of the database, and the free space if it is known."""
    takes = f"the database takes {size / 1e9:,.2f} GB"
    if free is None:
        return Finding(
            "ok", "Postgres", f"{takes}, and a write succeeds; its free space can't be seen from here"
        )
    text = f"{takes}, and {free / 1e9:,.2f} GB are free"
    if free < max(_LITTLE_SPACE, size // 10):
        return Finding(
            "warn", "Postgres", f"{text}: Postgres stops when its disk is full, so free some space."
        )
    return Finding("ok", "Postgres", text)


def _schema(settings: Settings) -> list[Finding]:
    url = connection.required(settings, "database")
    with connect(url, timeout_s=connection.PATIENCE_S, autocommit=True) as opened:
        found = [problem for problem in problems(opened) if problem.about != "pgvector"]
        if found:
            return [Finding("fail", problem.about, problem.sentence) for problem in found]
        revision = functions.read(opened).revision
    if revision != NEWEST:
        text = f"at {revision}, which is newer than this code ({NEWEST}) and serves it: update the package agno-workers here."
        return [Finding("warn", "schema", text)]
    return [Finding("ok", "schema", f"at {revision}, the newest")]


def _pgvector(settings: Settings) -> list[Finding]:
    with connect(connection.required(settings, "database"), timeout_s=connection.PATIENCE_S) as opened:
        row = opened.execute(
            "SELECT default_version, installed_version FROM pg_available_extensions WHERE name = 'vector'"
        ).fetchone()
    if row is None:
        return [
            Finding(
                "fail",
                "pgvector",
                "not available, and `db upgrade` needs it: install the package of pgvector on the server.",
            )
        ]
    available, installed = row
    if is_older(installed or available, PGVECTOR):
        move = "update the server's pgvector, then `ALTER EXTENSION vector UPDATE`"
        return [
            Finding(
                "fail",
                "pgvector",
                f"{installed or available} is too old: {PGVECTOR} or newer is needed; {move}.",
            )
        ]
    if installed and is_older(installed, _PGVECTOR_WANTED):
        text = f"{installed} installed; {_PGVECTOR_WANTED} fixes bugs of its index: update it, then `ALTER EXTENSION vector UPDATE`."
        return [Finding("warn", "pgvector", text)]
    return [Finding("ok", "pgvector", f"{installed} installed" if installed else f"{available} available")]


def _messages(settings: Settings) -> list[Finding]:
    with connection.database(settings) as database:
        kept = Quarantine(database.pool).count_recent(_RECENTLY)
    if not kept:
        return [Finding("ok", "messages", "none quarantined in the last day")]
    counted = ", ".join(f"{each.messages} {each.reason}" for each in kept)
    text = f"quarantined in the last day: {counted}. See the table agno.quarantine and docs/reference-messages.md."
    return [Finding("warn", "messages", text)]


def _redis(settings: Settings) -> list[Finding]:
    with connection.redis_client(settings) as client:
        problems, warnings = redis_space(client)
        problems, warnings = redis_problems(client) + problems, redis_warnings(client) + warnings
        names = tuple(settings.queues.model_dump().values())
        prefix = settings.broker.key_prefix
        refusal = None if problems else redis_refusal(client, names, remote_control=True, prefix=prefix)
        if refusal is not None:
            problems = [refusal]
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
    with connection.database(settings) as database:
        workers = consumers(database.workers.all(), settings)
        waiting, now = database.queries.queues(), database.queries.now()
    found = [
        Finding("ok", "queues", f"{queue}: {count(len(names), 'worker')}")
        for queue, names in sorted(workers.items())
    ]
    for queue, (ready, oldest) in sorted(waiting.items()):
        if queue not in workers:
            since = screen.length(now - oldest)
            text = f"No worker consumes the queue {queue!r} ({count(ready, 'step')}, waiting for up to {since}): start one with `-Q {queue}`."
            answers_wait = queue != settings.queues.background
            found.append(Finding("fail" if answers_wait else "warn", "queues", text))
    return found or [
        Finding("warn", "queues", "no workers, and no steps that wait: `agno-workers up` starts workers.")
    ]


def _returned(settings: Settings) -> list[Finding]:
    """Find steps that workers returned, since they could not begin them."""
    with connection.database(settings) as database:
        workers = consumers(database.workers.all(), settings)
        returned, now = database.queries.returned(), database.queries.now()
    found = []
    for each in returned:
        waits = (
            f"{each.agent}: {count(each.count, 'step')}, waiting for up to {screen.length(now - each.since)}"
        )
        here = workers.get(each.queue, [])
        if each.type != "UnknownAgent":
            text = f"{waits}; workers could not begin {'it' if each.count == 1 else 'them'}: {each.type}: {each.message}. See `agno-workers runs show {each.sample}`."
            found.append(Finding("fail", "runs", text))
        elif not here:
            text = (
                f"{waits}, and no worker consumes the queue {each.queue!r}: start one with `-Q {each.queue}`."
            )
            found.append(Finding("fail", "runs", text))
        elif not any(worker.knows(each.agent) for worker in here):
            text = f"{waits}, and {unknown_agent(each.agent, each.queue, here)}"
            found.append(Finding("fail", "runs", text))
        else:
            text = f"{waits}; workers of the queue {each.queue!r} that do not know the agent returned them: set AGNO_IMPORTS of all of them alike, or give the agent a queue of its own."
            found.append(Finding("warn", "runs", text))
    return found


def _workers(settings: Settings) -> list[Finding]:
    """Return only problems: `queues` counts the workers."""
    with connection.database(settings) as database:
        workers = database.workers.all()
    living = [worker for worker in workers if state(worker, settings) == "alive"]
    replaced = {worker.node for worker in living}
    found = [
        Finding(
            "warn",
            "workers",
            f"{worker.name} has not reported for {_since(worker)}: check whether it still runs.",
        )
        for worker in workers
        if state(worker, settings) in ("silent", "lost") and worker.node not in replaced
    ]
    own = {settings.queues.agents, settings.queues.tools, settings.queues.background}
    found += [
        Finding(
            "warn",
            "workers",
            f"{worker.name} knows no agent and returns all steps of agents: set its AGNO_IMPORTS.",
        )
        for worker in living
        if worker.agents == () and own.intersection(worker.queues)
    ]
    if len(versions := sorted({worker.version for worker in living})) > 1:
        text = f"different versions: {', '.join(versions)}. After a deploy, restart the old ones."
        found.append(Finding("warn", "workers", text))
    return found


def _since(worker: Worker) -> str:
    return screen.length(timedelta(seconds=round(worker.silent_s)))


def _runs(settings: Settings) -> list[Finding]:
    """Find runs and steps that are stuck, and count recent dead letters."""
    with connection.database(settings) as database:
        look = database.queries
        living = [worker for worker in database.workers.all() if state(worker, settings) == "alive"]
        stuck = look.stuck(unclaimed=_UNCLAIMED, overdue=_OVERDUE, person=_RECENTLY)
        now, silent_s = look.now(), look.keeper_silent_s()
        leftovers = database.results.leftovers()
        died = sum(group.letters for group in database.dead_letters.groups(Which(within=_HOUR), limit=1000))
    no_keeper = silent_s is None or silent_s > _KEEPER_HANDOVER.total_seconds()
    found = [finding for each in stuck if (finding := _stuck(each, now, living, no_keeper=no_keeper))]
    found += [Finding("warn", "runs", f"{chord}.") for chord in leftovers]
    if died >= _MANY_DEAD:
        text = f"{count(died, 'dead letter')} in the last hour: `agno-workers dead ls --since 1h` lists them."
        found.append(Finding("warn", "runs", text))
    return found or [Finding("ok", "runs", "none stuck")]


def _knowledge(settings: Settings) -> list[Finding]:
    """Find knowledge bases that are incomplete, with no ingestion to complete them, or larger than the memory for them. `runs` and
    `queues` find stuck ingestions.
    """
    with connection.database(settings) as database:
        overview = database.knowledge_stats
        bases, unfinished, sizes = overview.bases(), overview.unfinished(), overview.sizes()
    found = [
        Finding(
            "warn",
            "knowledge",
            f"{each.knowledge}: only {each.vectors:,} of {each.chunks:,} vectors of {each.model} exist, and no ingestion makes the others: "
            f"`agno-workers knowledge reindex {each.knowledge}` makes them, and with `--stop` gives the model up.",
        )
        for each in unfinished
    ]
    found += [
        Finding("warn", "knowledge", f"{base.name}: {text}") for base in bases for text in base.problems
    ]
    found += too_few_buffers(sizes, is_local=_are_private(settings))
    if found or not bases:
        return found
    documents, under_way = sum(base.documents for base in bases), sum(base.open for base in bases)
    state = f"{count(under_way, 'ingestion')} open" if under_way else "all vectors complete"
    return [
        Finding(
            "ok",
            "knowledge",
            f"{count(len(bases), 'knowledge base')}, {count(documents, 'document')}, {state}",
        )
    ]


def too_few_buffers(sizes: Sizes, *, is_local: bool) -> list[Finding]:
    """Return a finding if searches read more than Postgres keeps in memory."""
    if sizes.searched <= sizes.shared_buffers:
        return []
    searched, kept = (f"{size / 2**20:,.0f} MB" for size in (sizes.searched, sizes.shared_buffers))
    move = (
        "the local Postgres takes an eighth of the memory, at most 512 MB, so use a server of your own for more"
        if is_local
        else f"set shared_buffers of Postgres to {searched} or more, on a server with at least twice as much memory, and restart it"
    )
    text = f"the chunks and vectors take {searched} with their indexes, and shared_buffers is {kept}, so searches wait for reads: {move}."
    return [Finding("warn", "knowledge", text)]


def wide_lists(settings: Settings) -> list[Finding]:
    """Find entries of the lists for sources that give their authors more than a few places of the operator. With local servers the
    only author is this user, and without servers there is none.
    """
    lists, own = settings.knowledge, settings.database.url.get_secret_value()
    if not own or _are_private(settings):
        return []
    wide = {
        "source_roots": [root for root in lists.source_roots if Path(root).resolve() in _WIDE_ROOTS],
        "source_variables": [
            name for name in lists.source_variables if "*" in name.partition("@")[0] or "@" not in name
        ],
        "source_databases": [
            name for name in lists.source_databases if "*" in name or os.environ.get(name) == own
        ],
        "source_objects": [place for place in lists.source_objects if place == "*"],
        "source_allow": [place for place in lists.source_allow if place.endswith(("/0", "/1", "/2", "/3"))],
    }
    return [
        Finding(
            "warn", "sources", f"The setting knowledge.{name} has {entry!r}: any ingestion may {_WIDE[name]}. Name less there."
        )
        for name, entries in wide.items()
        for entry in entries
    ]  # fmt: skip


def _are_private(settings: Settings) -> bool:
    """Return True if both servers are reached by a socket in a folder that one user can enter, such as those of `up`."""
    broker = urlsplit(settings.broker.url.get_secret_value())
    host = conninfo_to_dict(settings.database.url.get_secret_value()).get("host")
    folders = [Path(broker.path).parent if broker.scheme.endswith("+socket") else Path(), Path(str(host))]
    return all(each.is_absolute() and each.is_dir() and not each.stat().st_mode & 0o077 for each in folders)


def _stuck(stuck: Stuck, now: datetime, living: Sequence[Worker], *, no_keeper: bool) -> Finding | None:
    """Return None for a queue without a worker, which `queues` reports."""
    since = screen.length(now - stuck.since)
    keeper = (
        "no keeper is alive. Each worker has one: start a worker"
        if no_keeper
        else "see the log of the worker that is the keeper (`SELECT value FROM agno.meta WHERE key = 'keeper'`)"
    )
    match stuck.what:
        case "no_step":
            text = f"{count(stuck.count, 'run')} without an open step, which nothing will end: `agno-workers runs show {stuck.sample}`."
            return Finding("fail", "runs", text)
        case "lease":
            text = (
                f"{count(stuck.count, 'running step')} with a lease that expired up to {since} ago; {keeper}."
            )
            return Finding("fail", "runs", text)
        case "outbox":
            text = f"{count(stuck.count, 'message')} overdue in the outbox by up to {since}; {keeper}."
            return Finding("fail", "runs", text)
        case "unclaimed":
            listening = [worker for worker in living if stuck.queue in worker.queues]
            if not listening:
                return None
            free = sum(max(0, worker.concurrency - worker.steps) for worker in listening)
            move = (
                f"though {count(free, 'slot')} of them {'is' if free == 1 else 'are'} free: see `agno-workers runs show {stuck.sample}` and the logs of the workers"
                if free
                else "because all their slots are in use: start more workers"
            )
            text = f"{stuck.queue}: {count(stuck.count, 'step')} ready for up to {since} and not started by {count(len(listening), 'worker')}, {move}."
            return Finding("warn", "runs", text)
        case "background":
            move = "the next run that asks for it does it"
            if stuck.sample:
                move = f"`agno-workers dead retry {stuck.sample}` does it now, or {move}"
            text = f"{count(stuck.count, 'request')} for background work left undone by failed runs for up to {since}: {move}."
            return Finding("warn", "runs", text)
        case "signal":
            text = f"{count(stuck.count, 'step')} waiting without a time limit for a signal for up to {since}: see `agno-workers runs show {stuck.sample}`."
            return Finding("warn", "runs", text)
        case "person":
            text = f"{count(stuck.count, 'call')} waiting for a person for up to {since}: `agno-workers runs waiting` lists them."
            return Finding("warn", "runs", text)


def _owner(settings: Settings) -> list[Finding]:
    """Return a finding only if another deployment owns the queues in Redis."""
    with connection.database(settings) as database, connection.redis_client(settings) as client:
        deployment = database.maintenance.deployment()
        problem = owner_problem(client, settings.broker.key_prefix, deployment, claim=False)
    return [Finding("fail", "owner", problem)] if problem else []


def _clocks(settings: Settings) -> list[Finding]:
    with connection.database(settings) as database, connection.redis_client(settings) as client:
        look = database.queries
        look.now()  # connects
        differences = {"Postgres": _behind(look.now), "Redis": _behind(lambda: _redis_now(client))}
    worst = max(differences.values(), key=abs)
    level = "ok" if abs(worst) < _CLOCKS_WARN else "warn" if abs(worst) < _CLOCKS_FAIL else "fail"
    differ = ", ".join(
        f"{name} {by.total_seconds():+.3f} s from this machine" for name, by in differences.items()
    )
    move = "" if level == "ok" else ": synchronize the clocks with NTP."
    return [Finding(level, "clocks", differ + move)]


def _behind(now: Callable[[], datetime]) -> timedelta:
    """Return another clock minus ours, without half of the round trip."""
    before = time.time()
    there = now()
    return there - datetime.fromtimestamp((before + time.time()) / 2, UTC)


def _redis_now(client: object) -> datetime:
    seconds, microseconds = client.time()  # type: ignore[attr-defined]  # typed for the async client, too
    return datetime.fromtimestamp(seconds + microseconds / 1e6, UTC)
