"""Migrations of the tables; a test keeps NEWEST equal to Alembic's head."""

from importlib.resources import files

REVISIONS = ("0001", "0002", "0004", "0005", "0006", "0007")
NEWEST = REVISIONS[-1]
"""The revision of the tables that this code needs."""
OLDEST = "0001"
"""The revision of the oldest code that works on tables of NEWEST: migrations only add."""


def statements_of(name: str) -> str:
    """Return the text of `versions/{name}`."""
    return files("agno_workers.database.migrations").joinpath("versions", name).read_text(encoding="utf-8")


def execute(name: str) -> None:
    """Execute the statements of `versions/{name}` in the transaction of the upgrade."""
    from alembic import op  # noqa: PLC0415 - workers read NEWEST, and do not need Alembic

    op.get_bind().exec_driver_sql(statements_of(name).replace("%", "%%"))
