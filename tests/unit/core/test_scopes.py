"""The owners of what runs share."""

from __future__ import annotations

from typing import Any

import pytest

from agno_workers.core.agent import Memory
from agno_workers.core.scopes import TeamPlace
from agno_workers.core.state import owner_of
from agno_workers.errors import InvalidInput
from agno_workers.sessions import memory_store

TEAM = TeamPlace("crew", "team-run", "chat")
RUN: dict[str, Any] = {"session_id": "", "user_id": None, "agent": "a", "run_id": "r"}


@pytest.mark.parametrize(
    ("scope", "owner"),
    [("team", "chat"), ("agent", "a"), ("run", "r"), ("global", "")],
)
def test_state_of_a_team_belongs_to_the_session_of_its_run(scope: str, owner: str) -> None:
    assert owner_of(scope, **RUN, team=TEAM) == owner


@pytest.mark.parametrize("session_id", [None, ""])
def test_state_of_a_team_without_a_session_belongs_to_its_run(session_id: str | None) -> None:
    assert owner_of("team", **RUN, team=TeamPlace("crew", "team-run", session_id)) == "team-run"


@pytest.mark.parametrize(
    ("scope", "move"), [("team", "submit it to a team"), ("session", "submit it with session_id=")]
)
def test_run_without_an_owner_is_told_what_to_do(scope: str, move: str) -> None:
    with pytest.raises(InvalidInput, match=f"run r has no {scope}, .*{move}"):
        owner_of(scope, **RUN)


@pytest.mark.parametrize(("team", "owner"), [(TEAM, "team:crew"), (None, "None")])
def test_memories_of_a_team_belong_to_its_name(team: TeamPlace | None, owner: str) -> None:
    assert str(memory_store.owner_of(Memory(scope="team"), "default", "a", "ann", "s", team, "r")) == owner
