"""The agent loop: one turn. Claim, prepare, ask, record; then the tools side by side, another turn, or the end.

A turn may be carried twice, after a crash or by two workers at once; whoever records first is right. That is all
the recovery there is: resuming a run is the same step again.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agno_workers.core.agent import Agent, Retry
from agno_workers.core.decide import AskAgain, End, Fail, FanOut, SoFar, decide, not_called
from agno_workers.core.messages import Reply, ToolCall
from agno_workers.core.policy import delay_s
from agno_workers.core.ports import Model
from agno_workers.core.tool import Effect
from agno_workers.engine.control import Held, Stopped
from agno_workers.engine.prepare import Prepared
from agno_workers.errors import AgnoError, ModelRejected, ModelUnavailable, Unavailable
from agno_workers.registry import Registry
from agno_workers.storage.journal import Journal, Recorded, ToolStep, TurnClaim
from agno_workers.storage.pool import Pool
from agno_workers.streams import Streams

log = logging.getLogger(__name__)
NOTHING = Recorded(False)


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
    held: Held = field(default_factory=Held)
    prepared: dict[str, Prepared] = field(default_factory=dict)

    def prepare(self, name: str) -> Prepared:
        """Raises UnknownAgent or InvalidTool."""
        if name not in self.prepared:
            self.prepared[name] = Prepared.of(self.registry.get(name))
        return self.prepared[name]

    def queue_of(self, agent: Agent) -> str:
        return agent.queue or self.agent_queue


def take_turn(engine: Engine, run_id: str, step_id: str, generation: int) -> Recorded:
    """Carry one turn of a run; what it owes to Celery comes back to be sent."""
    claim = engine.journal.claim_turn(run_id, step_id, generation)
    if claim is None:
        return NOTHING  # a duplicate, or cancelled: somebody else has it, or nobody needs it
    retry = Retry()
    try:
        prepared = engine.prepare(claim.agent)
        retry = prepared.agent.retry
        return record(engine, prepared, claim, ask(engine, prepared, claim))
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


def ask(engine: Engine, prepared: Prepared, claim: TurnClaim) -> Reply:
    """One model call, watched by whoever follows the run, and left early when the step is lost."""
    agent = prepared.agent
    past = (
        engine.journal.history(claim, agent.history.runs) if claim.session_id and agent.history.runs else ()
    )
    with engine.held.step(claim.step_id) as lost, engine.streams.writer(claim.run_id, claim.step_id) as emit:

        def watch(delta: Any) -> None:
            if lost.is_set():
                raise Stopped
            emit(delta)

        return engine.resolve(agent.model).ask(prepared.request(claim, past), watch)


def record(engine: Engine, prepared: Prepared, claim: TurnClaim, reply: Reply) -> Recorded:
    """Decide what comes next, and record it with the reply in one transaction."""
    journal, agent = engine.journal, prepared.agent
    content, misfit = (
        prepared.read(reply.message.text) if not reply.message.tool_calls else (reply.message.text, None)
    )
    so_far = SoFar(
        claim.turns + 1, claim.tool_calls + len(reply.message.tool_calls), claim.usage + reply.usage
    )
    grace = agent.retry.output_attempts - sum(message.role == "user" for message in claim.transcript[1:])
    match decide(reply, so_far, agent.limits, misfit, grace, content):
        case FanOut(calls):
            steps = [tool_step(engine, prepared, call) for call in calls]
            return journal.fan_out(claim, reply.message, reply.usage, steps, engine.queue_of(agent))
        case AskAgain(note):
            said = [reply.message] if note is None else [reply.message, note]
            return journal.ask_again(claim, said, reply.usage, engine.queue_of(agent))
        case End(answer, reason):
            said = [reply.message, *not_called(reply, reason)]
            return journal.end(claim, said, reply.usage, answer, reason)
        case Fail(message, reason):
            error = {
                "type": "RunFailed",
                "message": message,
                "ids": {"run_id": claim.run_id, "reason": reason},
            }
            said = [reply.message, *not_called(reply, reason)]
            return journal.fail(claim, error, reason, said, reply.usage)


def tool_step(engine: Engine, prepared: Prepared, call: ToolCall) -> ToolStep:
    """Where a call goes. An unknown tool goes on its way too: its result will tell the model."""
    tool = prepared.tools.get(call.name)
    if tool is None:
        return ToolStep(call, engine.tool_queue, Effect.PURE, 3)
    return ToolStep(call, tool.queue or engine.tool_queue, tool.effect, tool.max_attempts)


def try_later(engine: Engine, claim: TurnClaim, retry: Retry, error: Exception) -> Recorded:
    """Another try after a while, or, when the tries are used up, the end of the run."""
    described = (
        error.to_json()
        if isinstance(error, AgnoError)
        else {"type": type(error).__name__, "message": str(error), "ids": {}}
    )
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
