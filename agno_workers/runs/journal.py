"""The run store as the engine sees it; see `core.ports.Journal`."""

from typing import Any

from agno_workers.core.step import CommitResult
from agno_workers.runs.budget import Budgets
from agno_workers.runs.claim import Claims
from agno_workers.runs.commit import AnyStep, Commits
from agno_workers.runs.control import Control
from agno_workers.runs.mapping import MapItems
from agno_workers.runs.progress import ProgressReader


class RunJournal(Claims, Commits, Control, ProgressReader, Budgets, MapItems):
    """Claims, results, and ends of runs."""

    def _finish(self, step: AnyStep, *args: Any, **kwargs: Any) -> CommitResult:
        committed = super()._finish(step, *args, **kwargs)
        if committed.ended:
            self.transcripts.forget(step.run_id)
            self.forget_progress(step.run_id)
        return committed
