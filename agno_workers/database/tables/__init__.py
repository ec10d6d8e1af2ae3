"""The definitions of all tables, one module per domain. A test compares a migrated database with them.

Functions are in the `functions/*.sql` files of each feature.
"""

from agno_workers.database.tables import canvas, knowledge, operations, programs, runs, sessions
from agno_workers.database.tables.base import SCHEMA, metadata

__all__ = ["SCHEMA", "canvas", "knowledge", "metadata", "operations", "programs", "runs", "sessions"]
