"""The rate of an ingestion, the time left, and the lines that report them. Pure."""

from __future__ import annotations

from collections import deque
from datetime import timedelta

from agno_workers.cli.screen import count, length
from agno_workers.knowledge.types import Progress

_WINDOW_S = 20.0
"""Rates are averages over this time: an ingestion has quick and slow documents."""
_TOO_SHORT_S = 0.5


class Arrivals:
    """Samples of the progress of one ingestion. Times are seconds of one clock."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int, int]] = deque()

    def look(self, progress: Progress, at: float) -> None:
        self._samples.append((at, progress.settled, progress.embedded))
        while len(self._samples) > 2 and at - self._samples[1][0] > _WINDOW_S:
            self._samples.popleft()

    @property
    def documents_per_s(self) -> float:
        return self._per_s(1)

    @property
    def vectors_per_s(self) -> float:
        return self._per_s(2)

    def left(self, progress: Progress) -> timedelta | None:
        """Return the time until everything known so far is ingested; None while it is unknown.

        Documents and vectors are processed in parallel.
        """
        remaining = [
            (progress.total - progress.settled, self.documents_per_s),
            (progress.to_embed, self.vectors_per_s),
        ]
        if any(amount > 0 and per_s <= 0 for amount, per_s in remaining):
            return None
        return timedelta(
            seconds=round(max(max(0, amount) / per_s if per_s else 0.0 for amount, per_s in remaining))
        )

    def _per_s(self, which: int) -> float:
        if len(self._samples) < 2:
            return 0.0
        first, last = self._samples[0], self._samples[-1]
        took_s = last[0] - first[0]
        return (last[which] - first[which]) / took_s if took_s >= _TOO_SHORT_S else 0.0


def share(progress: Progress) -> float:
    """Return the finished share, 0 to 1: reading counts for one half, vectors for the other."""
    read = progress.settled / progress.total if progress.total else float(progress.scanned)
    vectors = progress.embedded + progress.to_embed + progress.refused
    embedded = (progress.embedded + progress.refused) / vectors if vectors else read
    return min(1.0, (read + embedded) / 2)


def counted(progress: Progress) -> str:
    """Return the counts in words: `12 of 40 documents (8 new, 3 unchanged, 1 failed), 96 chunks, 80 of 90 vectors`."""
    total = f"{progress.total:,}{'' if progress.scanned else '+'}"
    others = {
        "new": progress.new,
        "changed": progress.changed,
        "unchanged": progress.unchanged,
        "duplicate" if progress.duplicates == 1 else "duplicates": progress.duplicates,
        "failed": progress.failed,
        "removed": progress.removed,
    }
    details = ", ".join(f"{many:,} {what}" for what, many in others.items() if many)
    vectors = progress.embedded + progress.to_embed + progress.refused
    embedded = f", {progress.embedded:,} of {vectors:,} vectors" if vectors else ""
    return f"{progress.settled:,} of {total} documents{f' ({details})' if details else ''}, {count(progress.chunks, 'chunk')}{embedded}"


def rate(arrivals: Arrivals, progress: Progress) -> str:
    """Return `41 documents/s, 9 s left`, with vectors once all documents are read; empty while the rate is unknown."""
    reading = progress.settled < progress.total
    if not reading and not progress.to_embed:
        return ""
    per_s, what = (arrivals.documents_per_s, "documents") if reading else (arrivals.vectors_per_s, "vectors")
    parts = [f"{per_s:.0f} {what}/s" if per_s >= 10 else f"{per_s:.1f} {what}/s"] if per_s > 0 else []
    if (left := arrivals.left(progress)) is not None:
        parts.append(f"{length(left)} left{'' if progress.scanned else ' for the known documents'}")
    return ", ".join(parts)
