"""Agents, teams and workflows: runs are runs of one of them, by its name, and all are used alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import msgspec

from agno_workers.core.run import RunKind


class Runnable(msgspec.Struct, frozen=True, kw_only=True):
    """An agent, a team or a workflow."""

    name: str
    """Unique among all that are imported; callers in other services use it."""
    description: str = ""
    """The work that it does, for an agent that delegates to it."""
    queue: str | None = None
    """The Celery queue of its turns; None: the settings' queue for agents."""

    kind: ClassVar[RunKind] = RunKind.AGENT

    @property
    def parts(self) -> Sequence[Runnable]:
        """The agents, teams and workflows that it starts: a worker that has it has them too."""
        return ()

    @property
    def input_json(self) -> dict[str, Any] | None:
        """The JSON schema of its input, for a model that calls it; None: text."""
        return None

    def encoded(self, input: Sequence[Any]) -> Sequence[Any]:
        """Return the inputs of a run for the arguments of a call. Raises InvalidInput for those that do not fit."""
        return input

    def compiled(self) -> Any:
        """Return how its turns are taken: an Agent, whose model chooses each move, or a Program."""
        raise NotImplementedError


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """Code that chooses the moves of a run."""

    name: str
    kind: RunKind
    body: Callable[[Any], Any]
    """Called at each turn with a Flow, see `core.flow`; it returns the content of the run."""
    queue: str | None = None
    deadline_s: float | None = None
    """Seconds that a run may take; None: no limit."""
    agent: Any = None
    """The Agent whose model does the background work that the ends of its runs ask for, such as learning; None: they ask for none."""
    declared: dict[str, Any] = {}
    """JSON about it, which is stored with its runs."""
    slow_s: float = 0.1
    """A turn whose code takes longer is reported, since it is executed again at each turn."""
    most_s: float = 300.0
    """A turn whose code takes longer fails the run: it may never end, and would keep its worker from other work."""
