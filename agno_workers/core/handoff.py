"""Hand-overs: one run whose turns are taken by several agents, one after another, on the same transcript.

    billing ── transfer_to_refunds ──▶ refunds ── transfer_back ──▶ the leader ── ...

The name of a turn's step is that of the agent that takes it. A transfer is decided with the reply that asks for it: its result is recorded
with the turn, and the next turn is the other agent's. Other calls of the same reply are made by the agent that asked for them, and the other
agent reads their results.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from agno_workers.core.agent import Agent
from agno_workers.core.messages import Message, Reasoning, ToolCall, ToolResult, ToolSpec

BACK = "transfer_back"
TO = "transfer_to_"
MAX_HAND_OVERS = 10
"""The most hand-overs of one run: then the agent that has the conversation answers."""


class Handoffs(Agent, frozen=True, kw_only=True):
    """An agent that leads a conversation, and the agents that may take it over from it and from each other."""

    others: tuple[Agent, ...] = ()

    def acting(self, name: str) -> Agent | None:
        """Return the agent of this name; None: it is not among them."""
        return self if name == self.name else next((each for each in self.others if each.name == name), None)

    @property
    def transfers(self) -> dict[str, str]:
        """The tools that hand over, and the name of the agent that each hands over to."""
        return {BACK: self.name} | {f"{TO}{each.name}": each.name for each in self.others}

    def specs(self, acting: str) -> tuple[ToolSpec, ...]:
        """Return these tools for one of the agents."""
        reason = {"type": "string", "description": "The reason, in a few words."}
        parameters = {"type": "object", "properties": {"reason": reason}, "additionalProperties": False}
        known = {each.name: each.description for each in self.others}
        return tuple(
            ToolSpec(tool, _described(tool, name, known.get(name, "")), parameters)
            for tool, name in self.transfers.items() if name != acting
        )  # fmt: skip


def _described(tool: str, name: str, description: str) -> str:
    if tool == BACK:
        return f"Give the conversation back to {name}, who leads and knows who can do what."
    return f"Hand the conversation over to {name}, who takes the next turn and has read all of it. {description}".rstrip()


class HandOver(NamedTuple):
    """The decision about the transfers of a reply."""

    to: str
    """The name of the agent that takes the next turn."""
    results: tuple[Message, ...]
    """The results of the transfers, in the order of their calls."""


def hand_over(
    calls: Sequence[ToolCall], transfers: Mapping[str, str], acting: str, transcript: Iterable[Message]
) -> HandOver:
    """Decide who takes the next turn after a reply. Of several transfers, the first is made."""
    to, results = acting, []
    for call in calls:
        if (name := transfers.get(call.name)) is None:
            continue
        fault = ""
        if to != acting:
            fault = f"{call.name} was not made: the conversation goes to {to} first."
        elif name == acting:
            fault = (
                f"You are {name}, and have the conversation already: answer, or hand it over to another one."
            )
        elif sum(_is_made(message, transfers) for message in transcript) >= MAX_HAND_OVERS:
            fault = f"{call.name} was not made: this conversation has been handed over {MAX_HAND_OVERS} times, the most for one answer. Answer with what is known."
        else:
            to = name
        text = fault or f"The conversation is with {name} now."
        results.append(Message("tool", (ToolResult(call.id, call.name, text, bool(fault)),)))
    return HandOver(to, tuple(results))


def without_thinking_of_others(
    messages: tuple[Message, ...], transfers: Mapping[str, str]
) -> tuple[Message, ...]:
    """Leave out the reasoning before the last hand-over: its opaque form belongs to the model that wrote it."""
    last = max((place for place, message in enumerate(messages) if _is_made(message, transfers)), default=-1)
    return tuple(
        _plain(message) if place < last and message.role == "assistant" else message
        for place, message in enumerate(messages)
    )


def _is_made(message: Message, transfers: Mapping[str, str]) -> bool:
    """Return whether a message is the result of a transfer that was made."""
    return message.role == "tool" and any(
        isinstance(part, ToolResult) and part.name in transfers and not part.is_error
        for part in message.parts
    )


def _plain(message: Message) -> Message:
    parts = tuple(part for part in message.parts if not isinstance(part, Reasoning))
    return msgspec.structs.replace(message, parts=parts)
