"""All tables of the first release.

It creates the extension `vector` (pgvector 0.8 or newer). If the database's owner may not, an administrator does so first:
`CREATE EXTENSION vector`.
"""

from importlib.resources import files

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    sql = (
        files("agno_workers.database")
        .joinpath("migrations", "versions", "0001_tables.sql")
        .read_text(encoding="utf-8")
    )
    op.get_bind().exec_driver_sql(sql.replace("%", "%%"))
