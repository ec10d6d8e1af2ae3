"""Memories in Postgres: facts about an owner, each change of which is one more version.

A memory is open until it is superseded, forgotten or redacted. Only open ones are recalled, and an owner has each text once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Literal, get_args
from uuid import uuid4

import msgspec

from agno_workers.core.agent import Memory, MemoryScope
from agno_workers.core.checks import brief
from agno_workers.core.scopes import TeamPlace, owner_in
from agno_workers.core.words import as_uuid, did_you_mean, safe_text
from agno_workers.database.pool import Connection, Pool, Row, execute, jsonb, statements
from agno_workers.errors import InvalidInput, MemoryChanged, MemoryNotFound
from agno_workers.runs.base import utc

_SQL = statements("sessions/memory_store")
MemoryKind = Literal["fact", "preference", "goal", "person", "event", "health"]
"""The subject of a memory. A user may switch off a kind: the categories of consent are `memory` and `memory:health`."""
KINDS: tuple[str, ...] = get_args(MemoryKind)
SCOPES: tuple[str, ...] = get_args(MemoryScope)
BACKGROUND = ("background", "both")
"""The values of `Memory.learn` with which answers are learned from in the background."""
MAX_TEXT_CHARS = 2_000
_SHORT = 8
_MAX_LISTED = 100_000


class StoredMemory(msgspec.Struct, frozen=True, kw_only=True):
    """A memory as it is now, or as it was at a time."""

    id: str
    """Its UUID."""
    scope: str
    """`user`, `agent`, `team`, `session` or `global`."""
    owner: str
    """The id of the user or the session, or the name of the agent or the team; empty for `global`."""
    kind: str
    """`fact`, `preference`, `goal`, `person`, `event` or `health`."""
    text: str | None
    """One sentence; None once it is redacted."""
    confidence: float
    """How sure the model was, from 0 to 1; a person's text has 1."""
    version: int
    """1 when it was added; each change adds 1."""
    source_run_id: str | None = None
    """The run that it was learned from."""
    valid_from: datetime
    """When it was said."""
    valid_to: datetime | None = None
    """Until when it was valid; None while it is open."""
    replaced_by: str | None = None
    """The memory that superseded it."""
    contradicts: str | None = None
    """A memory that says otherwise, where the model was not sure which is right."""
    uses: int = 0
    """How many runs recalled it."""
    used_at: datetime | None = None
    """When it was recalled or confirmed last."""
    recorded_at: datetime
    """When it was added, edited or confirmed last."""

    @property
    def is_open(self) -> bool:
        """True while it may be recalled."""
        return self.valid_to is None


class MemoryVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A memory after one of its changes."""

    version: int
    """Its number, from 1."""
    change: str
    """`added`, `edited`, `superseded`, `forgotten`, `redacted` or `restored`."""
    text: str | None
    """The text after the change; None once the memory is redacted."""
    kind: str
    """The kind after the change."""
    confidence: float
    """The confidence after the change."""
    is_open: bool
    """False when the change closed the memory."""
    replaced_by: str | None = None
    """The memory that superseded it."""
    contradicts: str | None = None
    """The memory that says otherwise."""
    restores: int | None = None
    """For `restored`: the version that it repeats; 0 for what was before the first one."""
    actor: str
    """The user, `agent:NAME`, `learning` or `consolidation`."""
    run_id: str | None = None
    """The run that made the change."""
    at: datetime
    """When it was made."""


class RecalledMemory(msgspec.Struct, frozen=True, kw_only=True):
    """A memory that a run recalled, as it was then."""

    id: str
    """Its UUID."""
    version: int
    """Its version at that time."""
    kind: str
    """Its kind."""
    text: str | None
    """Its text; None once it is redacted."""
    valid_from: datetime
    """When it was said."""
    root: str
    """The same for memories that contradict each other, and for no other."""

    @property
    def short(self) -> str:
        """The end of its id, which models use."""
        return short_id(self.id)


class Found(RecalledMemory, frozen=True, kw_only=True):
    """A memory that a question is about."""

    score: float = 0.0


class MemoryOwner(msgspec.Struct, frozen=True):
    """The owner of memories."""

    scope: str
    owner: str
    tenant: str = "default"

    def __str__(self) -> str:
        return f"{self.scope}:{self.owner}"

    @classmethod
    def read(cls, text: str, tenant: str) -> MemoryOwner:
        """Read `user:ann`."""
        scope, _, owner = text.partition(":")
        return cls(scope, owner, tenant)

    @property
    def params(self) -> dict[str, Any]:
        return {"tenant": self.tenant, "scope": self.scope, "owner": self.owner, "whose": str(self)}


def owner_of(
    memory: Memory,
    tenant: str,
    agent: str,
    user_id: str | None,
    session_id: str | None,
    team: TeamPlace | None,
    run_id: str,
) -> MemoryOwner | None:
    """Return the owner of an agent's memories in a run; None where the run has no user, session or team. The agents of a team's leader have
    the memories of the team's run.
    """
    if team and team.is_led_by(agent, run_id):
        agent, session_id = team.name, team.session_id
    owner = owner_in(
        memory.scope, session_id=session_id, user_id=user_id, agent=agent, team=team.name if team else None
    )
    return None if owner is None else MemoryOwner(memory.scope, owner, tenant)


def short_id(id: str) -> str:
    return id[-_SHORT:]


def meant_id(text: str) -> str:
    """Return the short id that a model means, which may be in brackets or whole."""
    return short_id(text.strip(" []").lower())


def digest(text: str) -> bytes:
    """Return the hash of a text without case, blanks and final punctuation."""
    return hashlib.sha256(" ".join(text.casefold().split()).rstrip(" .!…").encode(errors="replace")).digest()


class MemoryStore:
    """Every call raises Unavailable when Postgres does not answer; then all of it happened, or nothing."""

    def __init__(self, pool: Pool, tenant: str = "default") -> None:
        self.pool = pool
        self.tenant = tenant

    @contextmanager
    def changing(self, owner: MemoryOwner, connection: Connection | None = None) -> Iterator[Connection]:
        """Yield a transaction, or the caller's, that alone changes the memories of an owner."""
        if connection is not None:
            execute(connection, _SQL["lock"], owner.params)
            yield connection
            return
        with self.pool.connection() as own, own.transaction():
            execute(own, _SQL["lock"], owner.params)
            yield own

    def _run(self, statement: str, params: dict[str, Any], connection: Connection | None) -> list[Row]:
        return (
            self.pool.run(statement, params) if connection is None else execute(connection, statement, params)
        )

    # Read.

    def memories(
        self, owner: MemoryOwner, *, kind: str | None = None, closed: bool = False, at: datetime | None = None, limit: int = _MAX_LISTED,
        connection: Connection | None = None,
    ) -> list[StoredMemory]:  # fmt: skip
        """Return memories, the most recently recorded first. `closed`: also those that are not recalled. `at`: those of a time."""
        if kind is not None:
            check_kind(kind)
        asked = owner.params | {"kind": kind, "closed": closed, "limit": limit}
        statement = _SQL["memories" if at is None else "memories_at"]
        rows = self._run(statement, asked | {"at": utc(at)}, connection)
        return [msgspec.convert(row, StoredMemory) for row in rows]

    def get(
        self, id: str, owner: MemoryOwner | None = None, connection: Connection | None = None
    ) -> StoredMemory:
        """Return a memory by its id, or by the short id of an open one. Raises MemoryNotFound, also for that of another owner."""
        whole = as_uuid(id)
        asked = {"tenant": self.tenant, "scope": None, "owner": None} | (owner.params if owner else {})
        asked |= {"id": whole, "short": id.strip(" []").lower()}
        rows = self._run(_SQL["get"], asked, connection)
        if len(rows) != 1 or (whole is None and owner is None):
            whose = f" of {owner}" if owner else ""
            raise MemoryNotFound(
                f"no memory {id!r}{whose} in this database. `agno-workers memory ls --user USER` lists the memories of a user.",
                memory_id=id,
            )
        return msgspec.convert(rows[0], StoredMemory)

    def history(self, id: str, owner: MemoryOwner | None = None) -> list[MemoryVersion]:
        """Return the versions of a memory, oldest first. Raises MemoryNotFound."""
        return self._versions(self.pool.run(_SQL["versions"], {"id": self.get(id, owner).id}))

    def export(self, owner: MemoryOwner) -> dict[str, Any]:
        """Return all memories of an owner with their versions, and what the user has switched off."""
        versions: dict[str, list[Row]] = {}
        for row in self.pool.run(_SQL["export_versions"], owner.params):
            versions.setdefault(row.pop("memory_id"), []).append(row)
        memories = [
            msgspec.structs.asdict(each) | {"versions": versions.get(each.id, [])}
            for each in self.memories(owner, closed=True)
        ]
        consents = self.pool.run(_SQL["consents"], owner.params) if owner.scope == "user" else []
        whole = {"scope": owner.scope, "owner": owner.owner, "memories": memories, "consent": consents}
        exported: dict[str, Any] = msgspec.to_builtins(whole)
        return exported

    def denied(
        self, owner: MemoryOwner, user_id: str | None, connection: Connection | None = None, *, kinds: Sequence[str] = KINDS
    ) -> set[str]:  # fmt: skip
        """Return the kinds of memories that the user has switched off, as all of them are with memory itself."""
        asked = {"tenant": owner.tenant, "user_id": user_id, "kinds": list(kinds)}
        return {row["kind"] for row in self._run(_SQL["denied"], asked, connection)}

    def tenant_of(self, run_id: str, connection: Connection) -> str:
        (row,) = execute(connection, _SQL["tenant"], {"run_id": run_id})
        return str(row["tenant"])

    # Recall.

    def find(
        self,
        owner: MemoryOwner,
        user_id: str | None,
        question: str,
        limit: int,
        *,
        few: int | None = None,
        half_life_days: float | None = None,
    ) -> list[Found]:
        """Return the memories that a question is about, best first, each with those that contradict it. While there are no more than `few`
        (default: `limit`), the question does not matter.
        """
        asked = owner.params | {"user_id": user_id, "question": safe_text(question), "limit": limit}
        asked |= {"few": limit if few is None else few, "half_life_days": half_life_days}
        rows = self.pool.run(_SQL["find"], asked)
        return [msgspec.convert(row, Found) for row in rows]

    def recalled(self, run_id: str) -> list[RecalledMemory] | None:
        """Return the memories that a run recalled, in order; None before it has."""
        rows = self.pool.run(_SQL["recalled"], {"run_id": run_id})
        return [msgspec.convert(row, RecalledMemory) for row in rows if row["id"]] if rows else None

    def recall(self, run_id: str, memories: Sequence[RecalledMemory]) -> list[RecalledMemory]:
        """Store what a run recalls, and return what is stored: the first call wins."""
        kept = [{"id": each.id, "version": each.version, "root": each.root} for each in memories]
        ids = [each.id for each in memories]
        self.pool.run(_SQL["recall"], {"run_id": run_id, "memories": jsonb(kept), "ids": ids})
        return self.recalled(run_id) or []

    def exchanges(self, owner: MemoryOwner, run_ids: Sequence[str], chars: int) -> list[Row]:
        """Return what was said in runs that may be learned from, in their order: of each message, the first `chars` characters."""
        return self.pool.run(_SQL["exchanges"], owner.params | {"run_ids": list(run_ids), "chars": chars})

    # Change. Each has an actor, and the run that it comes from.

    def add(
        self, owner: MemoryOwner, text: str, kind: str = "fact", *, actor: str, confidence: float = 1.0, run_id: str | None = None,
        contradicts: str | None = None, valid_from: datetime | None = None, id: str | None = None,
        connection: Connection | None = None,
    ) -> StoredMemory:  # fmt: skip
        """Add a memory. One with the same text is confirmed instead, and returned."""
        text, kind = checked_text(text), check_kind(kind)
        row = owner.params | {
            "id": id or str(uuid4()),
            "text": text,
            "kind": kind,
            "digest": digest(text),
            "confidence": confidence,
        }
        row |= {"run_id": run_id, "contradicts": contradicts, "valid_from": utc(valid_from), "actor": actor}  # fmt: skip
        with self.changing(owner, connection) as writing:
            if added := execute(writing, _SQL["add"], row):
                return msgspec.convert(added[0], StoredMemory)
            (same,) = execute(writing, _SQL["same_text"], row)
            return self.confirm(same["id"], writing)

    def confirm(self, id: str, connection: Connection) -> StoredMemory:
        """Record that an open memory was said again, in the transaction of `changing`."""
        (confirmed,) = execute(connection, _SQL["confirm"], {"id": id})
        return msgspec.convert(confirmed, StoredMemory)

    def edit(
        self, id: str, text: str, *, actor: str, owner: MemoryOwner | None = None, kind: str | None = None,
        expected_version: int | None = None, run_id: str | None = None, connection: Connection | None = None,
    ) -> StoredMemory:  # fmt: skip
        """Change the text of an open memory. Raises MemoryNotFound, MemoryChanged, and InvalidInput for a closed one or a text that
        another memory has.
        """
        text = checked_text(text)
        with self._held(id, owner, connection) as (memory, writing):
            _check_version(memory, expected_version)
            if not memory.is_open:
                raise InvalidInput(f"memory {memory.id} is closed: undo its last change, or add another one.")
            changed = msgspec.structs.replace(
                memory, text=text, kind=check_kind(kind or memory.kind), confidence=1.0
            )
            return self.change(writing, changed, "edited", actor, run_id)

    def forget(
        self, id: str, *, actor: str, owner: MemoryOwner | None = None, run_id: str | None = None, connection: Connection | None = None
    ) -> StoredMemory:  # fmt: skip
        """Close a memory, which is then not recalled; safe to repeat. Raises MemoryNotFound."""
        with self._held(id, owner, connection) as (memory, writing):
            if not memory.is_open:
                return memory
            return self.change(writing, memory, "forgotten", actor, run_id, is_open=False)

    def supersede(
        self,
        memory: StoredMemory,
        by: StoredMemory,
        *,
        actor: str,
        run_id: str | None,
        connection: Connection,
    ) -> StoredMemory:
        """Close an open memory in favour of another one, in the transaction of `changing`."""
        closed = msgspec.structs.replace(memory, replaced_by=by.id)
        return self.change(
            connection, closed, "superseded", actor, run_id, is_open=False, valid_to=by.valid_from
        )

    def undo(self, id: str, *, actor: str, owner: MemoryOwner | None = None) -> StoredMemory:
        """Return to the version before. Undoing the addition of a memory forgets it, and opens again what it superseded.

        Raises MemoryNotFound, and InvalidInput when nothing is left to undo, the memory is redacted, or another one has the text.
        """
        with self._held(id, owner) as (memory, writing):
            if memory.text is None:
                raise InvalidInput(f"memory {memory.id} is redacted: its text is gone for good.")
            versions = self._versions(execute(writing, _SQL["versions"], {"id": memory.id}))
            now, target = versions[-1], (versions[-1].restores or versions[-1].version) - 1
            if now.restores == 0:
                raise InvalidInput(
                    f"memory {memory.id} was undone to before its beginning: add it again instead."
                )
            if target == 0:
                undone = self.change(writing, memory, "restored", actor, None, is_open=False, restores=0)
                for row in execute(writing, _SQL["replaced"], {"id": memory.id}):
                    replaced = self.get(row["id"], connection=writing)
                    self._restore(writing, replaced, actor)
                return undone
            return self._restore(writing, memory, actor, versions[target - 1])

    def _restore(
        self, connection: Connection, memory: StoredMemory, actor: str, version: MemoryVersion | None = None
    ) -> StoredMemory:
        """Write the memory as it was at a version; without one, as it was before it closed."""
        if version is None:
            versions = self._versions(execute(connection, _SQL["versions"], {"id": memory.id}))
            version = next((each for each in reversed(versions) if each.is_open), None)
            if version is None or version.text is None:
                return memory
        before = msgspec.structs.replace(
            memory, text=version.text, kind=version.kind, confidence=version.confidence,
            replaced_by=version.replaced_by, contradicts=version.contradicts,
        )  # fmt: skip
        restores = version.version if version.restores is None else version.restores
        return self.change(
            connection, before, "restored", actor, None, is_open=version.is_open, restores=restores
        )

    def redact(self, id: str, *, actor: str, owner: MemoryOwner | None = None) -> StoredMemory:
        """Remove the text of a memory from all its versions, for good, and close it; safe to repeat. Raises MemoryNotFound."""
        with self._held(id, owner) as (memory, writing):
            where = MemoryOwner(memory.scope, memory.owner, self.tenant).params | {"id": memory.id}
            execute(writing, _SQL["redact_versions"], where)
            execute(writing, _SQL["redact_proposals"], where)
            if memory.text is None:
                return memory
            gone = msgspec.structs.replace(memory, text=None)
            return self.change(writing, gone, "redacted", actor, None, is_open=False)

    def forget_asked(self, owner: MemoryOwner) -> list[str]:
        """Learn no more from runs that have ended; return the runs that are learning now, for the caller to cancel."""
        self.pool.run(_SQL["forget_asked"], owner.params)
        asked = owner.params | {"kinds": ["learn", "consolidate"]}
        return [row["run_id"] for row in self.pool.run(_SQL["at_work"], asked)]

    def delete_all(self, owner: MemoryOwner) -> int:
        """Delete the memories of an owner with all their versions, and return how many there were."""
        with self.changing(owner) as writing:
            return len(execute(writing, _SQL["delete_all"], owner.params))

    def change(
        self, connection: Connection, memory: StoredMemory, change: str, actor: str, run_id: str | None, *,
        is_open: bool = True, valid_to: datetime | None = None, restores: int | None = None,
    ) -> StoredMemory:  # fmt: skip
        """Write a changed memory, and its version, in the transaction of `changing`. Raises InvalidInput for a text that another has."""
        mark = None if memory.text is None else digest(memory.text)
        row = msgspec.structs.asdict(memory) | {"digest": mark}
        if is_open and (others := execute(connection, _SQL["other_with_text"], row)):
            raise InvalidInput(
                f"memory {others[0]['id']} has this text already: forget one of the two.",
                memory_id=others[0]["id"],
            )
        row |= {"change": change, "actor": actor, "run_id": run_id, "is_open": is_open}
        row |= {"valid_to": utc(valid_to), "restores": restores}
        (changed,) = execute(connection, _SQL["change"], row)
        return msgspec.convert(changed, StoredMemory)

    @contextmanager
    def _held(
        self, id: str, owner: MemoryOwner | None, connection: Connection | None = None
    ) -> Iterator[tuple[StoredMemory, Connection]]:
        """Yield a memory as it is in a transaction that alone changes those of its owner."""
        memory = self.get(id, owner, connection)
        tenant = owner.tenant if owner else self.tenant
        with self.changing(MemoryOwner(memory.scope, memory.owner, tenant), connection) as writing:
            yield self.get(memory.id, owner, writing), writing

    def _versions(self, rows: Sequence[Row]) -> list[MemoryVersion]:
        return [msgspec.convert(row, MemoryVersion) for row in rows]

    # Consolidation; see memory_consolidate.py.

    def propose(self, run_id: str, proposal: Any, connection: Connection) -> None:
        """Keep a proposal, in the transaction of `changing`, unless the text of a memory in it is gone meanwhile."""
        execute(connection, _SQL["propose"], {"run_id": run_id, "proposal": jsonb(proposal)})

    def proposal(self, run_id: str) -> Row | None:
        rows = self.pool.run(_SQL["proposal"], {"tenant": self.tenant, "run_id": run_id})
        return rows[0] if rows else None

    def ask_consolidation(self, owner: MemoryOwner, agent: str | None) -> str | None:
        """Ask for a background run, and return its id; None when no agent has run for the owner."""
        asked = owner.params | {"agent": agent, "kinds": ["consolidate"]}
        with self.pool.connection() as connection, connection.transaction():
            if not execute(connection, _SQL["consolidate"], asked):
                return None
            (run,) = execute(
                connection, _SQL["at_work"], asked
            )  # its row is locked, so the run has not ended
        return str(run["run_id"])


