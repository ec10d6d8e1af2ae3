"""What comes after a model's reply. Pure: values in, one of four moves out; the engine carries it out."""

from __future__ import annotations

from typing import Any

import msgspec

from agno_workers.core.agent import Limits
from agno_workers.core.messages import Message, Reply, StopReason, ToolCall, ToolResult, Usage, user


class End(msgspec.Struct, frozen=True):
    """The run is done; `content` is its answer."""

    content: Any
    reason: str = "end"


class Fail(msgspec.Struct, frozen=True):
    """The run failed for a reason that another try would not mend."""

    message: str
    reason: str


class FanOut(msgspec.Struct, frozen=True):
    """Run these tools side by side; the last one in wakes the next turn."""

    calls: tuple[ToolCall, ...]


class AskAgain(msgspec.Struct, frozen=True):
    """Another turn right away: the model paused, or its answer did not fit and `note` tells it so."""

    note: Message | None = None


Move = End | Fail | FanOut | AskAgain


class SoFar(msgspec.Struct, frozen=True):
    """What the run has used, the reply at hand included."""

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
    """The next move of a run.

    `so_far` counts this reply. `content` is the answer as the agent's `output_schema` reads it, `misfit` why
    it does not fit (None: it fits, or no schema was asked for), `grace` how many more turns a misfit is granted.

    Calls in a whole reply are made, whatever word the provider ends it with. Those of a reply that was cut off or
    refused are not, since their arguments may be cut off, too: they end with the run (see `not_called`).
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
            return _limit_met(reply, so_far, limits) or AskAgain(_mend(misfit))
        case _ if misfit is not None:
            return Fail(f"the answer does not fit output_schema: {misfit}", "output_schema")
        case StopReason.LENGTH:
            return End(content, "length")
        case _:
            return End(content, "end")


def not_called(reply: Reply, reason: str) -> tuple[Message, ...]:
    """What follows a last reply that has calls: a result each, since no provider takes a transcript without
    them, and the next run of the session may have this one in its history.
    """
    return tuple(
        Message("tool", (ToolResult(call.id, call.name, f"{call.name} was not called: the run ended ({reason}).", True),))
        for call in reply.message.tool_calls
    )  # fmt: skip


def _limit_met(reply: Reply, so_far: SoFar, limits: Limits) -> End | None:
    """The limit that forbids one more turn, as the end it brings."""
    tokens = so_far.usage.input_tokens + so_far.usage.output_tokens
    if so_far.turns >= limits.turns:
        return End(reply.message.text, "limit:turns")
    if so_far.tool_calls > limits.tool_calls:
        return End(reply.message.text, "limit:tool_calls")
    if limits.tokens is not None and tokens >= limits.tokens:
        return End(reply.message.text, "limit:tokens")
    if limits.cost_usd is not None and so_far.cost_usd >= limits.cost_usd:
        return End(reply.message.text, "limit:cost")
    return None


_MISFIT = "Your answer does not fit the required JSON schema: "


def asked_to_mend(message: Message) -> bool:
    """Whether a message is ours, about an answer that did not fit."""
    return message.role == "user" and message.text.startswith(_MISFIT)


def _mend(misfit: str) -> Message:
    return user(f"{_MISFIT}{misfit}\nAnswer again with JSON that fits, and nothing else.")
