"""Sessions, and what agents remember: state, memories, context."""

from agno_workers.database.migrations import execute

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    execute("0006_tables.sql")
