"""${message}"""

from agno_workers.database.migrations import execute

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    execute("${up_revision}_tables.sql")
