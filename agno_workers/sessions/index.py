"""The index of past sessions: after a run of a session, background work makes its question and its answer findable.

The rows of the index and the end of the work are one transaction. The work of a session is done by one run at a time, in the order in which
its runs ended. A run that is rolled back or deleted is not found from then on, see agno.forget_exchanges.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from agno_workers.core.agent import Agent
from agno_workers.core.step import FollowUp
from agno_workers.database.pool import Connection, Pool
from agno_workers.engine.turn import Extension, Turn
from agno_workers.sessions.background import Done, Work, Worker
from agno_workers.sessions.search import exchanges

KIND = "index"

Said = tuple[str, datetime, str, str]
"""A message: the id of its run, when that was asked, the name of who said it, and the text."""


class KeepsTalk(Protocol):
    """The index itself; wiring passes it in."""

    def prepare(
        self, tenant: str, talk: Sequence[str | None], about: Mapping[str, Any], said: Sequence[Said]
    ) -> Callable[[Connection], int]:
        """Return a function that writes the messages of a talk in a transaction, in place of earlier ones of the same runs."""
        ...


def extension(is_searched: Callable[[Agent], bool]) -> Extension:
    """Ask for the index at the end of each run of a user's session, if `is_searched` is true of its agent."""

    def follow(turn: Turn) -> Sequence[FollowUp]:
        claim = turn.claim
        if not claim.session_id or claim.parent_run_id or not is_searched(turn.agent):
            return ()
        return (FollowUp(KIND, claim.session_id),)

    return Extension(follow=follow)


def worker(pool: Pool, index: KeepsTalk) -> Worker:
    """Return the code of the work. It may be repeated: the messages of a run are written once."""

    def do(work: Work) -> Done:
        tenant = work.claim.tenant
        talks: dict[tuple[str, str, str | None], list[Said]] = defaultdict(list)
        for row in exchanges(pool, tenant, work.run_ids):
            talk = talks[row["session_id"], row["agent"], row["user_id"]]
            for name, text in ((row["user_id"] or "", row["asked"]), (row["agent"], row["answered"])):
                if text.strip():
                    talk.append((row["run_id"], row["at"], name, text))
        writes = [
            index.prepare(tenant, key, dict(zip(("session_id", "agent", "user_id"), key, strict=True)), said)
            for key, said in talks.items()
        ]

        def write(connection: Connection) -> None:
            for each in writes:
                each(connection)

        return Done({"messages": sum(map(len, talks.values()))}, write=write)

    return do
