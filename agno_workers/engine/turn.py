"""The agent loop: one turn. Claim, prepare, ask, decide, commit; then tool calls in parallel, another turn, or the end.

A turn may be executed twice, after a crash or by two workers at once; the first commit wins. Recovery is to execute the same
step again.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from agno_workers.core.agent import Agent, cost_of
from agno_workers.core.budget import limits_at, wait_s
from agno_workers.core.decide import (
    AskAgain,
    FanOut,
    SoFar,
    decide,
    not_called,
    schema_reminders,
)
from agno_workers.core.handoff import Handoffs, hand_over
from agno_workers.core.mapping import MAP_RUN
from agno_workers.core.messages import Delta, Message, ModelRequest, Reply, ToolCall, user
from agno_workers.core.moves import End, Fail
from agno_workers.core.policy import MAX_RETRY_AFTER_S, Retry, delay_s
from agno_workers.core.ports import Journal, Model
from agno_workers.core.run import RunKind
from agno_workers.core.runnable import Program, Runnable
from agno_workers.core.state import Read, Scratch, nothing
from agno_workers.core.step import (
    NOT_RECORDED,
    ChildRun,
    ClaimedStep,
    CommitResult,
    CompactionOrder,
    FollowUp,
    Lineage,
    ToolStep,
    TurnRecord,
)
from agno_workers.core.tool import Effect, Policy, Tool
from agno_workers.engine.active_steps import ActiveSteps, Stopped
from agno_workers.engine.budget import PutOff, counted, hold
from agno_workers.engine.calls import StepCalls
from agno_workers.engine.plan import AgentPlan
from agno_workers.errors import (
    AgnoError,
    LimitReached,
    ModelRejected,
    ModelUnavailable,
    RunFailed,
    Unavailable,
    UnknownAgent,
    error_to_json,
)
from agno_workers.signals import signal
from agno_workers.streams import Streams

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Turn:
    """One turn on its way from claim to commit. Preparations return a changed copy."""

    claim: ClaimedStep
    plan: AgentPlan
    history: tuple[Message, ...] = ()
    """Messages of earlier runs, which the model sees before the transcript."""
    context: tuple[str, ...] = ()
    """Further parts of the system text."""

    @property
    def agent(self) -> Agent:
        return self.plan.agent

    def request(self) -> ModelRequest:
        return self.plan.request(self.claim, self.history, self.context)


Ask = Callable[[ModelRequest], Reply]
"""Call the turn's model."""


def ask_once(turn: Turn, ask: Ask) -> tuple[Turn, Reply]:
    return turn, ask(turn.request())


class CompactFirst(Exception):
    """Raised in place of a model call: the transcript is compacted, then the turn is executed again."""

    def __init__(self, order: CompactionOrder) -> None:
        self.order = order


@dataclass(frozen=True)
class Extension:
    """The functions that a feature adds to agents: tools, a preparation of each turn, and a call after the end of a run."""

    tools: Callable[[Agent], Sequence[Tool]] = lambda _: ()
    prepare: Callable[[Turn], Turn] = lambda turn: turn
    ended: Callable[[Turn, str], object] = lambda *_: None
    """Called with the last turn and its text, after the commit; it must not raise."""
    follow: Callable[[Turn], Sequence[FollowUp]] = lambda _: ()
    """Return the background work that the end of the run asks for."""


