"""Operations: registered agents, workers, refused messages, and the state of the keeper."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from agno_workers.database.tables.base import metadata, now, tenant, when

agent = sa.Table(
    "agent",
    metadata,
    tenant(),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False, server_default="agent"),
    sa.Column("description", sa.Text, nullable=False, server_default=""),
    # Runs of this agent are sent to this Celery queue unless the caller names another one.
    sa.Column("queue", sa.Text, nullable=False),
    # The queue of its background work; NULL, from a worker of earlier code, is `background`.
    sa.Column("background_queue", sa.Text),
    sa.Column("definition", JSONB, nullable=False, server_default="{}"),
    # The names of its tools.
    sa.Column("tools", JSONB, nullable=False, server_default="[]"),
    now("created_at"),
    # When a worker last registered it.
    now("seen_at"),
    sa.PrimaryKeyConstraint("tenant", "name"),
)
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
    # The names of the agents that it knows; NULL for a worker of earlier code.
    sa.Column("agents", JSONB),
    sa.Column("steps", sa.Integer, nullable=False, server_default="0"),
    now("started_at"),
    now("seen_at"),
    when("stopped_at"),
)
quarantine = sa.Table(
    "quarantine",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    # `unreadable`, `unsigned`, `altered`, `replayed`, `unknown_task`, `unsendable`
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("queue", sa.Text, nullable=False),
    sa.Column("task", sa.Text),
    sa.Column("message_id", sa.Text),
    # The beginning of the message as text, and the size of all of it.
    sa.Column("head", sa.Text, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("worker", sa.Text, nullable=False),
    now("created_at"),
)
sa.Index("quarantine_created", quarantine.c.created_at)
meta = sa.Table(
    "meta",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    when("until"),
    # How often keepers have renewed their lease. Redis stores a copy, so that a restore of either of the two is noticed.
    sa.Column("beat", sa.BigInteger, nullable=False, server_default="0"),
)
