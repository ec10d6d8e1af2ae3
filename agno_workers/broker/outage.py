"""One line in the log when an outage begins and one when it is over, not one for each attempt in between."""

from __future__ import annotations

import logging
import time

import redis
from kombu.exceptions import BatchPublishError, OperationalError

from agno_workers.errors import UnusableDatabase

BROKER_ERRORS = (OperationalError, BatchPublishError, redis.RedisError, OSError)
"""Redis is unreachable, or refuses a command."""

_OVER_AFTER_S = 3.0


class Outage:
    """The outages of one server, as one component sees them; threads may share it."""

    def __init__(self, log: logging.Logger, server: str) -> None:
        self._log = log
        self._server = server
        self._began_at: float | None = None
        self._failed_at = 0.0
        self._told: set[str] = set()

    def failed(self, message: str, *args: object) -> None:
        """Log the failure if it is the first one of an outage, or if it is another reason that only a change of the database ends."""
        self._failed_at = time.monotonic()
        reasons = {str(each) for each in args if isinstance(each, UnusableDatabase)}
        is_told = self._began_at is not None and reasons <= self._told
        level = logging.DEBUG if is_told else logging.WARNING
        self._told |= reasons
        self._began_at = self._began_at or self._failed_at
        self._log.log(level, message, *args)

    def worked(self) -> None:
        """Log the end of an outage, a few seconds after its last failure: some commands may work while others fail."""
        began_at = self._began_at
        if began_at is not None and time.monotonic() - self._failed_at > _OVER_AFTER_S:
            self._began_at = None
            self._told.clear()
            self._log.warning("%s can be used again after %.0f s", self._server, self._failed_at - began_at)
