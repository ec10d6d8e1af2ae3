"""The agents of the chaos runs (`AGNO_IMPORTS=tests.chaos.agents`). Each execution of a tool leaves a line in the ledger.

The input of an `errand` says which tools its turns call: `{"turns": [["look", "pay"], ["book"]]}`.
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from zlib import crc32

from agno_workers import Agent, Effect, Limits, ToolContext, tool
from agno_workers.core.messages import ModelRequest
from agno_workers.models.scripted import Scripted, Turn

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
