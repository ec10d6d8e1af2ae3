"""People in the loop: the tool calls and the approvals of workflows that wait for a person, and the answers.

    for requirement in run.requirements:
        print(requirement.tool, requirement.arguments)
        requirement.approve(by="ann")          # or reject("too much"), answer({"iban": "..."}), complete(result), resolve(...)

Each answer is one transaction. The first answer wins; a later one, or one after the run's end, raises NotWaiting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from agno_workers.core.messages import Message, ToolResult
from agno_workers.core.run import StepKind, StepStatus, WaitsFor
from agno_workers.core.step import ExpiredWait
from agno_workers.database.pool import to_json
from agno_workers.errors import InvalidInput, NotWaiting
from agno_workers.repositories import Database
from agno_workers.runs.queries import Waiting
from agno_workers.signals import signal


class Requirement:
    """A tool call that waits for a person, or for an execution outside; or an approval of a workflow. Each verb raises NotWaiting when it is
    too late.
    """

    def __init__(self, waiting: Waiting, database: Database) -> None:
        self._waiting = waiting
        self._database = database

    def __repr__(self) -> str:
        return f"<Requirement {self.id}: {self.tool} needs {self.needs}>"

    @property
    def id(self) -> str:
        """The step's id: the idempotency key of the call."""
        return self._waiting.step_id

    @property
    def run_id(self) -> str:
        """The run that waits."""
        return self._waiting.run_id

    @property
    def facts(self) -> Waiting:
        """The row: agent, key, since when the call waits, when it expires, which fields a person fills in."""
        return self._waiting

    @property
    def tool(self) -> str:
        """The name of the tool; for an approval of a workflow the question."""
        return self._waiting.name

    @property
    def needs(self) -> WaitsFor:
        """`confirmation`, `answer`, `execution` or `resolution`."""
        return self._waiting.waits_for

    @property
    def arguments(self) -> dict[str, Any]:
        """The model's arguments; empty when they are not a JSON object. For an approval of a workflow, what it shows."""
        try:
            return msgspec.json.decode(self.arguments_json or "{}", type=dict[str, Any])
        except msgspec.MsgspecError:
            return {}

    @property
    def arguments_json(self) -> str:
        """The whole arguments as the model wrote them, also when they are not a JSON object."""
        return self._waiting.call.arguments

    def approve(self, *, by: str | None = None, note: str | None = None) -> None:
        """Let the tool be called with the model's arguments, or the workflow go on. `by` and `note` are stored with the step."""
        if self._waiting.kind is StepKind.WAIT:
            self._decide(_answer("approved", by, note))
            return
        self._let_go([WaitsFor.CONFIRMATION], _answer("approved", by, note))

    def reject(self, note: str = "", *, by: str | None = None) -> None:
        """Refuse a call that waits for a confirmation, an answer or an execution; the model reads `note`. The step of a workflow fails with
        it.
        """
        self._must_need(WaitsFor.CONFIRMATION, WaitsFor.ANSWER, WaitsFor.EXECUTION)
        if self._waiting.kind is StepKind.WAIT:
            self._decide(_answer("rejected", by, note or None))
            return
        said = f"{self.tool} was not called: a person rejected it." + (f" {note}" if note else "")
        self._record(said, _answer("rejected", by, note), is_error=True)

    def answer(self, values: Mapping[str, Any], *, by: str | None = None) -> None:
        """Fill in the arguments that the tool leaves to a person, and let it be called. Raises InvalidInput for other fields, and
        for a value of another type than the argument's."""
        fields = self._waiting.policy.fields
        if set(values) != set(fields) and self.needs is WaitsFor.ANSWER:
            raise InvalidInput(
                f"{self.tool} asks for {', '.join(fields)}, got {', '.join(sorted(values)) or 'nothing'}: pass each of them, and no other.",
                step_id=self.id,
            )
        for field, value in values.items():
            if wrong := _misfit(value, self._waiting.policy.types.get(field)):
                raise InvalidInput(f"{self.tool}: {field} must be {wrong}, got {value!r}.", step_id=self.id)
        self._let_go([WaitsFor.ANSWER], _answer("answered", by, None) | {"values": dict(values)})

    def complete(self, result: Any, *, is_error: bool = False, by: str | None = None) -> None:
        """Record the result of a call that was executed outside; the model reads it, as JSON unless it is text. For a workflow, it is the
        result of the step.
        """
        self._must_need(WaitsFor.EXECUTION)
        self._record(self._said(result, is_error), _answer("completed", by, None), is_error=is_error)

    def resolve(
        self, happened: bool, result: Any = None, *, again: bool = False, by: str | None = None
    ) -> None:
        """Report whether an interrupted `once` tool took effect. If it `happened`, the model reads `result`; if not, the tool is
        called now (`again`), or the model reads that it did not take effect.
        """
        self._must_need(WaitsFor.RESOLUTION)
        if happened:
            is_told = result is None and self._waiting.arrival is None
            said = "It took effect." if is_told else self._said(result)
            self._record(said, _answer("happened", by, None), is_error=False)
        elif again:
            self._let_go([WaitsFor.RESOLUTION], _answer("again", by, None))
        else:
            self._record(
                f"{self.tool} did not take effect.", _answer("did not happen", by, None), is_error=True
            )

    def _said(self, result: Any, is_error: bool = False) -> str:
        """Return a result as a model reads it, or as JSON for a workflow."""
        return _text(result, as_json=self._waiting.arrival is not None and not is_error)

    def _decide(self, answer: dict[str, Any]) -> None:
        if not self._database.journal.answer_approval(
            self.id, answer["verdict"], answer["by"], answer["note"]
        ):
            raise self._too_late()
        signal("answer.recorded")

    def _must_need(self, *needs: WaitsFor) -> None:
        if self.needs not in needs:
            raise NotWaiting(
                f"step {self.id} ({self.tool}) waits for {_A[self.needs]}: {_MOVES[self.needs]}.",
                step_id=self.id,
            )

    def _let_go(self, needs: Sequence[WaitsFor], answer: dict[str, Any]) -> None:
        self._must_need(*needs)
        if not self._database.journal.answer(self.id, needs, answer, self._waiting.attempt):
            raise self._too_late()
        signal("answer.recorded")

    def _record(self, said: str, answer: dict[str, Any], *, is_error: bool) -> None:
        message = Message("tool", (ToolResult(self._waiting.call.id, self.tool, said, is_error),))
        error = {"type": answer["verdict"], "message": said, "ids": {}} if is_error else None
        waited = ExpiredWait(
            self.id,
            self.run_id,
            self._waiting.generation,
            StepKind.TOOL,
            self.tool,
            self._waiting.seq,
            self.needs,
            self._waiting.attempt,
            arrival=self._waiting.arrival,
        )
        limit = self._database.journal.offload_tokens(self.run_id)
        recorded = self._database.journal.finish_tool(
            waited, message, error, StepStatus.DONE, answer=answer, offload_tokens=limit
        )
        if not recorded.recorded:
            raise self._too_late()
        signal("answer.recorded")
        self._database.submissions.wake_keeper()

    def _too_late(self) -> NotWaiting:
        return NotWaiting(
            f"step {self.id} ({self.tool}) does not wait any more: it was answered, it expired, or its run has ended. "
            f"`agno-workers runs show {self.run_id}` shows the outcome.",
            step_id=self.id,
            run_id=self.run_id,
        )


