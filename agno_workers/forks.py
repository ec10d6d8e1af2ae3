"""Processes that are forked: they must not share connections with their parent, nor locks that one of its threads held."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

T = TypeVar("T")

_owners: weakref.WeakKeyDictionary[Any, Callable[[Any], object]] = weakref.WeakKeyDictionary()


def after_fork(owner: T, renew: Callable[[T], object]) -> None:
    """Call `renew(owner)` first in each process that is forked from this one, as long as the owner exists."""
    _owners[owner] = renew  # `os.register_at_fork` would keep something of each for ever


def renew_locks(*classes: type) -> None:
    """Replace the locks of cached properties: kombu's take theirs at each access, and Python 3.11's at the first one."""
    for each in {base for owner in classes for base in owner.__mro__}:
        for value in vars(each).values():
            if isinstance(value, cached_property):
                value.lock = threading.RLock()  # type: ignore[attr-defined]  # undocumented


def _renew() -> None:
    for owner, renew in list(_owners.items()):
        renew(owner)


os.register_at_fork(after_in_child=_renew)
