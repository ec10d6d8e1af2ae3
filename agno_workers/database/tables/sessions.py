"""Sessions: their life, and what agents remember across runs: state, memories, context, and the background work that keeps them.

    session ──< run                 its runs; at most one of them is `live`, others wait or are `parallel` on purpose
       │          ├──< steer        messages that joined, or will join, a run in the middle
       │          ├──< run_context  what the run's turns see beside its transcript, decided once a run
       │          ├──< compaction   summaries in place of the oldest messages of a long transcript
       │          └──< stored_result  large tool results, of which the transcript has a preview
       └──  background_item   runs whose end some background work has not seen yet; background has the open run that does it
    state ──< state_change          values that tools share, one row a key, and their changes
    memory ──< memory_version       facts that outlive sessions, and their changes
    context_value, context_access, consent   values from outside, each use of one, and what a user does not allow

Lock order: run, session, background; then rows of the other tables, in the order of their keys.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, TSVECTOR, UUID

from agno_workers.core.session import SessionStatus
from agno_workers.database.tables.base import count, metadata, now, one_of, tenant, when

session = sa.Table(
    "session",
    metadata,
    tenant(),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("user_id", sa.Text),
    # The agent of its first run.
    sa.Column("agent", sa.Text),
    sa.Column("title", sa.Text, nullable=False, server_default=""),
    sa.Column("status", sa.Text, nullable=False, server_default="created"),
    # The position of its next run, and the highest one of a run that has begun. Positions are given under the lock of this row: they are the
    # order of submits, and a run that another overtook gets a new one when it begins, so that they are the order of the conversation, too.
    sa.Column("next_position", sa.BigInteger, nullable=False, server_default="1"),
    sa.Column("begun_position", sa.BigInteger, nullable=False, server_default="0"),
    # A summary of its runs up to a position.
    sa.Column("summary", sa.Text),
    sa.Column("summary_until", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("metadata", JSONB, nullable=False, server_default="{}"),
    sa.Column("forked_from", sa.Text),
    sa.Column("idle_timeout_s", sa.Double),
    now("created_at"),
    now("last_active_at"),
    # When it times out, if it stays idle.
    when("expires_at"),
    when("ended_at"),
    sa.PrimaryKeyConstraint("tenant", "id"),
    one_of("status", SessionStatus, "session_status"),
)
sa.Index(
    "session_of_user", session.c.tenant, session.c.user_id, session.c.last_active_at,
    postgresql_where=session.c.user_id.isnot(None),
)  # fmt: skip
sa.Index("session_active", session.c.tenant, session.c.last_active_at)
sa.Index(
    "session_expires", session.c.expires_at,
    postgresql_where=sa.and_(session.c.ended_at.is_(None), session.c.expires_at.isnot(None)),
)  # fmt: skip

steer = sa.Table(
    "steer",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    # The order of messages of one run.
    sa.Column("position", sa.BigInteger, sa.Identity(always=True), nullable=False),
    sa.Column("run_id", UUID, sa.ForeignKey("agno.run.id", ondelete="CASCADE"), nullable=False),
    sa.Column("idempotency_key", sa.Text),
    sa.Column("content", JSONB, nullable=False),
    # The submit as it was asked, for the run that it becomes when the live run ends before its next turn.
    sa.Column("request", JSONB, nullable=False),
    sa.Column("status", sa.Text, nullable=False, server_default="pending"),
    # The turn that it joined, or the run that it became.
    sa.Column("step_id", UUID),
    sa.Column("next_run_id", UUID),
    now("created_at"),
    when("decided_at"),
    sa.CheckConstraint("status IN ('pending', 'committed', 'returned')", name="steer_status"),
)
sa.Index("steer_run", steer.c.run_id, steer.c.position)
sa.Index("steer_key", steer.c.idempotency_key, postgresql_where=steer.c.idempotency_key.isnot(None))

background = sa.Table(
    "background",
    metadata,
    tenant(),
    # The kind of work, and whose it is: a session's summary, a user's memories.
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    # The open run that does the work; the row is deleted with its end. It is written before that run.
    sa.Column(
        "run_id",
        UUID,
        sa.ForeignKey("agno.run.id", ondelete="CASCADE", deferrable=True, initially="DEFERRED"),
        nullable=False,
    ),
    sa.PrimaryKeyConstraint("tenant", "kind", "owner"),
)
sa.Index("background_run", background.c.run_id)
background_item = sa.Table(
    "background_item",
    metadata,
    # The order in which the runs ended.
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    tenant(),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("run_id", UUID, sa.ForeignKey("agno.run.id", ondelete="CASCADE"), nullable=False),
    now("created_at"),
)
sa.Index(
    "background_item_owner",
    background_item.c.tenant,
    background_item.c.kind,
    background_item.c.owner,
    background_item.c.id,
)
sa.Index("background_item_run", background_item.c.run_id)

run_context = sa.Table(
    "run_context",
    metadata,
    sa.Column("run_id", UUID, sa.ForeignKey("agno.run.id", ondelete="CASCADE"), primary_key=True),
    # `history`, `memories`, `context`: each is decided at the first turn, so that all turns of the run see the same. `proposal`: the
    # changes that a consolidation of memories proposes.
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", JSONB, nullable=False),
    now("created_at"),
)
sa.Index(
    "run_context_proposal", run_context.c.value["owner"].astext, postgresql_where=run_context.c.key == "proposal",
)  # fmt: skip

compaction = sa.Table(
    "compaction",
    metadata,
    sa.Column("run_id", UUID, sa.ForeignKey("agno.run.id", ondelete="CASCADE"), primary_key=True),
    # The model sees the summary in place of the messages before this position; they stay stored.
    sa.Column("until_seq", sa.Integer, primary_key=True, autoincrement=False),
    # The position of the turn that waited for it: a fork of an earlier turn sees the messages.
    sa.Column("at_seq", sa.Integer, nullable=False),
    # The first message, the task, stands before the summary as it is.
    sa.Column("keeps_first", sa.Boolean, nullable=False),
    sa.Column("summary", sa.Text, nullable=False),
    sa.Column("tokens_before", sa.Integer, nullable=False),
    sa.Column("tokens_after", sa.Integer, nullable=False),
    now("created_at"),
)
stored_result = sa.Table(
    "stored_result",
    metadata,
    sa.Column("run_id", UUID, sa.ForeignKey("agno.run.id", ondelete="CASCADE"), primary_key=True),
    # The position of the message that has its preview.
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
    # The name in the preview. A fork has the same one.
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    now("created_at"),
)
sa.Index("stored_result_id", stored_result.c.id)

state = sa.Table(
    "state",
    metadata,
    tenant(),
    # `session`, `user`, `agent`, `team`, `run` or `global`; the owner is an id or a name, empty for `global`.
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    # NULL for a key that was deleted: its version goes on.
    sa.Column("value", JSONB),
    sa.Column("version", sa.BigInteger, nullable=False, server_default="1"),
    now("updated_at"),
    sa.PrimaryKeyConstraint("tenant", "scope", "owner", "key"),
)
state_change = sa.Table(
    "state_change",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    tenant(),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("operation", sa.Text, nullable=False),
    # What the operation was given, and what is enough to go back from the value after it; see functions/state.sql.
    sa.Column("value", JSONB),
    sa.Column("before", JSONB),
    # The tool call that made it; NULL for a change from outside, whose actor is named.
    sa.Column("run_id", UUID),
    sa.Column("step_id", UUID),
    sa.Column("actor", sa.Text),
    now("at"),
)
sa.Index(
    "state_change_key", state_change.c.tenant, state_change.c.scope, state_change.c.owner, state_change.c.key, state_change.c.version,
    unique=True,
)  # fmt: skip
sa.Index("state_change_run", state_change.c.run_id, postgresql_where=state_change.c.run_id.isnot(None))

memory = sa.Table(
    "memory",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    tenant(),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    # What it is about, such as `preference`; a user may switch off a kind.
    sa.Column("kind", sa.Text, nullable=False, server_default="fact"),
    # NULL once it is redacted: the row stays.
    sa.Column("text", sa.Text),
    # The hash of the text without case, blanks and final punctuation: an owner has each text once.
    sa.Column("digest", sa.LargeBinary),
    # For recall by words; stems are English, other languages are found by whole words.
    sa.Column(
        "words",
        TSVECTOR,
        sa.Computed("to_tsvector('english'::regconfig, text) || to_tsvector('simple'::regconfig, text)"),
    ),
    sa.Column("confidence", sa.Double, nullable=False, server_default="1"),
    sa.Column("version", sa.Integer, nullable=False, server_default="1"),
    sa.Column("source_run_id", UUID),
    now("valid_from"),
    when("valid_to"),
    sa.Column("replaced_by", UUID),
    # A memory that says otherwise, where nobody knows which of the two is right.
    sa.Column("contradicts", UUID),
    count("uses"),
    when("used_at"),
    now("recorded_at"),
)
# No index has `uses`, `used_at` or `recorded_at`, which recall and learning update.
sa.Index("memory_owner", memory.c.tenant, memory.c.scope, memory.c.owner)
sa.Index(
    "memory_digest", memory.c.tenant, memory.c.scope, memory.c.owner, memory.c.digest,
    unique=True, postgresql_where=memory.c.valid_to.is_(None),
)  # fmt: skip
sa.Index("memory_replaced_by", memory.c.replaced_by, postgresql_where=memory.c.replaced_by.isnot(None))
sa.Index("memory_closed", memory.c.valid_to, postgresql_where=memory.c.valid_to.isnot(None))
memory_version = sa.Table(
    "memory_version",
    metadata,
    sa.Column("memory_id", UUID, sa.ForeignKey("agno.memory.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    # `added`, `edited`, `superseded`, `forgotten`, `redacted`, `restored`
    sa.Column("change", sa.Text, nullable=False),
    # The memory after the change.
    sa.Column("text", sa.Text),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("confidence", sa.Double, nullable=False),
    sa.Column("is_open", sa.Boolean, nullable=False),
    sa.Column("replaced_by", UUID),
    sa.Column("contradicts", UUID),
    # The version that it repeats: 0 for an undo of the first one.
    sa.Column("restores", sa.Integer),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("run_id", UUID),
    now("at"),
)

context_value = sa.Table(
    "context_value",
    metadata,
    tenant(),
    sa.Column("scope", sa.Text, nullable=False),
    sa.Column("owner", sa.Text, nullable=False),
    # The agent and the key of the value.
    sa.Column("agent", sa.Text, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    # NULL while the first value is fetched.
    sa.Column("value", JSONB),
    when("expires_at"),
    # A worker fetches a new value until then, and others do not.
    when("fetching_until"),
    sa.PrimaryKeyConstraint("tenant", "scope", "owner", "agent", "key"),
)
context_access = sa.Table(
    "context_access",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    tenant(),
    sa.Column("run_id", UUID, sa.ForeignKey("agno.run.id", ondelete="CASCADE"), nullable=False),
    sa.Column("user_id", sa.Text),
    sa.Column("key", sa.Text, nullable=False),
    # `static`, `dynamic`, `external`, `computed` or `private`
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("category", sa.Text),
    # `used`, `left_out` (the budget), `denied` (the user), `omitted` (it failed) or `stale`
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("bytes", sa.Integer, nullable=False, server_default="0"),
    sa.Column("from_cache", sa.Boolean, nullable=False, server_default="false"),
    now("at"),
)
sa.Index("context_access_run", context_access.c.run_id)
sa.Index(
    "context_access_user", context_access.c.tenant, context_access.c.user_id, context_access.c.at,
    postgresql_where=context_access.c.user_id.isnot(None),
)  # fmt: skip
consent = sa.Table(
    "consent",
    metadata,
    tenant(),
    sa.Column("user_id", sa.Text, nullable=False),
    # A category of context, such as `location`; `memory`, or `memory:` and a kind of memories.
    sa.Column("category", sa.Text, nullable=False),
    sa.Column("allowed", sa.Boolean, nullable=False),
    now("at"),
    sa.PrimaryKeyConstraint("tenant", "user_id", "category"),
)
