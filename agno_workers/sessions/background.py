"""Background work: summaries, memories and the index of past sessions are runs of their own, after the run that asks for them.

The transaction that ends a run also asks for its background work (`Extension.follow`). For each kind and owner one run at a time does the
work, on the queue `background`; what is asked while it runs waits for the next one, which does it all. The work and the end of its run are
one transaction, so a crash repeats the work or finds it done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agno_workers.core.agent import Agent
from agno_workers.core.messages import Usage
from agno_workers.core.ports import Model
from agno_workers.core.step import ClaimedStep
from agno_workers.database.pool import Connection


@dataclass(frozen=True)
class Work:
    """Background work to do now."""

    claim: ClaimedStep
    kind: str
    owner: str
    agent: Agent
    """The agent whose run asked for it last, as it is defined now."""
    model: Callable[[str | Model], Model]
    """Resolve a model. Its call may raise ModelUnavailable (the step is retried) and ModelRejected (the run fails)."""
    run_ids: tuple[str, ...]
    """The runs that asked for it, in the order in which they ended."""
    is_lost: Callable[[], bool]
    """Return True when another worker has taken over: long work stops then."""


@dataclass(frozen=True)
class Done:
    """The result of background work. `write` gets the transaction that ends the run: its writes commit with the end, or not at all."""

    content: Any = None
    """JSON, the run's answer: a summary for people, such as `{"added": 2}`."""
    usage: Usage = Usage()  # noqa: RUF009 - a frozen value
    cost_usd: float = 0.0
    write: Callable[[Connection], object] = lambda _: None


Worker = Callable[[Work], Done]
"""The code of one kind of work. It may be executed again before its `write` has committed."""
