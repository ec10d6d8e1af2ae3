"""Agents whose runs wait for people, delegate, fail and die: for the tests of what operators see and say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agno_workers import Agent, Effect, Flow, Limits, Prices, Retry, ToolContext, TryAgain, tool, workflow
from agno_workers.core.messages import ModelRequest
from agno_workers.errors import ModelRejected
from agno_workers.models.scripted import Scripted, Turn
from tests import agents


@tool(requires_confirmation=True, answer_within_s=600)
def transfer(amount: int, note: str = "") -> str:
    """Move money."""
    return f"moved {amount}"


@tool(requires_user_input=True, user_input_fields=["iban", "urgent"])
def refund(amount: int, iban: str, urgent: bool) -> str:
    """Give money back."""
    return f"{amount} to {iban}, urgent: {urgent}"


@tool(external_execution=True)
def deliver(parcel: str) -> str:
    """Bring a parcel to its door."""
    raise AssertionError("nobody here carries parcels")


@tool(effect=Effect.ONCE, on_unknown="ask")
def charge(path: str, ctx: ToolContext) -> str:
    """Charge a card, as `pay` does."""
    return str(agents.pay(path, ctx))


@tool
def burst(text: str) -> str:
    """A tool with a bug."""
    raise ValueError(text)


@tool(retry=Retry(attempts=1))
def closed(text: str) -> str:
    """A shop that is never open."""
    raise TryAgain(f"shop {text} is closed")


@workflow
def fulfil(flow: Flow, order: str) -> Any:
    """Ship an order once a person agrees and it is paid."""
    answer = flow.approve("Ship it?", order=order)
    return {"by": answer["by"], "paid": flow.wait_for_signal("paid")}


def _moody(request: ModelRequest) -> Turn:
    """Fails as long as the file that the input names is there."""
    number, path = request.messages[0].text.split()
    if Path(path).exists():
        raise ModelRejected(f"order {number} is locked by job-{number}", provider="scripted", model="moody")
    return Turn(text=f"order {number} is done")


def _manager(request: ModelRequest) -> Turn:
    """Hands on what it is asked, and repeats the answer."""
    last = request.messages[-1]
    if last.role == "user":
        return Turn(calls=(("clerk", {"task": last.text}),))
    return Turn(text=json.dumps([getattr(part, "content", "") for part in last.parts]))


clerk = Agent(
    name="clerk",
    description="Handles money.",
    model=Scripted("clerk", agents._tools_named),
    tools=[transfer, refund, deliver, charge, closed, burst, agents.add],
    limits=Limits(turns=5, cost_usd=1.0, deadline_s=3600),
    prices=Prices(input_usd=3, output_usd=15, cached_usd=0.3),
)
manager = Agent(name="manager", model=Scripted("manager", _manager), tools=[clerk])
moody = Agent(name="moody", model=Scripted("moody", _moody), retry=Retry(attempts=1))
_never = Scripted("never", lambda _request: Turn(text="So far.", calls=(("add", {"a": 1, "b": 2}),)))
_mute = Scripted("mute", lambda _request: Turn(calls=(("add", {"a": 1, "b": 2}),)))
tireless = Agent(name="tireless", model=_never, tools=[agents.add], limits=Limits(turns=1))
mute = Agent(name="mute", model=_mute, tools=[agents.add], limits=Limits(turns=1, on_limit="return"))
