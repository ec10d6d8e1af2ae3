"""Agents that the tests' workers import (`AGNO_IMPORTS=tests.agents`). All are scripted, so they answer alike each time."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from agno_workers import Agent, Effect, Limits, Retry, ToolContext, ToolError, tool
from agno_workers.core.messages import ModelRequest
from agno_workers.errors import ModelRejected
from agno_workers.models.scripted import Scripted, Turn


def _echo(request: ModelRequest) -> Turn:
    return Turn(text=f"<{request.messages[-1].text}>")


def _tools_named(request: ModelRequest) -> Turn:
    """The first turn calls what the input asks for, one `name {json}` a line; the second says what came back."""
    if request.messages[-1].role == "user":
        lines = [line.partition(" ") for line in request.messages[-1].text.splitlines() if line.strip()]
        return Turn(calls=tuple((name, json.loads(arguments or "{}")) for name, _, arguments in lines))
    results = [part for message in request.messages if message.role == "tool" for part in message.parts]
    return Turn(text=" | ".join(f"{'!' if r.is_error else ''}{r.content}" for r in results))  # type: ignore[union-attr]


def _failing(request: ModelRequest) -> Turn:
    return Turn(error=ModelRejected("the key is wrong", provider="scripted", model="failing"))


@tool(effect=Effect.PURE)
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool(effect=Effect.PURE)
def boom(text: str) -> str:
    """Raise an error with this text."""
    raise ToolError(text)


@tool(effect=Effect.IDEMPOTENT)
def log_line(path: str, text: str, ctx: ToolContext) -> str:
    """Append a line to a file: the outside world, which remembers every execution."""
    with Path(path).open("a") as file:
        file.write(f"{text} {ctx.idempotency_key} {ctx.attempt}\n")
    return text


@tool(effect=Effect.ONCE)
def pay(path: str, ctx: ToolContext) -> str:
    """Pay once: append a line to a file."""
    with Path(path).open("a") as file:
        file.write(f"paid {ctx.idempotency_key}\n")
    _block_while(Path(path + ".hold"))
    return "paid"


@tool(effect=Effect.PURE, timeout_s=60)
def hold(path: str) -> str:
    """Say that it runs (PATH.running), and go on once PATH is gone."""
    Path(path + ".running").write_text(str(os.getpid()))
    _block_while(Path(path))
    return "released"


@tool(effect=Effect.PURE)
def kill_worker(path: str) -> str:
    """Kill the worker process that runs this, as long as PATH has lives left in it."""
    lives = int(Path(path).read_text())
    if lives > 0:
        Path(path).write_text(str(lives - 1))
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


@tool(effect=Effect.TRANSACTIONAL)
def write_row(text: str, fail: bool, ctx: ToolContext) -> str:
    """Write a row in the step's own transaction."""
    ctx.connection.execute("CREATE TABLE IF NOT EXISTS public.ledger (text text)")
    ctx.connection.execute("INSERT INTO public.ledger VALUES (%s)", (text,))
    if fail:
        raise ToolError("after the write")
    return "written"


@tool(effect=Effect.TRANSACTIONAL, timeout_s=0.5)
def write_slowly(ctx: ToolContext) -> str:
    """Write a row, and then be too late."""
    ctx.connection.execute("CREATE TABLE IF NOT EXISTS public.ledger (text text)")
    ctx.connection.execute("INSERT INTO public.ledger VALUES ('late')")
    ctx.connection.execute("SELECT pg_sleep(20)")
    return "written"


def _block_while(path: Path) -> None:
    while path.exists():
        time.sleep(0.02)  # this is the tool at work, not a test that waits


echo = Agent(name="echo", model=Scripted("angles", _echo))
shouter = Agent(
    name="shouter", model=Scripted("shout", lambda request: Turn(text=request.messages[-1].text.upper()))
)
nothing = Agent(name="nothing", model=Scripted("nothing", lambda request: Turn(text="")))
caller = Agent(
    name="caller",
    model=Scripted("caller", _tools_named),
    tools=[add, boom, log_line, pay, hold, kill_worker, write_row, write_slowly],
    limits=Limits(turns=5),
)
failing = Agent(name="failing", model=Scripted("failing", _failing), retry=Retry(attempts=1))
