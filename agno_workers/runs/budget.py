"""The limits of a whole tree of runs: a model call holds what it may use, its commit counts what it has used."""

from __future__ import annotations

import msgspec

from agno_workers.core.budget import TreeUsage
from agno_workers.core.messages import Usage
from agno_workers.core.step import ClaimedStep, LimitMet
from agno_workers.database.pool import jsonb, statements
from agno_workers.errors import RunNotFound
from agno_workers.runs.base import Repository, convert

_SQL = statements("runs/budget")


class Budgets(Repository):
    """See the module."""

    def hold(self, claim: ClaimedStep, tokens: int, cost_usd: float) -> LimitMet | None:
        """Let the next model call of a step hold so much of the limits of `claim.counted_by`, in place of what its last call held; return the
        limit that is in the way, if there is one.
        """
        asked = {"step_id": claim.step_id, "limits": jsonb(claim.counted_by), "tokens": tokens, "cost_usd": cost_usd}  # fmt: skip
        (row,) = self._pool.run(_SQL["hold"], asked)
        return None if row["met"] is None else convert(row["met"], LimitMet)

    def put_off(self, claim: ClaimedStep, delay_s: float, met: LimitMet) -> None:
        """Release a step until calls under way have ended; the keeper sends it then."""
        error = {"type": "BudgetHeld", "message": met.waiting, "ids": {"run_id": met.run_id}}
        asked = {"step_id": claim.step_id, "attempt": claim.attempt, "delay_s": delay_s, "error": jsonb(error)}  # fmt: skip
        self._pool.run(_SQL["put_off"], asked)

    def tree_usage(self, run_id: str) -> TreeUsage:
        """Return the sums over a run and all runs below it. Raises RunNotFound."""
        (row,) = self._pool.run(_SQL["tree_usage"], {"run_id": run_id})
        if not row["runs"]:
            raise RunNotFound(f"there is no run {run_id}: check the id.", run_id=run_id)
        return TreeUsage(row["runs"], row["open"], msgspec.convert(row, Usage), row["cost_usd"])