@dataclass(frozen=True)
class Engine:
    """The services that a step uses; `wiring` builds it."""

    journal: Journal
    runnable: Callable[[str], Runnable]
    """Return the agent, team or workflow of that name. Raises UnknownAgent."""
    streams: Streams
    resolve: Callable[[str | Model], Model]
    agent_queue: str
    tool_queue: str
    active: ActiveSteps
    extensions: tuple[Extension, ...] = ()
    calls: StepCalls = field(default_factory=StepCalls)
    """The agents, teams, workflows and functions that the steps of programs call."""
    state_reader: Callable[[str, Any], Read] = lambda *_: nothing
    """Return the reader of a tenant's state; with a connection, it reads in its transaction."""
    scratch: Scratch = field(default_factory=Scratch)
    reports: Callable[[ClaimedStep], Callable[[object, object], None]] = lambda _: lambda *_: None
    """Return the function that stores what a call reports of its progress; it must not raise. See `runs/reports.py`."""
    ask_model: Callable[[Turn, Ask], tuple[Turn, Reply]] = ask_once
    """Call the model with a request that fits its context window; may raise CompactFirst. See `sessions/window.py`."""
    _compiled: dict[str, Runnable | Program] = field(default_factory=lambda: {MAP_RUN.name: MAP_RUN})
    _plans: dict[tuple[str, str], AgentPlan] = field(default_factory=dict)
    _earlier: dict[tuple[str, str, str], AgentPlan] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.calls.map_results = self.journal.map_results

    def compiled(self, name: str) -> Agent | Program:
        """Return the agent or the program that takes the turns of a run. Raises UnknownAgent."""
        if name not in self._compiled:
            self._compiled[name] = self.runnable(name).compiled()
        found = self._compiled[name]
        assert isinstance(found, Agent | Program)
        return found

    def taken_by(self, name: str) -> AgentPlan | Program:
        """Return the plan or the program by which turns are taken. Raises UnknownAgent or InvalidTool."""
        compiled = self.compiled(name)
        if isinstance(compiled, Handoffs):
            for each in compiled.others:
                self.plan(name, each.name)
        return compiled if isinstance(compiled, Program) else self.plan(name)

    def agent(self, name: str) -> Agent:
        """Return an agent, or the one that leads a team. Raises UnknownAgent."""
        found = self.compiled(name)
        if isinstance(found, Program) and isinstance(found.agent, Agent):
            return found.agent
        if isinstance(found, Program):
            raise UnknownAgent(
                f"{name!r} is a {found.kind} and no agent: a deploy has changed it.", agent=name
            )
        return found

    def plan(self, name: str, acting: str = "") -> AgentPlan:
        """Return the plan of an agent, or of another one that has taken its run over. Raises UnknownAgent or InvalidTool."""
        key = name, acting or name
        if key not in self._plans:
            agent = self.acting(*key)
            more = [tool for extension in self.extensions for tool in extension.tools(agent)]
            group = self.agent(name)
            self._plans[key] = AgentPlan.of(agent, more, group if isinstance(group, Handoffs) else None)
        return self._plans[key]

    def acting(self, name: str, acting: str) -> Agent:
        """Return the agent that takes a turn of a run of `name`. Raises UnknownAgent."""
        agent = self.agent(name)
        found = agent.acting(acting) if isinstance(agent, Handoffs) else agent if acting == name else None
        if found is None:
            raise UnknownAgent(
                f"{acting!r} has taken over a conversation of {name!r}, and is not one of its agents here: import the code that has it.",
                agent=name,
            )
        return found

    def plan_for(self, claim: ClaimedStep) -> AgentPlan:
        """Return the plan with the agent's definition at the start of the run: a deploy changes instructions for new runs only."""
        plan, sha256 = self.plan(claim.agent, claim.acting), claim.definition
        if sha256 is None or sha256 == plan.definition.sha256:
            return plan
        key = claim.agent, claim.acting, sha256
        if key not in self._earlier:
            self._earlier[key] = plan.as_begun(self.journal.definition(sha256))
        return self._earlier[key]

    def knows(self, claim: ClaimedStep) -> bool:
        """Return whether this worker has the agent of a step. If not, the step is returned, since another worker may have it."""
        try:
            if not isinstance(self.compiled(claim.agent), Program):
                self.acting(claim.agent, claim.acting)
        except UnknownAgent as error:
            self.return_step(claim, error.to_json())
            return False
        return True

    def return_step(self, claim: ClaimedStep, error: dict[str, Any]) -> None:
        """Return a step to its queue, for another worker."""
        times = self.journal.return_step(claim.step_id, error, claim.attempt)
        ids = {"run_id": claim.run_id, "step_id": claim.step_id, "agent": claim.agent}
        log.warning("step was returned, for the %s. time: %s", times, error["message"], extra=ids)

    def queue_of(self, what: Runnable | Program) -> str:
        return what.queue or self.agent_queue

    def below(self, claim: ClaimedStep) -> Lineage:
        """Return the lineage of the runs that a run starts."""
        if claim.agent == MAP_RUN.name:
            return claim.below(False, claim.lineage.limits)
        what = self.runnable(claim.agent)
        return claim.below(what.kind is RunKind.TEAM, limits_at(claim, what))

    def follow_ups(self, turn: Turn) -> tuple[FollowUp, ...]:
        """Return the background work that the end of a run asks for."""
        return tuple(work for extension in self.extensions for work in extension.follow(turn))

    def placed(self, claim: ClaimedStep) -> ClaimedStep:
        """Return a step with the team of its run."""
        return msgspec.structs.replace(claim, team=self.below(claim).team)


