"""Stand by a run that a command waits for: say what it waits for, and ask the person at the terminal.

What is told goes to stderr, each sentence once. A run that only a person can continue ends the command (exit status 4) where nobody
can be asked, unless the command has a time limit.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import typer
from rich.console import Console
from rich.text import Text

from agno_workers.cli import approvals, screen
from agno_workers.cli.autostart import TIMED_OUT, WAITS_FOR_A_PERSON
from agno_workers.cli.consumers import consumers
from agno_workers.cli.diagnose import diagnose, moves
from agno_workers.core.run import Run, Step, StepKind, StepStatus, WaitsFor
from agno_workers.errors import AgnoError
from agno_workers.repositories import Database
from agno_workers.runs.queries import RunDiagnostics, Waiting
from agno_workers.sdk.approvals import Requirement
from agno_workers.settings import Settings

_QUIET_S = 5.0
"""Nothing has happened for this long: say why."""


@dataclass
class Attendant:
    """Looks at one run, about once a second."""

    run_id: str
    database: Database
    settings: Settings
    console: Console
    timeout_s: float | None
    """The time limit of the command; None: none."""
    _told: set[str] = field(default_factory=set)
    _seen: object = None
    _since: float = field(default_factory=time.monotonic)
    _began: float = field(default_factory=time.monotonic)

    def look(self, quietly: Callable[[Callable[[], None]], None] = lambda ask: ask()) -> None:
        """Report what is new, and ask. `quietly` calls its argument while nothing else is written to the terminal.

        Raises typer.Exit when the command should not wait longer, and typer.Abort when the person wants that.
        """
        family = list(_family(self.database, self.run_id))
        waiting = [each for _, _, around in family for each in around.waiting]
        if new := [each for each in waiting if each.step_id not in self._told]:
            self._told |= {each.step_id for each in new}
            quietly(lambda: self._ask(new))
        paused = [run for run, *_ in family if run.paused_at]
        for run in paused:
            self._say(f"Run {run.id} is paused: `agno-workers runs resume {run.id}` continues it.")
        if (waiting or paused) and self.timeout_s is None and not _is_attended():
            raise typer.Exit(WAITS_FOR_A_PERSON)
        if self._is_quiet(family) and not waiting and not paused:
            for sentence in self._why(family):
                self._say(sentence)
        if self.timeout_s is not None and time.monotonic() - self._began > self.timeout_s:
            self._say(
                f"Run {self.run_id} has not ended within the time limit, and continues: `agno-workers runs show {self.run_id}` shows why."
            )
            raise typer.Exit(TIMED_OUT)

    def _say(self, sentence: str) -> None:
        if sentence not in self._told:
            self._told.add(sentence)
            self.console.print(Text(sentence), soft_wrap=True)

    def _is_quiet(self, family: Sequence[tuple[Run, list[Step], RunDiagnostics]]) -> bool:
        """Return True if no step has begun, ended or runs since some seconds."""
        steps = [(step.id, step.status, step.attempt) for _, own, _ in family for step in own]
        if steps != self._seen or any(status is StepStatus.RUNNING for _, status, _ in steps):
            self._seen, self._since = steps, time.monotonic()
        return time.monotonic() - self._since > _QUIET_S

    def _why(self, family: Sequence[tuple[Run, list[Step], RunDiagnostics]]) -> Iterator[str]:
        workers = self.database.workers.all()
        known = {agent.name for agent in self.database.agents.all()}
        for run, steps, around in family:
            if run.agent not in known:
                yield f"No worker has registered the agent {run.agent!r}: start one whose AGNO_IMPORTS name its module."
            open_steps = [
                step for step in steps if step.status.is_open and step.waits_for is not WaitsFor.RUN
            ]
            if open_steps and (
                sentences := diagnose(run, open_steps, around, consumers(workers, self.settings))
            ):
                # Once a state, though the lengths of time in it change.
                place = f"{run.id} {[(step.id, step.attempt, step.status) for step in open_steps]}"
                if place not in self._told:
                    self._told.add(place)
                    yield from sentences

    def _ask(self, new: Sequence[Waiting]) -> None:
        for each in new:
            requirement = Requirement(each, self.database)
            if _is_attended() and each.waits_for in (WaitsFor.CONFIRMATION, WaitsFor.ANSWER):
                approvals.show_call(requirement, self.console)
                try:
                    if _answered(requirement):
                        continue
                except AgnoError as error:  # someone else was faster, or it has expired
                    self._say(str(error))
                    continue
            self._say(approvals.asked(each))
            for move in moves(each):
                self.console.print(Text(f"  {move}"), soft_wrap=True)


def _family(database: Database, run_id: str) -> Iterator[tuple[Run, list[Step], RunDiagnostics]]:
    """Yield a run, and the open runs that it delegated, with their facts."""
    queries = database.queries
    around = queries.diagnostics(run_id)
    yield queries.run(run_id), queries.steps(run_id), around
    for child in around.children:
        if not child.status.is_terminal:
            yield from _family(database, child.id)


def _is_attended() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _answered(requirement: Requirement) -> bool:
    """Ask for the answer, and record it; False if the person leaves it to someone else. Raises NotWaiting and InvalidInput."""
    if requirement.needs is WaitsFor.ANSWER:
        values = {}
        for name in requirement.facts.policy.fields:
            if not (text := _prompt(f"{name} (Enter: someone else answers)")):
                return False
            values[name] = screen.json_or_text(text)
        requirement.answer(values, by=approvals.who(None))
        return True
    is_call = requirement.facts.kind is not StepKind.WAIT
    ask = "Make this call?" if is_call else "Approve it?"
    while True:
        match _prompt(f"{ask} y, n (Enter: someone else answers)").strip().lower():
            case "y" | "yes":
                requirement.approve(by=approvals.who(None))
                return True
            case "n" | "no":
                reason = "The reason, for the model" if is_call else "The reason"
                requirement.reject(_prompt(reason), by=approvals.who(None))
                return True
            case "":
                return False


def _prompt(question: str) -> str:
    answer: str = typer.prompt(question, default="", show_default=False, err=True)
    return answer
