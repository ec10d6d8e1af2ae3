"""Migrations of the tables; a test keeps NEWEST equal to Alembic's head."""

NEWEST = "0001"
"""The revision of the tables that this code needs."""
