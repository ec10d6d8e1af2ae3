"""Shared by the resolvers of models and embedders: the environment, the error for what is missing in it, single instances."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from agno_workers.errors import ModelRejected
from agno_workers.models.faults import rejected

T = TypeVar("T")

_built: dict[tuple[object, ...], Any] = {}


def once(key: tuple[object, ...], build: Callable[[], T]) -> T:
    """Return one object for the same key. A lock could stay locked for ever in a fork, so there is none: building twice
    is harmless, and `setdefault` returns only one of the two.
    """
    found: T = _built.get(key) or _built.setdefault(key, build())
    return found


def variable(name: str) -> str:
    """Return an environment variable; empty when it is not set."""
    return os.environ.get(name, "").strip()


def missing(name: str, variable: str, advice: str) -> ModelRejected:
    """Return the error for a model `name` (`provider:model`) that needs this environment variable."""
    return unusable(name, f"{variable} is not set. Set it in the environment, {advice}.")


def unusable(name: str, why: str) -> ModelRejected:
    """Return the error for a model that this environment can't call. `why` ends with the next move."""
    return rejected(name, f"{name} can't be used: {why}", code="not_configured")
