"""The agent loop: one turn. Claim, prepare, ask, record; then the tools side by side, another turn, or the end.

A turn may be carried twice, after a crash or by two workers at once; whoever records first is right. That is all
the recovery there is: resuming a run is the same step again.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec.structs import replace

from agno_workers.core.agent import Agent, Retry
from agno_workers.core.decide import AskAgain, End, Fail, FanOut, SoFar, asked_to_mend, decide, not_called
from agno_workers.core.messages import Reply, ToolCall, user
from agno_workers.core.policy import delay_s
from agno_workers.core.ports import Model
from agno_workers.core.tool import Effect, Policy
from agno_workers.database.pool import Pool
from agno_workers.engine.active_steps import ActiveSteps, Stopped
from agno_workers.engine.prepare import Delegation, Prepared
from agno_workers.engine.registry import Registry
from agno_workers.errors import AgnoError, ModelRejected, ModelUnavailable, Unavailable
from agno_workers.failpoints import reach
from agno_workers.knowledge.service import KnowledgeService
from agno_workers.runs.journal import Child, CommitResult, Journal, ToolStep, TurnClaim
from agno_workers.streams import Streams

log = logging.getLogger(__name__)
NOTHING = CommitResult(False)
MAX_DEPTH = 8
"""Delegations of delegations at the most: agents that call each other in a ring come to an end."""


@dataclass(frozen=True)
class Engine:
    """What a step needs of the world, handed in by `wiring`."""

    journal: Journal
    pool: Pool
    registry: Registry
    streams: Streams
    resolve: Callable[[str | Model], Model]
    agent_queue: str
    tool_queue: str
    held: ActiveSteps
    library: KnowledgeService
    prepared: dict[str, Prepared] = field(default_factory=dict)
    begun: dict[tuple[str, str], Prepared] = field(default_factory=dict)

    def prepare(self, name: str) -> Prepared:
        """Raises UnknownAgent or InvalidTool."""
        if name not in self.prepared:
            self.prepared[name] = Prepared.of(self.registry.get(name), self.library.tools)
        return self.prepared[name]

    def prepare_for(self, claim: TurnClaim) -> Prepared:
        """The agent as it was when the run began: a deploy changes its instructions for new runs only."""
        prepared, sha256 = self.prepare(claim.agent), claim.definition
        if sha256 is None or sha256 == prepared.definition.sha256:
            return prepared
        if (claim.agent, sha256) not in self.begun:
            self.begun[claim.agent, sha256] = prepared.as_begun(self.journal.definition(sha256))
        return self.begun[claim.agent, sha256]

    def queue_of(self, agent: Agent) -> str:
        return agent.queue or self.agent_queue


def run_turn(engine: Engine, run_id: str, step_id: str, generation: int) -> CommitResult:
    """Carry one turn of a run; what it owes to Celery comes back to be sent."""
    reach("turn.received")
    claim = engine.journal.claim_turn(run_id, step_id, generation)
    if claim is None:
        return NOTHING  # a duplicate, or cancelled: somebody else has it, or nobody needs it
    reach("turn.claimed")
    retry = Retry()
    try:
        prepared = engine.prepare_for(claim)
        retry = prepared.agent.retry
        claim = with_deadline(engine, prepared, claim)
        reply = ask(engine, prepared, claim)
        reach("turn.replied")
        recorded = record(engine, prepared, claim, reply)
        reach("turn.recorded")
        return recorded
    except Stopped:
        return NOTHING
    except ModelRejected as error:
        return engine.journal.fail(claim, error.to_json(), "model_rejected")
    except Unavailable:
        raise  # Postgres is away: nothing can be recorded now; the lease runs out, and the turn is carried again
    except (
        Exception
    ) as error:  # a provider's bad day, an agent not deployed here yet, a bug: bounded tries, then failed
        return try_later(engine, claim, retry, error)


def with_deadline(engine: Engine, prepared: Prepared, claim: TurnClaim) -> TurnClaim:
    """The keeper ends a run whose deadline has come; the agent's own is written down with the first turn that it takes (a
    fork has turns of another run's before it).
    """
    limit, has_begun = prepared.agent.limits.deadline_s, claim.definition is not None
    if limit is None or has_begun or (claim.deadline_at is not None and claim.parent_run_id is None):
        return claim
    return replace(claim, deadline_at=engine.journal.set_deadline(claim.run_id, limit))


def ask(engine: Engine, prepared: Prepared, claim: TurnClaim) -> Reply:
    """One model call, watched by whoever follows the run, and left early when the step is lost."""
    agent = prepared.agent
    past = (
        engine.journal.history(claim, agent.history.runs) if claim.session_id and agent.history.runs else ()
    )
    with (
        engine.held.step(claim.step_id) as is_lost,
        engine.streams.writer(claim.run_id, claim.step_id) as emit,
    ):

        def watch(delta: Any) -> None:
            if is_lost():
                raise Stopped
            emit(delta)

        hits = engine.library.ground(prepared.use, claim.run_id, claim.transcript) if prepared.use else ()
        return engine.resolve(agent.model).ask(prepared.request(claim, past, hits), watch)


def record(engine: Engine, prepared: Prepared, claim: TurnClaim, reply: Reply) -> CommitResult:
    """Decide what comes next, and record it with the reply in one transaction."""
    journal, agent = engine.journal, prepared.agent
    cost_usd = agent.prices.cost_usd(reply.usage) if agent.prices else 0.0
    definition = prepared.definition if claim.definition is None else None
    kept: Any = {"cost_usd": cost_usd, "definition": definition}
    content, misfit = (
        prepared.read(reply.message.text) if not reply.message.tool_calls else (reply.message.text, None)
    )
    so_far = SoFar(
        claim.turns + 1,
        claim.tool_calls + len(reply.message.tool_calls),
        claim.usage + reply.usage,
        claim.cost_usd + cost_usd,
    )
    grace = agent.retry.output_attempts - sum(map(asked_to_mend, claim.transcript))
    match decide(reply, so_far, agent.limits, misfit, grace, content):
        case FanOut(calls):
            steps = [tool_step(engine, prepared, claim, call) for call in calls]
            return journal.fan_out(claim, reply.message, reply.usage, steps, engine.queue_of(agent), **kept)
        case AskAgain(note):
            said = [reply.message] if note is None else [reply.message, note]
            return journal.ask_again(claim, said, reply.usage, engine.queue_of(agent), **kept)
        case End(answer, reason):
            said = [reply.message, *not_called(reply, reason)]
            recorded = journal.end(claim, said, reply.usage, answer, reason, **kept)
            if recorded.recorded and prepared.use:
                engine.library.credit(claim.run_id, claim.transcript, reply.message.text)
            return recorded
        case Fail(message, reason):
            error = {
                "type": "RunFailed",
                "message": message,
                "ids": {"run_id": claim.run_id, "reason": reason},
            }
            said = [reply.message, *not_called(reply, reason)]
            return journal.fail(claim, error, reason, said, reply.usage, **kept)


def tool_step(engine: Engine, prepared: Prepared, claim: TurnClaim, call: ToolCall) -> ToolStep:
    """Where a call goes: to a worker, or to a run of its own. One that can't be made goes on its way too: its result
    will tell the model.
    """
    if (member := prepared.members.get(call.name)) and claim.depth < MAX_DEPTH:
        with suppress(msgspec.ValidationError, msgspec.DecodeError):
            task = msgspec.json.decode(call.arguments, type=Delegation).task
            child = Child(member.name, engine.queue_of(member), user(task))
            return ToolStep(call, engine.agent_queue, Effect.PURE, 1, child=child)
    tool = prepared.tools.get(call.name)
    if tool is None:
        return ToolStep(call, engine.tool_queue, Effect.PURE, 3, Policy(offered=False))
    return ToolStep(call, tool.queue or engine.tool_queue, tool.effect, tool.max_attempts, tool.policy)


def try_later(engine: Engine, claim: TurnClaim, retry: Retry, error: Exception) -> CommitResult:
    """Another try after a while, or, when the tries are used up, the end of the run."""
    described = as_json(error)
    if not isinstance(error, AgnoError):
        log.error(
            "a turn raised",
            exc_info=error,
            extra={"run_id": claim.run_id, "step_id": claim.step_id, "agent": claim.agent},
        )
    else:
        log.warning(
            "a turn is tried again: %s", error, extra={"run_id": claim.run_id, "step_id": claim.step_id}
        )
    if claim.tries + 1 >= retry.attempts:
        return engine.journal.fail(claim, described, "retries", step_status="dead")
    wish = error.ids.get("retry_after_s") if isinstance(error, ModelUnavailable) else None
    engine.journal.retry(claim, delay_s(retry, claim.tries + 1, random.random(), wish), described)
    return NOTHING


def as_json(error: Exception) -> dict[str, Any]:
    if isinstance(error, AgnoError):
        return error.to_json()
    return {"type": type(error).__name__, "message": str(error), "ids": {}}
