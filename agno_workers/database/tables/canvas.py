"""The canvas of users: the parts of their chords, and the results of their own Celery tasks."""

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
