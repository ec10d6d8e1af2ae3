"""A model that answers from a script, for tests, demos and benchmarks without a provider."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

import msgspec

from agno_workers.core.messages import (
    AnyPart,
    Delta,
    Emit,
    Message,
    ModelRequest,
    Reasoning,
    Reply,
    StopReason,
    Text,
    ToolCall,
    Usage,
)
from agno_workers.errors import InvalidInput
from agno_workers.models import faults


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of a scripted model."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    """Tools to call in parallel: name and arguments."""
    delay_s: float = 0.0
    """Seconds before the answer."""
    stop: StopReason | None = None
    """None: TOOL_CALLS with calls, else END."""
    error: Exception | None = None
    """Raised instead of an answer, after the delay: a ModelUnavailable or ModelRejected, as real models do."""


class Scripted:
    """The model `scripted:NAME`; creating it registers the name in this process.

    The number of assistant messages in the transcript, without those of a history, selects the turn. So the model has no state: a run that moves to
    another process, or starts a step again after a crash, gets the same answer. After the last turn the request is
    rejected. A function from the request to the Turn can take the place of turns.
    """

    def __init__(self, name: str, turns: tuple[Turn, ...] | Callable[[ModelRequest], Turn]) -> None:
        self.name = f"scripted:{name}"
        self._turns = turns
        _scripts[name] = self

    def ask(self, request: ModelRequest, emit: Emit) -> Reply:
        number = sum(message.role == "assistant" and not message.from_history for message in request.messages)
        turn = self._turn(request, number)
        self._wait(turn.delay_s, request.settings.timeout_s)
        if turn.error is not None:
            raise turn.error
        for piece in re.findall(r"\S+\s*|\s+", turn.reasoning):
            emit(Delta(reasoning=piece))
        for piece in re.findall(r"\S+\s*|\s+", turn.text):
            emit(Delta(text=piece))
        stop = turn.stop or (StopReason.TOOL_CALLS if turn.calls else StopReason.END)
        response_id = f"scripted_{number}"
        return Reply(
            Message("assistant", _parts(turn, response_id)),
            stop,
            _usage(request, turn),
            self.name,
            response_id,
        )

    def _turn(self, request: ModelRequest, number: int) -> Turn:
        if callable(self._turns):
            return self._turns(request)
        if number >= len(self._turns):
            message = (
                f"The script of {self.name} has {len(self._turns)} turns, not {number + 1}: add turns to it."
            )
            raise faults.rejected(self.name, message, code="script_over")
        return self._turns[number]

    def _wait(self, delay_s: float, timeout_s: float) -> None:
        time.sleep(min(delay_s, timeout_s))
        if delay_s > timeout_s:
            raise faults.unavailable(self.name, f"did not finish within timeout_s={timeout_s:g}")


def script(name: str) -> Scripted:
    """Return the Scripted of that name. `echo` always exists: it repeats the last user's text.

    Raises InvalidInput for a name that this process did not register.
    """
    if name not in _scripts:
        raise InvalidInput(
            f"No script is named {name!r} in this process: create Scripted({name!r}, turns=...) in a module that it "
            f"imports. Known: {', '.join(sorted(_scripts))}.",
            model=f"scripted:{name}",
        )
    return _scripts[name]


def _parts(turn: Turn, response_id: str) -> tuple[AnyPart, ...]:
    parts: list[AnyPart] = []
    if turn.reasoning:
        parts.append(Reasoning(turn.reasoning, "scripted"))
    if turn.text:
        parts.append(Text(turn.text))
    parts += [
        ToolCall(f"call_{response_id}_{index}", name, json.dumps(arguments))
        for index, (name, arguments) in enumerate(turn.calls, start=1)
    ]
    return tuple(parts)


def _usage(request: ModelRequest, turn: Turn) -> Usage:
    """Count words in place of tokens."""
    told = [request.system, *(message.text for message in request.messages)]
    thought = len(turn.reasoning.split())
    return Usage(
        input_tokens=sum(len(text.split()) for text in told),
        output_tokens=len(turn.text.split()) + thought,
        reasoning_tokens=thought,
    )


def _echo(request: ModelRequest) -> Turn:
    texts = [message.text for message in request.messages if message.role == "user"]
    return Turn(text=texts[-1] if texts and texts[-1] else "Hello.")


_scripts: dict[str, Scripted] = {}
Scripted("echo", _echo)
