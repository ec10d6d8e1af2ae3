"""Vote: members answer with a choice and evidence, and the choice with the most votes wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, make_dataclass
from functools import cache
from typing import Any, ClassVar, Literal

import msgspec

from agno_workers.core.flow import quorum
from agno_workers.core.runnable import Runnable
from agno_workers.errors import StepFailed
from agno_workers.teams.handover import handover, who_said_what
from agno_workers.teams.modes import Answer, Asked, Meeting, Mode, whole
from agno_workers.teams.roles import role, typed
from agno_workers.teams.spec import TeamSpec
from agno_workers.tools.result import to_json_text, to_text


@dataclass(frozen=True)
class Ballot:
    """A vote."""

    choice: Any
    evidence: str


class Vote(Mode, frozen=True):
    """Members answer with a choice and their evidence, and the choice with the most votes is the answer."""

    n: int | None = None
    """The number of votes, which members cast in turn, so that one member may be asked `n` times; None: one of each member."""
    quorum: int | None = None
    """The votes that are enough: what comes later is cancelled, and the run fails when so many can't come. None: all that come."""
    tie: Literal["leader", "fail", "first"] = "leader"
    """`leader`: the leader decides. `fail`: the run fails. `first`: the choice of the member that is listed first."""

    word: ClassVar[str] = "vote"

    def fault(self, team: TeamSpec, /) -> str | None:
        for name in ("n", "quorum"):
            if (value := getattr(self, name)) is not None and (wrong := whole(value, name)):
                return wrong
        if self.tie == "leader" and any(each.name == "leader" for each in team.members):
            return "a member is named 'leader', as the agent that decides a tie: rename it"
        votes = self.n or len(team.members)
        if votes < len(team.members):
            return f"n={self.n} is fewer than its {len(team.members)} members: leave n out, or drop members"
        if self.quorum and self.quorum > votes:
            return f"quorum={self.quorum} is more than its {votes} votes"
        if self.tie not in ("leader", "fail", "first"):
            return f"tie must be 'leader', 'fail' or 'first', got {self.tie!r}"
        return None

    def roles(self, team: TeamSpec) -> Mapping[str, Runnable]:
        choice = str if team.output_schema is None else team.output_schema
        ballot = _ballot_type(choice)
        voters = {each.name: typed(team, each, ballot) for each in team.members}
        if self.tie != "leader":
            return voters
        decides = "You lead a team that has voted, with a tie."
        return voters | {"leader": role(team, "leader", instructions=decides, output_schema=ballot)}

    def run(self, meeting: Meeting) -> Any:
        members = [each.name for each in meeting.team.members]
        message = handover(meeting.request, expectations=_VOTE)
        asked = [
            Asked(f"{name}:{place // len(members) + 1}", name, meeting.roles[name], message)
            for place in range(self.n or len(members))
            for name in [members[place % len(members)]]
        ]
        answers = self._answers(meeting, asked)
        cast = [(each, _ballot(each)) for each in meeting.some(answers) if each.is_used and not each.failure]
        votes: dict[str, list[tuple[Answer, Ballot]]] = {}
        for answer, ballot in cast:
            votes.setdefault(_key(ballot.choice), []).append((answer, ballot))
        meeting.record["votes"] = [
            {"choice": each[0][1].choice, "votes": len(each), "by": [answer.who for answer, _ in each]}
            for each in votes.values()
        ]
        most = max(map(len, votes.values()))
        tied = {key: each[0][1].choice for key, each in votes.items() if len(each) == most}
        meeting.record["decided_by"] = "votes" if len(tied) == 1 else self.tie
        if len(tied) == 1 or self.tie == "first":
            return next(iter(tied.values()))
        if self.tie == "fail":
            choices = ", ".join(map(to_text, tied.values()))
            raise StepFailed(
                f"the vote of team {meeting.team.name!r} is a tie of {choices}, with {most} of {len(cast)} votes each.", reason="tie"
            )  # fmt: skip
        said = [(answer.who, f"{to_text(ballot.choice)}\n{ballot.evidence}") for answer, ballot in cast]
        said += [(each.who, each.text) for each in answers if each.failure]
        said.append(
            ("The choices with the most votes", "\n".join(f"- {to_text(each)}" for each in tied.values()))
        )

        def fault(decision: Any) -> str:
            return "" if _key(decision.choice) in tied else f"{to_text(decision.choice)!r} is not among them"

        work = who_said_what(said)
        decision = meeting.decide_until("answer", "leader", fault, "tie", work=work, expectations=_DECIDE)
        meeting.record["evidence"] = decision.evidence
        return tied[_key(decision.choice)]

    def _answers(self, meeting: Meeting, asked: Sequence[Asked]) -> list[Answer]:
        """Ask for the votes. Raises StepFailed when the quorum can't be reached."""
        if self.quorum is None:
            return meeting.ask_all(asked)
        try:
            return meeting.ask_all(asked, quorum(self.quorum))
        except StepFailed as error:
            reasons = "; ".join(
                f"{each['who']}: {each['error']}" for each in meeting.record["said"] if "error" in each
            )
            raise StepFailed(
                f"team {meeting.team.name!r} can't have the {self.quorum} votes of its quorum any more ({reasons}).",
                reason=error.reason,
            ) from error


@cache
def _ballot_type(choice: Any) -> type:
    return make_dataclass("Ballot", [("choice", choice), ("evidence", str)], frozen=True)


def _ballot(answer: Answer) -> Ballot:
    """Return the vote of a member. Where it has a type of its own, or none, its whole answer is the choice."""
    value = answer.value
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except msgspec.DecodeError:
            value = answer.value.strip()
    if isinstance(value, Mapping) and "choice" in value:
        return Ballot(value["choice"], to_text(value.get("evidence")))
    if hasattr(value, "choice"):
        return Ballot(value.choice, to_text(getattr(value, "evidence", "")))
    return Ballot(value, "")


def _key(choice: Any) -> str:
    """Return the same text for choices that are the same."""
    return (
        " ".join(choice.casefold().split()).rstrip(".! ") if isinstance(choice, str) else to_json_text(choice)
    )


_VOTE = "Your vote: one `choice`, as short and plain as the request allows, so that it can be counted, and the `evidence` for it."
_DECIDE = "Your `choice`, one of those with the most votes, and the `evidence` that decides."
