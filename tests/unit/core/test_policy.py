"""How long to wait after a failed attempt."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agno_workers.core.policy import Retry, delay_s

NO_JITTER = Retry(first_delay_s=1.0, factor=2.0, max_delay_s=60.0, jitter=0.0)
shares = st.floats(0, 1, exclude_max=True)
retries = st.builds(
    Retry,
    first_delay_s=st.floats(0.001, 100),
    factor=st.one_of(st.floats(1, 100), st.integers(1, 100)),
    max_delay_s=st.floats(0.001, 10_000),
    jitter=st.floats(0, 1),
)


@pytest.mark.parametrize(
    ("attempt", "expected"), [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (8, 60), (5000, 60)]
)
def test_delays_double_up_to_the_longest(attempt: int, expected: float) -> None:
    assert delay_s(NO_JITTER, attempt, 0.5) == expected


@pytest.mark.parametrize(("random01", "expected"), [(0.0, 6.0), (0.5, 8.0), (0.999999, 10.0)])
def test_jitter_spreads_a_delay_by_its_share(random01: float, expected: float) -> None:
    assert delay_s(Retry(jitter=0.25), 4, random01) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("wish", "expected"), [(None, 8.0), (0.0, 8.0), (-1.0, 8.0), (3.0, 8.0), (120.0, 120.0)]
)
def test_a_providers_wish_is_a_lower_bound_even_above_the_longest_delay(
    wish: float | None, expected: float
) -> None:
    assert delay_s(NO_JITTER, 4, 0.5, wish) == expected


@settings(deadline=None)
@given(retries, st.integers(1, 10**6), shares)
def test_every_delay_is_finite_and_within_the_jitter_around_its_bounds(
    retry: Retry, attempt: int, random01: float
) -> None:
    delay = delay_s(retry, attempt, random01)
    shortest = min(retry.first_delay_s, retry.max_delay_s) * (1 - retry.jitter)
    assert math.isfinite(delay)
    assert shortest * (1 - 1e-9) <= delay <= retry.max_delay_s * (1 + retry.jitter) * (1 + 1e-9)


@settings(deadline=None)
@given(retries, st.integers(1, 100), shares, st.floats(0, 10_000))
def test_a_later_attempt_never_waits_less_and_a_wish_is_always_met(
    retry: Retry, attempt: int, random01: float, wish: float
) -> None:
    assert delay_s(retry, attempt + 1, random01) >= delay_s(retry, attempt, random01) >= 0
    assert delay_s(retry, attempt, random01, wish) >= wish
