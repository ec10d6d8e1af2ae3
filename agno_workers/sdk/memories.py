"""`client.memories`: what agents remember about a user, an agent or a session, for the people whose memories they are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from agno_workers.core.agent import MemoryScope
from agno_workers.core.checks import brief
from agno_workers.core.words import did_you_mean
from agno_workers.errors import InvalidInput
from agno_workers.repositories import Database
from agno_workers.sessions import memory_proposal
from agno_workers.sessions.memory_proposal import Proposal
from agno_workers.sessions.memory_store import (
    SCOPES,
    MemoryKind,
    MemoryOwner,
    MemoryVersion,
    StoredMemory,
)


class Memories:
    """`client.memories`: list, add, edit, undo, forget, redact, export and consolidate memories.

    `user_id="ann"` names the memories of a user; `scope="agent", owner="helper"` those of other owners, and `scope="global"` those of all.
    With a `user_id`, verbs that take an id raise MemoryNotFound for memories of others. `by` is recorded as the actor of a change; the
    default is the user, or `client`.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._store = database.memories

    def list(
        self, user_id: str | None = None, *, scope: MemoryScope = "user", owner: str | None = None, kind: MemoryKind | None = None,
        at: datetime | None = None, closed: bool = False, limit: int = 1_000,
    ) -> Sequence[StoredMemory]:  # fmt: skip
        """Return at most `limit` memories, the most recently recorded first. `closed`: also superseded, forgotten and redacted ones.
        `at`: those that were open at that time, as they were then. Raises InvalidInput, Unavailable.
        """
        if limit < 1:
            raise InvalidInput(f"limit must be a whole number >= 1, got {brief(limit)}.")
        return self._store.memories(
            self._owner(user_id, scope, owner), kind=kind, closed=closed, at=at, limit=limit
        )

    def get(self, id: str, *, user_id: str | None = None) -> StoredMemory:
        """Return a memory. Raises MemoryNotFound."""
        return self._store.get(id, self._user(user_id))

    def history(self, id: str, *, user_id: str | None = None) -> Sequence[MemoryVersion]:
        """Return the versions of a memory, oldest first: each change with its actor and its run. Raises MemoryNotFound."""
        return self._store.history(id, self._user(user_id))

    def add(
        self, text: str, user_id: str | None = None, *, scope: MemoryScope = "user", owner: str | None = None, kind: MemoryKind = "fact",
        valid_from: datetime | None = None, by: str | None = None,
    ) -> StoredMemory:  # fmt: skip
        """Add a memory; one with the same text is confirmed instead, and returned. Raises InvalidInput."""
        whose = self._owner(user_id, scope, owner)
        return self._store.add(whose, text, kind, valid_from=valid_from, actor=_actor(by, user_id))

    def edit(
        self, id: str, text: str, *, kind: MemoryKind | None = None, expected_version: int | None = None, user_id: str | None = None,
        by: str | None = None,
    ) -> StoredMemory:  # fmt: skip
        """Change the text of a memory, which keeps its earlier versions. Raises MemoryNotFound, MemoryChanged when it is not at
        `expected_version`, and InvalidInput for a closed memory or a text that another one has.
        """
        return self._store.edit(
            id, text, kind=kind, expected_version=expected_version, owner=self._user(user_id), actor=_actor(by, user_id)
        )  # fmt: skip

    def undo(self, id: str, *, user_id: str | None = None, by: str | None = None) -> StoredMemory:
        """Return to the version before, as one more version: also a superseded or forgotten memory is open again. Undoing the addition of a
        memory closes it, and opens again what it superseded. Raises MemoryNotFound, and InvalidInput when nothing is left to undo.
        """
        return self._store.undo(id, owner=self._user(user_id), actor=_actor(by, user_id))

    def forget(self, id: str, *, user_id: str | None = None, by: str | None = None) -> StoredMemory:
        """Close a memory: it is not recalled any more, and can be read and undone. Safe to repeat. Raises MemoryNotFound."""
        return self._store.forget(id, owner=self._user(user_id), actor=_actor(by, user_id))

    def redact(self, id: str, *, user_id: str | None = None, by: str | None = None) -> StoredMemory:
        """Close a memory and remove its text for good, from all its versions and from what runs recalled; the row stays. Safe to repeat.
        What was said in a run is in its transcript until the run is deleted. Raises MemoryNotFound.
        """
        return self._store.redact(id, owner=self._user(user_id), actor=_actor(by, user_id))

    def delete_all(
        self, user_id: str | None = None, *, scope: MemoryScope = "user", owner: str | None = None
    ) -> int:
        """Delete all memories of an owner with their versions, and return how many there were. Runs that have ended are not learned from
        any more; later ones are, unless memory is switched off. Raises InvalidInput.
        """
        whose = self._owner(user_id, scope, owner)
        for run_id in self._store.forget_asked(whose):
            self._database.journal.cancel(run_id)
        return self._store.delete_all(whose)

    def export(
        self, user_id: str | None = None, *, scope: MemoryScope = "user", owner: str | None = None
    ) -> dict[str, Any]:
        """Return all memories of an owner with their versions, and what the user has switched off, as JSON values."""
        return self._store.export(self._owner(user_id, scope, owner))

    def consolidate(
        self, user_id: str | None = None, *, scope: MemoryScope = "user", owner: str | None = None, agent: str | None = None
    ) -> str:  # fmt: skip
        """Ask for a background run that proposes changes to all memories of an owner, and return its id; `client.runs.get(id).wait()` waits
        for it, and nothing changes until `apply`. It uses the model of `agent`, or of the agent that ran last for the owner.

        Raises InvalidInput when no agent has run for the owner.
        """
        whose = self._owner(user_id, scope, owner)
        run_id = self._store.ask_consolidation(whose, agent)
        if run_id is None:
            what = f"agent {agent!r} has not" if agent else "no agent has"
            raise InvalidInput(f"{what} run for {whose}, so no model is known: submit a run first.")
        self._database.submissions.wake_keeper()
        return run_id

    def proposal(self, run_id: str) -> Proposal:
        """Return what a consolidation proposes. Raises InvalidInput when it has no proposal."""
        return memory_proposal.proposal_of(self._store, run_id)

    def apply(self, run_id: str, *, by: str | None = None) -> Sequence[StoredMemory]:
        """Apply all changes of a proposal, in one transaction; return the new memories. Raises InvalidInput for a run without a proposal, and
        MemoryChanged, which names what has changed since.
        """
        return memory_proposal.apply(self._store, run_id, by)

    def _owner(self, user_id: str | None, scope: str, owner: str | None) -> MemoryOwner:
        if scope not in SCOPES:
            hint = did_you_mean(str(scope), SCOPES) or f" Scopes: {', '.join(SCOPES)}."
            raise InvalidInput(f"memories have no scope {scope!r}.{hint}")
        if user_id is not None and (scope != "user" or owner is not None):
            raise InvalidInput("user_id names the memories of a user: use either it, or scope and owner.")
        named = "" if scope == "global" else user_id if user_id is not None else owner
        if not isinstance(named, str) or (not named and scope != "global"):
            how = 'user_id="ann"' if scope == "user" else f'scope="{scope}", owner="..."'
            raise InvalidInput(f"whose memories? Name the owner: {how}.")
        return MemoryOwner(scope, named, self._store.tenant)

    def _user(self, user_id: str | None) -> MemoryOwner | None:
        return None if user_id is None else self._owner(user_id, "user", None)


def _actor(by: str | None, user_id: str | None) -> str:
    return by or user_id or "client"
