"""Alembic's environment: it uses the connection of `migrate.upgrade`."""

from alembic import context

from agno_workers.database.tables import SCHEMA, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table_schema=SCHEMA,
    include_schemas=True,
)
with context.begin_transaction():
    context.run_migrations()
