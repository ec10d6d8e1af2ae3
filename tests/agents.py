"""Agents that the tests' workers import (`AGNO_IMPORTS=tests.agents`). All are scripted, so they answer alike each time."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from agno_workers import (
    NOT_DONE,
    Agent,
    Compaction,
    Effect,
    History,
    Knowledge,
    Limits,
    Prices,
    Retry,
    ToolContext,
    ToolError,
    tool,
)
from agno_workers.core.messages import ModelRequest
from agno_workers.errors import ModelRejected
from agno_workers.models.scripted import Scripted, Turn
from agno_workers.types import SearchConfig


def _echo(request: ModelRequest) -> Turn:
    return Turn(text=f"<{request.messages[-1].text}>")


def _tools_named(request: ModelRequest) -> Turn:
    """The first turn calls what the input asks for, one `name {json}` a line; the second says what came back."""
    if request.messages[-1].role == "user":
        lines = [line.partition(" ") for line in request.messages[-1].text.splitlines() if line.strip()]
        return Turn(calls=tuple((name, json.loads(arguments or "{}")) for name, _, arguments in lines))
    results = [part for message in request.messages if message.role == "tool" for part in message.parts]
    return Turn(text=" | ".join(f"{'!' if r.is_error else ''}{r.content}" for r in results))  # type: ignore[union-attr]


def _writing_much(request: ModelRequest) -> Turn:
    """The first turn calls what the input asks for; others add, with many words, until there is a summary."""
    if request.system.startswith("You summarize"):
        return Turn(text="Much was written.")
    if any(message.text.startswith("[A summary") for message in request.messages):
        return Turn(text="summarized")
    calls = _tools_named(request).calls or (("add", {"a": 1, "b": 2}),)
    return Turn(text="word " * 1_000, calls=calls)


def _add_and_hold(request: ModelRequest) -> Turn:
    """The first turn calls a tool; the second goes on as `hold` does, with the input as its path."""
    if request.messages[-1].role == "user":
        return Turn(calls=(("add", {"a": 1, "b": 2}),))
    _hold(request.messages[0].text)
    return Turn(text="released")


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
    _hold(path)
    return "released"


def _hold(path: str) -> None:
    Path(path + ".running").write_text(str(os.getpid()))
    _block_while(Path(path))


@tool(effect=Effect.PURE, timeout_s=60)
def hold_gil(path: str) -> str:
    """Say that it runs (PATH.running), and read the FIFO at PATH without letting any other thread run meanwhile."""
    fifo = os.open(path, os.O_RDWR)
    Path(path + ".running").touch()
    ctypes.PyDLL(None).read(fifo, ctypes.create_string_buffer(1), 1)  # PyDLL keeps the interpreter's lock
    os.close(fifo)
    return "released"


def holding(path: Path) -> str:
    """Return the input of `caller` that makes its tool wait until `path` is deleted."""
    return f'hold {{"path": "{path}"}}'


def running(path: Path) -> Callable[[], bool]:
    """Return a condition: whether the tool with this path runs."""
    return Path(f"{path}.running").exists


@tool(effect=Effect.PURE)
def listen(path: str, ctx: ToolContext) -> str:
    """Say that it runs (PATH.running), go on until the run is cancelled, and say that this was heard (PATH.heard)."""
    Path(path + ".running").touch()
    while not ctx.cancelled():
        time.sleep(0.02)  # this is the tool at work, not a test that waits
    Path(path + ".heard").touch()
    return "heard"


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


# The tools of the crash matrix: each execution leaves a line in the ledger, whatever becomes of it.


@tool(effect=Effect.PURE)
def look(path: str, ctx: ToolContext) -> str:
    """Look something up."""
    return _did("looked", path, ctx)


@tool(effect=Effect.IDEMPOTENT)
def note(path: str, ctx: ToolContext) -> str:
    """Call a service that takes an idempotency key."""
    return _did("noted", path, ctx)


@tool(effect=Effect.IDEMPOTENT, queue="agents")
def note_apart(path: str, ctx: ToolContext) -> str:
    """Do as `note` does, in another queue than that of the other tools."""
    return _did("noted", path, ctx)


@tool(effect=Effect.TRANSACTIONAL)
def book(path: str, ctx: ToolContext) -> str:
    """Write a row in the step's own transaction."""
    ctx.connection.execute("INSERT INTO public.booking VALUES (%s)", (ctx.idempotency_key,))
    return _did("booked", path, ctx)


@tool(effect=Effect.TRANSACTIONAL)
def book_slowly(path: str, ctx: ToolContext) -> str:
    """Write a row in the step's own transaction, say so (PATH.running), and go on once PATH is gone."""
    ctx.connection.execute("CREATE TABLE IF NOT EXISTS public.booking (key text)")
    ctx.connection.execute("INSERT INTO public.booking VALUES (%s)", (ctx.idempotency_key,))
    hold(path)
    return "booked"


@tool(effect=Effect.ONCE)
def send(path: str, ctx: ToolContext) -> str:
    """Do what must not be done twice, and can't be looked up."""
    return _did("sent", path, ctx)


