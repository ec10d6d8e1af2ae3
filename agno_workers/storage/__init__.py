"""Postgres: the one durable store. `Journal` moves runs, `Results` serves Celery, `Look` answers questions."""
