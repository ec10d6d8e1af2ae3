"""Make steps of runs cheaper: fewer indexes, and columns for the keeper."""

from agno_workers.database.migrations import execute

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    execute("0005_tables.sql")
