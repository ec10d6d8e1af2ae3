"""A workflow as a value: its steps, or the function that makes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import pydantic

from agno_workers.core.agent import Limits
from agno_workers.core.budget import check_prices
from agno_workers.core.fields import AGNO, Fields
from agno_workers.core.output import output_type
from agno_workers.core.request import check_name, first_message
from agno_workers.core.run import RunKind
from agno_workers.core.runnable import Program, Runnable
from agno_workers.errors import InvalidInput
from agno_workers.workflows import declared, declared_run
from agno_workers.workflows.written import call


class Workflow(Runnable, metaclass=Fields, frozen=True, kw_only=True):
    """The definition of a workflow. Two workflows with equal fields are equal."""

    steps: Sequence[Any] = ()
    """Its steps, one after another: agents, teams, workflows, functions and elements such as `Parallel`."""
    on_error: declared.OnError = "fail"
    """The policy for the failure of a step without one of its own: `fail`, `skip`, `retry`, or `compensate`, which undoes the steps before."""
    input_schema: Any = None
    """The type of its input, which is then JSON: a pydantic model, a dataclass, a TypedDict; None: text."""
    output: str | None = None
    """The name of the step whose content is that of the run; None: the last one."""
    function: Callable[..., Any] | None = None
    """The function of a written workflow, in place of `steps`; `@workflow` sets it."""
    limits: Limits = Limits()
    """Limits of each run: `deadline_s`, and `tokens` and `cost_usd` for all that it starts."""

    kind: ClassVar[RunKind] = RunKind.WORKFLOW
    agno: ClassVar[dict[str, str]] = {
        **{name: AGNO[name] for name in ("id", "db", "storage", "session_id", "user_id", "session_state", "stream", "stream_events")},
        "workflow_id": "name=...", "metadata": "an option of the submit, as in workflow.delay(..., metadata={...})",
        "add_workflow_history_to_steps": "history=History(...) of the agents, and a session_id at the submit",
    }  # fmt: skip

    def __post_init__(self) -> None:
        """Raise InvalidInput for what can't work, as far as it is known without a worker."""
        check_name(self.name, "Workflow(name=...)", "text that is not blank")
        if self.function is not None and self.steps:
            raise self.fault("it has steps and a function: leave one of them")
        if self.function is None:
            self._check_declared()
        check_prices(self, self.limits)

    def _check_declared(self) -> None:
        if not self.steps:
            raise self.fault('it has no steps: write Workflow(name="...", steps=[...])')
        try:
            self._schema()
        except InvalidInput as error:
            reason = "use a pydantic model, a dataclass, a TypedDict, or another type with a JSON schema"
            raise self.fault(f"input_schema={self.input_schema!r} is not a type of JSON: {reason}") from error
        try:
            declared.check(self.steps, self.on_error, self.output)
        except InvalidInput as error:
            raise self.fault(str(error)) from error

    def fault(self, fault: str) -> InvalidInput:
        """Return the error about this workflow."""
        end = "" if fault.endswith("?") else "."
        return InvalidInput(f"workflow {self.name!r}: {fault}{end}", workflow=self.name)

    @property
    def parts(self) -> Sequence[Runnable]:
        if self.function is not None:
            return ()
        used = [part for _, found in declared.placed(self.steps) for part in declared.parts(found)]
        return tuple(each for each in used if isinstance(each, Runnable))

    def check_input(self, *input: Any) -> None:
        """Raise InvalidInput for input that does not fit `input_schema`, which a run would find out."""
        if self.input_schema is not None and self.function is None:
            declared_run.read_input(self.name, self._schema(), first_message(input, self.name))

    def _schema(self) -> pydantic.TypeAdapter[Any] | None:
        return None if self.input_schema is None else output_type(self.name, self.input_schema).answer

    def compiled(self) -> Program:
        if self.function is not None:
            body: Callable[[Any], Any] = partial(call, self.function)
            facts: dict[str, Any] = {}
        else:
            plan = declared_run.Declared(self.name, self.steps, self.on_error, self.output, self._schema())
            body = partial(declared_run.run, plan)
            facts = {"steps": [each.id for each in declared.placed(self.steps) if each.id]}
        return Program(
            name=self.name, kind=self.kind, body=body, queue=self.queue, deadline_s=self.limits.deadline_s, declared=facts,
        )  # fmt: skip
