"""Connections, tables, migrations and functions of Postgres."""
