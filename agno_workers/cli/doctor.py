"""`agno-workers doctor`: what runs need, one line each, with the next move where something is wrong."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import psycopg
import typer
from rich.text import Text

from agno_workers.broker.checks import redis_problems, redis_warnings
from agno_workers.cli import connection, screen
from agno_workers.cli.consumers import listening
from agno_workers.errors import AgnoError
from agno_workers.settings import Settings
from agno_workers.storage import migrate

app = typer.Typer(pretty_exceptions_enable=False)
_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
_CLOCKS_WARN = timedelta(seconds=1)
_CLOCKS_FAIL = timedelta(seconds=30)
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
    redis = yield from _check("Redis", lambda: _redis(settings))
    if postgres and redis:
        yield from _check("queues", lambda: _queues(settings))
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
    current, newest = (
        migrate.current(connection.database_url(settings), connection.PATIENCE_S),
        migrate.newest(),
    )
    if current == newest:
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
    return [Finding("ok", "pgvector", f"{row[1]} installed" if row[1] else f"{row[0]} available")]


def _redis(settings: Settings) -> list[Finding]:
    with connection.redis_client(settings) as client:
        problems, warnings = redis_problems(client), redis_warnings(client)
        server = client.info("server")
    name = (
        f"{server.get('server_name', 'redis')} {server.get('valkey_version') or server.get('redis_version')}"
    )
    where = connection.without_password(settings.broker_url.get_secret_value())
    found = [Finding("fail", "Redis", text) for text in problems] + [
        Finding("warn", "Redis", text) for text in warnings
    ]
    return found or [Finding("ok", "Redis", f"{name} at {where}, noeviction, append-only file on")]


def _queues(settings: Settings) -> list[Finding]:
    workers = listening(settings)
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
        Finding("warn", "queues", "no worker answered, and nothing waits: `agno-workers up` starts workers.")
    ]


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