def run_agent_turn(engine: Engine, claim: ClaimedStep) -> CommitResult:
    """Execute a turn of an agent."""
    if claim.attempt == 1 and claim.definition is None:
        log.info("run %s of agent %s started", claim.run_id, claim.agent)
    retry = Retry()
    try:
        claim = begun(engine, claim)
        turn = Turn(claim, engine.plan_for(claim))
        retry = turn.agent.retry
        turn, reply = ask(engine, turn)
        signal("turn.replied", claim=claim)
        committed = commit(engine, turn, reply)
        signal("turn.recorded", claim=claim)
        return committed
    except Stopped:
        return NOT_RECORDED
    except CompactFirst as first:
        return engine.journal.begin_compaction(claim, first.order, engine.queue_of(engine.agent(claim.agent)))
    except ModelRejected as error:
        return fail(
            engine, claim, error, "context_window" if error.code == "context_window" else "model_rejected"
        )
    except PutOff as held:
        engine.journal.put_off(claim, wait_s(claim), held.met)
        return NOT_RECORDED
    except LimitReached as error:
        return end_at_limit(engine, claim, error)
    except RunFailed as error:
        return fail(engine, claim, error, error.reason or "error")
    except Unavailable:
        raise  # Postgres does not answer, so nothing can be recorded: the lease expires and the turn is executed again
    except Exception as error:  # a provider's outage, a bug
        return try_later(engine, claim, retry, error)


def begun(engine: Engine, claim: ClaimedStep) -> ClaimedStep:
    """Let the agent that had the conversation take the first turn of the next run in a session, where agents hand it over to each other."""
    agent = engine.agent(claim.agent)
    if not isinstance(agent, Handoffs) or claim.name or not claim.session_id:
        return claim
    known = [agent.name, *(each.name for each in agent.others)]
    return msgspec.structs.replace(claim, name=engine.journal.continue_with(claim.step_id, known))


def ask(engine: Engine, turn: Turn) -> tuple[Turn, Reply]:
    """Prepare the turn and call the model once; leave early when the step is lost."""
    claim = turn.claim
    with (
        engine.active.step(claim.step_id) as is_lost,
        engine.streams.writer(claim.run_id, claim.step_id, claim.attempt) as emit,
    ):
        claim = with_deadline(
            engine.journal, counted(claim, engine.runnable(claim.agent)), turn.agent.limits.deadline_s
        )
        turn = replace(turn, claim=claim)
        for extension in engine.extensions:
            turn = extension.prepare(turn)
        model = engine.resolve(turn.agent.model)

        def call(request: ModelRequest) -> Reply:
            hold(engine.journal, turn.agent, claim, request)
            return call_model(model, request, is_lost, emit)

        return engine.ask_model(turn, call)


