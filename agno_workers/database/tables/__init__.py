"""The definitions of all tables, one module per domain. A test compares a migrated database with them.

Functions are in the `functions/*.sql` files of each feature.
"""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import psycopg

from agno_workers.database.tables import canvas, knowledge, operations, runs
from agno_workers.database.tables.base import SCHEMA, metadata

__all__ = ["SCHEMA", "canvas", "knowledge", "metadata", "operations", "runs"]

_DIALECT = psycopg.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy has no types for it


def ddl() -> str:
    """Return the statements that create all tables; the first migration is this text."""
    statements: list[str] = []
    engine = sa.create_mock_engine(
        "postgresql+psycopg://",
        lambda statement, *_, **__: statements.append(str(statement.compile(dialect=_DIALECT)).strip()),
    )
    metadata.create_all(engine, checkfirst=False)
    # SQLAlchemy creates a table's indexes in any order.
    for first, last in _runs_of(statements, "CREATE INDEX", "CREATE UNIQUE INDEX"):
        statements[first:last] = sorted(statements[first:last])
    return ";\n\n".join(statements) + ";\n"


def _runs_of(statements: list[str], *starts: str) -> list[tuple[int, int]]:
    """Return the slices of adjacent statements with one of these starts."""
    found, first = [], None
    for place, statement in enumerate([*statements, ""]):
        if statement.startswith(starts):
            first = place if first is None else first
        elif first is not None:
            found.append((first, place))
            first = None
    return found
