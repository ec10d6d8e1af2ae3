"""The schema, its metadata, and columns that several tables have."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa

SCHEMA = "agno"
metadata = sa.MetaData(schema=SCHEMA)


def now(name: str) -> sa.Column[datetime]:
    """A timestamp that defaults to the time of the insert."""
    return sa.Column(
        name, sa.DateTime(timezone=True), nullable=False, server_default=sa.func.clock_timestamp()
    )


def when(name: str) -> sa.Column[datetime]:
    """A timestamp that may be NULL."""
    return sa.Column(name, sa.DateTime(timezone=True))


def count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default="0")


def tenant() -> sa.Column[str]:
    """The tenant that a row belongs to; unique keys and list indexes begin with it."""
    return sa.Column("tenant", sa.Text, nullable=False, server_default="default")


def one_of(column: str, values: Iterable[str], name: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"{column} IN ({', '.join(repr(str(value)) for value in values)})", name=name)