def checked_text(text: object) -> str:
    """Return the text of a memory on one line. Raises InvalidInput."""
    if not isinstance(text, str) or not (line := " ".join(safe_text(text).split())):
        raise InvalidInput(f"a memory is text that is not blank, got {brief(text)}.")
    if len(line) > MAX_TEXT_CHARS:
        raise InvalidInput(
            f"a memory has at most {MAX_TEXT_CHARS:,} characters, got {len(line):,}: shorten it, or add several."
        )
    return line


def cut_text(text: str) -> str:
    """Return the text of a memory that a model has written, which may be too long, on one line. Raises InvalidInput if it is blank."""
    return checked_text(" ".join(text.split())[:MAX_TEXT_CHARS])


def check_kind(kind: str) -> str:
    """Return the kind. Raises InvalidInput for one that does not exist."""
    if kind not in KINDS:
        hint = did_you_mean(str(kind), KINDS) or f" Kinds: {', '.join(KINDS)}."
        raise InvalidInput(f"memories have no kind {kind!r}.{hint}")
    return kind


def _check_version(memory: StoredMemory, expected: int | None) -> None:
    if expected is not None and memory.version != expected:
        raise MemoryChanged(
            f"memory {memory.id} is at version {memory.version}, not {expected}: somebody changed it meanwhile. Read it again.",
            memory_id=memory.id, version=memory.version,
        )  # fmt: skip
