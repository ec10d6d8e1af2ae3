"""The moves that end a run, after the reply of a model or by a program."""

from __future__ import annotations

from typing import Any

import msgspec


class End(msgspec.Struct, frozen=True):
    """The run is done; `content` is its answer."""

    content: Any
    reason: str = "end"


class Fail(msgspec.Struct, frozen=True):
    """The run fails; another attempt would not help."""

    message: str
    reason: str
    type: str = "RunFailed"
    """The name of the error that the caller gets."""
    content: Any = None
    """The last text, stored with the run."""
