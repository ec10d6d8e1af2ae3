"""Waiting steps, delegation, forks, batches, deadlines, budgets, pauses; workers, definitions and the quarantine.

Only adds: code of 0001 goes on working beside it (a deploy migrates first, then replaces the workers), on runs of its own
kind. What it does not know it would not heed: before agents use reconcile hooks, calls that wait for a person, agents as
tools, pauses or deadlines, its last worker must have ended.
"""

from importlib.resources import files

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    folder = files("agno_workers.database").joinpath("migrations", "versions")
    for name in ("0002_tables.sql", "0002_functions.sql"):
        op.get_bind().exec_driver_sql(folder.joinpath(name).read_text(encoding="utf-8").replace("%", "%%"))
