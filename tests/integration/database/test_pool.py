"""A pool through an outage."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import pytest

from agno_workers.database.pool import Pool
from agno_workers.errors import Unavailable
from agno_workers.local import LocalServers
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
