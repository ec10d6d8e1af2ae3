"""Connections, tables, migrations and the functions that live in Postgres."""
