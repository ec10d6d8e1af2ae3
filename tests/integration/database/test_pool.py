"""A pool through an outage."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from agno_workers.database.pool import Pool
from agno_workers.errors import SettingsError, Unavailable
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
        pytest.raises(Unavailable, match='role "bob" does not exist'),
    ):
        database.pool.run("SELECT 1")
