"""Add what the tables of 0001 lack."""

from agno_workers.database.migrations import execute

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    execute("0002_tables.sql")
