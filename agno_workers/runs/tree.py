"""A run with its steps and the runs that they started, level by level."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from agno_workers.core.run import Run, Step


class RunTree(msgspec.Struct, frozen=True):
    """A run, its steps, and the runs that it started."""

    run: Run
    """The run at the top."""
    steps: tuple[Step, ...] = ()
    """Its steps, in the order of their creation."""
    children: tuple[RunTree, ...] = ()
    """The delegated runs, in the order of their steps."""
    is_whole: bool = True
    """False: the tree has more runs than were asked for; the lowest ones are missing."""

    def walk(self) -> Iterator[RunTree]:
        """Yield this run and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()

    def child(self, step: Step) -> RunTree | None:
        """Return the run that a step started."""
        return next((each for each in self.children if each.run.id == step.child_run_id), None)
