"""A workflow as a value: its steps, or the function that makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from agno_workers.core.agent import Limits
from agno_workers.core.budget import check_prices
from agno_workers.core.checks import misfit
from agno_workers.core.fields import AGNO, Fields
from agno_workers.core.flow import Flow
from agno_workers.core.inputs import Inputs, input_of, inputs_of
from agno_workers.core.request import check_name
from agno_workers.core.run import RunKind
from agno_workers.core.runnable import Program, Runnable
from agno_workers.errors import InvalidInput
from agno_workers.workflows import declared, declared_run


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
    function: Any = None
    """The function of a written workflow, in place of `steps`; `@workflow` sets it."""
    limits: Limits = Limits()
    """Limits of each run: `deadline_s`, and `tokens` and `cost_usd` for all that it starts."""

    kind: ClassVar[RunKind] = RunKind.WORKFLOW
    agno: ClassVar[dict[str, str]] = {
        **{name: AGNO[name] for name in ("id", "db", "storage", "session_id", "user_id", "session_state", "stream", "stream_events")},
        "workflow_id": "name=...", "metadata": "an option of the submit, as in workflow.delay(..., metadata={...})",
        "store_events": "handle.events(): all are stored", "dependencies": "context=Context({...}) of the agents",
        "add_workflow_history_to_steps": "history=History(...) of the agents, and a session_id at the submit",
    }  # fmt: skip

    def __post_init__(self) -> None:
        """Raise InvalidInput for what can't work, as far as it is known without a worker."""
        check_name(self.name, "Workflow(name=...)", "text that is not blank")
        if wrong := misfit(type(self), self):
            raise self.fault(f"{wrong[0]} {wrong[1]}")
        for name in ("turns", "tool_calls", "on_limit"):
            if getattr(self.limits, name) != getattr(Limits(), name):
                raise self.fault(f"limits.{name} is for agents: set it on those that the steps run")
        if self.function is not None and self.steps:
            raise self.fault("it has steps and a function: leave one of them")
        if self.function is None:
            self._check_declared()
        check_prices(self, self.limits)

    def _check_declared(self) -> None:
        if not self.steps:
            raise self.fault('it has no steps: write Workflow(name="...", steps=[...])')
        try:
            _ = self._inputs
        except (InvalidInput, TypeError) as error:
            reason = "use a pydantic model, a dataclass, a TypedDict, or another type with a JSON schema"
            raise self.fault(f"input_schema={self.input_schema!r} is not a type of JSON: {reason}") from error
        try:
            declared.check(self.steps, self.on_error, self.output)
        except InvalidInput as error:
            raise self.fault(str(error)) from error

    def fault(self, fault: str) -> InvalidInput:
        """Return the error about this workflow."""
        end = "" if fault.endswith(("?", ".")) else "."
        return InvalidInput(f"workflow {self.name!r}: {fault}{end}", workflow=self.name)

    @property
    def parts(self) -> Sequence[Runnable]:
        if self.function is not None:
            return ()
        used = [declared.called_by(found) for _, found in declared.placed(self.steps)]
        return tuple(each for each in used if isinstance(each, Runnable))

    @property
    def _inputs(self) -> Inputs | None:
        """The types of its input; None: text."""
        if self.function is not None:
            return inputs_of(self.name, self.function)
        return None if self.input_schema is None else input_of(self.name, self.input_schema)

    def encoded(self, input: Sequence[Any]) -> Sequence[Any]:
        return input if self._inputs is None else self._inputs.encoded(input)

    @property
    def input_json(self) -> dict[str, Any] | None:
        return None if self._inputs is None else self._inputs.schema()

    def compiled(self) -> Program:
        inputs, function = self._inputs, self.function

        def body(flow: Flow) -> Any:
            given = [flow.input.text] if inputs is None else inputs.values(flow.input.text)
            if function is not None:
                return function(flow, *given)
            return declared_run.run(flow, self.steps, given[0], self.on_error, self.output)

        steps = [key for key, _ in declared.placed(self.steps) if key]
        return Program(
            name=self.name, kind=self.kind, body=body, queue=self.queue, deadline_s=self.limits.deadline_s,
            declared={"steps": steps} if function is None else {},
        )  # fmt: skip
