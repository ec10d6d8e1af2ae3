"""Rounds that alternate, and the two ways to time work that is submitted: one by one, and all at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from statistics import quantiles
from time import perf_counter, process_time
from typing import Any, NamedTuple, TypeVar

from celery import exceptions

from benchmarks.processes import cpu_s

T = TypeVar("T")
WAIT_S = 60.0
"""The longest that a result is awaited: many times what the slowest takes."""
_REPEATS = 3


class Lost(Exception):
    """A result did not come in time."""


def alternate(rounds: int, *sides: Callable[[], T], told: list[str] | None = None) -> list[tuple[T, ...]]:
    """Each side's results, one a round. Every other round goes backwards, so that none is always the first.

    A round in which a result was lost is repeated and `told` of: it happens to stock Celery. Raises Lost for the
    fourth loss of one round, or for the first where nobody is told.
    """
    found: list[list[T]] = [[] for _ in sides]
    for number in range(rounds):
        order = range(len(sides))
        for side in order if number % 2 == 0 else reversed(order):
            found[side].append(_told(sides[side], "ours" if side == 0 else "the peer", told))
    return [tuple(each) for each in found]


def _told(side: Callable[[], T], whose: str, told: list[str] | None) -> T:
    for _ in range(_REPEATS if told is not None else 0):
        try:
            return side()
        except Lost as lost:
            assert told is not None
            told.append(f"a round of {whose} was repeated: {lost}")
    return side()


class Cost(NamedTuple):
    """The rate of one round, and its CPU time."""

    per_s: float
    cpu_s: float
    """For each run or task, summed over the watched processes."""


def cost(submit: Callable[[], Any], count: int, *pids: int) -> Cost:
    """Measure the rate as `per_s` does, with the CPU time of these processes and their children. Raises Lost."""
    before = cpu_s(*pids)
    rate = per_s(submit, count)
    return Cost(rate, (cpu_s(*pids) - before) / count)


def latencies_s(submit: Callable[[], Any], count: int) -> list[float]:
    """From the submit to the result, one at a time. What is submitted has Celery's `get`. Raises Lost."""
    took = []
    for _ in range(count):
        began = perf_counter()
        _await(submit())
        took.append(perf_counter() - began)
    return took


def per_s(submit: Callable[[], Any], count: int) -> float:
    """From the first submit to the last result, with all of them under way at once. Raises Lost."""
    began = perf_counter()
    for result in [submit() for _ in range(count)]:
        _await(result)
    return count / (perf_counter() - began)


def _await(result: Any) -> None:
    try:
        result.get(timeout=WAIT_S)
    except exceptions.TimeoutError:
        raise Lost(
            f"a result was not there after {WAIT_S:g} s, Celery's state of it is {_state(result)}"
        ) from None


def _state(result: Any) -> str:
    states = [str(part.state) for part in getattr(result, "results", None) or [result]]
    return ", ".join(f"{count} x {state}" for state, count in Counter(states).items())


def p95(values: Sequence[float]) -> float:
    return quantiles(values, n=20, method="inclusive")[-1] if len(values) > 1 else values[0]


class Took(NamedTuple):
    """The average wall time and CPU time of a call."""

    wall_s: float
    cpu_s: float
    """CPU time of this process only."""


def each(call: Callable[[], Any], count: int) -> Took:
    """Make `count` calls, and return their averages."""
    began, before = perf_counter(), process_time()
    for _ in range(count):
        call()
    return Took((perf_counter() - began) / count, (process_time() - before) / count)
