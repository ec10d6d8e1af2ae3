"""Limits of a team or a workflow hold for the whole tree of runs below it. Pure: the estimate of a call, and the checks.

A model call holds its estimate before it is made, and counts what it has used when its turn is recorded. So a tree uses more than its limit
only by as much as calls under way use more than their estimates.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import msgspec

from agno_workers.core.agent import Agent, Limits
from agno_workers.core.messages import ModelRequest, Usage
from agno_workers.core.policy import Retry, delay_s
from agno_workers.core.run import RunKind
from agno_workers.core.runnable import Runnable
from agno_workers.core.step import ClaimedStep, TreeLimit
from agno_workers.core.tokens import estimate_request
from agno_workers.errors import InvalidInput

ANSWER_TOKENS = 1_000
"""The tokens that an answer may have, for an agent without `settings.max_output_tokens`."""
_WAIT = Retry(first_delay_s=1.0, max_delay_s=15.0)


class TreeUsage(msgspec.Struct, frozen=True):
    """The sums over a run and all runs below it."""

    runs: int
    """The number of runs."""
    open: int
    """The number of runs that have not ended."""
    usage: Usage
    """The tokens of all of them."""
    cost_usd: float
    """US dollars, by the prices of their agents."""


def limits_at(claim: ClaimedStep, what: Runnable) -> tuple[TreeLimit, ...]:
    """Return the limits that the model calls of a run count for, and those of the runs that it starts: its own, for a team or a workflow,
    and those above.
    """
    own: Limits | None = getattr(what, "limits", None)
    if what.kind is RunKind.AGENT or own is None or (own.tokens is None and own.cost_usd is None):
        return claim.lineage.limits
    return (*claim.lineage.limits, TreeLimit(claim.run_id, own.tokens, own.cost_usd))


def estimate_of(agent: Agent, request: ModelRequest) -> tuple[int, float]:
    """Return the tokens and the US dollars that a model call may use."""
    asked, answer = estimate_request(request), request.settings.max_output_tokens or ANSWER_TOKENS
    usage = Usage(input_tokens=asked, output_tokens=answer)
    return asked + answer, 0.0 if agent.prices is None else agent.prices.cost_usd(usage)


def wait_s(claim: ClaimedStep) -> float:
    """Return the seconds after which a call that waits for others is tried again: longer each time, since many may wait."""
    return delay_s(_WAIT, claim.attempt, random.random())


def check_prices(what: Runnable, limits: Limits) -> None:
    """Raise InvalidInput for a team or a workflow with a limit of cost whose agents have no prices, as far as they are known."""
    if limits.cost_usd is None:
        return
    if free := sorted({agent.name for agent in _agents(what, {what.name}) if agent.prices is None}):
        raise InvalidInput(
            f"{what.kind} {what.name!r}: limits.cost_usd needs the prices of all its agents: add prices=Prices(input_usd=..., output_usd=...) to "
            f"{', '.join(free)}.",
            agent=what.name,
        )


def _agents(what: Runnable, seen: set[str]) -> Iterator[Agent]:
    if what.kind is RunKind.TEAM and isinstance(leader := what.compiled(), Agent):
        yield leader
    for part in what.parts:
        if part.name not in seen:
            seen.add(part.name)
            if isinstance(part, Agent):
                yield part
            yield from _agents(part, seen)
