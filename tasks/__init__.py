"""The Celery tasks: each body calls one function and publishes what follows.

This folder is imported as `agno_workers.tasks`: a package named `tasks` would collide with the `tasks.py` of nearly every
Celery project.
"""

if __name__ != "agno_workers.tasks":
    raise ImportError(
        f"import agno_workers.tasks, not {__name__!r}: under two names every task would be registered twice"
    )
