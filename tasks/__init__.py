"""The Celery tasks: each body decodes, calls one function, and maps the outcome.

This folder stands at the top of the project and is imported as `agno_workers.tasks`: a package that is called
`tasks` would collide with the `tasks.py` of nearly every Celery project.
"""

if __name__ != "agno_workers.tasks":
    raise ImportError(
        f"import agno_workers.tasks, not {__name__!r}: under two names every task would be registered twice"
    )