def call_model(
    model: Model, request: ModelRequest, is_lost: Callable[[], bool], emit: Callable[[Delta], object] = lambda _: None
) -> Reply:  # fmt: skip
    """Call a model, which may be the user's own class. Raises as it does, Stopped when the step is lost, and ModelRejected for a reply that
    can't be stored and read again.
    """

    def watch(delta: Delta) -> None:
        if is_lost():
            raise Stopped
        emit(delta)

    reply = model.ask(request, watch)
    try:
        return msgspec.convert(msgspec.to_builtins(reply), Reply)
    except (msgspec.ValidationError, TypeError) as error:
        provider, _, name = model.name.partition(":")
        text = f"{model.name} returned a reply that can't be stored ({error}): correct its class."
        raise ModelRejected(text, provider=provider, model=name, code="invalid_reply") from error


def with_deadline(journal: Journal, claim: ClaimedStep, limit_s: float | None) -> ClaimedStep:
    """Set a run's own deadline at its first turn; turns that a fork copied do not count."""
    has_begun = claim.definition is not None
    if limit_s is None or has_begun or (claim.deadline_at is not None and claim.parent_run_id is None):
        return claim
    return msgspec.structs.replace(claim, deadline_at=journal.set_deadline(claim.run_id, limit_s))


def commit(engine: Engine, turn: Turn, reply: Reply) -> CommitResult:
    """Decide the next move, and record it with the reply in one transaction."""
    journal, claim, plan, agent = engine.journal, turn.claim, turn.plan, turn.agent
    cost_usd = cost_of(agent, reply.usage)
    content, misfit = (
        plan.read(reply.message.text) if not reply.message.tool_calls else (reply.message.text, None)
    )
    own_calls = [call for call in reply.message.tool_calls if call.name not in plan.transfers]
    so_far = SoFar(
        claim.turns + 1,
        claim.tool_calls + len(own_calls),
        claim.usage + reply.usage,
        claim.cost_usd + cost_usd,
    )
    grace = agent.retry.output_attempts - 1 - schema_reminders(claim.messages)
    definition = plan.definition if claim.definition is None else None

    def record(*more: Message, next_agent: str = agent.name if plan.transfers else "") -> TurnRecord:
        joined = [each.message for each in claim.steers]
        return TurnRecord(
            (*joined, reply.message, *more), reply.usage, cost_usd, definition, next_agent=next_agent, steered=tuple(each.id for each in claim.steers)
        )  # fmt: skip

    match decide(reply, so_far, agent.limits, misfit, grace, content):
        case FanOut(calls) if plan.transfers:
            taken = hand_over(calls, plan.transfers, agent.name, claim.messages)
            queue = engine.queue_of(engine.acting(claim.agent, taken.to))
            recorded = record(*taken.results, next_agent=taken.to)
            if not own_calls:
                return journal.next_turn(claim, recorded, queue)
            return journal.fan_out(claim, recorded, tool_steps(engine, plan, claim, own_calls), queue)
        case FanOut(calls):
            steps = tool_steps(engine, plan, claim, calls)
            return journal.fan_out(claim, record(), steps, engine.queue_of(agent))
        case AskAgain(note):
            return journal.next_turn(claim, record(*([note] if note else [])), engine.queue_of(agent))
        case End(answer, reason):
            last = record(*not_called(reply, reason))
            last = msgspec.structs.replace(last, follow_ups=engine.follow_ups(turn))
            committed = journal.end(claim, last, answer, reason)
            if committed.recorded:
                said = reply.message.text
                for extension in engine.extensions:
                    extension.ended(turn, said)
            return committed
        case Fail(message, reason, kind, text):
            ids = {"run_id": claim.run_id, "reason": reason} | ({"content": text} if text else {})
            error: dict[str, Any] = {"type": kind, "message": message, "ids": ids}
            return journal.fail(claim, error, reason, record(*not_called(reply, reason)), content=text)


