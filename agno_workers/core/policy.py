"""The number of attempts, and the waits between them. Pure: the random number is an argument."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec


class Retry(msgspec.Struct, frozen=True):
    """The attempts of a model call before the run fails, or of a tool call before the model gets the error; and the waits between."""

    attempts: int = 4
    first_delay_s: float = 1.0
    factor: float = 2.0
    max_delay_s: float = 60.0
    jitter: float = 0.25
    """The share of a delay that is random: 0.25 spreads 8 s over 6 to 10 s."""
    output_attempts: int = 3
    """Turns in which an answer may fit `output_schema`, the first one included."""


def delay_s(retry: Retry, attempt: int, random01: float, retry_after_s: float | None = None) -> float:
    """Return the seconds to wait after failed attempt number `attempt` (1 = the first): exponential backoff with jitter.

    A provider's Retry-After is a lower bound. `random01` is a number in [0, 1).
    """
    try:
        backoff = min(retry.max_delay_s, retry.first_delay_s * float(retry.factor) ** (attempt - 1))
    except OverflowError:  # 2.0 ** 1024, after very many attempts
        backoff = retry.max_delay_s
    jittered = backoff * (1 + retry.jitter * (2 * random01 - 1))
    return max(jittered, retry_after_s or 0.0)


def retry_after_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds that a server asks to wait, from retry-after-ms or Retry-After (seconds or a date); None without them."""
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    if (seconds := _number(value)) is not None:
        return seconds
    try:
        date = parsedate_to_datetime(value or "")
    except ValueError:
        return None
    return max(0.0, ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds())


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def is_temporary(status: int) -> bool:
    """Return True for an HTTP status that is worth another try."""
    return status in (408, 409, 425, 429) or status >= 500
