"""Modes whose next move code chooses: a mode is a short function over a Meeting, which asks the members and writes down who said what.

broadcast here; planning.py (tasks), supervising.py, voting.py and debating.py beside it. Every answer is a step of the team's run: a turn later it is read and
not asked for again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import msgspec

from agno_workers.core.agent import Agent
from agno_workers.core.fields import Fields
from agno_workers.core.flow import BEST_EFFORT, Flow, Join
from agno_workers.core.messages import Text
from agno_workers.core.runnable import Runnable
from agno_workers.errors import InvalidInput, StepFailed
from agno_workers.teams.handover import handover, who_said_what
from agno_workers.teams.roles import role
from agno_workers.teams.spec import TeamSpec
from agno_workers.tools.result import to_text

MOST_ANSWERS = 3
"""How often a role is asked for an answer that can be used."""


class Mode(msgspec.Struct, metaclass=Fields, frozen=True):
    """How the members of a team work together. Its fields are its options."""

    word: ClassVar[str]

    def fault(self, _: TeamSpec, /) -> str | None:
        """Return a sentence about what can't work, or None."""
        return None

    def roles(self, team: TeamSpec) -> Mapping[str, Runnable]:
        """Return what it asks beside the members: agents named `TEAM:ROLE`."""
        raise NotImplementedError

    def run(self, meeting: Meeting) -> Any:
        """Return the content of the team's run. Called again from the top at each turn, as the function of a workflow."""
        raise NotImplementedError


class Asked(NamedTuple):
    """A question to one member or role."""

    id: str
    """The id of its step: `ann:2` for the second answer of ann."""
    who: str
    what: Runnable
    message: str


class Answer(NamedTuple):
    """The answer of a member or a role, or why there is none."""

    who: str
    value: Any = None
    failure: StepFailed | None = None
    is_used: bool = True
    """False: it came too late, or was cancelled."""

    @property
    def why(self) -> str:
        """The reason of a member without an answer."""
        error = (self.failure.error if self.failure else None) or {}
        return error.get("message") or "it was cancelled"

    @property
    def text(self) -> str:
        """The answer as another agent reads it; a typed one is JSON."""
        return f"{self.who} gave no answer: {self.why}" if self.failure else to_text(self.value)


def told(answers: Sequence[Answer]) -> str:
    """Return who said what, for the next reader."""
    return who_said_what([(each.who, each.text) for each in answers])


