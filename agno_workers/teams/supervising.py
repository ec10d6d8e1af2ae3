"""Supervise: members submit, a reviewer approves, asks for a revision or rejects, and the supervisor decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from agno_workers.core import checks
from agno_workers.core.runnable import Runnable
from agno_workers.teams.handover import handover, who_said_what
from agno_workers.teams.modes import Answer, Meeting, Mode, leader, own_role, told, whole
from agno_workers.teams.spec import TeamSpec


@dataclass(frozen=True)
class Verdict:
    """The reviewer's judgement of a submission."""

    verdict: Literal["approve", "revise", "reject"]
    feedback: str


class Supervise(Mode, frozen=True):
    """Members submit their work, a reviewer judges it, and the leader, who supervises them, decides."""

    criteria: str | Sequence[str] = ""
    """The conditions that a submission must meet: members and reviewer read them."""
    reviewer: Any = None
    """An agent or a model; None: the team's leader."""
    rounds: int = 3
    """The most submissions of each member."""

    word: ClassVar[str] = "supervise"

    def fault(self, _: TeamSpec, /) -> str | None:
        if wrong := checks.instructions(self.criteria):
            return f"criteria {wrong}"
        return whole(self.rounds, "rounds")

    def roles(self, team: TeamSpec) -> Mapping[str, Runnable]:
        return {
            "reviewer": own_role(
                team, "reviewer", self.reviewer, "You review the work of others.", output_schema=Verdict
            ),
            "leader": leader(team, "You supervise a team whose members have submitted their work."),
        }

    def run(self, meeting: Meeting) -> Any:
        lines = [self.criteria] if isinstance(self.criteria, str) else [f"- {each}" for each in self.criteria]
        criteria = "\n".join(lines)
        verdicts: list[dict[str, Any]] = []
        meeting.record["verdicts"] = verdicts
        tracks = [partial(self._track, meeting, each, criteria, verdicts) for each in meeting.team.members]
        submissions = meeting.flow.parallel(*tracks)
        meeting.some(submissions)
        ends = {each["who"]: _told(each) for each in verdicts}
        work = who_said_what(
            [
                (each.who, f"{ends.get(each.who, 'It was not reviewed.')}\n\n{each.text}")
                for each in submissions
            ]
        )
        return meeting.decide("answer", "leader", work=work, requirements=criteria, expectations=_DECIDE)

    def _track(
        self, meeting: Meeting, member: Runnable, criteria: str, verdicts: list[dict[str, Any]]
    ) -> Answer:
        """Let one member submit until the reviewer has a final verdict, and return the last submission."""
        work, last = "", Answer(member.name)
        for number in range(1, self.rounds + 1):
            message = handover(meeting.request, work=work, requirements=criteria)
            answer = meeting.ask(f"{member.name}:{number}", member.name, message, member)
            verdict = {"who": member.name, "round": number}
            if answer.failure:
                if number == 1:
                    return answer
                verdicts.append(verdict | {"verdict": "none", "feedback": f"no revision came: {answer.why}"})
                return last
            last = answer
            message = handover(
                meeting.request, work=told([answer]), requirements=criteria, expectations=_REVIEW
            )
            review = meeting.ask(f"review:{member.name}:{number}", "reviewer", message)
            if review.failure:
                verdicts.append(verdict | {"verdict": "none", "feedback": f"the review failed: {review.why}"})
                return last
            verdicts.append(verdict | {"verdict": review.value.verdict, "feedback": review.value.feedback})
            if review.value.verdict != "revise":
                return last
            work = who_said_what(
                [("Your last answer", answer.text), ("The reviewer wants it revised", review.value.feedback)]
            )
        return last


def _told(verdict: Mapping[str, Any]) -> str:
    said = {
        "approve": "The reviewer approved it",
        "revise": "The reviewer still wanted it revised",
        "reject": "The reviewer rejected it",
        "none": "There is no verdict",
    }[verdict["verdict"]]
    return f"{said} (round {verdict['round']}): {verdict['feedback']}"


_REVIEW = (
    "Judge the work by the requirements. `approve` it if it meets them; `revise` if its author can mend it, and say in `feedback` what to change; "
    "`reject` it if no revision would help, and say why."
)
_DECIDE = (
    "Your decision, which is the answer to the request: use what was approved, and say what was rejected or is missing. You may use work that was "
    "not approved, if you name it as such."
)
