"""Broken files by the thousand: valid ones of every format, each with a few faults, read as a worker reads them.

    ./run python -m tests.fuzz_readers --files 20000 --seed 1

Prints what became of them. A file that a child died of is kept in the folder `--keep`, should that be given.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from agno_workers.knowledge.reading import Reading
from agno_workers.knowledge.types import Chunking, Prepared, Raw, Refusal, Source
from tests.fakes.documents import every_format, unzipped, zipped

BATCH = 50
_MAX_BYTES = 1_000_000
_TOKENS = (
    b"\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"-1", b"99999999999", b"1e999", b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&b;", b"]]>",
    b"<!--", b"<ul><li>", b"<table><tr><td>", b"</p>", b"/Kids [2 0 R]", b"/Count -1", b"/Length 99999999", b"endobj", b"<< /Type /Pages >>",
    b"[[[[", b'{"a":', b'"', b"\\ud800", b"\r\n\r\n", b"--b\n", b"> > > > ", b"```", b"|---|", b"\xef\xbb\xbf", b"\xff\xfe", b"=?utf-8?q?=00?=",
    b'rowspan="99999999"', b'w:val="999999999"', b"xmlns:w=''", b"%PDF-1.7", b"PK\x03\x04", b"\xd0\xcf\x11\xe0",
)  # fmt: skip


def broken_files(seed: int) -> Iterator[tuple[str, bytes]]:
    """Without end; the same ones for the same seed."""
    chance = random.Random(seed)
    whole = every_format()
    while True:
        name = chance.choice(list(whole))
        content = whole[name]
        if content.startswith(b"PK") and chance.random() < 0.7:  # inside, where it still unpacks
            files = unzipped(content)
            for part in chance.sample(list(files), k=min(len(files), chance.randint(1, 3))):
                files[part] = _broken(chance, files[part], whole)
            content = zipped(files)
        else:
            content = _broken(chance, content, whole)
        yield (name if chance.random() < 0.9 else chance.choice(list(whole))), content[:_MAX_BYTES]


def _broken(chance: random.Random, content: bytes, others: dict[str, bytes]) -> bytes:
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        content = chance.choice(_FAULTS)(chance, content, others)[:_MAX_BYTES]
    return content


def _span(chance: random.Random, content: bytes) -> tuple[int, int]:
    start = chance.randrange(len(content) + 1)
    return start, min(len(content), start + chance.choice((1, 2, 8, 64, 1024)))


def _flip(chance: random.Random, content: bytes, _: dict[str, bytes]) -> bytes:
    changed = bytearray(content)
    for _at in range(min(len(changed), chance.choice((1, 4, 32)))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _cut(chance: random.Random, content: bytes, _: dict[str, bytes]) -> bytes:
    start, end = _span(chance, content)
    return content[:start] + content[end:]


def _cut_off(chance: random.Random, content: bytes, _: dict[str, bytes]) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def _repeat(chance: random.Random, content: bytes, _: dict[str, bytes]) -> bytes:
    start, end = _span(chance, content)
    return content[:start] + content[start:end] * chance.choice((2, 10, 1000)) + content[end:]


def _insert(chance: random.Random, content: bytes, _: dict[str, bytes]) -> bytes:
    start, _end = _span(chance, content)
    return content[:start] + chance.choice(_TOKENS) * chance.choice((1, 1, 3, 300)) + content[start:]


def _noise(chance: random.Random, content: bytes, _: dict[str, bytes]) -> bytes:
    start, end = _span(chance, content)
    return content[:start] + chance.randbytes(end - start) + content[end:]


def _splice(chance: random.Random, content: bytes, others: dict[str, bytes]) -> bytes:
    other = chance.choice(list(others.values()))
    return content[: _span(chance, content)[0]] + other[_span(chance, other)[0] :]


def _number(chance: random.Random, content: bytes, _: dict[str, bytes]) -> bytes:
    """A digit becomes a large number, where sizes, counts and indexes stand."""
    digits = [at for at, byte in enumerate(content[:100_000]) if 48 <= byte < 58]
    if not digits:
        return content
    at = chance.choice(digits)
    return (
        content[:at]
        + chance.choice((b"0", b"-1", b"65536", b"2147483647", b"99999999999999"))
        + content[at + 1 :]
    )


_FAULTS: tuple[Callable[[random.Random, bytes, dict[str, bytes]], bytes], ...] = (
    _flip, _cut, _cut_off, _repeat, _insert, _insert, _noise, _splice, _number,
)  # fmt: skip


def fuzz(reading: Reading, files: int, seed: int, keep: Path | None = None) -> Counter[str]:
    """How many of them came out how: `read`, or the type of the refusal."""
    source = broken_files(seed)
    counts: Counter[str] = Counter()
    for first in range(0, files, BATCH):
        batch = [next(source) for _ in range(min(BATCH, files - first))]
        items = [(Source(f"file:///{name}"), Raw(content)) for name, content in batch]
        for (name, content), outcome in zip(batch, reading.prepare(items, Chunking()), strict=True):
            counts[outcome.type if isinstance(outcome, Refusal) else "read"] += 1
            if isinstance(outcome, Prepared):
                assert all(chunk.content for chunk in outcome.chunks)
            else:
                assert len(outcome.message) > 10, outcome
                if keep and outcome.type in ("crashed", "memory_limit", "time_limit"):
                    kept = keep / f"{seed}-{counts.total()}-{name}"
                    kept.write_bytes(content)
                    kept.with_suffix(".txt").write_text(f"{outcome.type}: {outcome.message}\n")
    return counts


def main() -> int:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--files", type=int, default=20_000)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--time-limit", type=float, default=5.0, help="seconds of CPU of a document")
    options.add_argument("--keep", type=Path, help="a folder for files that a child died of")
    given = options.parse_args()
    if given.keep:
        given.keep.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    reading = Reading(1, time_limit_s=given.time_limit)
    try:
        counts = fuzz(reading, given.files, given.seed, given.keep)
    finally:
        reading.close()
    seconds = time.monotonic() - begun
    sys.stdout.write(f"{counts.total():,} files tried in {seconds:.0f} s, worker deaths: 0\n")
    for outcome, count in counts.most_common():
        sys.stdout.write(f"  {outcome:<14} {count:>8,}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
