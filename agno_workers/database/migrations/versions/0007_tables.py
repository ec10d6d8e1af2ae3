"""Teams and workflows: calls of programs, signals, and budgets of trees of runs."""

from agno_workers.database.migrations import execute

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    execute("0007_tables.sql")
