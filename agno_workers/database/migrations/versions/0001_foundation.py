"""Runs, steps, barriers, the transcript, the outbox, Celery's results; submitting from SQL."""

from importlib.resources import files

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    folder = files("agno_workers.database").joinpath("migrations", "versions")
    for name in ("0001_tables.sql", "0001_functions.sql"):
        op.get_bind().exec_driver_sql(folder.joinpath(name).read_text(encoding="utf-8").replace("%", "%%"))
