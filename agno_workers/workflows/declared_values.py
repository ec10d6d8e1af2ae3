"""The values between the steps of a declared workflow, in agno's words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic

from typing_extensions import TypeVar

from agno_workers.tools.result import to_json_text

T = TypeVar("T", default=Any)


@dataclass(frozen=True)
class StepOutput:
    """The result of a step. A function that is a step may return one, or its content alone."""

    content: Any = None
    """The value that the next step gets; of a `Parallel`, the contents of its steps by their names."""
    step_name: str | None = None
    """The name of the step."""
    step_id: str | None = None
    """The id of the step in the run, such as `research/3/draft`."""
    success: bool = True
    """False: the step failed; `on_error` decides what follows."""
    error: str | None = None
    """Why it failed."""
    stop: bool = False
    """True: the workflow ends after this step, with its content."""
    steps: list[StepOutput] = field(default_factory=list)
    """The outputs of the steps inside it; of a `Loop`, those of its last iteration."""


@dataclass(frozen=True)
class StepInput(Generic[T]):
    """The facts that a step sees: a function that is a step takes one, and evaluators, selectors and end conditions do.

    `StepInput[Order]` has an `input` of that type.
    """

    input: T
    """The input of the workflow; with an `input_schema` its value, else text."""
    previous_step_content: Any = None
    """The content of the step before."""
    previous_step_outputs: dict[str, StepOutput] = field(default_factory=dict)
    """The outputs of all steps before, by name; of two of one name the last."""
    additional_data: dict[str, Any] = field(default_factory=dict)
    """The metadata of the run."""
    run_id: str = ""
    """The run of the workflow."""
    session_id: str | None = None
    """The session of the run."""
    user_id: str | None = None
    """The person whom the run is for."""

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata of the run, as `additional_data`."""
        return self.additional_data

    def get_input_as_string(self) -> str:
        """Return the input as text: JSON if it is not text."""
        return as_text(self.input)

    def get_step_output(self, name: str) -> StepOutput | None:
        """Return the output of a step before, also of one inside another; None: it was not executed."""
        return self.previous_step_outputs.get(name) or _inside(
            list(self.previous_step_outputs.values()), name
        )

    def get_step_content(self, name: str) -> Any:
        """Return the content of a step before, also of one inside another; None: it was not executed."""
        output = self.get_step_output(name)
        return None if output is None else output.content

    def get_all_previous_content(self) -> str:
        """Return the contents of all steps before as one text, each below its name."""
        return in_sections({name: each.content for name, each in self.previous_step_outputs.items()})

    def get_last_step_content(self) -> Any:
        """Return the content of the step before."""
        return self.previous_step_content


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else to_json_text(value)


def in_sections(contents: dict[str, Any]) -> str:
    """Return contents below their names; those that are empty are left out."""
    found = {name: as_text(value) for name, value in contents.items() if value is not None}
    return "\n\n".join(f"=== {name} ===\n{text}" for name, text in found.items() if text.strip())


def _inside(outputs: list[StepOutput], name: str) -> StepOutput | None:
    for output in reversed(outputs):
        if found := next((each for each in output.steps if each.step_name == name), None):
            return found
        if found := _inside(output.steps, name):
            return found
    return None
