"""The rate of an ingestion, the time left, and the counts in words."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from agno_workers.cli.arrivals import Arrivals, counted, rate, share
from agno_workers.knowledge.types import Progress

NONE = Progress("r", "docs", "running", True, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def samples(*seen: tuple[float, int, int]) -> Arrivals:
    arrivals = Arrivals()
    for at, documents, embedded in seen:
        arrivals.look(replace(NONE, documents=documents, embedded=embedded), at)
    return arrivals


@pytest.mark.parametrize(
    ("seen", "per_s"),
    [
        ([], 0),
        ([(0, 0, 0)], 0),
        ([(0, 0, 0), (0.1, 50, 0)], 0),  # too short to say
        ([(0, 0, 0), (2, 50, 0)], 25),
        ([(0, 0, 0), (10, 1000, 0), (31, 1042, 0)], 2),  # of the last 20 s
    ],
)
def test_the_rate_is_the_average_of_the_last_20_s(seen: list[tuple[float, int, int]], per_s: float) -> None:
    assert samples(*seen).documents_per_s == pytest.approx(per_s)


@pytest.mark.parametrize(
    ("progress", "left_s"),
    [
        (replace(NONE, total=100, documents=50), 2),  # 25/s
        (replace(NONE, total=50, documents=50, to_embed=200, embedded=100), 4),  # 50/s
        (
            replace(NONE, total=100, documents=50, to_embed=200, embedded=100),
            4,
        ),  # side by side: the longer one
        (replace(NONE, total=50, documents=50), 0),
    ],
)
def test_the_time_left_counts_known_documents_and_vectors(progress: Progress, left_s: float) -> None:
    arrivals = samples((0, 0, 0), (2, 50, 100))
    assert arrivals.left(progress) == timedelta(seconds=left_s)


def test_the_time_left_is_unknown_without_progress() -> None:
    assert samples((0, 5, 0), (2, 5, 0)).left(replace(NONE, total=9, documents=5)) is None
    assert rate(samples((0, 5, 0), (2, 5, 0)), replace(NONE, total=9, documents=5)) == ""


def test_the_rate_is_printed_with_the_time_left() -> None:
    arrivals = samples((0, 0, 0), (2, 50, 0))
    assert rate(arrivals, replace(NONE, total=100, documents=50)) == "25 documents/s, 2 s left"
    growing = replace(NONE, total=100, documents=50, scanned=False)
    assert rate(arrivals, growing) == "25 documents/s, 2 s left for the known documents"
    assert rate(samples((0, 50, 0), (2, 50, 30)), replace(NONE, total=50, documents=50, to_embed=60)) == (
        "15 vectors/s, 4 s left"
    )
    assert rate(arrivals, replace(NONE, total=50, documents=50)) == ""


@pytest.mark.parametrize(
    ("progress", "done"),
    [
        (replace(NONE, scanned=False), 0),
        (NONE, 1),  # nothing to do
        (replace(NONE, total=4, documents=1), 0.25),
        (replace(NONE, total=4, documents=4, to_embed=10), 0.5),
        (replace(NONE, total=4, documents=2, unchanged=1, failed=1, embedded=10), 1),
    ],
)
def test_the_share_is_1_when_everything_is_ingested(progress: Progress, done: float) -> None:
    assert share(progress) == pytest.approx(done)


def test_the_counts_are_printed_in_words() -> None:
    assert counted(NONE) == "0 of 0 documents, 0 chunks"
    one = replace(NONE, total=2, documents=1, duplicates=1, chunks=1)
    assert counted(one) == "2 of 2 documents (1 new, 1 duplicate), 1 chunk"
    progress = replace(
        NONE, scanned=False, total=1200, documents=990, changed=3, unchanged=7, duplicates=2, failed=1, chunks=12345, to_embed=11991, embedded=9
    )  # fmt: skip
    assert counted(progress) == (
        "1,000 of 1,200+ documents (987 new, 3 changed, 7 unchanged, 2 duplicates, 1 failed), 12,345 chunks, 9 of 12,000 vectors"
    )
