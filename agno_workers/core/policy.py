"""The number of attempts, and the waits between them. Pure: the random number is an argument."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated

import msgspec

from agno_workers.core.checks import Count, Positive, PositiveOrZero
from agno_workers.core.fields import Fields


class Retry(msgspec.Struct, metaclass=Fields, frozen=True):
    """The attempts of a model call before the run fails, or of a tool call before the model gets the error; and the waits between."""

    attempts: Count = 4
    """All attempts, the first one included."""
    first_delay_s: PositiveOrZero = 1.0
    """Seconds before the second attempt."""
    factor: Positive = 2.0
    """Each delay is this many times the one before."""
    max_delay_s: PositiveOrZero = 60.0
    """The longest delay, in seconds."""
    jitter: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.25
    """The share of a delay that is random: 0.25 spreads 8 s over 6 to 10 s."""
    output_attempts: Count = 3
    """Turns in which an answer may fit `output_schema`, the first one included."""


MAX_RETRY_AFTER_S = 3600.0
"""The most that a server's Retry-After may delay the next attempt."""
MAX_DELAY_S = 366 * 86_400.0
"""The most that anything may, so that the time of the next attempt fits the database."""

_EPOCH_S, _EPOCH_MS = 1e9, 1e12
"""A greater number of seconds is a time since 1970, in seconds or milliseconds."""


def delay_s(retry: Retry, attempt: int, random01: float, at_least_s: float | None = None) -> float:
    """Return the seconds to wait after failed attempt number `attempt` (1 = the first): exponential backoff with jitter.

    `at_least_s` is what a server or a tool asked for. `random01` is a number in [0, 1).
    """
    try:
        backoff = min(retry.max_delay_s, retry.first_delay_s * float(retry.factor) ** (attempt - 1))
    except OverflowError:  # 2.0 ** 1024, after very many attempts
        backoff = retry.max_delay_s
    jittered = backoff * (1 + retry.jitter * (2 * random01 - 1))
    return min(MAX_DELAY_S, max(jittered, at_least_s or 0.0))


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds that a server asks to wait, at most an hour: from retry-after-ms or Retry-After, which is a number of
    seconds, a date, or a time since 1970; None without them.
    """
    for name, unit in (("retry-after-ms", 1000), ("retry-after", 1)):
        if (wait_s := _wait_s(headers.get(name, ""), unit, now)) is not None:
            return min(MAX_RETRY_AFTER_S, max(0.0, wait_s))
    return None


def _wait_s(value: str, unit: int, now: datetime) -> float | None:
    if (number := _number(value.partition(",")[0])) is None:  # the first of several headers
        return _until(value, now)
    seconds = number / (1000 if number > _EPOCH_MS else unit)
    return seconds - now.timestamp() if seconds > _EPOCH_S else seconds


def _until(date: str, now: datetime) -> float | None:
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            when = read(date)
            return ((when if when.tzinfo else when.replace(tzinfo=UTC)) - now).total_seconds()
        except (ValueError, OverflowError):
            continue
    return None


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def is_temporary(status: int) -> bool:
    """Return True for an HTTP status that is worth another try."""
    return status in (408, 409, 425, 429) or status >= 500
