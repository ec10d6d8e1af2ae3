"""Databases as workers, commands and `doctor` meet them: a role that owns nothing, faults while a worker runs, and copies."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from agno_workers import Client
from agno_workers.database.connect import parse
from tests import invariants
from tests.acceptance.terminal import Type
from tests.conftest import ROOT, StartWorker
from tests.forking import inherited
from tests.places import named
from tests.servers import Servers

WAIT_S = 30
ROLE = "Run time"


@pytest.fixture
def as_owner(database_url: str) -> Callable[[str], None]:
    """Execute statements as the owner of the database."""

    def execute(statements: str) -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(statements.encode())

    return execute


@pytest.fixture
def run_time_url(
    type_: Type, as_owner: Callable[[str], None], database_url: str, environment: dict[str, str]
) -> Iterator[str]:
    """The address of the database for a role that owns nothing, with the rights that `db grants` prints."""
    as_owner(f'CREATE ROLE "{ROLE}" LOGIN')
    as_owner(type_("db", "grants", ROLE).out)
    environment["AGNO_DATABASE_URL"] = make_conninfo(**parse(database_url) | {"user": ROLE})
    yield environment["AGNO_DATABASE_URL"]
    as_owner(
        f'SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = \'{ROLE}\'; DROP OWNED BY "{ROLE}"; DROP ROLE "{ROLE}"'
    )


def refusal(environment: dict[str, str]) -> str:
    """Start a worker that is expected to refuse, and return its only line."""
    command = [sys.executable, "-m", "celery", "-A", "agno_workers", "worker", "-Q", "agents", "-P", "solo"]
    refused = subprocess.run(
        command,
        cwd=ROOT,
        env=inherited() | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 2, refused.stderr
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("agno-workers: ")]
    return line.removeprefix("agno-workers: the worker does not start: ")


def test_role_that_owns_nothing_runs_everything_and_outlives_faults(
    run_time_url: str, as_owner: Callable[[str], None], start_worker: StartWorker, environment: dict[str, str], type_: Type,
    database_url: str,
) -> None:  # fmt: skip
    """While the database can't be used, a worker logs each fault once, and waits."""
    worker = start_worker()
    name = parse(database_url)["dbname"]
    with Client(run_time_url) as client:
        assert client.runs.submit("caller", 'add {"a": 1, "b": 2}').result(timeout=WAIT_S) == "3"
        for fault, mend, said in (
            (f'REVOKE INSERT, UPDATE ON agno.meta, agno.step FROM "{ROLE}"', f'GRANT INSERT, UPDATE ON agno.meta, agno.step TO "{ROLE}"', "lacks rights"),
            ("ALTER TABLE agno.meta RENAME beat TO beaten", "ALTER TABLE agno.meta RENAME beaten TO beat", "does not have the tables"),
            (f"ALTER DATABASE {name} SET default_transaction_read_only = on", f"ALTER DATABASE {name} RESET default_transaction_read_only", "is read-only now"),
        ):  # fmt: skip
            worker.forget_lines()
            as_owner(fault)
            as_owner(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'")
            while said not in worker.wait_for("the keeper's rounds are interrupted"):
                pass  # it may notice first that its connection was cut
            as_owner(mend)
            as_owner(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{ROLE}'")
            worker.wait_for("the keeper: Postgres can be used again")
            told = "".join(worker.lines)
            assert "Traceback" not in told
            assert sum("keeper" in line and said in line for line in worker.lines) == 1
            assert client.runs.submit("echo", "hi").result(timeout=WAIT_S) == "<hi>"
    assert type_("runs", "ls", AGNO_DATABASE_URL=run_time_url).status == 0
    worker.stop()

    as_owner(f'REVOKE USAGE ON SCHEMA agno FROM "{ROLE}"')
    told = refusal(environment)
    assert told.startswith(f"the role '{ROLE}' lacks rights in the database '{name}' (USAGE of schema agno)")
    listed, doctor = (
        type_(*words, AGNO_DATABASE_URL=run_time_url) for words in (("runs", "ls"), ("doctor", "--json"))
    )
    assert (listed.status, listed.err) == (2, f"agno-workers: {told}\n")
    assert [finding["text"] for finding in doctor.json if finding["level"] == "fail"] == [told]


def test_copy_of_a_database_does_not_execute_the_runs_of_the_original(
    servers: Servers, start_worker: StartWorker, environment: dict[str, str], type_: Type, database_url: str,
    redis_client: object,
) -> None:  # fmt: skip
    """A running worker stops when its address leads to a copy, no worker starts on one, and `adopt` decides on its open runs."""
    start_worker().stop()
    with Client(database_url) as client:
        client.runs.submit("echo", "waits")
        client.runs.submit("echo", "tomorrow", countdown=86_400)
    name = urlsplit(database_url).path[1:]
    copies = {}
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        for what in ("keep", "cancel"):
            connection.execute(f"CREATE DATABASE {name}_{what} TEMPLATE {name}".encode())
            copies[what] = named(database_url, f"{name}_{what}")
        try:
            told = refusal(environment | {"AGNO_DATABASE_URL": copies["keep"]})
            assert told.startswith(f"the database '{name}_keep' looks like a copy of '{name}'")
            doctor = type_("doctor", "--json", AGNO_DATABASE_URL=copies["keep"])
            assert [each["text"] for each in doctor.json if each["level"] == "fail"] == [told]
            assert type_("runs", "ls", AGNO_DATABASE_URL=copies["keep"]).status == 0

            unsaid = type_("db", "adopt", AGNO_DATABASE_URL=copies["keep"])
            assert (unsaid.status, "--keep-runs" in unsaid.err) == (2, True)
            adopted = type_("db", "adopt", "--cancel-open", AGNO_DATABASE_URL=copies["cancel"])
            assert "2 open runs: cancelled; nothing follows them" in adopted.out
            assert statuses(copies["cancel"]) == ["cancelled", "cancelled"]
            told = refusal(environment | {"AGNO_DATABASE_URL": copies["cancel"]})
            assert "belong to another deployment" in told

            worker = start_worker()
            invariants.until(lambda: statuses(database_url) == ["done", "queued"])
            connection.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'".encode()
            )
            connection.execute(f"ALTER DATABASE {name} RENAME TO {name}_original".encode())
            connection.execute(f"ALTER DATABASE {name}_keep RENAME TO {name}".encode())
            worker.wait_for("looks like a copy")
            assert worker.process.wait(timeout=WAIT_S) == 1
            assert statuses(database_url) == ["queued", "queued"]

            assert "2 open runs: continue" in type_("db", "adopt", "--keep-runs").out
            start_worker()
            invariants.until(lambda: statuses(database_url) == ["done", "queued"])
        finally:
            for what in ("_original", "_cancel"):
                connection.execute(f"DROP DATABASE IF EXISTS {name}{what} WITH (FORCE)".encode())


def statuses(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return sorted(status for (status,) in connection.execute("SELECT status FROM agno.run"))


def test_database_of_another_deployment_is_refused(
    start_worker: StartWorker, environment: dict[str, str]
) -> None:
    """The name tells also a copy of the disk from the original."""
    start_worker(AGNO_DEPLOYMENT="production").stop()
    for given in ("staging", ""):
        told = refusal(environment | {"AGNO_DEPLOYMENT": given})
        assert (
            f"belongs to the deployment 'production', and AGNO_DEPLOYMENT of this worker is {given!r}" in told
        )
