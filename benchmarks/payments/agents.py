"""The agents of our worker: two cashiers, whose `pay` must happen once. One can look it up afterwards."""

from __future__ import annotations

import os
import time

from agno_workers import NOT_DONE, Agent, Effect, ToolContext, tool
from benchmarks.peers import ledger

LEDGER = os.environ.get("BENCH_LEDGER", "")


@tool(effect=Effect.ONCE)
def pay(order: str, cents: int, ctx: ToolContext) -> str:
    """Pay an order."""
    ledger.append(LEDGER, order=order, cents=cents, key=ctx.idempotency_key)
    return "paid"


def look_up(ctx: ToolContext, order: str, cents: int) -> object:
    """Ask the outside world whether this very payment was made."""
    made = {"order": order, "cents": cents, "key": ctx.idempotency_key}
    return "paid" if made in ledger.lines(LEDGER) else NOT_DONE


pay_and_look_up = tool(name="pay", effect=Effect.ONCE, reconcile=look_up)(pay.function)


@tool(effect=Effect.PURE)
def pack(seconds: float) -> str:
    """Pack the parcel."""
    time.sleep(seconds)
    return "packed"


careful = Agent(name="careful", model="openai-chat:fake-1", tools=[pay, pack])
knowing = Agent(name="knowing", model="openai-chat:fake-1", tools=[pay_and_look_up, pack])
