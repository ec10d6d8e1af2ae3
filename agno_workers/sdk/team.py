"""The public Team: the value with Celery's verbs."""

from __future__ import annotations

from agno_workers.sdk.verbs import Verbs
from agno_workers.teams import team as core


class Team(core.Team, Verbs, frozen=True, kw_only=True):
    """The definition of a team, with the verbs that submit runs."""
