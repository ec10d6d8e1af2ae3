"""A workflow as a value: its steps, or the function that makes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

from agno_workers.core.agent import Limits
from agno_workers.core.fields import Fields
from agno_workers.core.run import RunKind
from agno_workers.core.runnable import Program, Runnable
from agno_workers.workflows.written import call


class Workflow(Runnable, metaclass=Fields, frozen=True, kw_only=True):
    """The definition of a workflow. Two workflows with equal fields are equal."""

    steps: Sequence[Any] = ()
    """Its steps, one after another: agents, teams, workflows, functions and elements such as `Parallel`."""
    function: Callable[..., Any] | None = None
    """The function of a written workflow, in place of `steps`; `@workflow` sets it."""
    limits: Limits = Limits()
    """Limits of each run: `deadline_s`, and `tokens` and `cost_usd` for all that it starts."""

    kind: ClassVar[RunKind] = RunKind.WORKFLOW

    def compiled(self) -> Program:
        assert self.function is not None
        return Program(
            name=self.name, kind=self.kind, body=partial(call, self.function), queue=self.queue, deadline_s=self.limits.deadline_s,
        )  # fmt: skip
