"""Migrations of the tables; a test keeps NEWEST equal to Alembic's head."""

from importlib.resources import files

NEWEST = "0004"
"""The revision of the tables that this code needs."""


def execute(name: str) -> None:
    """Execute the statements of `versions/{name}` in the transaction of the upgrade."""
    from alembic import op  # noqa: PLC0415 - workers read NEWEST, and do not need Alembic

    sql = files("agno_workers.database.migrations").joinpath("versions", name).read_text(encoding="utf-8")
    op.get_bind().exec_driver_sql(sql.replace("%", "%%"))
