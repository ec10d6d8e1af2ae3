"""Large tool results: they are stored beside the transcript, which has a preview of each; two tools read and search the rest.

`agno.store_result` makes the preview, `agno.read_result` decides which results a run may read: its own, and those of other runs of its
session and its user.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Annotated

from msgspec.structs import replace
from pydantic import Field

from agno_workers.core.agent import Agent
from agno_workers.core.tool import Effect, Tool, ToolContext
from agno_workers.engine.turn import Extension
from agno_workers.errors import ToolError, Unavailable
from agno_workers.tools.decorate import tool

_LINE_CHARS = 500
"""A longer line is read as several ones."""
_MAX_CHARS = 8_000
"""The most characters that one call returns."""
_MAX_FOUND = 30
ResultId = Annotated[str, Field(description="The id in the preview, such as r1a2b3c4d.")]
Read = Callable[[str, str], str | None]
"""Return the text of a stored result, by the id of the run that reads it and the id in the preview; None: there is none for it."""


def extension(read: Read) -> Extension:
    """Return the tools of agents whose large results are stored."""
    made = tools(read)

    def of(agent: Agent) -> Sequence[Tool]:
        return made if agent.compaction.offload_tokens is not None else ()

    return Extension(of)


def tools(read: Read) -> Sequence[Tool]:
    """Build `read_result` and `search_result`. What they return is never stored itself."""

    def text(id: str, ctx: ToolContext) -> list[str]:
        content = read(ctx.run_id, id.strip())
        if content is None:
            raise ToolError(
                f"This run has no stored result {id!r}: use an id from a preview, such as r1a2b3c4d."
            )
        return lines_of(content)

    @tool(
        description="Read lines of a stored tool result, of which only a preview is shown.",
        effect=Effect.PURE, retry_on=(Unavailable,), offload=False,
    )  # fmt: skip
    def read_result(
        id: ResultId,
        ctx: ToolContext,
        from_line: Annotated[int, Field(description="The first line, from 1.", ge=1)] = 1,
        lines: Annotated[int, Field(description="The number of lines.", ge=1)] = 100,
    ) -> str:
        whole = text(id, ctx)
        if from_line > len(whole):
            raise ToolError(
                f"The result {id} has {len(whole)} lines: choose from_line from 1 to {len(whole)}."
            )
        shown = bounded(whole[from_line - 1 : from_line - 1 + lines])
        last = from_line + len(shown) - 1
        more = f" Go on with from_line={last + 1}." if last < len(whole) else ""
        return "\n".join([f"[Lines {from_line} to {last} of {len(whole)}.{more}]", *shown])

    @tool(
        description="Find the lines of a stored tool result that have all words of a query, with their numbers.",
        effect=Effect.PURE, retry_on=(Unavailable,), offload=False,
    )  # fmt: skip
    def search_result(
        id: ResultId,
        query: Annotated[
            str, Field(description="Words; a line that has all of them is found.", min_length=1)
        ],
        ctx: ToolContext,
    ) -> str:
        whole = text(id, ctx)
        found = matching(whole, query)
        if not found:
            return (
                f"No line of the {len(whole)} lines of {id} has all of these words: try fewer or other ones."
            )
        shown = bounded([f"{number}: {line}" for number, line in islice(found, _MAX_FOUND)])
        more = f", of which the first {len(shown)} are shown" if len(shown) < len(found) else ""
        return "\n".join([f"[{len(found)} of {len(whole)} lines have these words{more}.]", *shown])

    return [replace(each, reads_stored=True) for each in (read_result, search_result)]


def lines_of(content: str) -> list[str]:
    """Return the lines of a text; a very long one becomes several."""
    return [
        line[at : at + _LINE_CHARS]
        for line in content.split("\n")
        for at in range(0, max(1, len(line)), _LINE_CHARS)
    ]


def matching(lines: Sequence[str], query: str) -> Sequence[tuple[int, str]]:
    """Return the lines that have all words of a query, whatever their case, with their numbers from 1."""
    words = query.lower().split()
    return [
        (number, line) for number, line in enumerate(lines, 1) if all(word in line.lower() for word in words)
    ]


def bounded(lines: Sequence[str]) -> list[str]:
    """Return as many lines from the first as one call may return, at least one."""
    shown: list[str] = []
    chars = 0
    for line in lines:
        chars += len(line) + 1
        if shown and chars > _MAX_CHARS:
            break
        shown.append(line)
    return shown
