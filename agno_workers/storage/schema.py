"""The tables, owned by SQLAlchemy. Alembic's migrations bring a database here; a test holds the two together.

    run ──< step            a run's steps, by generation
     │        │
     │        └──> barrier  the fan-in of one chord: ours (with the step it wakes) or a user's (with its body)
     └──< message           the transcript, append-only
    chord_part              what came back to a user's chord, one row a header task
    outbox                  messages owed to Celery, committed with the state that caused them
    task_result, task_group results of users' own Celery tasks
    blob                    strings over 64 KiB, once each, by sha256
    definition              what an agent was when its runs began, once each, by sha256
    batch                   runs that were submitted together
    worker                  who carries steps, and when it was last seen
    quarantine              messages that could not be read, or must not be believed
    meta                    the epoch that Redis must repeat, and who is keeper

Lock order in every transaction: run, step, barrier; a delegated run before the run that waits for it (its end is that run's
result). So nothing that holds a run may wait for one that it delegated to: cancel, pause and resume take a family one
transaction each. The keeper finishes a cancel that was cut short; pause and resume are to be said again. The rest is only inserted or deleted. Whoever locks many rows skips
those that are locked (renewal, keeper) or goes by their ids (the outbox): only stop, which holds the run, waits for a step
with others in hand.
"""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, UUID

from agno_workers.core.run import RunStatus, StepKind, StepStatus, WaitsFor

SCHEMA = "agno"
metadata = sa.MetaData(schema=SCHEMA)


def _now(name: str) -> sa.Column[datetime]:
    return sa.Column(
        name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()
    )


def _when(name: str) -> sa.Column[datetime]:
    return sa.Column(name, sa.DateTime(timezone=True))


def _one_of(
    column: str, values: type[RunStatus | StepStatus | StepKind | WaitsFor], name: str
) -> sa.CheckConstraint:
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
    # Of a delegation: the run that waits for this one, and its step. `depth` 0 is a run that nobody delegated.
    sa.Column("parent_run_id", UUID),
    sa.Column("parent_step_id", UUID),
    sa.Column("depth", sa.SmallInteger, nullable=False, server_default="0"),
    sa.Column("forked_from", UUID),
    sa.Column("batch_id", UUID),
    # The agent as it was when the run began, so that a deploy changes no run that is under way.
    sa.Column("definition", sa.LargeBinary),
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
    sa.Column("cost_usd", sa.Numeric(14, 6), nullable=False, server_default="0"),
    sa.Column("turns", sa.Integer, nullable=False, server_default="0"),
    sa.Column("tool_calls", sa.Integer, nullable=False, server_default="0"),
    _now("created_at"),
    _when("started_at"),
    _when("ended_at"),
    _when("deadline_at"),
    _when("paused_at"),
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
sa.Index("run_batch", run.c.batch_id, run.c.ended_at, postgresql_where=run.c.batch_id.isnot(None))
sa.Index("run_failed", run.c.ended_at, postgresql_where=run.c.status == "failed")
sa.Index(
    "run_deadline",
    run.c.deadline_at,
    postgresql_where=sa.and_(run.c.ended_at.is_(None), run.c.deadline_at.isnot(None)),
)
sa.Index(
    "run_children",
    run.c.parent_run_id,
    postgresql_where=sa.and_(run.c.ended_at.is_(None), run.c.parent_run_id.isnot(None)),
)

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
    # What a tool asks for beyond its effect: see core/tool.py, Policy.
    sa.Column("policy", JSONB),
    # Of a step that is `waiting`: for whom, and until when; and what a person said to it.
    sa.Column("waits_for", sa.Text),
    _when("expires_at"),
    sa.Column("answer", JSONB),
    sa.Column("child_run_id", UUID),
    # The next attempt asks the tool's reconcile hook first: the last one was cut short.
    sa.Column("reconciling", sa.Boolean, nullable=False, server_default="false"),
    # A timer, while it runs; `due_at` is that of the submit, and stays.
    _when("not_before"),
    _when("due_at"),
    _when("lease_until"),
    _when("sent_at"),
    _now("created_at"),
    _when("started_at"),
    _when("ended_at"),
    sa.UniqueConstraint("run_id", "generation", "key", name="step_key"),
    _one_of("status", StepStatus, "step_status"),
    _one_of("kind", StepKind, "step_kind"),
    _one_of("waits_for", WaitsFor, "step_waits_for"),
    sa.CheckConstraint("(status = 'waiting') = (waits_for IS NOT NULL)", name="step_waiting"),
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

sa.Index(
    "step_expires",
    step.c.expires_at,
    postgresql_where=sa.and_(step.c.status == "waiting", step.c.expires_at.isnot(None)),
)
sa.Index("step_asks", step.c.created_at, postgresql_where=step.c.status == "waiting")
sa.Index("step_dead", step.c.ended_at, postgresql_where=step.c.status.in_(("dead", "unknown")))

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
sa.Index("outbox_step", outbox.c.step_id, postgresql_where=outbox.c.step_id.isnot(None))
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
definition = sa.Table(
    "definition",
    metadata,
    sa.Column("sha256", sa.LargeBinary, primary_key=True),
    sa.Column("content", JSONB, nullable=False),
    _now("created_at"),
)
batch = sa.Table(
    "batch",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("agent", sa.Text, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("metadata", JSONB, nullable=False, server_default="{}"),
    _now("created_at"),
    _when("cancelled_at"),
)
sa.Index("batch_cancelled", batch.c.cancelled_at, postgresql_where=batch.c.cancelled_at.isnot(None))
worker = sa.Table(
    "worker",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("hostname", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("pool", sa.Text, nullable=False),
    sa.Column("concurrency", sa.Integer, nullable=False),
    sa.Column("queues", JSONB, nullable=False),
    sa.Column("steps", sa.Integer, nullable=False, server_default="0"),
    _now("started_at"),
    _now("seen_at"),
    _when("stopped_at"),
)
quarantine = sa.Table(
    "quarantine",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    # `unreadable`, `unsigned`, `altered`, `replayed`, `unknown_task`
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("task", sa.Text),
    sa.Column("message_id", sa.Text),
    # The beginning of the message, as far as it can be shown as text, and how large the whole was.
    sa.Column("head", sa.Text, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("worker", sa.Text, nullable=False),
    _now("created_at"),
)
sa.Index("quarantine_created", quarantine.c.created_at)
meta = sa.Table(
    "meta",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    _when("until"),
    # Counts the keeper's rounds. Redis repeats it, so that either of the two is seen to have gone back in time.
    sa.Column("beat", sa.BigInteger, nullable=False, server_default="0"),
)
