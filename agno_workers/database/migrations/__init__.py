"""Migrations of the tables; a test keeps NEWEST equal to Alembic's head."""

NEWEST = "0001"
"""The revision that this code needs."""
