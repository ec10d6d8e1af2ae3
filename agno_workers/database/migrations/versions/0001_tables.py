"""The first tables.

It creates the extension `vector` (pgvector 0.8 or newer). If the database's owner may not, an administrator does so first:
`CREATE EXTENSION vector`.
"""

from agno_workers.database.migrations import execute

revision = "0001"
down_revision = None


def upgrade() -> None:
    execute("0001_tables.sql")
