"""Knowledge: documents, chunks, vectors, and the runs that ingest them.

Only adds. Code of 0002 does not carry steps of the new kinds: an ingestion waits until a worker of the `knowledge` queue is
there. Makes the extension `vector` (pgvector, 0.8 or newer); where the database's owner may not, its administrator does
that before: `CREATE EXTENSION vector`.
"""

from importlib.resources import files

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    folder = files("agno_workers.database").joinpath("migrations", "versions")
    for name in ("0003_tables.sql", "0003_functions.sql", "0003_search.sql"):
        op.get_bind().exec_driver_sql(folder.joinpath(name).read_text(encoding="utf-8").replace("%", "%%"))
