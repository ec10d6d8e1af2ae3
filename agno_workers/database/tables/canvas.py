"""The canvas of users: the parts of their chords, the results of their own Celery tasks, and those that are not due."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, UUID

from agno_workers.database.tables.base import metadata, now

chord_part = sa.Table(
    "chord_part",
    metadata,
    sa.Column("barrier_id", UUID, sa.ForeignKey("agno.barrier.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("task_id", sa.Text, primary_key=True),
    sa.Column("position", sa.Integer),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("result", JSONB),
    now("created_at"),
)

task_result = sa.Table(
    "task_result",
    metadata,
    sa.Column("task_id", sa.Text, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("meta", JSONB, nullable=False),
    now("updated_at"),
)
task_group = sa.Table(
    "task_group",
    metadata,
    sa.Column("group_id", sa.Text, primary_key=True),
    sa.Column("result", JSONB, nullable=False),
    now("created_at"),
)
revoked = sa.Table(
    "revoked",
    metadata,
    # One may be a run of a canvas that is submitted later.
    sa.Column("task_id", sa.Text, primary_key=True),
    now("created_at"),
)
delayed_task = sa.Table(
    "delayed_task",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    sa.Column("task_id", sa.Text, nullable=False),
    sa.Column("queue", sa.Text, nullable=False),
    # The headers, the properties and the body, as they were received.
    sa.Column("message", JSONB, nullable=False),
    # When the keeper sends it; moved ahead while it does.
    sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
    # How often it could not be sent, for another reason than an outage.
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
)
sa.Index("delayed_task_due", delayed_task.c.due_at)