class Meeting:
    """One pass through a mode. `record` is what it has written down, see docs/teams.md."""

    def __init__(self, team: TeamSpec, mode: Mode, roles: Mapping[str, Runnable], flow: Flow) -> None:
        self.team = team
        self.flow = flow
        self.roles = roles
        self.request = flow.input.text
        self.record: dict[str, Any] = {"mode": mode.word, "said": []}
        flow.keep_record(self.record)
        self._files = [part for part in flow.input.parts if not isinstance(part, Text)]
        self._options = {} if team.member_timeout_s is None else {"timeout_s": team.member_timeout_s}

    def some(self, answers: list[Answer]) -> list[Answer]:
        """Return the answers. Raises StepFailed when there is none among them: nothing is lost, and the leader has nothing to read."""
        if all(each.failure for each in answers):
            reasons = "; ".join(f"{each.who}: {each.why}" for each in answers)
            raise StepFailed(
                f"no member of team {self.team.name!r} answered ({reasons}).", reason="no_answer"
            )
        return answers

    def ask_all(self, asked: Sequence[Asked], join: Join = BEST_EFFORT) -> list[Answer]:
        """Ask side by side. A member that fails is an answer with its failure; a quorum that can't be reached raises StepFailed."""
        ended: dict[str, Answer] = {}

        def branch(each: Asked) -> None:
            (ended[each.id],) = self._gather([each], self._options)
            if failure := ended[each.id].failure:
                raise failure

        used = [True] * len(asked)
        try:
            if join is BEST_EFFORT:  # one turn when all have ended
                ended = dict(
                    zip((each.id for each in asked), self._gather(asked, self._options), strict=True)
                )
            else:
                found = self.flow.parallel(*(partial(branch, each) for each in asked), join=join)
                used = [each.is_used for each in found]
        finally:
            answers = [
                ended.get(each.id, Answer(each.who, failure=_NOT_NEEDED))._replace(is_used=is_used)
                for each, is_used in zip(asked, used, strict=True)
            ]
            for each, answer in zip(asked, answers, strict=True):
                self._write(each.id, answer)
        return answers

    def ask(self, id: str, who: str, message: str, what: Runnable | None = None) -> Answer:
        """Ask a role, or `what`, and wait for the answer."""
        options = self._options if what else {}  # only members are limited in time
        (answer,) = self._gather([Asked(id, who, what or self.roles[who], message)], options)
        self._write(id, answer)
        return answer

    def decide(self, id: str, who: str, **message: str) -> Any:
        """Return the value of a role's answer to the request. Raises StepFailed: then the run fails, and a retry asks this role alone again."""
        answer = self.ask(id, who, handover(self.request, **message))
        if answer.failure:
            raise answer.failure
        return answer.value

    def decide_until(
        self, id: str, who: str, fault: Callable[[Any], str], reason: str, *, work: str = "", **message: str
    ) -> Any:  # fmt: skip
        """Return the value of a role's answer that has no fault. One with a fault is asked for again, with it, up to 3 answers in all."""
        more = work
        for number in range(1, MOST_ANSWERS + 1):
            step = id if number == 1 else f"{id}:{number}"
            value = self.decide(step, who, work=more, **message)
            if not (wrong := fault(value)):
                return value
            said = who_said_what([("Your last answer", to_text(value)), ("It can't be used", f"{wrong}. Write the whole answer again.")])  # fmt: skip
            more = f"{work}\n\n{said}"
        raise StepFailed(
            f"the {who} of team {self.team.name!r} gave {MOST_ANSWERS} answers that can't be used, the last one because {wrong}.",
            reason=reason, step=step,
        )  # fmt: skip

    def _gather(self, asked: Sequence[Asked], options: Mapping[str, float]) -> list[Answer]:
        started, refused = {}, {}
        for each in asked:
            try:
                started[each.id] = self.flow.start(each.id, each.what, each.message, *self._files, **options)
            except InvalidInput as error:  # a workflow whose function takes other input
                refused[each.id] = StepFailed(str(error), reason="misfit", error=error.to_json())
        ended = dict(zip(started, self.flow.gather(*started.values(), join=BEST_EFFORT), strict=True))
        return [
            Answer(each.who, failure=refused[each.id])
            if each.id in refused
            else Answer(each.who, ended[each.id].value, ended[each.id].error)
            for each in asked
        ]

    def _write(self, id: str, answer: Answer) -> None:
        said: dict[str, Any] = {"id": id, "who": answer.who}
        if answer.failure is None:
            said |= {"status": "done" if answer.is_used else "late", "content": answer.value}
        elif (answer.failure.error or {}).get("type") in (None, "RunCancelled"):
            said["status"] = "cancelled"
        else:
            said |= {"status": "failed", "error": answer.why}
        self.record["said"].append(said)


def leader(team: TeamSpec, instructions: str, **fields: Any) -> Agent:
    """Return the agent that answers for the team."""
    return role(team, "leader", instructions=instructions, output_schema=team.output_schema, **fields)


class Broadcast(Mode, frozen=True):
    """All members get the same task, and the leader makes one answer of theirs."""

    word: ClassVar[str] = "broadcast"

    def roles(self, team: TeamSpec) -> Mapping[str, Runnable]:
        return {"leader": leader(team, "You lead a team whose members have all worked on the same request.")}

    def run(self, meeting: Meeting) -> Any:
        message = handover(meeting.request)
        asked = [Asked(f"{each.name}:1", each.name, each, message) for each in meeting.team.members]
        answers = meeting.some(meeting.ask_all(asked))
        return meeting.decide("answer", "leader", work=told(answers), expectations=_ONE_ANSWER)


_NOT_NEEDED = StepFailed("it was not needed any more", reason="cancelled")
_ONE_ANSWER = (
    "One answer for the person who asked, made of what the members said. Name the member whom you take something from, say where they "
    "disagree, and which of them gave no answer."
)


def whole(value: Any, name: str) -> str | None:
    """Return what is wrong with an option that counts; None if it fits."""
    if type(value) is int and 1 <= value <= 100:
        return None
    return f"{name} must be a whole number from 1 to 100, got {value!r}"


def own_role(team: TeamSpec, name: str, given: Any, instructions: str, **fields: Any) -> Agent:
    """Return the agent of a role that an option of the mode names, by an agent or a model; None: the team's leader."""
    if isinstance(given, Runnable) and not isinstance(given, Agent):
        raise InvalidInput(
            f"team {team.name!r}: {name}= takes an agent or a model, got the {given.kind} {given.name!r}.",
            team=team.name,
        )
    return role(team, name, model=given, instructions=instructions, **fields)
