"""Background work: summaries, memories and the index of past sessions are runs of their own, after the run that asks for them.

The transaction that ends a run also asks for its background work (`Extension.follow`). For each kind and owner one run at a time does the
work, on the queue `background`; what is asked while it runs waits for the next one, which does all of it. The work and the end of its run are
one transaction, so after a crash the work is repeated, or was done. See functions/background.sql.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from agno_workers.core.agent import Agent, cost_of
from agno_workers.core.messages import ModelRequest, Reply, Usage
from agno_workers.core.ports import Model
from agno_workers.core.run import StepKind
from agno_workers.core.step import NOT_RECORDED, ClaimedStep, CommitResult, TurnRecord
from agno_workers.database.pool import Connection, Pool, execute, retry_while_unavailable, statements
from agno_workers.engine.active_steps import Stopped
from agno_workers.engine.turn import Engine, call_model, fail, try_later
from agno_workers.errors import ModelRejected, RunFailed, Unavailable
from agno_workers.signals import signal

_SQL = statements("sessions/background")
MOST_AT_ONCE = 200
"""The most requests that one background run handles; the next one does the rest."""


@dataclass(frozen=True)
class Work:
    """Background work to do now."""

    claim: ClaimedStep
    kind: str
    owner: str
    agent: Agent
    """The agent whose runs asked for it, as it is defined now."""
    model: Callable[[str | Model], Model]
    """Resolve a model. Its call may raise ModelUnavailable (the step is retried) and ModelRejected (the run fails)."""
    run_ids: tuple[str, ...]
    """The runs that asked for it, in the order in which they ended. Empty if they have been deleted since."""
    is_lost: Callable[[], bool]
    """Return True when another worker has taken over: long work raises Stopped then."""


@dataclass(frozen=True)
class Done:
    """The result of background work. `write` gets the connection of the transaction that ends the run: what it writes commits with the end."""

    content: Any = None
    """JSON, the run's answer: a summary for people, such as `{"added": 2}`."""
    usage: Usage = Usage()  # noqa: RUF009 - a frozen value
    cost_usd: float = 0.0
    write: Callable[[Connection], object] = lambda _: None
    is_whole: bool = True
    """False: a part of the work is left, and another run follows at once."""


@dataclass
class ModelCalls:
    """The model calls of one background run, with their tokens and costs."""

    work: Work
    name: str | Model | None = None
    """The model; None: the agent's own."""
    usage: Usage = Usage()  # noqa: RUF009 - a frozen value
    cost_usd: float = 0.0

    @property
    def model(self) -> Model:
        return self.work.model(self.name or self.work.agent.model)

    def ask(self, request: ModelRequest) -> Reply:
        """Raises ModelUnavailable, ModelRejected, and Stopped when the work is lost."""
        reply = call_model(self.model, request, self.work.is_lost)
        self.usage += reply.usage
        self.cost_usd += cost_of(self.work.agent, reply.usage, self.name)
        return reply

    def done(self, content: Any, write: Callable[[Connection], object], *, is_whole: bool = True) -> Done:
        """Return the result of the work, with what it cost."""
        return Done(content, self.usage, self.cost_usd, write, is_whole)


Worker = Callable[[Work], Done]
"""The code of one kind of work. It may be executed again before its `write` has committed."""


@dataclass(frozen=True)
class Background:
    """Executes the steps of background runs."""

    engine: Engine
    pool: Pool
    workers: Mapping[str, Worker]

    def run(self, run_id: str, step_id: str, generation: int) -> CommitResult:
        """Claim and execute a step, and return the messages to publish."""
        claim = self.engine.journal.claim(StepKind.BACKGROUND, run_id, step_id, generation)
        if claim is None:
            return NOT_RECORDED  # a duplicate, or the run was cancelled
        signal("background.claimed", claim=claim)
        return msgspec.structs.replace(self._run_claimed(claim), agent=claim.agent)

    def _run_claimed(self, claim: ClaimedStep) -> CommitResult:
        engine = self.engine
        if not (engine.knows(claim) and self._knows(claim)):
            return NOT_RECORDED
        agent = engine.agent(claim.agent)
        try:
            with engine.active.step(claim.step_id) as is_lost:
                items = self._items(claim)
                run_ids = tuple(dict.fromkeys(items.values()))
                work = Work(
                    claim, claim.name, claim.metadata["owner"], agent, engine.resolve, run_ids, is_lost
                )
                done = self.workers[claim.name](work)
                signal("background.worked", claim=claim)
                committed = retry_while_unavailable(
                    self._end, claim, list(items) if done.is_whole else [], done
                )
                signal("background.recorded", claim=claim)
                return committed
        except Stopped:
            return NOT_RECORDED
        except ModelRejected as error:
            return fail(engine, claim, error, "model_rejected")
        except RunFailed as error:
            return fail(engine, claim, error, error.reason or "error")
        except Unavailable:
            raise  # Postgres does not answer: the lease expires, and the step is executed again
        except Exception as error:  # a provider's outage, a bug
            return try_later(engine, claim, agent.retry, error)

    def _knows(self, claim: ClaimedStep) -> bool:
        """Return whether this worker's code has that kind of work. If not, the step is returned, since a newer worker has it."""
        if claim.name in self.workers:
            return True
        ids = {"run_id": claim.run_id, "step_id": claim.step_id}
        known = ", ".join(sorted(self.workers))
        text = f"this worker has no background work of kind {claim.name!r} (it has {known}): start one of the release that submitted the run"
        self.engine.return_step(claim, {"type": "UnknownWork", "message": text, "ids": ids})
        return False

    def _items(self, claim: ClaimedStep) -> dict[int, str]:
        """Return the runs that asked for the work, by the ids of their requests, the oldest first."""
        asked = {
            "tenant": claim.tenant, "kind": claim.name, "owner": claim.metadata["owner"], "agent": claim.agent, "limit": MOST_AT_ONCE,
        }  # fmt: skip
        return {row["id"]: row["run_id"] for row in self.pool.run(_SQL["items"], asked)}

    def _end(self, claim: ClaimedStep, items: list[int], done: Done) -> CommitResult:
        """Write what was done and end the run, in one transaction. Nothing of it commits when another result came first."""
        committed = NOT_RECORDED
        with self.engine.journal.transaction() as transaction:
            connection: Connection = transaction.connection
            execute(connection, _SQL["take"], {"run_id": claim.run_id, "items": items})
            done.write(connection)
            record = TurnRecord(usage=done.usage, cost_usd=done.cost_usd)
            committed = transaction.end(claim, record, done.content, "end")
        return committed  # noqa: RET504 - the commit comes before
