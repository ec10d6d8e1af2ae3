"""A pool through an outage."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

from agno_workers import Client
from agno_workers.database.pool import Pool
from agno_workers.errors import RunCancelled, SettingsError, Unavailable
from agno_workers.local import LocalServers
from agno_workers.repositories import Database
from tests.chaos.proxy import Mode, Network


def test_first_call_after_a_long_outage_succeeds(servers: LocalServers) -> None:
    """psycopg's own pool would reconnect 7 s and 15 s after the begin of the outage."""
    folder = parse_qs(urlsplit(servers.database_url).query)["host"][0]
    with Network() as network:
        line = network.proxy(f"{folder}/.s.PGSQL.5432")
        pool = Pool(
            f"postgresql://agno@127.0.0.1:{line.port}/agno", size=2, timeout_s=2, statement_timeout_s=30
        )
        pool.run("SELECT 1")
        line.set(Mode.RESET)
        for _ in range(3):  # of up to 2 s each
            with pytest.raises(Unavailable):
                pool.run("SELECT 1")
        line.set(Mode.PASS)
        assert pool.run("SELECT 1 AS one") == [{"one": 1}]
        pool.close()


@pytest.mark.parametrize("url", ["mysql://user:secret@host/db", "no address"])
def test_url_of_something_else_is_refused_at_once_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match="not one of Postgres") as caught:
        Database(url)
    assert "secret" not in str(caught.value)


def test_error_names_the_reason_why_there_is_no_connection(servers: LocalServers) -> None:
    url = servers.database_url.replace("agno@", "bob@")
    with (
        Database(url, timeout_s=1) as database,
        pytest.raises(Unavailable, match="the role 'bob' does not exist"),
    ):
        database.pool.run("SELECT 1")


def sessions(pool: Pool, count: int = 4) -> list[int]:
    """Use as many sessions at once; return their process ids."""
    own = "SELECT pg_backend_pid() AS pid, pg_sleep(0.1)"
    with ThreadPoolExecutor(count) as threads:
        return sorted(set(threads.map(lambda _: int(pool.run(own)[0]["pid"]), range(count))))


@pytest.mark.parametrize("end", ["terminated", "reset"])
def test_sessions_that_ended_while_idle_cost_no_call(servers: LocalServers, end: str) -> None:
    """A restart, a failover, `idle_session_timeout` and firewalls end sessions so."""
    folder = parse_qs(urlsplit(servers.database_url).query)["host"][0]
    with Network() as network, psycopg.connect(servers.database_url, autocommit=True) as other:
        line = network.proxy(f"{folder}/.s.PGSQL.5432")
        url = f"postgresql://agno@127.0.0.1:{line.port}/agno"
        with closing(Pool(url, size=4, timeout_s=10, statement_timeout_s=30)) as pool:
            before = sessions(pool)
            assert len(before) > 1
            if end == "reset":
                line.set(Mode.RESET)
                line.set(Mode.PASS)
            for pid in before:
                other.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,))
            after = {pool.run("SELECT pg_backend_pid() AS pid")[0]["pid"] for _ in range(4)}
            assert not after & set(before)


def test_session_that_heard_something_while_idle_is_used_again(servers: LocalServers) -> None:
    with closing(Pool(servers.database_url, size=1, timeout_s=10, statement_timeout_s=30)) as pool:
        (before,) = pool.run("LISTEN heard") or pool.run("SELECT pg_backend_pid() AS pid")
        with psycopg.connect(servers.database_url, autocommit=True) as other:
            other.execute("NOTIFY heard")
        assert pool.run("SELECT pg_backend_pid() AS pid") == [before]


def test_listener_is_used_again_unless_it_is_lost(servers: LocalServers) -> None:
    def pid(pool: Pool) -> int:
        listener = pool.listen("heard")
        assert listener is not None
        pool.run("NOTIFY heard")
        assert [note.channel for note in listener.notifies(timeout=10, stop_after=1)] == ["heard"]
        pool.put_back(listener)
        assert listener.execute("SELECT pg_listening_channels()").fetchall() == []
        return listener.info.backend_pid

    with closing(Pool(servers.database_url, size=1, timeout_s=10, statement_timeout_s=30)) as pool:
        first = pid(pool)
        assert pid(pool) == first
        pool.run(f"SELECT pg_terminate_backend({first}, 10000)")
        assert pid(pool) != first


@pytest.fixture
def limited_url(database_url: str) -> Iterator[str]:
    """The address for a role that may have a single session."""
    role = f"role_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            f"""
            CREATE ROLE {role} LOGIN CONNECTION LIMIT 1; GRANT USAGE ON SCHEMA agno TO {role};
            GRANT ALL ON ALL TABLES IN SCHEMA agno TO {role}; GRANT ALL ON ALL SEQUENCES IN SCHEMA agno TO {role}""".encode()
        )
        yield database_url.replace("agno@", f"{role}@")
        connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}".encode())


def test_limit_of_connections_slows_calls_and_fails_none(limited_url: str, client: Client) -> None:
    with Client(limited_url, pool_size=4) as limited:

        def ask(number: int) -> str:
            run = limited.runs.submit("echo", str(number))
            client.runs.get(run.id).cancel()
            with pytest.raises(RunCancelled):  # no session is left to listen for it
                run.result(timeout=30)
            return run.messages[0].text

        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(ask, range(8))) == [str(number) for number in range(8)]
        with pytest.raises(Unavailable, match="too many connections for role"):
            Pool(limited_url, size=1, timeout_s=1, statement_timeout_s=1).run("SELECT 1")


def test_standby_is_unavailable_and_the_next_connection_may_lead_to_the_primary(
    servers: LocalServers,
) -> None:
    with closing(Pool(servers.database_url, size=1, timeout_s=10, statement_timeout_s=30)) as pool:
        (before,) = pool.run("SELECT pg_backend_pid() AS pid")
        with (
            pytest.raises(Unavailable, match="read-only transaction"),
            pool.connection() as connection,
            connection.transaction(),
        ):
            connection.execute("SET TRANSACTION READ ONLY; CREATE TABLE never (a int)")
        assert pool.run("SELECT pg_backend_pid() AS pid") != [before]
