"""Assemble the tool calls of a chat completion, whose pieces arrive with or without names, ids and indexes.

Servers number all calls 0, give each piece a new number or id, repeat names, or leave ids out. So a piece with a name begins a
call, unless the call that it belongs to by id or index has that name and still lacks arguments; a piece without a name
continues one; and what follows a complete JSON object is the arguments of another call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from agno_workers.core.messages import ToolCall
from agno_workers.models.wire import fields, identifier, json_text

_DECODER = json.JSONDecoder(strict=False)
_BLANK = re.compile(r"\s*")


class Calls:
    """The calls of one answer, in order."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, piece: dict[str, Any]) -> None:
        function = fields(piece.get("function")) or piece
        index, call_id, name = (
            identifier(value) for value in (piece.get("index"), piece.get("id"), function.get("name"))
        )
        call = self._continued(index, call_id, name)
        if call is None:
            call = _Call()
            self._calls.append(call)
        call.add(index, call_id, name, json_text(function.get("arguments")))

    def parts(self) -> Iterator[ToolCall]:
        for call in self._calls:
            for number, written in enumerate(_objects("".join(call.arguments))):
                if call.name or written:
                    yield ToolCall("" if number else call.id, call.name, written)

    def _continued(self, index: str, call_id: str, name: str) -> _Call | None:
        """Return the call that a piece continues, or None if it begins one."""
        by_id = [call for call in self._calls if call_id and call_id in call.ids]
        by_index = [call for call in self._calls if index and index in call.indexes]
        by_both = [call for call in by_id if call in by_index]
        known = by_both or by_id or by_index
        if not self._calls:
            return None
        call = (known or self._calls)[-1]
        if (index or call_id) and not known and (name or call.is_complete):
            return None
        if name and call.name and (name != call.name or (call.is_complete and not by_both)):
            return None
        return call


class _Call:
    """A tool call that is still arriving."""

    def __init__(self) -> None:
        self.indexes: set[str] = set()
        self.ids: set[str] = set()
        self.id = self.name = ""
        self.arguments: list[str] = []

    def add(self, index: str, call_id: str, name: str, written: str) -> None:
        self.indexes |= {index} - {""}
        self.ids |= {call_id} - {""}
        self.id, self.name = self.id or call_id, self.name or name
        before = "".join(self.arguments) if written.startswith("{") else ""
        if before and written.startswith(before):  # the server sends all arguments so far with each piece
            self.arguments = []
        self.arguments.append(written)

    @property
    def is_complete(self) -> bool:
        written = "".join(self.arguments).strip()
        return written.endswith("}") and bool(_split(written))


def _objects(written: str) -> list[str]:
    """Return the JSON objects that stand one after the other in a text, each once, or the text itself.

    Some servers send an empty object before the arguments, or all arguments again after the last piece.
    """
    found = _split(written.strip())
    if len(found) < 2:
        return [written]
    return list(dict.fromkeys(each for each, value in found if value)) or ["{}"]


def _split(written: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the objects in a text of nothing else, as text and value."""
    found, at = [], 0
    try:
        while at < len(written):
            value, end = _DECODER.raw_decode(written, at)
            if not isinstance(value, dict):
                return []
            found.append((written[at:end], value))
            at = _BLANK.match(written, end).end()  # type: ignore[union-attr]  # it matches nothing too
    except (ValueError, RecursionError):
        return []
    return found
