"""A real PgBouncer in transaction mode before Postgres: the next statement may have another session."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from agno_workers import Client, wiring
from agno_workers.broker.app import AgnoCelery
from agno_workers.cli import connection as cli
from agno_workers.database.checks import database_problems
from agno_workers.database.connect import POOLED, parse
from agno_workers.database.pool import Pool
from agno_workers.errors import SettingsError, Unavailable, WaitTimeout
from agno_workers.settings import Settings
from tests.conftest import StartWorker
from tests.servers import Servers

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="there is no pgbouncer: install it with `apt-get install pgbouncer`"
)
SESSIONS = 3
"""Sessions in Postgres, fewer than clients."""


@pytest.fixture(scope="module", params=["", "options"], ids=["strict", "ignores options"])
def pooler(request: pytest.FixtureRequest, servers: Servers) -> Iterator[Callable[[str], str]]:
    with running(servers, request.param) as through:
        yield through


@contextmanager
def running(servers: Servers, ignored: str, mode: str = "transaction") -> Iterator[Callable[[str], str]]:
    """Run PgBouncer; yield what makes the address of a database an address of the same through it."""
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None  # it refuses to run as root
    with tempfile.TemporaryDirectory(prefix="agno-pgb") as name:
        folder = Path(name)
        (folder / "ini").write_text(f"""
            [databases]
            * = host={parse(servers.database_url)["host"]} user=agno
            [pgbouncer]
            unix_socket_dir = {folder}
            listen_port = 6432
            auth_type = any
            pool_mode = {mode}
            default_pool_size = {SESSIONS}
            ignore_startup_parameters = {ignored}
        """)
        if user:
            os.chown(folder, user.pw_uid, user.pw_gid)
        assert PROGRAM
        command = [PROGRAM, *(["-u", user.pw_name] if user else []), str(folder / "ini")]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert process.stderr
        lines = iter(process.stderr.readline, "")
        assert any("process up" in line for line in lines), "PgBouncer did not start"
        yield lambda url: f"postgresql://agno@/{parse(url)['dbname']}?host={folder}&port=6432"
        process.kill()
        process.wait()
        process.stderr.close()


def test_runs_through_a_pooler_end_as_without_it(
    pooler: Callable[[str], str], database_url: str, start_worker: StartWorker
) -> None:
    pooled = pooler(database_url)
    start_worker(AGNO_DATABASE_URL=pooled, AGNO_DATABASE__DIRECT_URL=database_url)
    with Client(pooled) as polling, Client(pooled, direct_url=database_url) as listening:

        def ask(number: int) -> object:
            client = (polling, listening)[number % 2]
            if number % 3:
                return client.runs.submit("echo", str(number)).result(timeout=60)
            return client.runs.submit("caller", f'add {{"a": {number}, "b": 1}}').result(timeout=60)

        with ThreadPoolExecutor(8) as threads:
            got = list(threads.map(ask, range(15)))
        batch = polling.batches.submit("echo", ["a", "b"])
        assert {run.content for _, run in batch.results(timeout=60)} == {"<a>", "<b>"}
        with pytest.raises(WaitTimeout):
            polling.runs.submit("echo", "later", countdown=3600).result(timeout=0)
    assert got == [f"<{number}>" if number % 3 else str(number + 1) for number in range(15)]


def test_settings_hold_for_each_transaction(
    pooler: Callable[[str], str], database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = parse(database_url)["dbname"]
    with (
        psycopg.connect(pooler(database_url), autocommit=True) as older,
        psycopg.connect(database_url, autocommit=True) as connection,
    ):
        older.execute(
            "SELECT 1"
        )  # the first client below gets this session, and later ones get newer sessions
        for setting in (
            "DateStyle = German",
            "default_transaction_isolation = serializable",
            "search_path = nowhere",
        ):
            connection.execute(f"ALTER DATABASE {database} SET {setting}".encode())
    try:
        monkeypatch.setenv("PGDATESTYLE", "SQL")
        with closing(Pool(pooler(database_url), size=4, timeout_s=10, statement_timeout_s=30)) as pool:
            shown = """
                SELECT current_setting('transaction_isolation') AS isolation, current_setting('statement_timeout') AS timeout,
                       '[1]'::halfvec::text AS vector, %(day)s::timestamptz AS day, pg_sleep(0.01)"""

            assert pool.run("SELECT 1 AS one; SELECT 2 AS two") == [{"one": 1}]

            def read(_: int) -> tuple[object, ...]:
                (row,) = pool.run(shown, {"day": "2026-03-04 05:06Z"})
                with pool.connection() as connection, connection.transaction():
                    connection.execute("SELECT set_config('statement_timeout', '7s', true)")
                return row["isolation"], row["timeout"], row["vector"], str(row["day"])

            with ThreadPoolExecutor(8) as threads:
                found = set(threads.map(read, range(40)))
            assert found == {("read committed", "30s", "[1]", "2026-03-04 05:06:00+00:00")}
    finally:
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {database} RESET ALL".encode())


def test_pooler_without_a_direct_address_is_refused_where_a_session_is_needed(
    pooler: Callable[[str], str],
    database_url: str,
    settings: Settings,
    app: AgnoCelery,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pooled = pooler(database_url)
    assert database_problems(pooled, database_url) == []
    assert "does not arrive" in database_problems(pooled, pooled)[0]
    with pytest.raises(Unavailable, match=r"Connection refused.*correct AGNO_DATABASE__DIRECT_URL"):
        database_problems(pooled, "postgresql://agno@127.0.0.1:1/agno")
    monkeypatch.setenv("AGNO_DATABASE_URL", pooled)
    wiring.forget()
    assert POOLED in wiring.problems()
    with pytest.raises(SettingsError, match="AGNO_DATABASE__DIRECT_URL"):
        cli.direct_url(wiring.services().settings)  # `db upgrade`
    with pytest.raises(SettingsError, match="AGNO_DATABASE__DIRECT_URL"):
        wiring.services().database.pool.dedicated()


def test_pooler_that_keeps_sessions_is_a_direct_address(servers: Servers, database_url: str) -> None:
    with running(servers, "options", "session") as through:
        url = through(database_url)
        assert database_problems(url, "") == [POOLED]
        assert database_problems(url, url) == []
        with closing(Pool(url, size=1, timeout_s=10, statement_timeout_s=30, direct_url=url)) as pool:
            assert pool.run("SHOW statement_timeout") == [{"statement_timeout": "30s"}]
            with closing(pool.dedicated()) as connection:
                connection.execute("VACUUM agno.meta")  # which no transaction may do
