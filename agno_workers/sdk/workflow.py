"""The public Workflow: the value with Celery's verbs, and the decorator that makes one of a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Unpack, overload

from celery.canvas import Signature

from agno_workers.core.inputs import inputs_of
from agno_workers.core.request import RunOptions
from agno_workers.errors import InvalidInput
from agno_workers.sdk.batch import Batch
from agno_workers.sdk.verbs import RunResult, Verbs
from agno_workers.workflows import workflow as core


class Workflow(core.Workflow, Verbs, frozen=True, kw_only=True):
    """The definition of a workflow, with the verbs that submit runs. Arguments that have types are checked before the submit."""

    def delay(self, *input: Any, **options: Unpack[RunOptions]) -> RunResult:
        """Submit a run. When this returns, the run is in Postgres and will end.

        Raises InvalidInput (nothing was stored), also for input that does not fit, or Unavailable (safe to repeat with an idempotency key).
        """
        return super().delay(*self.encoded(input), **options)

    def apply_async(self, args: Any = (), kwargs: dict[str, Any] | None = None, **options: Any) -> RunResult:
        """Submit as `delay` does, with Celery's options, as an agent does."""
        return super().apply_async(
            self.encoded(args) if isinstance(args, list | tuple) else args, kwargs, **options
        )

    def s(self, *input: Any, **options: Unpack[RunOptions]) -> Signature:
        """Return a signature as an agent does. In a chain, the result of the task before is the one argument."""
        return super().s(*(self.encoded(input) if input else ()), **options)

    def map(self, inputs: Iterable[Any], **options: Any) -> Batch:
        """Submit a run for each input in one transaction, as an agent does."""
        return super().map((self.encoded([each])[0] for each in inputs), **options)


@overload
def workflow(function: Callable[..., Any], /) -> Workflow: ...
@overload
def workflow(**options: Any) -> Callable[[Callable[..., Any]], Workflow]: ...
def workflow(
    function: Callable[..., Any] | None = None, /, **options: Any
) -> Workflow | Callable[[Callable[..., Any]], Workflow]:
    """Make a workflow of a function: `@workflow`, or `@workflow(name="onboard", limits=Limits(deadline_s=3600), queue="flows")`."""

    def decorate(function: Callable[..., Any]) -> Workflow:
        if not inspect.isfunction(function):
            raise InvalidInput(f"@workflow decorates a function, got {function!r}.")
        given = {"name": function.__name__, "description": function.__doc__ or "", **options}
        inputs_of(given["name"], function)  # raises now for a function that can't be a workflow
        return Workflow(function=function, **given)

    return decorate if function is None else decorate(function)
