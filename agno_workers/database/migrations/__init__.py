"""Alembic's migrations: numbered, forward only, safe to run twice; old code must be able to live on the new schema."""
