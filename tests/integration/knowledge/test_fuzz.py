"""Some hundreds of broken files, new ones each day; many more with `./run python -m tests.fuzz_readers`."""

from __future__ import annotations

from datetime import UTC, datetime

from agno_workers.knowledge.reading import Reading
from agno_workers.knowledge.types import Chunking, Prepared, Raw, Source
from tests.fuzz_readers import fuzz

FILES = 300


def test_each_broken_file_has_an_outcome_and_reading_continues() -> None:
    seed = datetime.now(UTC).toordinal()
    reading = Reading(1, time_limit_s=5)
    try:
        counts = fuzz(reading, FILES, seed)
        (after,) = reading.prepare(
            [(Source("file:///a.md"), Raw(b"# Tides\n\nThe moon pulls the sea.\n"))], Chunking()
        )
    finally:
        reading.close()
    assert counts.total() == FILES, f"seed {seed}"
    assert counts["read"] > FILES / 10, f"seed {seed}: {counts}"
    assert isinstance(after, Prepared)
