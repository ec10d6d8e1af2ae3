"""Tasks: the leader writes a list of tasks with their needs; what is ready runs side by side, and results feed the tasks that wait."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from graphlib import CycleError, TopologicalSorter
from typing import Any, ClassVar

from agno_workers.core.flow import BEST_EFFORT, Suspend
from agno_workers.core.runnable import Runnable
from agno_workers.core.words import did_you_mean
from agno_workers.errors import StepFailed
from agno_workers.teams.handover import handover, who_said_what
from agno_workers.teams.modes import Answer, Meeting, Mode, leader
from agno_workers.teams.roles import role
from agno_workers.teams.spec import TeamSpec

MOST_TASKS = 100


@dataclass(frozen=True)
class Task:
    """A piece of the work, for one member."""

    title: str
    member: str
    work: str
    needs: list[str]


@dataclass(frozen=True)
class Plan:
    """The leader's list."""

    tasks: list[Task]


class Tasks(Mode, frozen=True):
    """The leader writes a list of tasks with their needs; ready ones run side by side, and results feed those that wait."""

    word: ClassVar[str] = "tasks"

    def roles(self, team: TeamSpec) -> Mapping[str, Runnable]:
        return {
            "planner": role(team, "planner", instructions="You plan the work of a team.", output_schema=Plan),
            "leader": leader(team, "You lead a team whose members have worked on the tasks of your list."),
        }

    def run(self, meeting: Meeting) -> Any:
        plan = self._plan(meeting)
        done = _run_tasks(meeting, plan)
        meeting.some(list(done.values()))
        work = who_said_what([(f"{task.title} ({task.member})", done[task.title].text) for task in plan])
        return meeting.decide("answer", "leader", work=work, expectations=_ANSWER)

    def _plan(self, meeting: Meeting) -> list[Task]:
        """Return the tasks, each after those that it needs. Raises StepFailed when the leader writes no list that can be used."""
        members = {each.name: each.description for each in meeting.team.members}
        requirements = _RULES + "\n".join(
            f"- {name}{': ' if about else ''}{about}" for name, about in members.items()
        )

        def fault(plan: Plan) -> str:
            return faults(plan.tasks, members)

        plan: Plan = meeting.decide_until("plan", "planner", fault, "plan", requirements=requirements)
        return in_order(plan.tasks)


def faults(tasks: Sequence[Task], members: Collection[str]) -> str:
    """Return what is wrong with a list of tasks, for its writer; empty if nothing is."""
    titles = [task.title for task in tasks]
    if not 1 <= len(tasks) <= MOST_TASKS:
        return f"it has {len(tasks)} tasks, and may have 1 to {MOST_TASKS}"
    twice = dict.fromkeys(title for title in titles if titles.count(title) > 1)
    wrong = [f"more than one task has the title {title!r}" for title in twice]
    for task in tasks:
        if task.member not in members:
            near = did_you_mean(task.member, members)
            wrong.append(
                f"task {task.title!r} is for {task.member!r}, who is not a member ({', '.join(members)}){near}"
            )
        wrong += [
            f"task {task.title!r} needs {need!r}, which is not a title of the list{did_you_mean(need, titles)}"
            for need in task.needs
            if need not in titles
        ]
    try:
        in_order(tasks)
    except CycleError as error:
        wrong.append(f"these tasks need each other in a ring: {' -> '.join(map(repr, error.args[1]))}")
    return "; ".join(wrong)


def in_order(tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks, each after those that it needs. Raises CycleError."""
    known = {task.title: task for task in tasks}
    order = TopologicalSorter({task.title: task.needs for task in tasks}).static_order()
    return [known[title] for title in order if title in known]


def _run_tasks(meeting: Meeting, plan: Sequence[Task]) -> dict[str, Answer]:
    """Return what became of each task. One is skipped when a task that it needs has failed or was skipped."""
    members = {each.name: each for each in meeting.team.members}
    ended: dict[str, Answer] = {}

    def branch(number: int, task: Task) -> None:
        if any(need not in ended for need in task.needs):
            raise Suspend  # those come before it, and wake the run
        if missing := [need for need in task.needs if ended[need].failure]:
            text = f"it was skipped, since {' and '.join(map(repr, missing))} gave no result"
            skipped = StepFailed(text, reason="skipped", error={"type": "Skipped", "message": text})
            ended[task.title] = Answer(task.member, failure=skipped)
            return
        message = handover(
            f"{task.title}\n\n{task.work}",
            work=who_said_what(
                [(f"{need} ({ended[need].who})", ended[need].text) for need in dict.fromkeys(task.needs)]
            ),
            requirements=f"{_PART}\n{meeting.request}",
        )
        ended[task.title] = meeting.ask(f"task:{number}", task.member, message, members[task.member])

    branches: list[Callable[[], None]] = [partial(branch, *each) for each in enumerate(plan, 1)]
    meeting.flow.parallel(*branches, join=BEST_EFFORT)
    meeting.record["tasks"] = [
        _written(number, task, ended[task.title]) for number, task in enumerate(plan, 1)
    ]
    return ended


def _written(number: int, task: Task, answer: Answer) -> dict[str, Any]:
    failure = answer.failure
    status = "done" if failure is None else "skipped" if failure.reason == "skipped" else "failed"
    written = {"id": f"task:{number}", "title": task.title, "member": task.member, "needs": task.needs}
    return written | {"status": status} | ({"why": answer.why} if failure else {})


_RULES = (
    "Write the tasks that the request needs, and no others. Each has a title of its own, the one member that does it, the work (the member gets "
    "nothing else, but the results of the tasks that it needs), and the titles of the tasks that it needs. Tasks that need nothing of each other are "
    "done at the same time.\n\nThe members are:\n"
)
_PART = "This task is a part of a larger request. Do your part only. The request is:"
_ANSWER = "The answer to the request, made of the results of the tasks. Say what is missing in it, where a task failed or was skipped."
