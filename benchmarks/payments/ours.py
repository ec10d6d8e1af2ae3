"""agno-workers as a contestant: `pay` is declared `once`, with a hook that looks into the ledger, and without."""

from __future__ import annotations

import sys
from typing import ClassVar

import psycopg

from benchmarks.payments.contestant import Contestant, End
from benchmarks.payments.settings import Setting
from benchmarks.stage import ROOT

_RUN = """
    SELECT status, coalesce(error->>'message', reason, ''), agno.inflate(content)#>>'{}', ended_at IS NOT NULL
    FROM agno.run WHERE id = %s"""
_STEPS = "SELECT name, status FROM agno.step WHERE run_id = %s AND status IN ('unknown', 'dead', 'waiting')"


class Ours(Contestant):
    """One worker for both queues, with the short leases of the tests: 3 s, as agno's here."""

    agent: ClassVar[str]

    def start(self, *, dies: bool = False) -> None:
        servers = self.world.stage.servers
        self._keep(
            [
                *(sys.executable, "-m", "celery", "-A", "agno_workers", "worker", "-Q", "agents,tools"),
                *("-P", "threads", "-c", "16", "-n", "payments@bench", "-l", "WARNING", "--without-gossip", "--without-mingle"),
            ],
            AGNO_DATABASE_URL=servers.database_url,
            AGNO_BROKER_URL=servers.broker_url,
            AGNO_CONFIG=str(ROOT / "config" / "test.toml"),
            AGNO_IMPORTS="benchmarks.payments.agents",
            BENCH_LEDGER=str(self.world.ledger),
            OPENAI_BASE_URL=self.world.model_url,
            OPENAI_API_KEY="sk-fake",
            **({"AGNO_CRASH_AT": "tool.executed"} if dies else {}),
        )  # fmt: skip

    def end(self) -> End | None:
        with psycopg.connect(self.world.stage.servers.database_url, autocommit=True) as connection:
            row = connection.execute(_RUN, [self.run_id]).fetchone()
            steps = connection.execute(_STEPS, [self.run_id]).fetchall()
        assert row is not None
        status, reason, answer, ended = row
        if not ended and "waiting" not in [of_step for _, of_step in steps]:
            return None
        return End(
            "; ".join([status, *(f"step {name} {of_step}" for name, of_step in steps)]), reason, answer or ""
        )

    def _submitter_says(self, setting: Setting) -> list[str]:
        return ["ours", self.world.stage.servers.database_url, self.agent, setting.says]


class OursHook(Ours):
    name = "agno-workers, once + reconcile"
    options = (
        '`@tool(effect="once", reconcile=look_up)`; `look_up` searches the ledger for `ctx.idempotency_key`'
    )
    agent = "knowing"


class OursOnce(Ours):
    name = "agno-workers, once"
    options = '`@tool(effect="once")`'
    agent = "careful"
