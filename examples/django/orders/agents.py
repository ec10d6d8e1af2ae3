"""Agents, with tools that use models: workers set up Django before they import this module."""

from agno_workers import Agent, Effect, tool
from orders.models import Order


@tool(effect=Effect.PURE)
def order_text(number: int) -> str:
    """Return the text of an order."""
    return Order.objects.get(pk=number).text


clerk = Agent(
    name="clerk",
    model="scripted:echo",
    instructions="Confirm the order in one sentence.",
    tools=[order_text],
)
