"""The agents, teams and workflows of the chaos runs (`AGNO_IMPORTS=tests.chaos.agents`). Each execution of a tool leaves a line in the ledger.

The input of an `errand` says which tools its turns call: `{"turns": [["look", "pay"], ["book"]]}`.
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from zlib import crc32

from agno_workers import (
    Agent,
    Effect,
    Flow,
    Limits,
    StepFailed,
    Team,
    ToolContext,
    Workflow,
    quorum,
    tool,
    workflow,
)
from agno_workers.core.flow import BEST_EFFORT
from agno_workers.core.messages import ModelRequest
from agno_workers.models.scripted import Scripted, Turn
from agno_workers.workflows import Loop, Parallel, Step, Wait

BOOKINGS = """
    CREATE SCHEMA IF NOT EXISTS chaos;
    CREATE TABLE IF NOT EXISTS chaos.booking (run_id text, call_id text, key text);
    CREATE TABLE IF NOT EXISTS chaos.ordered (submission text PRIMARY KEY)"""
"""The tables of `book`, and of callers that submit in SQL."""


@tool(effect=Effect.PURE)
def look(ctx: ToolContext) -> str:
    """Look something up."""
    _work(ctx)
    _write_down("pure", ctx)
    return "looked"


@tool(effect=Effect.IDEMPOTENT)
def note(ctx: ToolContext) -> str:
    """Call a service that takes an idempotency key."""
    _work(ctx)
    _write_down("idempotent", ctx)
    _work(ctx)
    return "noted"


@tool(effect=Effect.ONCE)
def pay(ctx: ToolContext) -> str:
    """Pay, which cannot be undone."""
    return _pay(ctx)


@tool(effect=Effect.ONCE)
def pay_for(text: str, ctx: ToolContext) -> str:
    """Pay, as a step of a declared workflow, which gets the content of the step before."""
    return f"{_pay(ctx)}, {len(text)}"


def _pay(ctx: ToolContext) -> str:
    _write_down("once", ctx)
    _work(ctx, 4)  # what is done and not yet recorded is what a fault is to find
    return "paid"


@tool(effect=Effect.TRANSACTIONAL)
def book(ctx: ToolContext) -> str:
    """Write a row in the step's own transaction."""
    _write_down("transactional", ctx)
    row = (ctx.run_id, ctx.call_id, ctx.idempotency_key)
    ctx.connection.execute("INSERT INTO chaos.booking (run_id, call_id, key) VALUES (%s, %s, %s)", row)
    _work(ctx)
    return "booked"


def _work(ctx: ToolContext, times: float = 1) -> None:
    """Work for a moment, and sometimes long, so that faults interrupt it; each attempt takes the same time."""
    dice = random.Random(ctx.idempotency_key)
    time.sleep(times * dice.choice((0.005, 0.02, 0.1, 0.4)))


def _write_down(effect: str, ctx: ToolContext) -> None:
    """Append a line that survives any kill; with O_APPEND, lines of several processes do not mix."""
    line = {
        "effect": effect,
        "run": ctx.run_id,
        "call": ctx.call_id,
        "key": ctx.idempotency_key,
        "attempt": ctx.attempt,
    }
    with Path(os.environ["CHAOS_LEDGER"]).open("ab", buffering=0) as ledger:
        ledger.write(json.dumps(line).encode() + b"\n")


def _next(request: ModelRequest) -> Turn:
    turns = json.loads(request.messages[0].text)["turns"]
    said = sum(message.role == "assistant" for message in request.messages)
    if said < len(turns):
        return Turn(calls=tuple((name, {}) for name in turns[said]), delay_s=0.01)
    return Turn(text=f"{said} turn(s) are done")


errand = Agent(
    name="errand", model=Scripted("errand", _next), tools=[look, note, pay, book], limits=Limits(turns=10)
)
teller = Agent(name="teller", model=Scripted("teller", lambda request: Turn(text="told", delay_s=0.01)))


def _talk(request: ModelRequest) -> Turn:
    """Look something up before the answer, in every other run: messages join the second turn, or find that there is none."""
    if request.messages[-1].role == "tool" or crc32(request.messages[0].text.encode()) % 2:
        return Turn(text="talked", delay_s=0.4)
    return Turn(calls=(("look", {}),), delay_s=0.1)


talker = Agent(name="talker", model=Scripted("talker", _talk), tools=[look], limits=Limits(turns=10))
"""It talks in sessions."""


def _lead(request: ModelRequest) -> Turn:
    """Delegate the input to a member that works and to one that answers at once."""
    if request.messages[-1].role == "user":
        calls = (("errand", {"task": request.messages[0].text}), ("teller", {"task": "tell"}))
        return Turn(calls=calls, delay_s=0.01)
    return Turn(text="the crew is done")


crew = Team(name="crew", leader=Scripted("crew", _lead), members=[errand, teller])
circuit = Workflow(
    name="circuit",
    steps=[
        errand,
        Loop([Parallel(Step("teller", agent=teller), Step("pay", function=pay_for, on_error="skip"), name="both"), Wait(seconds=0.1, name="rest")], max_iterations=2, name="laps"),
        Step("last", agent=teller),
    ],
)  # fmt: skip
"""A declared workflow."""
_TOOLS = {each.name: each for each in (look, note, pay, book)}


@workflow
def tour(flow: Flow, said: str) -> str:
    """Do what an errand does by steps: those of a turn side by side, with the run of an agent, and a rest after them. The faster of two agents,
    and a signal, or nobody's, are the end.
    """
    turns = json.loads(said)["turns"]
    for number, names in enumerate(turns):
        steps = [flow.start(f"{number}-{place}", _TOOLS[name]) for place, name in enumerate(names)]
        flow.gather(*steps, flow.start(f"{number}-teller", teller, "tell"), join=BEST_EFFORT)
        flow.sleep(id=f"{number}-rest", seconds=0.1)
    flow.gather(
        flow.start("errand", errand, said), flow.start("crew", crew, said), join=quorum(1), deadline_s=30
    )
    try:
        signal = flow.wait_for_signal("go", timeout_s=1)
    except StepFailed:
        signal = "nobody's"
    return f"{len(turns)} turn(s) are done, and the signal was {signal}"
