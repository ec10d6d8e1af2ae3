"""Tools that look further back than the history: earlier messages of the session, exchanges of all sessions, and tool calls.

They take their user, agent and session from the row of the run, so no argument of a model reaches another user's rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any

import msgspec
from pydantic import Field

from agno_workers.core.agent import Agent
from agno_workers.core.messages import read_messages
from agno_workers.core.tokens import estimate
from agno_workers.core.tool import Effect, Tool, ToolContext
from agno_workers.core.words import shortened
from agno_workers.database.pool import Pool, statements
from agno_workers.errors import ModelUnavailable, Unavailable
from agno_workers.sessions.compose import PastRun
from agno_workers.sessions.history import SearchPast
from agno_workers.tools.decorate import tool

_SQL = statements("sessions/history")
MAX_TOKENS = 4_000
"""The most tokens of one tool result: the first entries that fit."""
_MAX_EXCHANGES = 50
_MAX_CALLS = 20
_MAX_FOUND = 10
_MAX_RUNS = 500
"""The last runs among which calls are looked for."""
_SEARCHED_RUNS = 200
"""The last runs of the session that are searched by their words where the search finds nothing, as before its index is written."""
_TEXT_CHARS = 2_000
_RESULT_CHARS = 500
_DAYS = Annotated[int, Field(description="Only the last so many days.", ge=1, le=3650)]


class Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """A question and its answer."""

    at: datetime
    question: str
    answer: str
    session_id: str = ""


class Called(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tool call."""

    tool: str
    at: datetime
    arguments: str
    result: str | None = None
    error: str | None = None
    seconds: float | None = None


class Calls(msgspec.Struct, frozen=True):
    """The newest calls, and how many there are."""

    calls: int
    worked: int
    newest: tuple[Called, ...]


class HistoryTools:
    """Makes the tools of agents with a history. The search over past sessions is passed in."""

    def __init__(self, pool: Pool, search: SearchPast) -> None:
        self._pool = pool
        self._search = search

    def __call__(self, agent: Agent) -> Sequence[Tool]:
        """Return the tools of an agent."""
        return self._tools if agent.history.tools else ()

    @cached_property
    def _tools(self) -> Sequence[Tool]:
        pure = tool(effect=Effect.PURE, retry_on=(ModelUnavailable, Unavailable))

        @pure
        def read_chat_history(
            ctx: ToolContext,
            n: Annotated[int, Field(description="The number of questions.", ge=1, le=_MAX_EXCHANGES)] = 10,
        ) -> list[Said]:
            """Read the last questions and answers of this conversation, the newest first."""
            return _fitting([_said(each) for each in self._exchanges(ctx.run_id, n)])

        @pure
        def search_history(
            query: Annotated[str, Field(description="A few words or a question.", min_length=1)],
            ctx: ToolContext,
            days: _DAYS | None = None,
        ) -> list[Said]:
            """Search earlier questions and answers of this user, in this conversation and in earlier ones, the best first."""
            return _fitting(self._found(ctx.run_id, query, days))

        @pure
        def read_tool_call_history(
            ctx: ToolContext,
            tool: Annotated[str | None, Field(description="The name of the tool; null for all.")] = None,
            days: _DAYS = 30,
        ) -> Calls:
            """Read earlier tool calls for this user, the newest first: arguments, result, error, seconds, and how many of them worked."""
            return self._calls(ctx.run_id, tool, days)

        return (read_chat_history, search_history, read_tool_call_history)

    def _exchanges(self, run_id: str, count: int) -> list[PastRun]:
        """Return the last runs of the session, the newest first. One that can't be read is left out."""
        rows = self._pool.run(_SQL["exchanges"], {"run_id": run_id, "runs": count})
        found = []
        for row in rows:
            try:
                found.append(PastRun(**{**row, "messages": read_messages(row["messages"])}))
            except msgspec.ValidationError:
                continue
        return found

    def _found(self, run_id: str, query: str, days: int | None) -> list[Said]:
        (asker,) = self._pool.run(_SQL["asker"], {"run_id": run_id})
        wanted = {name: asker[name] for name in ("tenant", "user_id", "agent")}
        if asker["user_id"] is None:  # runs without a user may be of many people: only those of the session
            wanted["session_id"] = asker["session_id"]
        is_somebodys = asker["user_id"] is not None or asker["session_id"] is not None
        found = self._search(**wanted, query=query, limit=_MAX_FOUND, days=days) if is_somebodys else ()
        said = [
            Said(
                each.at,
                shortened(each.asked, _TEXT_CHARS),
                shortened(each.answered, _TEXT_CHARS),
                each.session_id,
            )
            for each in found
        ]
        return said or _by_words(self._exchanges(run_id, _SEARCHED_RUNS), query, days)

    def _calls(self, run_id: str, name: str | None, days: int) -> Calls:
        wanted = {"run_id": run_id, "tool": name, "days": days, "runs": _MAX_RUNS, "limit": _MAX_CALLS}
        rows = self._pool.run(_SQL["calls"], wanted)
        newest = [
            Called(
                row["name"], row["at"], shortened(row["arguments"] or "{}", _RESULT_CHARS), None if row["error"] else shortened(row["result"] or "", _RESULT_CHARS),
                row["error"] and shortened(row["error"], _RESULT_CHARS), None if row["seconds"] is None else round(row["seconds"], 3),
            )
            for row in rows
        ]  # fmt: skip
        (calls, worked) = (rows[0]["calls"], rows[0]["worked"]) if rows else (0, 0)
        return Calls(calls, worked, tuple(_fitting(newest)))


def _by_words(runs: Sequence[PastRun], query: str, days: int | None) -> list[Said]:
    """Return the exchanges that share the most words with the query."""
    words = set(query.lower().split())
    scored = []
    for run in runs:
        if days is not None and (datetime.now(run.at.tzinfo) - run.at).days >= days:
            continue
        if shared := len(words & set(f"{run.asked} {run.answered}".lower().split())):
            scored.append((shared, run.at, run))
    scored.sort(key=lambda each: each[:2], reverse=True)
    return [_said(run) for _, _, run in scored[:_MAX_FOUND]]


def _said(run: PastRun) -> Said:
    return Said(run.at, shortened(run.asked, _TEXT_CHARS), shortened(run.answered or run.mark, _TEXT_CHARS))


def _fitting(found: Sequence[Any]) -> list[Any]:
    """Return the first entries that fit into one tool result."""
    left, kept = MAX_TOKENS, []
    for each in found:
        left -= estimate(msgspec.json.encode(each).decode())
        if left < 0:
            break
        kept.append(each)
    return kept
