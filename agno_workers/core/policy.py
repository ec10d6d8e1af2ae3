"""Arithmetic of waiting. Pure: the random number is handed in."""

from __future__ import annotations

from agno_workers.core.agent import Retry


def delay_s(retry: Retry, attempt: int, random01: float, retry_after_s: float | None = None) -> float:
    """Seconds to wait after failed attempt number `attempt` (1 = the first).

    Exponential back-off with jitter around it; a provider's Retry-After is a lower bound, since coming
    earlier only costs another refusal. `random01` is a number in [0, 1).
    """
    try:
        backoff = min(retry.max_delay_s, retry.first_delay_s * float(retry.factor) ** (attempt - 1))
    except OverflowError:  # 2.0 ** 1024: an agent that is told to try for days
        backoff = retry.max_delay_s
    jittered = backoff * (1 + retry.jitter * (2 * random01 - 1))
    return max(jittered, retry_after_s or 0.0)
