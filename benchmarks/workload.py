"""The agents that our worker runs here. Their models are scripted, so what is measured is us."""

from __future__ import annotations

import time

from agno_workers import Agent, Effect, tool
from agno_workers.core.messages import ModelRequest
from agno_workers.models.scripted import Scripted, Turn


@tool(effect=Effect.PURE)
def noop(number: int) -> int:
    """Give the number back."""
    return number


@tool(effect=Effect.PURE)
def block(seconds: float) -> float:
    """Block for so long."""
    time.sleep(seconds)
    return seconds


def _fan_out(request: ModelRequest) -> Turn:
    """The input says how many calls; `5x3` is five turns of three."""
    rounds, _, calls = request.messages[0].text.rpartition("x")
    said = sum(message.role == "assistant" for message in request.messages)
    if said < int(rounds or 1):
        return Turn(calls=tuple(("noop", {"number": number}) for number in range(int(calls))))
    return Turn(text="done")


def _block_each(request: ModelRequest) -> Turn:
    if request.messages[-1].role == "user":
        return Turn(calls=(("block", {"seconds": 1.0}),) * int(request.messages[0].text))
    return Turn(text="done")


simple = Agent(name="simple", model=Scripted("simple", (Turn(text="Hello."),)))
fan_out = Agent(name="fan_out", model=Scripted("fan_out", _fan_out), tools=[noop])
parallel = Agent(name="parallel", model=Scripted("parallel", _block_each), tools=[block])
asker = Agent(name="asker", model="openai-chat:fake-1", instructions="Be concise, reply with one sentence.")
