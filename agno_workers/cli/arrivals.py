"""How an ingestion goes, out of looks at it: rates, the time left, and the lines that say so. Pure."""

from __future__ import annotations

from collections import deque
from datetime import timedelta

from agno_workers.cli.screen import length
from agno_workers.knowledge.types import Progress

_WINDOW_S = 20.0
"""Rates are those of so long: an ingestion has quick and slow documents."""
_TOO_SHORT_S = 0.5


class Arrivals:
    """Looks at one ingestion, one after another. Times are those of one clock, in seconds."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, int, int]] = deque()

    def look(self, progress: Progress, at: float) -> None:
        self._looks.append((at, progress.settled, progress.embedded))
        while len(self._looks) > 2 and at - self._looks[1][0] > _WINDOW_S:
            self._looks.popleft()

    @property
    def documents_per_s(self) -> float:
        return self._per_s(1)

    @property
    def vectors_per_s(self) -> float:
        return self._per_s(2)

    def left(self, progress: Progress) -> timedelta | None:
        """Until all that is known by now is in: documents and vectors are made side by side. None: nobody can say."""
        todo = [
            (progress.total - progress.settled, self.documents_per_s),
            (progress.to_embed, self.vectors_per_s),
        ]
        if any(amount > 0 and per_s <= 0 for amount, per_s in todo):
            return None
        return timedelta(
            seconds=round(max(max(0, amount) / per_s if per_s else 0.0 for amount, per_s in todo))
        )

    def _per_s(self, which: int) -> float:
        if len(self._looks) < 2:
            return 0.0
        first, last = self._looks[0], self._looks[-1]
        took_s = last[0] - first[0]
        return (last[which] - first[which]) / took_s if took_s >= _TOO_SHORT_S else 0.0


def share(progress: Progress) -> float:
    """How much of it is done, 0 to 1: half of it is reading, half of it vectors, as far as is known."""
    read = progress.settled / progress.total if progress.total else float(progress.scanned)
    vectors = progress.embedded + progress.to_embed
    embedded = progress.embedded / vectors if vectors else read
    return min(1.0, (read + embedded) / 2)


def counted(progress: Progress) -> str:
    """What became of its sources, in words: `12 of 40 documents (3 unchanged, 1 failed), 96 chunks, 80 vectors`."""
    total = f"{progress.total:,}{'' if progress.scanned else '+'}"
    others = {
        "unchanged": progress.unchanged,
        "the same as another": progress.duplicates,
        "failed": progress.failed,
        "removed": progress.removed,
    }
    said = ", ".join(f"{many:,} {what}" for what, many in others.items() if many)
    vectors = progress.embedded + progress.to_embed
    made = f", {progress.embedded:,} of {vectors:,} vectors" if vectors else ""
    return f"{progress.settled:,} of {total} documents{f' ({said})' if said else ''}, {progress.chunks:,} chunks{made}"


def rate(arrivals: Arrivals, progress: Progress) -> str:
    """`41 documents/s, 9 s left`, and vectors once all are read; empty as long as nothing can be said."""
    reading = progress.settled < progress.total
    if not reading and not progress.to_embed:
        return ""
    per_s, what = (arrivals.documents_per_s, "documents") if reading else (arrivals.vectors_per_s, "vectors")
    said = [f"{per_s:.0f} {what}/s" if per_s >= 10 else f"{per_s:.1f} {what}/s"] if per_s > 0 else []
    if (left := arrivals.left(progress)) is not None:
        said.append(f"{length(left)} left{'' if progress.scanned else ' of what is known'}")
    return ", ".join(said)
