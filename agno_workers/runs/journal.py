"""The run store as the engine sees it; see `core.ports.Journal`."""

from agno_workers.runs.claim import Claims
from agno_workers.runs.commit import Commits
from agno_workers.runs.control import Control


class RunJournal(Claims, Commits, Control):
    """Claims, results, and ends of runs."""
