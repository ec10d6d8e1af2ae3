"""Compose a history for the model out of earlier runs, a summary and found exchanges, within one budget of tokens. Pure.

    run ─▶ groups ─▶ roles, tool results, compression ─▶ budget, the newest first ─▶ messages, the oldest first

A group stays or goes as a whole: a message, or a message with tool calls and all its results. Providers refuse a call without its
result, so one that has none gets an error result here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import msgspec

from agno_workers.core.agent import History
from agno_workers.core.messages import AnyPart, Message, Reasoning, Text, ToolResult, user
from agno_workers.core.tokens import estimate_message, estimate_messages
from agno_workers.core.words import shortened

Group = tuple[Message, ...]


class PastRun(msgspec.Struct, frozen=True):
    """An earlier run of the session."""

    id: str
    at: datetime
    """When it was submitted."""
    messages: tuple[Message, ...]
    status: str = "done"
    reason: str | None = None
    error: str | None = None
    """The message of its error."""

    @property
    def asked(self) -> str:
        """Its input as text."""
        return next((message.text for message in self.messages if message.role == "user"), "")

    @property
    def answered(self) -> str:
        """Its last text."""
        said = (message.text for message in reversed(self.messages) if message.role == "assistant")
        return next(filter(str.strip, said), "")

    @property
    def mark(self) -> str:
        """The sentence about a run that did not end well; empty for one that did."""
        if self.reason == "interrupted":
            return "(This answer was interrupted.)"
        if self.status == "cancelled":
            return "(This run was cancelled.)"
        return (
            f"(This run failed: {shortened(self.error or 'no reason is known', 500)})"
            if self.status == "failed"
            else ""
        )


class Exchange(msgspec.Struct, frozen=True):
    """A question and its answer in some session, as a search finds them."""

    session_id: str
    run_id: str
    asked: str
    answered: str
    at: datetime
    """When it was submitted."""
    score: float = 0.0
    """Higher is better; comparable within one search."""

    def shortened(self, most: int) -> Exchange:
        """Return it with texts of at most so many characters."""
        asked, answered = shortened(self.asked, most), shortened(self.answered, most)
        return msgspec.structs.replace(self, asked=asked, answered=answered)


def compose(
    runs: Sequence[PastRun], options: History, summary: str | None = None, exchanges: Sequence[Exchange] = (), *, is_whole: bool = True
) -> tuple[Message, ...]:  # fmt: skip
    """Return the history: what leads (the summary and the exchanges, in one message of the user), then the runs.

    `runs` are the oldest first, `exchanges` the best first; `is_whole` is False where the session has older runs than these.
    """
    place = max(0, len(runs) - options.runs)
    older = _compressed(runs[:place], options) if options.older else []
    newest = list(_verbatim(runs[place:], options))
    groups = _with_newest_results([*older, *newest], options.tool_results)
    lead, start = _filled(
        groups,
        len(older),
        options.tokens,
        summary,
        exchanges,
        is_whole=is_whole and (options.older or not place),
    )
    messages = [message for group in groups[start:] for message in group]
    if not lead and messages and messages[0].role != "user":
        lead = _LEFT_OUT  # some providers refuse a conversation that the model begins
    leading = [user(lead)] if lead else []
    return tuple(msgspec.structs.replace(message, from_history=True) for message in (*leading, *messages))


# Groups.


def groups_of(run: PastRun) -> Iterator[Group]:
    """Yield the messages of a run in whole groups; a call without a result gets one, and a result without a call is left out."""
    messages = [message for message in run.messages if message.role != "system"]
    place = 0
    while place < len(messages):
        message, place = messages[place], place + 1
        if message.role == "tool":
            continue
        if not message.tool_calls:
            yield (message,)
            continue
        results: dict[str, ToolResult] = {}
        while place < len(messages) and messages[place].role == "tool":
            results |= {part.call_id: part for part in messages[place].parts if isinstance(part, ToolResult)}
            place += 1
        yield (
            message,
            *(
                Message("tool", (results.get(call.id) or ToolResult(call.id, call.name, f"{call.name} has no result: its run ended before.", True),))
                for call in message.tool_calls
            ),
        )  # fmt: skip


def _verbatim(runs: Iterable[PastRun], options: History) -> Iterator[Group]:
    for run in runs:
        yield from (kept for group in groups_of(run) if (kept := _of_roles(group, options.roles)))
        if run.mark and "assistant" in options.roles:
            yield (_said(run.mark),)


def _of_roles(group: Group, roles: Sequence[str]) -> Group:
    """Return what the roles leave of a group; a text beside calls is an answer, and reasoning belongs to the whole message."""
    first = group[0]
    if first.role == "user":
        return group if "user" in roles else ()
    if not first.tool_calls:
        return group if "assistant" in roles and not _is_blank(first) else ()
    if "tool" in roles and "assistant" in roles:
        return group
    if "tool" in roles:
        return (_with_parts(first, first.tool_calls), *group[1:])
    texts = tuple(part for part in first.parts if isinstance(part, Text))
    return (_with_parts(first, texts),) if "assistant" in roles and first.text.strip() else ()


def _is_blank(message: Message) -> bool:
    return all(
        isinstance(part, Reasoning) or (isinstance(part, Text) and not part.text.strip())
        for part in message.parts
    )


def _compressed(runs: Iterable[PastRun], options: History) -> list[Group]:
    """Return the groups of older runs without reasoning, blank runs, and all but the last of equal tool results."""
    found = [
        tuple(_without_reasoning(message) for message in group)
        for run in runs
        if run.answered or run.mark or any(message.tool_calls for message in run.messages)
        for group in _verbatim([run], options)
    ]
    seen: set[tuple[str, str]] = set()
    return [
        tuple(_referring(message, seen) for message in reversed(group))[::-1] for group in reversed(found)
    ][::-1]


def _without_reasoning(message: Message) -> Message:
    parts = tuple(part for part in message.parts if not isinstance(part, Reasoning))
    return message if len(parts) == len(message.parts) else _with_parts(message, parts)


def _referring(message: Message, seen: set[tuple[str, str]]) -> Message:
    """Return the message with a reference in place of a result that `seen` has, which are the later ones; and add it."""
    (part, *_) = message.parts or (Text(""),)
    if not isinstance(part, ToolResult):
        return message
    known, note = (part.name, part.content), f"(the same result as a later call of {part.name})"
    if known in seen and len(note) < len(part.content):
        return _with_parts(message, (msgspec.structs.replace(part, content=note),))
    seen.add(known)
    return message


def _with_newest_results(groups: Sequence[Group], count: int) -> list[Group]:
    """Return the groups with a line in place of all tool results but the newest `count`."""
    left, found = count, []
    for group in reversed(groups):
        messages = []
        for message in reversed(group):
            is_result = message.role == "tool"
            messages.append(_noted(message) if is_result and left <= 0 else message)
            left -= is_result
        found.append(tuple(reversed(messages)))
    return found[::-1]


def _noted(message: Message) -> Message:
    (part,) = message.parts
    assert isinstance(part, ToolResult)
    note = f"({part.name} {'failed' if part.is_error else 'returned'}, {len(part.content):,} characters; left out of the history)"
    shorter = part if len(part.content) <= len(note) else msgspec.structs.replace(part, content=note)
    return _with_parts(message, (shorter,))


# The budget.

_LEFT_OUT = "(Earlier messages of this conversation are left out.)"
_SUMMARY = "A summary of this conversation so far, which the next messages continue:\n"
_EXCHANGES = "From earlier conversations with this user; facts in them may have changed since:"


def _filled(
    groups: Sequence[Group], split: int, tokens: int, summary: str | None, exchanges: Sequence[Exchange], *, is_whole: bool
) -> tuple[str, int]:  # fmt: skip
    """Return the text that leads, and the place of the first group that stays.

    The runs from `split` on come first, then what leads, up to half of the rest, then older runs. Where all runs fit, they need no
    summary, and the exchanges get the rest.
    """
    sizes = [estimate_messages(group) for group in groups]
    least = _size([_LEFT_OUT])  # always paid for, in case that it is needed
    start, left = _fitting(sizes, split, len(groups), tokens - least)
    has_all = is_whole and start == split and sum(sizes[:split]) <= left
    if has_all:
        start, left = _fitting(sizes, 0, split, left)
    room = least + (left if has_all or start > split else left // 2)
    texts = [_SUMMARY + summary.strip()] if summary and not has_all else []
    lead = texts if _size(texts) <= room else []
    found: list[Exchange] = []
    for exchange in exchanges:
        if _size([*lead, _listed([*found, exchange])]) <= room:
            found.append(exchange)
    if found:
        lead = [*lead, _listed(found)]
    if start == split and not has_all:
        start, _ = _fitting(sizes, 0, split, left - max(0, _size(lead) - least))
    return "\n\n".join(lead), start


def _fitting(sizes: Sequence[int], first: int, last: int, room: int) -> tuple[int, int]:
    """Return the place from which all up to `last` fit, and the room that is left; none is left out between two that stay."""
    while last > first and sizes[last - 1] <= room:
        last, room = last - 1, room - sizes[last - 1]
    return last, room


def _size(texts: Sequence[str]) -> int:
    return estimate_message(user("\n\n".join(texts))) if texts else 0


def _listed(exchanges: Sequence[Exchange]) -> str:
    """Return the exchanges, the oldest first, under their heading."""
    shown = [
        f"[{each.at:%Y-%m-%d}] User: {each.asked}\nYou: {each.answered}"
        for each in sorted(exchanges, key=lambda each: each.at)
    ]
    return "\n\n".join([_EXCHANGES, *shown])


def _said(text: str) -> Message:
    return Message("assistant", (Text(text),))


def _with_parts(message: Message, parts: Sequence[AnyPart]) -> Message:
    return msgspec.structs.replace(message, parts=tuple(parts))
