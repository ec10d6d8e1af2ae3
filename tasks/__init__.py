"""The Celery tasks: each body calls one function and publishes what follows.

This folder is imported as `agno_workers.tasks`: a package named `tasks` would collide with the `tasks.py` of nearly every
Celery project.
"""

import importlib

from agno_workers.broker.start import refuse
from agno_workers.extras import problem

if __name__ != "agno_workers.tasks":
    raise ImportError(
        f"import agno_workers.tasks, not {__name__!r}: under two names every task would be registered twice"
    )

if lacking := problem():  # before an import fails, or the first call of a model
    refuse(f"the worker does not start: {lacking}.")


def __getattr__(name: str) -> object:
    """Return the Celery app for `celery -A agno_workers.tasks`, which looks for `celery`; `app` is the module."""
    if name == "celery":
        return importlib.import_module("agno_workers.tasks.app").app
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
