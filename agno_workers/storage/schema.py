"""The tables, owned by SQLAlchemy. Alembic's migrations bring a database here; a test holds the two together.

    run ──< step            a run's steps, by generation
     │        │
     │        └──> barrier  the fan-in of one chord: ours (with the step it wakes) or a user's (with its body)
     └──< message           the transcript, append-only
    chord_part              what came back to a user's chord, one row a header task
    outbox                  messages owed to Celery, committed with the state that caused them
    task_result, task_group results of users' own Celery tasks
    blob                    strings over 64 KiB, once each, by sha256
    meta                    the epoch that Redis must repeat, and who is keeper

Lock order in every transaction: run, step, barrier. The rest is only inserted or deleted. Whoever locks many rows skips
those that are locked (renewal, keeper) or goes by their ids (the outbox): only cancel, which holds the run, waits for a
step with others in hand.
"""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, UUID

from agno_workers.core.run import RunStatus, StepKind, StepStatus

SCHEMA = "agno"
metadata = sa.MetaData(schema=SCHEMA)


def _now(name: str) -> sa.Column[datetime]:
    return sa.Column(
        name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()
    )


def _when(name: str) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True))


def _one_of(column: str, values: type[RunStatus | StepStatus | StepKind], name: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"{column} IN ({', '.join(repr(str(v)) for v in values)})", name=name)


run = sa.Table(
    "run",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("agent", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False, server_default="0"),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("priority", sa.SmallInteger),
    sa.Column("session_id", sa.Text),
    sa.Column("user_id", sa.Text),
    sa.Column("idempotency_key", sa.Text),
    sa.Column("parent_run_id", UUID),
    sa.Column("metadata", JSONB, nullable=False, server_default="{}"),
    # Celery's own options of the task that started the run: link, link_error, chain, group, chord.
    sa.Column("canvas", JSONB),
    sa.Column("content", JSONB),
    sa.Column("reason", sa.Text),
    sa.Column("error", JSONB),
    sa.Column("input_tokens", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("output_tokens", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("cache_write_tokens", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("reasoning_tokens", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("turns", sa.Integer, nullable=False, server_default="0"),
    sa.Column("tool_calls", sa.Integer, nullable=False, server_default="0"),
    _now("created_at"),
    _when("started_at"),
    _when("ended_at"),
    _one_of("status", RunStatus, "run_status"),
    # Terminal and only then: an end, so that nothing can hang half-ended.
    sa.CheckConstraint(
        "(status IN ('done', 'failed', 'cancelled')) = (ended_at IS NOT NULL)", name="run_ended"
    ),
)
sa.Index(
    "run_idempotency",
    run.c.agent,
    run.c.idempotency_key,
    unique=True,
    postgresql_where=run.c.idempotency_key.isnot(None),
)
sa.Index("run_session", run.c.session_id, run.c.created_at, postgresql_where=run.c.session_id.isnot(None))
sa.Index("run_created", run.c.created_at)

step = sa.Table(
    "step",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("run_id", UUID, sa.ForeignKey("agno.run.id", ondelete="CASCADE"), nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False, server_default="ready"),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("priority", sa.SmallInteger),
    sa.Column("name", sa.Text, nullable=False, server_default=""),
    # Where in the transcript its (first) message goes; a turn reads everything below.
    sa.Column("seq", sa.Integer, nullable=False),
    sa.Column("call", JSONB),
    sa.Column("effect", sa.Text),
    sa.Column("barrier_id", UUID),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
    sa.Column("max_attempts", sa.Integer, nullable=False),
    sa.Column(
        "tries", sa.Integer, nullable=False, server_default="0"
    ),  # refusals of the provider, bounded by Retry
    sa.Column("worker", sa.Text),
    sa.Column("error", JSONB),
    _when("not_before"),
    _when("lease_until"),
    _when("sent_at"),
    _now("created_at"),
    _when("started_at"),
    _when("ended_at"),
    sa.UniqueConstraint("run_id", "generation", "key", name="step_key"),
    _one_of("status", StepStatus, "step_status"),
    _one_of("kind", StepKind, "step_kind"),
    sa.CheckConstraint("(status = 'running') = (lease_until IS NOT NULL)", name="step_lease"),
)
# The keeper looks only at what is not over: three small indexes, whatever the size of the past.
sa.Index("step_running", step.c.lease_until, postgresql_where=step.c.status == "running")
sa.Index(
    "step_timer",
    step.c.not_before,
    postgresql_where=sa.and_(step.c.status == "ready", step.c.not_before.isnot(None)),
)
sa.Index(
    "step_sent",
    step.c.sent_at,
    postgresql_where=sa.and_(step.c.status == "ready", step.c.not_before.is_(None)),
)

barrier = sa.Table(
    "barrier",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("run_id", UUID, sa.ForeignKey("agno.run.id", ondelete="CASCADE")),
    sa.Column("generation", sa.Integer, nullable=False, server_default="0"),
    # A user's chord learns its size when its last header task is sent.
    sa.Column("size", sa.Integer),
    sa.Column("arrived", sa.Integer, nullable=False, server_default="0"),
    # Ours: the turn to write, {id, key, seq, queue, max_attempts}. A user's: Celery's signature of the body.
    sa.Column("body", JSONB, nullable=False),
    _now("created_at"),
    _when("fired_at"),
)

message = sa.Table(
    "message",
    metadata,
    sa.Column("run_id", UUID, sa.ForeignKey("agno.run.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("content", JSONB, nullable=False),
    _now("created_at"),
)

chord_part = sa.Table(
    "chord_part",
    metadata,
    sa.Column("barrier_id", UUID, sa.ForeignKey("agno.barrier.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("task_id", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("result", JSONB),
    _now("created_at"),
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    # Exactly one: a step to send, a run whose canvas goes on, a user's chord whose body is due.
    sa.Column("step_id", UUID),
    sa.Column("ended_run_id", UUID),
    sa.Column("chord_id", UUID),
    sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
    sa.CheckConstraint("num_nonnulls(step_id, ended_run_id, chord_id) = 1", name="outbox_one"),
)
sa.Index("outbox_due", outbox.c.due_at)
sa.Index("outbox_run", outbox.c.ended_run_id, postgresql_where=outbox.c.ended_run_id.isnot(None))
sa.Index("outbox_chord", outbox.c.chord_id, postgresql_where=outbox.c.chord_id.isnot(None))

task_result = sa.Table(
    "task_result",
    metadata,
    sa.Column("task_id", sa.Text, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("meta", JSONB, nullable=False),
    _now("updated_at"),
)
task_group = sa.Table(
    "task_group",
    metadata,
    sa.Column("group_id", sa.Text, primary_key=True),
    sa.Column("result", JSONB, nullable=False),
    _now("created_at"),
)
blob = sa.Table(
    "blob",
    metadata,
    sa.Column("sha256", sa.LargeBinary, primary_key=True),
    sa.Column("content", JSONB, nullable=False),
)
meta = sa.Table(
    "meta",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    _when("until"),
)
