"""Print the first migration: `./run python -m agno_workers.database.tables > .../versions/0001_tables.sql`."""

from agno_workers.database.tables import ddl

print("\n".join(line.rstrip() for line in ddl().splitlines()))  # noqa: T201 - for a file