_A = {
    WaitsFor.CONFIRMATION: "a confirmation",
    WaitsFor.ANSWER: "an answer",
    WaitsFor.EXECUTION: "an execution outside",
    WaitsFor.RESOLUTION: "a report whether it took effect",
    WaitsFor.RUN: "a delegated run",
}
_MOVES = {
    WaitsFor.CONFIRMATION: "approve or reject it",
    WaitsFor.ANSWER: "answer or reject it",
    WaitsFor.EXECUTION: "complete or reject it",
    WaitsFor.RESOLUTION: "resolve it",
    WaitsFor.RUN: "it ends with that run",
}


_KINDS: dict[str, tuple[type, str]] = {
    "integer": (int, "a whole number"),
    "number": (float, "a number"),
    "boolean": (bool, "true or false"),
    "string": (str, "text (digits in quotes are text)"),
    "array": (list, "a list"),
    "object": (dict, "a JSON object"),
}


def _misfit(value: Any, kind: str | None) -> str | None:
    """Return what an argument of this JSON type must be, or None for a value that the tool will take, as far as its type tells."""
    if kind not in _KINDS:
        return None
    from pydantic import TypeAdapter, ValidationError  # noqa: PLC0415 - only those who answer need it

    expected, words = _KINDS[kind]
    try:
        TypeAdapter(expected).validate_python(value)
    except ValidationError:
        return words
    return None


def _answer(verdict: str, by: str | None, note: str | None) -> dict[str, Any]:
    return {"verdict": verdict, "by": by, "note": note}


def _text(result: Any, *, as_json: bool) -> str:
    if isinstance(result, str) and not as_json:
        return result
    try:
        return to_json(result).decode()
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"a result of type {type(result).__name__} can't be kept as JSON: {error}. Pass text or JSON values."
        ) from error
