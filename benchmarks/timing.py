"""Rounds that alternate, and the two ways to time work that is submitted: one by one, and all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import quantiles
from time import perf_counter
from typing import Any, TypeVar

T = TypeVar("T")
WAIT_S = 300.0
"""The longest that a result is awaited."""


def alternate(rounds: int, *sides: Callable[[], T]) -> list[tuple[T, ...]]:
    """Each side's results, one a round. Every other round goes backwards, so that none is always the first."""
    found: list[list[T]] = [[] for _ in sides]
    for number in range(rounds):
        order = range(len(sides))
        for side in order if number % 2 == 0 else reversed(order):
            found[side].append(sides[side]())
    return [tuple(each) for each in found]


def latencies_s(submit: Callable[[], Any], count: int) -> list[float]:
    """From the submit to the result, one at a time. What is submitted has Celery's `get`."""
    took = []
    for _ in range(count):
        began = perf_counter()
        submit().get(timeout=WAIT_S)
        took.append(perf_counter() - began)
    return took


def per_s(submit: Callable[[], Any], count: int) -> float:
    """From the first submit to the last result, with all of them under way at once."""
    began = perf_counter()
    for result in [submit() for _ in range(count)]:
        result.get(timeout=WAIT_S)
    return count / (perf_counter() - began)


def p95(values: Sequence[float]) -> float:
    return quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]
