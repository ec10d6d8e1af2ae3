"""Programs: what teams and workflows have beside their runs and steps.

run ──< signal       sent to a run from outside; a wait takes each once
  ├──< report        what its steps said of their progress
  ├──< map_item      the items of a map
  └──  budget ──< budget_hold     the limits of a whole tree of runs, and what calls under way may still use
"""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, UUID

from agno_workers.database.tables.base import metadata, now

signal = sa.Table(
    "signal",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    sa.Column("run_id", UUID, sa.ForeignKey("agno.run.id", ondelete="CASCADE"), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("payload", JSONB),
    # The sender's: the same signal is sent once.
    sa.Column("key", sa.Text),
    # The wait that took it; NULL: it is kept.
    sa.Column("step_id", UUID),
    now("sent_at"),
    sa.UniqueConstraint("run_id", "name", "key", name="signal_key"),
)
sa.Index(
    "signal_kept",
    signal.c.run_id,
    signal.c.name,
    signal.c.sent_at,
    postgresql_where=signal.c.step_id.is_(None),
)

report = sa.Table(
    "report",
    metadata,
    sa.Column("id", UUID, primary_key=True),
    # The run whose events have it: the one that reports, the run of its team, or the first run of its tree.
    sa.Column("run_id", UUID, sa.ForeignKey("agno.run.id", ondelete="CASCADE"), nullable=False),
    # Its place among the reports of the run, from 1; two may share a place.
    sa.Column("number", sa.Integer, nullable=False),
    # The run that reports, and its step.
    sa.Column("from_run_id", UUID, nullable=False),
    sa.Column("step_id", UUID, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    # From 0 to 1; NULL: unknown.
    sa.Column("fraction", sa.Double),
    now("at"),
)
sa.Index("report_run", report.c.run_id, report.c.number)

map_item = sa.Table(
    "map_item",
    metadata,
    # The run that maps them.
    sa.Column("run_id", UUID, sa.ForeignKey("agno.run.id", ondelete="CASCADE"), primary_key=True),
    # One attempt to store them; a run of the map names its list.
    sa.Column("list_id", UUID, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("content", JSONB, nullable=False),
)

budget = sa.Table(
    "budget",
    metadata,
    sa.Column("run_id", UUID, sa.ForeignKey("agno.run.id", ondelete="CASCADE"), primary_key=True),
    # The limits of the latest call; NULL: none.
    sa.Column("tokens", sa.BigInteger),
    sa.Column("cost_usd", sa.Numeric(14, 6)),
    sa.Column("used_tokens", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("used_usd", sa.Numeric(14, 6), nullable=False, server_default="0"),
)
budget_hold = sa.Table(
    "budget_hold",
    metadata,
    # The step of the call. It counts while the step is `running`.
    sa.Column("step_id", UUID, primary_key=True),
    sa.Column("run_id", UUID, sa.ForeignKey("agno.budget.run_id", ondelete="CASCADE"), primary_key=True),
    sa.Column("tokens", sa.BigInteger, nullable=False),
    sa.Column("cost_usd", sa.Numeric(14, 6), nullable=False),
)
sa.Index("budget_hold_run", budget_hold.c.run_id)
