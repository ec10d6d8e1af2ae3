"""Decide the next move of a run after a model's reply. Pure: values in, one of four moves out; the engine executes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from agno_workers.core.agent import Limits
from agno_workers.core.messages import Message, Reply, StopReason, ToolCall, ToolResult, Usage, user
from agno_workers.core.moves import End, Fail


class FanOut(msgspec.Struct, frozen=True):
    """Execute these tool calls in parallel; the last result starts the next turn."""

    calls: tuple[ToolCall, ...]


class AskAgain(msgspec.Struct, frozen=True):
    """Start another turn at once: the model paused, or its answer did not fit the schema and `note` tells it so."""

    note: Message | None = None


Move = End | Fail | FanOut | AskAgain


class SoFar(msgspec.Struct, frozen=True):
    """The run's use so far, including the reply at hand."""

    turns: int
    tool_calls: int
    usage: Usage
    cost_usd: float = 0.0


def decide(
    reply: Reply,
    so_far: SoFar,
    limits: Limits,
    misfit: str | None = None,
    grace: int = 0,
    content: Any = None,
) -> Move:
    """Return the next move of a run.

    `so_far` includes this reply. `content` is the answer as the agent's `output_schema` reads it, `misfit` says why
    it does not fit (None: it fits, or there is no schema), `grace` is the number of further turns for a misfit.

    The calls of a whole reply are made, whatever stop reason the provider gives. The calls of a reply that was cut off or
    refused are not made, since their arguments may be cut off too: they end with the run (see `not_called`).
    """
    calls = reply.message.tool_calls
    match reply.stop:
        case StopReason.TOOL_CALLS | StopReason.END | StopReason.PAUSED if calls:
            return _limit_met(reply, so_far, limits) or FanOut(calls)
        case StopReason.PAUSED:
            return _limit_met(reply, so_far, limits) or AskAgain()
        case StopReason.CONTEXT_WINDOW:
            return Fail(
                "the transcript no longer fits the model's context window: shorten the input or the history",
                "context_window",
            )
        case StopReason.REFUSAL:
            return End(reply.message.text, "refusal")
        case StopReason.LENGTH if calls:
            return End(reply.message.text, "length")
        case _ if misfit is not None and grace > 0:
            return _limit_met(reply, so_far, limits) or AskAgain(_schema_reminder(misfit))
        case _ if misfit is not None:
            return Fail(f"the answer does not fit output_schema: {misfit}", "output_schema")
        case StopReason.LENGTH:
            return End(content, "length")
        case _:
            return End(content, "end")


def not_called(reply: Reply, reason: str) -> tuple[Message, ...]:
    """Return an error result for each call of a last reply. Providers refuse a transcript with a call that has no result, and
    the next run of the session may have this one in its history.
    """
    return tuple(
        Message("tool", (ToolResult(call.id, call.name, f"{call.name} was not called: the run ended ({reason}).", True),))
        for call in reply.message.tool_calls
    )  # fmt: skip


def _limit_met(reply: Reply, so_far: SoFar, limits: Limits) -> End | Fail | None:
    """Return how the run ends if a limit forbids another turn, else None."""
    tokens = so_far.usage.input_tokens + so_far.usage.output_tokens
    met = (
        ("turns", so_far.turns, limits.turns, so_far.turns >= limits.turns),
        ("tool_calls", so_far.tool_calls, limits.tool_calls, so_far.tool_calls > limits.tool_calls),
        ("tokens", tokens, limits.tokens, limits.tokens is not None and tokens >= limits.tokens),
        ("cost", so_far.cost_usd, limits.cost_usd, limits.cost_usd is not None and so_far.cost_usd >= limits.cost_usd),
    )  # fmt: skip
    for name, used, limit, is_met in met:
        if is_met and limits.on_limit == "return":
            return End(reply.message.text, f"limit:{name}")
        if is_met:
            message = f"the run reached its limit of {name} ({used:g} of {limit:g}): raise Limits, or set on_limit='return'"
            return Fail(message, f"limit:{name}", "LimitReached", reply.message.text)
    return None


_MISFIT = "Your answer does not fit the required JSON schema: "


def schema_reminders(messages: Iterable[Message]) -> int:
    """Count the reminders that an answer did not fit the schema."""
    return sum(message.role == "user" and message.text.startswith(_MISFIT) for message in messages)


def _schema_reminder(misfit: str) -> Message:
    return user(f"{_MISFIT}{misfit}\nAnswer again with JSON that fits, and nothing else.")
