"""Let model calls hold what they may use of the limits of their tree of runs."""

from __future__ import annotations

from msgspec.structs import replace

from agno_workers.core.agent import Agent
from agno_workers.core.budget import estimate_of, limits_at
from agno_workers.core.messages import ModelRequest
from agno_workers.core.ports import Journal
from agno_workers.core.runnable import Runnable
from agno_workers.core.step import ClaimedStep, LimitMet
from agno_workers.errors import LimitReached


class PutOff(Exception):
    """Raised in place of a model call that must wait for the end of other calls of its tree."""

    def __init__(self, met: LimitMet) -> None:
        self.met = met


def counted(claim: ClaimedStep, what: Runnable) -> ClaimedStep:
    """Return the claim with the limits that its model calls count for."""
    limits = limits_at(claim, what)
    return replace(claim, counted_by=limits) if limits else claim


def hold(journal: Journal, agent: Agent, claim: ClaimedStep, request: ModelRequest) -> None:
    """Hold what a model call may use. Raises PutOff, and LimitReached when it can't be made."""
    if not claim.counted_by:
        return
    tokens, cost_usd = estimate_of(agent, request)
    if (met := journal.hold(claim, tokens, cost_usd)) is None:
        return
    need = tokens if met.what == "tokens" else cost_usd
    if not met.is_final(need):
        raise PutOff(met)
    raise LimitReached(met.refusal(need), run_id=claim.run_id, reason=met.reason)
