"""The life of a run in Postgres: each module is one job, with its SQL beside it."""
