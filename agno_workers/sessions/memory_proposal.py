"""The proposal of a consolidation, and its application. It is kept with its run, beside the versions that it was made from, so that it
applies to these or not at all.
"""

from __future__ import annotations

from typing import Literal
from uuid import uuid4

import msgspec

from agno_workers.core.run import RunStatus
from agno_workers.errors import InvalidInput, MemoryChanged
from agno_workers.sessions.memory_store import MemoryOwner, MemoryStore, StoredMemory, digest, short_id

_ACTOR = "consolidation"


class ProposedChange(msgspec.Struct, frozen=True):
    """A change of a proposal."""

    action: Literal["merge", "close", "add"]
    """`merge`: one memory replaces several. `close`: a memory is forgotten. `add`: a memory is added."""
    ids: tuple[str, ...]
    """The memories that it closes."""
    text: str
    """The text of the new memory; the reason for `close`."""
    kind: str
    """The kind of the new memory."""


class Proposal(msgspec.Struct, frozen=True):
    """The changes that a consolidation suggests."""

    owner: str
    """The owner, as `user:ann`."""
    seen: dict[str, int]
    """The version of each memory that it was made from, by id."""
    changes: tuple[ProposedChange, ...]
    """The changes, which apply together or not at all."""


def proposal_of(store: MemoryStore, run_id: str) -> Proposal:
    """Return the proposal of a consolidation. Raises InvalidInput when there is none."""
    row = store.proposal(run_id)
    move = "`agno-workers memory consolidate --user USER` makes a proposal"
    if row is None:
        raise InvalidInput(f"run {run_id} is not a consolidation of memories: {move}.", run_id=run_id)
    if row["proposal"] is None:
        has_ended = RunStatus(row["status"]).is_terminal
        why = "has no proposal: it failed, or a memory in it was redacted" if has_ended else "has not ended: wait for it"  # fmt: skip
        raise InvalidInput(f"consolidation {run_id} {why}; {move}.", run_id=run_id)
    return msgspec.convert(row["proposal"], Proposal)


def apply(store: MemoryStore, run_id: str, by: str | None = None) -> list[StoredMemory]:
    """Apply the proposal of a consolidation, all of it in one transaction; return the new memories.

    Raises MemoryChanged when a memory has changed since, which also a second call does.
    """
    proposal = proposal_of(store, run_id)
    owner = MemoryOwner.read(proposal.owner, store.tenant)
    with store.changing(owner) as connection:
        now = {each.id: each for each in store.memories(owner, connection=connection)}
        if problems := changed_since(proposal, now):
            raise MemoryChanged(
                f"the memories of {owner} have changed since consolidation {run_id} ({'; '.join(problems)}): consolidate again."
            )
        made = []
        for change in proposal.changes:
            closed = [now[each] for each in change.ids]
            if change.action == "close":
                store.forget(closed[0].id, actor=by or _ACTOR, run_id=run_id, connection=connection)
                continue
            same = next((each for each in closed if each.text and digest(each.text) == digest(change.text)), None)  # fmt: skip
            new = same or store.add(
                owner, change.text, change.kind, actor=by or _ACTOR, run_id=run_id, id=str(uuid4()), connection=connection,
                confidence=max((each.confidence for each in closed), default=1.0),
            )  # fmt: skip
            made.append(new)
            for each in closed:
                if each.id != new.id:
                    store.supersede(each, new, actor=by or _ACTOR, run_id=run_id, connection=connection)
        return made


def changed_since(proposal: Proposal, now: dict[str, StoredMemory]) -> list[str]:
    """Return what differs from what the proposal was made from."""
    seen = proposal.seen
    gone = [f"{short_id(each)} is closed" for each in seen if each not in now]
    edited = [f"{short_id(each)} was edited" for each in seen if each in now and now[each].version != seen[each]]  # fmt: skip
    new = [f"{short_id(each)} is new" for each in now if each not in seen]
    return [*gone, *edited, *new]
