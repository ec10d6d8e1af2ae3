"""The teams and workflows that our worker runs here. Their models are scripted and their steps are empty, so what is measured is us."""

from __future__ import annotations

import os
import time
from pathlib import Path

from agno_workers import Agent, Effect, Flow, Limits, Team, tool, workflow
from agno_workers.core.messages import ModelRequest
from agno_workers.models.scripted import Scripted, Turn
from benchmarks.processes import cpu_s


@tool(effect=Effect.PURE)
def empty(number: int) -> int:
    """Return the number."""
    return number


@tool(effect=Effect.PURE)
def mark(number: int) -> int:
    """Note the CPU that this process and Postgres have used."""
    used = time.process_time() + cpu_s(int(os.environ["BENCH_POSTGRES_PID"]))
    with Path(os.environ["BENCH_MARKS"]).open("a") as file:
        file.write(f"{number} {used}\n")
    return number


@workflow
def sequential(flow: Flow, steps: str) -> int:
    """Empty steps, one after another."""
    for number in range(int(steps)):
        flow.step(f"step-{number}", empty, number)
    return int(steps)


@workflow
def side_by_side(flow: Flow, steps: str) -> int:
    """Empty steps side by side."""
    return len(flow.gather(*(flow.start(f"step-{number}", empty, number) for number in range(int(steps)))))


@workflow
def marked(flow: Flow, marks: str) -> int:
    """Empty steps, one after another, but those that the input names, as `5,10`; the last of them is the last step."""
    noted = {int(each) for each in marks.split(",")}
    for number in range(1, max(noted) + 1):
        flow.step(f"step-{number}", mark if number in noted else empty, number)
    return max(noted)


def _team(members: int, seconds: float) -> Team:
    """Return a team whose leader delegates to all members at once, which answer after this time."""
    name = f"team_of_{members}"
    names = [f"{name}_{number}" for number in range(members)]

    def lead(request: ModelRequest) -> Turn:
        if request.messages[-1].role == "user":
            return Turn(calls=tuple((member, {"task": "do it"}) for member in names))
        return Turn(text=str(sum(message.role == "tool" for message in request.messages)))

    model = Scripted(f"member of {name}", (Turn(text="done", delay_s=seconds),))
    return Team(
        name=name, leader=Scripted(f"lead of {name}", lead), members=[Agent(name=each, model=model) for each in names],
        limits=Limits(tool_calls=members),
    )  # fmt: skip


ten = _team(10, 0.5)
fifty = _team(50, 1.0)
