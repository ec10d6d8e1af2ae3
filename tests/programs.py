"""Teams and workflows that the tests' workers import (`AGNO_IMPORTS=tests.programs`), with the agents and tools of tests.agents."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from agno_workers import Agent, Flow, History, Limits, StepFailed, Team, Workflow, quorum, workflow
from agno_workers.core.messages import ModelRequest
from agno_workers.models.scripted import Scripted, Turn
from agno_workers.workflows import Parallel, Step
from tests import agents
from tests.agents import add, echo, hold, look, matrix, note, note_apart, thinker

squad = Team(name="squad", leader=Scripted("squad", agents._tools_named), members=[matrix, echo])


@workflow
def errand(flow: Flow, asked: str) -> Any:
    """A step, the run of an agent, and the step that the input names, `tool {"path": ...}`: one after another, since a worker dies with all that it does."""
    name, _, arguments = asked.partition(" ")
    tool: Any = getattr(agents, name)
    flow.step("begin", add, 1, 2)
    flow.step("echo", echo, "are you there?")
    try:
        return flow.step("work", tool, **json.loads(arguments))
    except StepFailed as error:
        return f"!{error.ids['error']['message']}"


listed = Workflow(name="listed", steps=[Parallel(Step("work", function=look), echo, name="both"), Step("last", agent=echo)])  # fmt: skip
"""A declared workflow: its input is the path of a ledger."""
chorus = Team(
    name="chorus",
    members=[matrix],
    mode="broadcast",
    leader=Scripted("chorus", lambda request: Turn(text="looked")),
)
"""A team whose next move code chooses."""


@workflow
def poisoned_flow(flow: Flow, path: str) -> str:
    """Note a line in a ledger; then the code between steps kills its process as long as the file at `path` exists."""
    said = flow.step("before", note, f"{path}.ledger")
    if Path(path).exists():
        os.kill(os.getpid(), signal.SIGKILL)
    return str(said)


@workflow
def marathon(flow: Flow, path: str) -> int:
    """Six steps, one after another; each leaves its key in the ledger at `path`."""
    return sum(flow.step(f"mile-{n}", note, path) == "noted" for n in range(6))


@workflow
def apart(flow: Flow, path: str) -> list[str]:
    """Three steps side by side, in two queues."""
    return flow.gather(
        flow.step("one", note, path), flow.step("two", note_apart, path), flow.step("three", note, path)
    )


@workflow
def race(flow: Flow, path: str) -> list[Any]:
    """Two of three are enough. The second works as long as the file `PATH.second` exists, the third as long as `path` does."""
    found = flow.gather(
        flow.start("first", add, 1, 1),
        flow.start("second", thinker, f"{path}.second"),
        flow.start("third", thinker, path),
        join=quorum(2),
    )
    flow.step("after", note, f"{path}.ledger")
    return [each.value for each in found if each.is_used]


@workflow
def patient(flow: Flow, asked: str) -> Any:
    """Wait between two steps that are noted in a ledger: `time PATH`, `signal PATH` or `person PATH`. A file `PATH.held` delays the wait."""
    what, _, path = asked.partition(" ")
    flow.step("before", note, path)
    flow.step("hold", hold, f"{path}.held")
    found: Any = None
    match what:
        case "time":
            flow.sleep(hours=24)
        case "signal":
            found = flow.wait_for_signal("paid")
        case "person":
            found = flow.approve("Ship it?", order=17)["by"]
    flow.step("after", note, path)
    return found


@workflow
def pair(flow: Flow, text: str) -> str:
    """An agent and a team, side by side."""
    call = json.dumps({"task": text})
    said, told = flow.gather(flow.step("echo", echo, text), flow.step("squad", squad, f"echo {call}"))
    return f"{said} {told}"


@workflow
def unreachable(flow: Flow, text: str) -> None:
    """A step that no worker could find."""
    flow.step("lost", lambda: text)


def _lead_all(request: ModelRequest) -> Turn:
    """Delegate the input to all members, and answer with the number of results."""
    if request.messages[-1].role == "user":
        members = (tool.name for tool in request.tools if tool.name != "team_roster")
        return Turn(calls=tuple((name, {"task": request.messages[0].text}) for name in members))
    return Turn(text=str(sum(message.role == "tool" for message in request.messages)))


def _hold_beside(request: ModelRequest) -> Turn:
    """Say that this member works (PATH.NAME.running), and go on once PATH is gone."""
    path, name = request.messages[0].text, request.system
    Path(f"{path}.{name}.running").touch()
    agents._block_while(Path(path))
    return Turn(text=name)


def _recall(request: ModelRequest) -> Turn:
    said = [message.text for message in request.messages if message.role == "user"]
    return Turn(text=" / ".join(said))


desk = Team(name="desk", leader=Scripted("desk", agents._tools_named), members=[pair, squad])
chief = Agent(name="chief", model=Scripted("chief", agents._tools_named), tools=[squad, pair])
talking = Team(
    name="talking",
    leader=Agent(name="talking_lead", model=Scripted("talking", _recall), history=History()),
    members=[echo],
)
fifty = Team(
    name="fifty",
    leader=Scripted("fifty", _lead_all),
    members=[
        Agent(name=f"member_{n}", model=Scripted("beside", _hold_beside), instructions=f"member_{n}")
        for n in range(50)
    ],
    limits=Limits(tool_calls=50),
    roster=False,  # _lead_all calls all tools
)
