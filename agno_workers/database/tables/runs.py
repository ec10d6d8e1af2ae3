"""Runs: a run, its steps, its transcript, and the messages that are pending.

    run ──< step            the steps of a run, by generation
     │        │
     │        └──> barrier  the fan-in of one chord: ours (with the step it wakes) or a user's (with its body)
     ├──< message           the transcript, append-only
     └──< run_event         the events of a run, numbered when they are first read
    outbox                  messages for Celery, committed with the state that caused them
    blob                    strings over 64 KiB, once each, by sha256
    definition              the definitions of agents when their runs began, once each, by sha256
    batch                   runs that were submitted together

Lock order in every transaction: run, step, barrier. A delegated run is locked before its parent, because its end is a result of
the parent. So a transaction that holds a run never waits for a run that it delegated to: cancel, pause and resume use one
transaction per run of a family. The keeper finishes an interrupted cancel; pause and resume must be repeated. Rows of all other
tables are only inserted or deleted. A transaction that locks many rows skips locked ones (lease renewal, keeper) or locks them in
the order of their ids (outbox). Only `stop`, which holds the run, waits for a step while it holds others.

`claim_steps` and `finish_steps` lock several runs at once, and wait for no lock of a run; what is locked goes alone, in the order above. A set of
results waits only for steps of the runs that it holds. Any holder of such a step without its run (a claim, renewal, retry, the keeper) waits for
nothing. What would wait for more goes alone, too: blobs, state, delegations, a new definition, messages that joined, and ends of runs with a parent, a
canvas or a session.

A session is locked after the run that enters or leaves it, and then only the next waiting run of it: a transaction that holds a waiting run waits
for no session. A submit that may cancel the live run locks that first, and lets go when another one is live by then (`agno.hold_session`). Several
sessions are locked in the order of their ids, before the keys of their new runs.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, UUID

from agno_workers.core.run import RunKind, RunStatus, StepKind, StepStatus, WaitsFor
from agno_workers.database.tables.base import metadata, now, one_of, tenant, when

run = sa.Table(
    "run",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    tenant(),
    sa.Column("kind", sa.Text, nullable=False, server_default="agent"),
    sa.Column("agent", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False, server_default="0"),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("priority", sa.SmallInteger),
    sa.Column("session_id", sa.Text),
    # Its place in the order of its session, and `live`, `waiting`, `parallel`, `scheduled` (it gets its place when its timer is due) or
    # `replaced` (it was live, and the next message cancelled it). NULL for runs of earlier code, which nothing waits for.
    sa.Column("session_position", sa.BigInteger),
    sa.Column("session_status", sa.Text),
    # It leaves no trace in the history and the state of its session.
    when("rolled_back_at"),
    sa.Column("user_id", sa.Text),
    sa.Column("idempotency_key", sa.Text),
    # The run that delegated this one, and its step. `depth` is 0 for a run that was not delegated.
    sa.Column("parent_run_id", UUID),
    sa.Column("parent_step_id", UUID),
    sa.Column("depth", sa.SmallInteger, nullable=False, server_default="0"),
    sa.Column("forked_from", UUID),
    sa.Column("batch_id", UUID),
    # The index of the run's input in the batch.
    sa.Column("batch_position", sa.Integer),
    # For a delegated run: its root, the team that it works for, and the names above it; see core.step.Lineage.
    sa.Column("lineage", JSONB),
    # The agent's definition when the run began, so that a deploy does not change open runs.
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
    now("created_at"),
    when("started_at"),
    when("ended_at"),
    # `failed` or `cancelled`, once it has ended so. Indexes are on this and not on `status`, so that a turn, which moves the status to
    # `running` and back, writes no index (a HOT update).
    sa.Column("ended_as", sa.Text),
    when("deadline_at"),
    when("paused_at"),
    one_of("status", RunStatus, "run_status"),
    one_of("kind", RunKind, "run_kind"),
    # A run has an end time exactly when its status is terminal.
    sa.CheckConstraint(
        "(status IN ('done', 'failed', 'cancelled')) = (ended_at IS NOT NULL)", name="run_ended"
    ),
)
sa.Index(
    "run_idempotency",
    run.c.tenant,
    run.c.agent,
    run.c.idempotency_key,
    sa.func.coalesce(
        run.c.user_id, ""
    ),  # runs without a user are one user's; Postgres 14 has no NULLS NOT DISTINCT
    unique=True,
    postgresql_where=run.c.idempotency_key.isnot(None),
)
sa.Index(
    "run_session",
    run.c.tenant,
    run.c.session_id,
    run.c.created_at,
    postgresql_where=run.c.session_id.isnot(None),
)
sa.Index(
    "run_session_live",
    run.c.tenant,
    run.c.session_id,
    unique=True,
    postgresql_where=sa.and_(run.c.session_status == "live", run.c.ended_at.is_(None)),
)
sa.Index(
    "run_session_waiting",
    run.c.tenant,
    run.c.session_id,
    run.c.session_position,
    postgresql_where=sa.and_(run.c.session_status == "waiting", run.c.ended_at.is_(None)),
)
sa.Index(
    "run_session_position",
    run.c.tenant,
    run.c.session_id,
    run.c.session_position,
    postgresql_where=run.c.session_position.isnot(None),
)
sa.Index("run_created", run.c.tenant, run.c.created_at)
# Lists of runs, the newest first, by what they are filtered by.
sa.Index("run_agent", run.c.tenant, run.c.agent, run.c.created_at)
sa.Index(
    "run_user", run.c.tenant, run.c.user_id, run.c.created_at, postgresql_where=run.c.user_id.isnot(None)
)
sa.Index("run_open", run.c.tenant, run.c.created_at, postgresql_where=run.c.ended_at.is_(None))
sa.Index(
    "run_ended_as",
    run.c.tenant,
    run.c.ended_as,
    run.c.created_at,
    postgresql_where=run.c.ended_as.isnot(None),
)
sa.Index(
    "run_metadata",
    run.c.metadata,
    postgresql_using="gin",
    postgresql_ops={"metadata": "jsonb_path_ops"},
    postgresql_where=run.c.metadata != sa.text("'{}'::jsonb"),
)
sa.Index("run_batch", run.c.batch_id, run.c.ended_at, postgresql_where=run.c.batch_id.isnot(None))
sa.Index("run_failed", run.c.ended_at, postgresql_where=run.c.ended_as == "failed")
sa.Index(
    "run_deadline",
    run.c.deadline_at,
    postgresql_where=sa.and_(run.c.ended_at.is_(None), run.c.deadline_at.isnot(None)),
)
sa.Index(
    "run_ingesting",
    run.c.id,
    postgresql_where=sa.and_(run.c.ended_at.is_(None), run.c.kind == "ingestion"),
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
    # The position of its first message in the transcript; a turn reads all messages before it.
    sa.Column("seq", sa.Integer, nullable=False),
    sa.Column("call", JSONB),
    sa.Column("effect", sa.Text),
    sa.Column("barrier_id", UUID),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
    sa.Column("max_attempts", sa.Integer, nullable=False),
    sa.Column(
        "tries", sa.Integer, nullable=False, server_default="0"
    ),  # attempts that ended with an error; the agent's Retry limits them
    sa.Column("worker", sa.Text),
    sa.Column("error", JSONB),
    # See core/tool.py, Policy.
    sa.Column("policy", JSONB),
    # For a `waiting` step: the event that ends the wait, and its time limit. Then a person's answer.
    sa.Column("waits_for", sa.Text),
    when("expires_at"),
    sa.Column("answer", JSONB),
    sa.Column("child_run_id", UUID),
    # For a call of a program: the place of its end among all ends of the run, 0 before; and its result. A delegation's is the content of its run.
    sa.Column("arrival", sa.Integer),
    sa.Column("result", JSONB),
    # The last attempt was interrupted: the next one calls the tool's reconcile hook first.
    sa.Column("reconciling", sa.Boolean, nullable=False, server_default="false"),
    # `not_before` is a timer, NULL once it is due; `due_at` is the due time of the submit, and stays.
    when("not_before"),
    when("due_at"),
    when("lease_until"),
    when("sent_at"),
    # When a sent step that nobody claimed is sent again although its queue is not empty.
    sa.Column(
        "resend_at",
        sa.DateTime(timezone=True),
        nullable=False,
        server_default=sa.text("now() + '00:01:00'::interval"),
    ),
    now("created_at"),
    when("started_at"),
    when("ended_at"),
    sa.UniqueConstraint("run_id", "generation", "key", name="step_key"),
    one_of("status", StepStatus, "step_status"),
    one_of("kind", StepKind, "step_kind"),
    one_of("waits_for", WaitsFor, "step_waits_for"),
    sa.CheckConstraint("(status = 'waiting') = (waits_for IS NOT NULL)", name="step_waiting"),
    sa.CheckConstraint("(status = 'running') = (lease_until IS NOT NULL)", name="step_lease"),
    # No worker executes a wait: earlier code, which would let it go as a call, is refused.
    sa.CheckConstraint("kind <> 'wait' OR status <> 'ready' AND status <> 'running'", name="step_wait"),
)
# The keeper reads open steps only: these indexes stay small, whatever the size of the past. A ready step is in `step_timer` or in
# `step_sent`, a running or waiting one in `step_due`, and one that enters its session at a set time is in `step_entry`, too; every write of a
# step opens all indexes, so there are few.
sa.Index(
    "step_timer",
    step.c.not_before,
    postgresql_where=sa.and_(step.c.status == "ready", step.c.not_before.isnot(None)),
)
sa.Index(
    "step_sent",
    step.c.queue,
    step.c.resend_at,
    postgresql_where=sa.and_(step.c.status == "ready", step.c.not_before.is_(None)),
)
sa.Index(
    "step_due",
    sa.func.coalesce(step.c.lease_until, step.c.expires_at),
    postgresql_where=step.c.status.in_(("running", "waiting")),
)
sa.Index(
    "step_entry",
    step.c.not_before,
    postgresql_where=sa.and_(step.c.status == "waiting", step.c.not_before.isnot(None)),
)
sa.Index(
    "step_ingesting",
    step.c.run_id,
    postgresql_where=sa.and_(
        step.c.kind.in_(("scan", "ingest", "embed", "finalize")),
        step.c.status.in_(("ready", "running", "waiting")),
    ),
)
sa.Index(
    "step_person",
    step.c.created_at,
    step.c.seq,
    postgresql_where=sa.and_(
        step.c.status == "waiting",
        step.c.waits_for.in_(("confirmation", "answer", "execution", "resolution")),
    ),
)
sa.Index(
    "step_arrival",
    step.c.run_id,
    step.c.generation,
    step.c.arrival,
    postgresql_where=step.c.arrival.isnot(None),
)
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
    # For a run: the step to write, {id, kind, key, queue, priority, seq, max_attempts}. For a user's chord: Celery's signature of the body.
    sa.Column("body", JSONB, nullable=False),
    now("created_at"),
    when("fired_at"),
)

sa.Index(
    "barrier_open",
    barrier.c.created_at,
    postgresql_where=sa.and_(barrier.c.run_id.is_(None), barrier.c.fired_at.is_(None)),
)

sa.Index("barrier_run", barrier.c.run_id, postgresql_where=barrier.c.run_id.isnot(None))

message = sa.Table(
    "message",
    metadata,
    sa.Column("run_id", UUID, sa.ForeignKey("agno.run.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("content", JSONB, nullable=False),
    now("created_at"),
)

run_event = sa.Table(
    "run_event",
    metadata,
    sa.Column("run_id", UUID, sa.ForeignKey("agno.run.id", ondelete="CASCADE"), primary_key=True),
    # From 1 without a gap; set when the event is first read, and never changed.
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("event", sa.Text, nullable=False),
    # The id of the run or of the step that it is about.
    sa.Column("subject", UUID, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("error", JSONB),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    # More about it: the text of a report.
    sa.Column("data", JSONB),
    sa.UniqueConstraint("run_id", "event", "subject", "attempt", name="run_event_once"),
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    # Exactly one: a step to send, an ended run with a canvas to continue, or a user's chord whose body is due.
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

blob = sa.Table(
    "blob",
    metadata,
    sa.Column("sha256", sa.LargeBinary, primary_key=True),
    sa.Column("content", JSONB, nullable=False),
    # When a transaction last stored it, by the day. A volatile default would rewrite the table in the migration.
    sa.Column("used_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
)
definition = sa.Table(
    "definition",
    metadata,
    sa.Column("sha256", sa.LargeBinary, primary_key=True),
    sa.Column("content", JSONB, nullable=False),
    now("created_at"),
)
batch = sa.Table(
    "batch",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    tenant(),
    sa.Column("agent", sa.Text, nullable=False),
    sa.Column("size", sa.Integer, nullable=False),
    sa.Column("metadata", JSONB, nullable=False, server_default="{}"),
    now("created_at"),
    when("cancelled_at"),
)
sa.Index("batch_cancelled", batch.c.cancelled_at, postgresql_where=batch.c.cancelled_at.isnot(None))