@tool(effect=Effect.ONCE, on_unknown="ask")
def wire(path: str, ctx: ToolContext) -> str:
    """Do what must not be done twice, and what only a person can look up."""
    return _did("wired", path, ctx)


def _was_paid(path: str, ctx: ToolContext) -> object:
    return "transferred before" if ctx.idempotency_key in _ledger(path) else NOT_DONE


@tool(effect=Effect.ONCE, reconcile=_was_paid)
def transfer(path: str, ctx: ToolContext) -> str:
    """Do what must not be done twice, and can be looked up."""
    return _did("transferred", path, ctx)


@tool(requires_confirmation=True)
def publish(path: str, ctx: ToolContext) -> str:
    """Needs a person's approval."""
    return _did(f"published, {ctx.answer['verdict']} by {ctx.answer['by']}", path, ctx)


@tool(requires_user_input=True, user_input_fields=("iban",))
def refund(path: str, iban: str, ctx: ToolContext) -> str:
    """Needs what the model must not choose."""
    return _did(f"refunded to {iban}", path, ctx)


@tool(external_execution=True)
def deliver(path: str) -> str:
    """Is executed by somebody outside."""
    raise AssertionError(f"{path} is not for us")


def _did(what: str, path: str, ctx: ToolContext) -> str:
    with Path(path).open("a") as ledger:
        ledger.write(f"{ctx.idempotency_key}\n")
    return what


def _ledger(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


@tool(effect=Effect.PURE)
def tally(ctx: ToolContext) -> str:
    """Count this run in the state of its session, by operations and by a value that it reads and writes."""
    ctx.state.increment("count")
    ctx.state.append("items", ctx.run_id)
    ctx.state[f"run {ctx.run_id}"] = True
    ctx.state["swapped"] = ctx.state.get("swapped", 0) + 1
    return "counted"


def _poisoned(request: ModelRequest) -> Turn:
    """Kills its process as long as the file that the input names is there."""
    if Path(request.messages[0].text).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return Turn(text="cured")


def _thinking(request: ModelRequest) -> Turn:
    """Says that it thinks (PATH.running), and answers once PATH is gone."""
    hold(request.messages[0].text)
    return Turn(text="thought")


def _counting(request: ModelRequest) -> Turn:
    """One call a turn, as many as the input says, all alike in size."""
    done = sum(message.role == "tool" for message in request.messages)
    if done < int(request.messages[0].text):
        return Turn(calls=(("add", {"a": 1000 + done, "b": 1000}),))
    return Turn(text=f"{done} calls")


def _block_while(path: Path) -> None:
    while path.exists():
        time.sleep(0.02)  # this is the tool at work, not a test that waits


echo = Agent(name="echo", model=Scripted("angles", _echo))
noting = Agent(name="noting", model=echo.model, history=History(runs=0, summary=True))
shouter = Agent(
    name="shouter", model=Scripted("shout", lambda request: Turn(text=request.messages[-1].text.upper()))
)
remembering = Agent(name="remembering", model=echo.model, history=History())
nothing = Agent(name="nothing", model=Scripted("nothing", lambda request: Turn(text="")))
caller = Agent(
    name="caller",
    model=Scripted("caller", _tools_named),
    tools=[add, boom, log_line, pay, hold, hold_gil, kill_worker, write_row, write_slowly],
    limits=Limits(turns=5),
)
slow = Agent(name="slow", model=Scripted("slow", _add_and_hold), tools=[add])
matrix = Agent(
    name="matrix",
    model=Scripted("matrix", _tools_named),
    tools=[
        add,
        hold,
        listen,
        look,
        note,
        note_apart,
        book,
        book_slowly,
        send,
        wire,
        transfer,
        publish,
        refund,
        deliver,
    ],
    prices=Prices(input_usd=1e6, output_usd=1e6),  # a dollar a token: its cost is its usage
)
handbook = Knowledge(
    "handbook", embedder="hash:384", search_config=SearchConfig(max_results=3, gap_below=0.1)
)
reader = Agent(name="reader", model=Scripted("reader", _tools_named), knowledge=handbook.with_feedback(0.8))
informed = Agent(
    name="informed",
    model=Scripted("informed", lambda request: Turn(text=f"[1] of {request.system.splitlines()[-1]}")),
    knowledge=handbook.context(max_results=1),
)
boss = Agent(name="boss", model=Scripted("boss", _tools_named), tools=[matrix, echo, add])
tallying = Agent(name="tallying", model=Scripted("tallying", _tools_named), tools=[tally])
longwinded = Agent(
    name="longwinded",
    model=Scripted("longwinded", _writing_much),
    tools=[look, add],
    compaction=Compaction(window_tokens=4_000),
)
poisoned = Agent(name="poisoned", model=Scripted("poisoned", _poisoned))
thinker = Agent(name="thinker", model=Scripted("thinker", _thinking))
counter = Agent(
    name="counter",
    model=Scripted("counter", _counting),
    tools=[add],
    limits=Limits(turns=200, tool_calls=200),
)
failing = Agent(name="failing", model=Scripted("failing", _failing), retry=Retry(attempts=1))
