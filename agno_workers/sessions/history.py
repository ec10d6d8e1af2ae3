"""The history of a run: decided and stored at its first turn, so that all its turns send the same text, whatever ends meanwhile.

What is stored is a recipe (`run_context`, key `history`): the ids of the earlier runs, the summary, the exchanges that were found, and
the options of the agent. The text is composed from it, see compose.py, and kept in memory for the next turns.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from agno_workers.core.agent import Agent, History
from agno_workers.core.messages import Message, read_messages
from agno_workers.core.step import ClaimedStep
from agno_workers.core.tool import Tool
from agno_workers.database.pool import Pool, jsonb, statements
from agno_workers.errors import ModelError, RunFailed
from agno_workers.runs.transcripts import Transcript, Transcripts
from agno_workers.sessions.compose import Exchange, PastRun, compose

if TYPE_CHECKING:
    from agno_workers.engine.turn import Extension, Turn

log = logging.getLogger(__name__)
_SQL = statements("sessions/history")
_MAX_OLDER_RUNS = 100
"""The most runs of the older part, whose messages are read."""
_OCTETS_A_TOKEN = 6
"""Bytes of JSON that are read for each token of the budget, with room for what compression leaves out."""
_QUERY_CHARS = 2_000
"""The part of an input that earlier sessions are searched for."""
_EXCHANGE_CHARS = 2_000
"""The most of a question, or of an answer, of an earlier session."""


class SearchPast(Protocol):
    """Searches the exchanges of a user's sessions, the best first; `user_id` None stands for runs without a user."""

    def __call__(
        self, *, tenant: str, user_id: str | None, query: str, agent: str | None = None, session_id: str | None = None,
        without_session: str | None = None, limit: int = 10, days: float | None = None,
    ) -> Sequence[Exchange]:  # fmt: skip
        """Search all sessions, one, or all but one; with all agents or one; the last `days`. May raise ModelError: the embedder failed."""
        ...


class Recipe(msgspec.Struct, frozen=True):
    """The ingredients of a run's history, as they are stored."""

    options: History
    runs: tuple[str, ...] = ()
    is_whole: bool = True
    """False where the session has runs that are older than these."""
    summary: str | None = None
    exchanges: tuple[Exchange, ...] = ()


class HistoryStore:
    """Reads and stores recipes, and composes their text. Every call raises Unavailable when Postgres does not answer."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._kept = Transcripts(8 * 1024 * 1024)

    def of(self, run_id: str) -> tuple[Message, ...]:
        """Return the history that a run was given; nothing for a run without one."""
        return self._history(run_id).messages

    def at_turn(
        self, claim: ClaimedStep, options: History, search: Callable[[], Sequence[Exchange]]
    ) -> tuple[Message, ...]:
        """Return the history for a turn; the first turn of a run decides it, with what `search` finds in earlier sessions."""
        if kept := self._kept.of(claim.run_id):
            return kept.messages
        is_first = claim.definition is None and claim.attempt == 1
        found = _NOTHING if is_first else self._history(claim.run_id)
        if found is _NOTHING:
            found = self._history(
                claim.run_id,
                options=jsonb(options),
                exchanges=jsonb(search()),
                older=_MAX_OLDER_RUNS if options.older else 0,
                max_octets=options.tokens * _OCTETS_A_TOKEN,
            )
        self._kept.keep(claim.run_id, found)
        return found.messages

    def forget(self, run_id: str) -> None:
        """Drop the history of a run from memory."""
        self._kept.forget(run_id)

    def _history(self, run_id: str, **wanted: Any) -> Transcript:
        """Compose the history of a run. If none is stored, `options` decide it; without them, it is _NOTHING."""
        nothing = {"options": None, "exchanges": None, "older": 0, "max_octets": 0}
        (row,) = self._pool.run(_SQL["history"], {"run_id": run_id, **nothing, **wanted})
        if row["recipe"] is None:
            return _NOTHING
        recipe = msgspec.convert(row["recipe"], Recipe)
        runs = _read(row["past"], recipe.options.runs)
        messages = compose(runs, recipe.options, recipe.summary, recipe.exchanges, is_whole=recipe.is_whole)
        return Transcript(messages, {}, len(row["past"]))


_NOTHING = Transcript()


class _Stored(msgspec.Struct, frozen=True):
    """A PastRun whose messages are not read yet."""

    id: str
    at: datetime
    status: str
    messages: msgspec.Raw
    reason: str | None = None
    error: str | None = None


_STORED = msgspec.json.Decoder(tuple[_Stored, ...])


def _read(past: str, newest: int) -> list[PastRun]:
    """Read the runs of a history. An older one that can't be read is left out; one of the `newest` raises RunFailed."""
    stored, runs = _STORED.decode(past), []
    for place, each in enumerate(stored):
        try:
            messages = read_messages(bytes(each.messages).decode())
        except msgspec.ValidationError as error:
            if place < len(stored) - newest:
                log.warning(
                    "an older run can't be read (%s), and is left out of the history",
                    error,
                    extra={"run_id": each.id},
                )
                continue
            raise RunFailed(
                f"run {each.id} of this session, which the history needs, can't be read ({error}): submit to another session.",
                reason="unreadable",
            ) from error
        runs.append(PastRun(each.id, each.at, messages, each.status, each.reason, each.error))
    return runs


def extension(store: HistoryStore, search: SearchPast, tools: Callable[[Agent], Sequence[Tool]]) -> Extension:
    """Return what histories add to agents: messages before the input of each turn, and tools to look further back."""
    from agno_workers.engine.turn import Extension  # noqa: PLC0415 - clients read histories too, without the engine

    def prepare(turn: Turn) -> Turn:
        options, claim = turn.agent.history, _in_conversation(turn.claim)
        if options.is_empty or not claim.session_id:
            return turn
        return replace(turn, history=store.at_turn(claim, options, lambda: _found(claim, options, search)))

    def ended(turn: Turn, _: str) -> None:
        store.forget(_in_conversation(turn.claim).run_id)

    return Extension(tools, prepare, ended)


def _in_conversation(claim: ClaimedStep) -> ClaimedStep:
    """Return the run whose conversation an agent sees: its own, and for a role of a team, such as its leader, that of the team."""
    team = claim.team
    if team is None or not team.is_led_by(claim.agent, claim.run_id):
        return claim
    return msgspec.structs.replace(claim, run_id=team.run_id, session_id=team.session_id, agent=team.name)


def _found(claim: ClaimedStep, options: History, search: SearchPast) -> Sequence[Exchange]:
    """Return the exchanges of earlier sessions for the input. Sessions without a user may be of many people, so none are searched."""
    query = claim.input.strip()[:_QUERY_CHARS]
    if not (options.search_past_sessions and claim.user_id and query):
        return ()
    try:
        found = search(
            tenant=claim.tenant, user_id=claim.user_id, agent=claim.agent, query=query, limit=options.search_past_sessions,
            without_session=claim.session_id,
        )  # fmt: skip
    except ModelError as error:
        log.warning("earlier sessions were not searched: %s", error, extra={"run_id": claim.run_id})
        return ()
    return [each.shortened(_EXCHANGE_CHARS) for each in found]
