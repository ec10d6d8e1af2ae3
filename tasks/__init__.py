"""The Celery tasks: each body calls one function and publishes what follows.

This folder is imported as `agno_workers.tasks`: a package named `tasks` would collide with the `tasks.py` of nearly every
Celery project.
"""

from agno_workers.broker.start import refuse
from agno_workers.extras import problem

if __name__ != "agno_workers.tasks":
    raise ImportError(
        f"import agno_workers.tasks, not {__name__!r}: under two names every task would be registered twice"
    )

if lacking := problem():  # before an import fails, or the first call of a model
    refuse(f"the worker does not start: {lacking}.")