def tool_steps(
    engine: Engine, plan: AgentPlan, claim: ClaimedStep, calls: Sequence[ToolCall]
) -> list[ToolStep]:
    """Return a step for each call: a worker executes it, or it starts a run of its own. A call that cannot be made gets a step
    too, whose result tells the model why.
    """
    lineage = engine.below(claim) if plan.members else Lineage()
    steps: list[ToolStep] = []
    consulted = 0
    for call in calls:
        owner = Policy(agent=plan.agent.name if plan.transfers else "")
        if (member := plan.members.get(call.name)) is not None:
            task = member.task(call.arguments)
            refusal = member.refusal(claim.depth, claim.path, consulted) or (
                member.misfit if task is None else None
            )
            consulted += bool(member.peers)
            if refusal is None and task is not None:
                policy = msgspec.structs.replace(owner, shares_interactions=member.shares_interactions)
                child = ChildRun(
                    member.runs, member.queue or engine.agent_queue, user(task), member.kind, lineage
                )
                steps.append(ToolStep(call, engine.agent_queue, Effect.PURE, 1, policy, child))
                continue
            policy = msgspec.structs.replace(owner, refusal=refusal or "")
            steps.append(ToolStep(call, engine.tool_queue, Effect.PURE, 3, policy))
        elif (tool := plan.tools.get(call.name)) is None:
            policy = msgspec.structs.replace(owner, offered=False)
            steps.append(ToolStep(call, engine.tool_queue, Effect.PURE, 3, policy))
        else:
            policy = msgspec.structs.replace(tool.policy, agent=owner.agent) if owner.agent else tool.policy
            steps.append(
                ToolStep(call, tool.queue or engine.tool_queue, tool.effect, tool.max_attempts, policy)
            )
    return steps


def end_at_limit(engine: Engine, claim: ClaimedStep, error: LimitReached) -> CommitResult:
    """End a run whose model was not called, by a limit of its tree: `on_limit` of its agent decides, as at a limit of its own."""
    said = next((each.text for each in reversed(claim.messages) if each.role == "assistant" and each.text), None)  # fmt: skip
    if said is not None and engine.plan_for(claim).agent.limits.on_limit == "return":
        return engine.journal.end(claim, TurnRecord(), said, error.reason or "limit")
    ended = engine.journal.fail(claim, error.to_json(), error.reason or "limit", content=said)
    return msgspec.structs.replace(ended, cause=error)


def try_later(
    engine: Engine, claim: ClaimedStep, retry: Retry, error: Exception,
    give_up: Callable[[Exception], CommitResult] | None = None,
) -> CommitResult:  # fmt: skip
    """Release a step that calls a model for another attempt. When its attempts are used up, `give_up`, or fail the run."""
    ids = {"run_id": claim.run_id, "step_id": claim.step_id, "agent": claim.agent}
    if isinstance(error, AgnoError):
        log.warning("%s failed: %s", claim.kind, error, extra=ids)
    else:
        log.error("%s raised", claim.kind, exc_info=error, extra=ids)
    if claim.tries + 1 >= retry.attempts:
        return give_up(error) if give_up else fail(engine, claim, error, "retries", step_status="dead")
    wish_s = error.retry_after_s if isinstance(error, ModelUnavailable) else None
    wait_s = delay_s(retry, claim.tries + 1, random.random(), min(wish_s or 0.0, MAX_RETRY_AFTER_S))
    engine.journal.retry(claim.step_id, claim.attempt, wait_s, error_to_json(error))
    return NOT_RECORDED


def fail(
    engine: Engine, claim: ClaimedStep, error: Exception, reason: str, step_status: str = "done"
) -> CommitResult:
    """End the run as `failed`, by an exception."""
    failed = engine.journal.fail(claim, error_to_json(error), reason, step_status=step_status)
    return msgspec.structs.replace(failed, cause=error)
