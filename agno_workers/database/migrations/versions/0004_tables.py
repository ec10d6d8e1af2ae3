"""Add what the tables of 0002 lack. The number 0003 was used by code that was never released."""

from agno_workers.database.migrations import execute

revision = "0004"
down_revision = "0002"


def upgrade() -> None:
    execute("0004_tables.sql")
