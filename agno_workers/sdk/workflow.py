"""The public Workflow: the value with Celery's verbs, and the decorator that makes one of a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack, overload

from agno_workers.core.request import RunOptions
from agno_workers.sdk.verbs import RunResult, Verbs
from agno_workers.workflows import workflow as core


class Workflow(core.Workflow, Verbs, frozen=True, kw_only=True):
    """The definition of a workflow, with the verbs that submit runs."""

    def delay(self, *input: Any, **options: Unpack[RunOptions]) -> RunResult:
        """Submit a run. When this returns, the run is in Postgres and will end.

        Raises InvalidInput (nothing was stored), also for input that does not fit `input_schema`, or Unavailable (safe to repeat with an
        idempotency key).
        """
        self.check_input(*input)
        return super().delay(*input, **options)


@overload
def workflow(function: Callable[..., Any], /) -> Workflow: ...
@overload
def workflow(**options: Any) -> Callable[[Callable[..., Any]], Workflow]: ...
def workflow(
    function: Callable[..., Any] | None = None, /, **options: Any
) -> Workflow | Callable[[Callable[..., Any]], Workflow]:
    """Make a workflow of a function: `@workflow`, or `@workflow(name="onboard")`."""

    def decorate(function: Callable[..., Any]) -> Workflow:
        given = {"name": function.__name__, "description": function.__doc__ or "", **options}
        return Workflow(function=function, **given)

    return decorate if function is None else decorate(function)
