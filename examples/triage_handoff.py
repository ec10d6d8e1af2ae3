"""A triage that hands a conversation over: the specialist takes it with all that was said, and the next message goes on with the specialist.

Servers and workers in one shell, this file in another; it needs no key and ends after some seconds:

    AGNO_IMPORTS=examples.triage_handoff agno-workers up
    eval "$(agno-workers env)" && python -m examples.triage_handoff

Only the models are scripts; with a key, use "openai:…" in their places.
"""

import re
from uuid import uuid4

from agno_workers import Agent, Effect, History, Team, tool
from agno_workers.core.messages import ModelRequest, ToolResult
from agno_workers.models.scripted import Scripted, Turn


@tool(effect=Effect.IDEMPOTENT)
def pay_back(order: str) -> str:
    """Pay an order back."""
    return f"order {order} is paid back"


def said(request: ModelRequest) -> str:
    """Return all that the user has said in this conversation."""
    return " ".join(each.text for each in request.messages if each.role == "user")


def last_result(request: ModelRequest) -> str | None:
    """Return the result of the call that was just made."""
    parts = [part for part in request.messages[-1].parts if isinstance(part, ToolResult)]
    return parts[-1].content if parts else None


def route(request: ModelRequest) -> Turn:
    """Hand the conversation to the one who can help, as the model of a triage would."""
    to = "transfer_to_refunds" if "money" in said(request) else "transfer_to_billing"
    return Turn(calls=((to, {}),))


def bill(request: ModelRequest) -> Turn:
    """Explain an invoice, or hand on, as the model of billing would."""
    if "money" in request.messages[-1].text:
        return Turn(calls=(("transfer_to_refunds", {}),))
    return Turn(text="Your invoice is for two chairs. Is anything wrong with it?")


def refund(request: ModelRequest) -> Turn:
    """Pay an order back: its number was told to another agent, two messages ago."""
    result = last_result(request)
    if result and "paid back" in result:
        return Turn(text=f"Done: {result}.")
    (order,) = re.findall(r"order (\d+)", said(request))
    return Turn(calls=(("pay_back", {"order": order}),))


triage = Agent(name="triage", model=Scripted("triage", route), history=History(runs=5))
billing = Agent(name="billing", model=Scripted("billing", bill), description="Explains invoices.")
refunds = Agent(
    name="refunds", model=Scripted("refunds", refund), tools=[pay_back], description="Gives money back."
)
helpdesk = Team(name="helpdesk", members=[billing, refunds], mode="route", leader=triage)

if __name__ == "__main__":
    session_id = f"chat-{uuid4().hex[:8]}"
    for text in ("What is this invoice for order 17?", "They are broken: I want my money back."):
        run = helpdesk.delay(text, session_id=session_id)
        print(f"  User: {text}\n  Helpdesk: {run.get(timeout=60)}")
        acting = [step.name for step in run.handle.steps if step.kind == "turn"]
        print(f"  (turns of: {', '.join(acting)})")
