"""Debate: members take positions, see those of the others and may change their minds, and a judge decides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from agno_workers.core.runnable import Runnable
from agno_workers.teams.handover import handover, who_said_what
from agno_workers.teams.modes import Answer, Asked, Meeting, Mode, own_role, whole
from agno_workers.teams.roles import typed
from agno_workers.teams.spec import TeamSpec
from agno_workers.tools.result import to_text


@dataclass(frozen=True)
class Position:
    """The view that a member takes."""

    position: str
    evidence: str
    changed_mind: bool
    why: str
    """Why it changed its mind."""


class Debate(Mode, frozen=True):
    """Members take positions side by side, see those of the others and may change their minds, and a judge decides."""

    rounds: int = 2
    """The most positions of each member; it ends earlier when nobody changes a mind."""
    judge: Any = None
    """An agent or a model; None: the team's leader."""

    word: ClassVar[str] = "debate"

    def fault(self, team: TeamSpec, /) -> str | None:
        if len(team.members) < 2:
            return "a debate takes at least two members"
        if any(each.name == "judge" for each in team.members):
            return "a member is named 'judge', as the agent that decides: rename it"
        return whole(self.rounds, "rounds")

    def roles(self, team: TeamSpec) -> Mapping[str, Runnable]:
        judge = own_role(team, "judge", self.judge, "You judge a debate.", output_schema=team.output_schema)
        return {each.name: typed(team, each, Position) for each in team.members} | {"judge": judge}

    def run(self, meeting: Meeting) -> Any:
        names = [each.name for each in meeting.team.members]
        held: dict[str, Position] = {}
        silent: dict[str, str] = {}
        changed: list[dict[str, Any]] = []
        meeting.record["changed"] = changed
        for number in range(1, self.rounds + 1):
            asked = [
                Asked(f"{name}:{number}", name, meeting.roles[name], _message(meeting, name, held)) for name in held or names
            ]  # fmt: skip
            answers, earlier = meeting.ask_all(asked), len(changed)
            for each in meeting.some(answers) if number == 1 else answers:
                if each.failure:
                    silent[each.who] = (
                        each.text if number == 1 else f"(no answer in round {number}: {each.why})"
                    )
                    continue
                before = held.get(each.who)
                now = held[each.who] = _position(each, before)
                if before and now.changed_mind and now.position != before.position:
                    changed.append(
                        {"who": each.who, "round": number, "from": before.position, "to": now.position, "why": now.why}
                    )  # fmt: skip
            if len(held) < 2 or (number > 1 and len(changed) == earlier):
                break
        told = {name: _told(each) for name, each in held.items()}
        said = [(name, "\n".join(filter(None, (told.get(name), silent.get(name))))) for name in names]
        minds = [
            f"- {each['who']}, in round {each['round']}, from {each['from']!r} to {each['to']!r}: {each['why']}"
            for each in changed
        ]
        if minds:
            said.append(("Minds that changed", "\n".join(minds)))
        return meeting.decide("judge", "judge", work=who_said_what(said), expectations=_JUDGE)


def _message(meeting: Meeting, name: str, held: Mapping[str, Position]) -> str:
    if not held:
        return handover(meeting.request, expectations=_POSITION)
    others = [(who, _told(each)) for who, each in held.items() if who != name]
    work = who_said_what([("Your position", _told(held[name])), *others])
    return handover(meeting.request, work=work, expectations=_AGAIN)


def _position(answer: Answer, before: Position | None = None) -> Position:
    """Return what a member holds now. An answer of another type, or of none, is the position itself."""
    value = answer.value
    if isinstance(value, Position):
        return value
    text = to_text(value)
    return Position(text, "", before is not None and before.position != text, "")


def _told(position: Position) -> str:
    return f"{position.position}\n{position.evidence}".rstrip()


_POSITION = (
    "Your `position` in one sentence, and the `evidence` for it. `changed_mind` is false, and `why` is empty."
)
_AGAIN = (
    "Your `position` now, in one sentence, and the `evidence` for it. Keep it, or change it for a good reason: then `changed_mind` is true, and "
    "`why` says what convinced you."
)
_JUDGE = "Your decision, which is the answer to the request. Name the evidence that decides, and whose it is."
