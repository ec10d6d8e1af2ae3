"""Teams: agents and teams that work on one input together.

Modes with options, for `Team(mode=...)`: `from agno_workers.teams import debate, supervise, vote`.
"""

from agno_workers.teams.debating import Debate as debate
from agno_workers.teams.supervising import Supervise as supervise
from agno_workers.teams.voting import Vote as vote

__all__ = ["debate", "supervise", "vote"]
