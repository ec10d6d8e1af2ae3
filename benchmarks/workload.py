"""The agents that our worker runs here. Their models are scripted, so what is measured is us."""

from __future__ import annotations

import os
import time
from pathlib import Path

from agno_workers import Agent, Compaction, Effect, Limits, ToolContext, tool
from agno_workers.core.messages import ModelRequest, ToolResult
from agno_workers.models.scripted import Scripted, Turn
from benchmarks.processes import cpu_s

ANSWERS_AFTER_S = 0.05


@tool(effect=Effect.PURE)
def noop(number: int) -> int:
    """Return the number."""
    return number


@tool(effect=Effect.PURE)
def page(number: int) -> str:
    """Return 2 kB of text."""
    return f"This is line {number} of a page. " * 70


@tool(effect=Effect.PURE)
def block(seconds: float) -> float:
    """Block for so long."""
    time.sleep(seconds)
    return seconds


@tool(effect=Effect.PURE)
def tally(ctx: ToolContext) -> str:
    """Count this run in the state of its session."""
    ctx.state.increment("count")
    ctx.state[f"run {ctx.run_id}"] = True
    return "counted"


def _tally(request: ModelRequest) -> Turn:
    if request.messages[0].text == "slowly":
        time.sleep(ANSWERS_AFTER_S)
    return Turn(text="done") if request.messages[-1].role == "tool" else Turn(calls=(("tally", {}),))


def _fan_out(request: ModelRequest) -> Turn:
    """The input says how many calls; `5x3` is five turns of three."""
    rounds, _, calls = request.messages[0].text.rpartition("x")
    said = sum(message.role == "assistant" for message in request.messages)
    if said < int(rounds or 1):
        return Turn(calls=tuple(("noop", {"number": number}) for number in range(int(calls))))
    return Turn(text="done")


def _long(request: ModelRequest) -> Turn:
    """The input says after which turns to note the CPU that was used, as `5,10`; the run ends with the last of them."""
    if request.system.startswith("You summarize"):
        return Turn(text="Some pages were read.")
    marks = [int(mark) for mark in request.messages[0].text.split(",")]
    last = [part for part in request.messages[-1].parts if isinstance(part, ToolResult)]
    said = int(last[0].content.split()[3]) + 1 if last else 0  # the number of the page
    if said in marks:
        postgres = cpu_s(int(os.environ["BENCH_POSTGRES_PID"]))
        with Path(os.environ["BENCH_MARKS"]).open("a") as file:
            file.write(f"{said} {time.process_time() + postgres}\n")
    return Turn(text="done") if said >= marks[-1] else Turn(calls=(("page", {"number": said}),))


def _block_each(request: ModelRequest) -> Turn:
    if request.messages[-1].role == "user":
        return Turn(calls=(("block", {"seconds": 1.0}),) * int(request.messages[0].text))
    return Turn(text="done")


simple = Agent(name="simple", model=Scripted("simple", (Turn(text="Hello."),)))
fan_out = Agent(
    name="fan_out", model=Scripted("fan_out", _fan_out), tools=[noop], limits=Limits(tool_calls=1000)
)
long = Agent(
    name="long", model=Scripted("long", _long), tools=[page], limits=Limits(turns=1001, tool_calls=1000)
)
tallying = Agent(name="tallying", model=Scripted("tallying", _tally), tools=[tally])
long_in_window = Agent(
    name="long_in_window", model=long.model, tools=[page], limits=long.limits, compaction=Compaction(window_tokens=8_000)
)  # fmt: skip
later = Agent(name="later", model=simple.model, queue="later")  # no worker of ours listens to that queue
parallel = Agent(name="parallel", model=Scripted("parallel", _block_each), tools=[block])
asker = Agent(name="asker", model="openai-chat:fake-1", instructions="Be concise, reply with one sentence.")
