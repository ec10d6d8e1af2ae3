"""The parts that all contestants of the ingestion share: an embedder that costs next to nothing, and their timing.

Needs numpy and psycopg only, because the peers run on the Python of another environment. A peer is a program:
`python PEER DATABASE_URL FOLDER [--again] [--fail-at N]`, which prints what it found as one line of JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

DIMENSIONS = 384
CHUNK_CHARS = 1000
_CAUGHT = (Exception,)


class Stub:
    """Vectors by the hash of their text. Counts what it is asked for, and may fail at some text."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.count = 0
        self.texts: set[str] = set()
        self._fail_at = fail_at

    def vectors(self, texts: Sequence[str]) -> Any:
        """`(len(texts), 384)` float32, unit length."""
        self.count += len(texts)
        self.texts.update(texts)
        if self._fail_at is not None and self.count > self._fail_at:
            raise RuntimeError(f"the embedder refuses text {self.count}")
        return vectors(texts)


def vectors(texts: Sequence[str]) -> Any:
    found = np.empty((len(texts), DIMENSIONS), dtype=np.float32)
    for place, text in enumerate(texts):
        digest = hashlib.shake_128(text.encode("utf-8", "replace")).digest(DIMENSIONS)
        found[place] = np.frombuffer(digest, dtype=np.int8)
    norms: Any = np.linalg.norm(found, axis=1, keepdims=True)
    return found / norms


Ingest = Callable[[str, list[Path], Stub], None]
"""Brings files into the database at an address; called again for the same files once they are in."""


def main(ingest: Ingest, count: str) -> None:
    """`count`: SQL that counts the documents that can be found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("database_url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--again", action="store_true", help="the files are in already, changed or not")
    parser.add_argument("--fail-at", type=int, default=None)
    given = parser.parse_args()
    files = sorted(given.folder.iterdir())
    stub = Stub(given.fail_at)
    failed, began = None, time.perf_counter()
    try:
        ingest(given.database_url, files, stub)
    except _CAUGHT as error:  # what a user would see
        failed = f"{type(error).__name__}: {error}"[:200]
    seconds = time.perf_counter() - began
    with psycopg.connect(given.database_url) as connection:
        try:
            (stored,) = connection.execute(count).fetchone() or (0,)  # type: ignore[arg-type,unused-ignore]
        except psycopg.errors.UndefinedTable:
            stored = 0
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps(
            {
                "seconds": seconds,
                "documents": stored,
                "embedded": stub.count,
                "rss_bytes": rss,
                "failed": failed,
            }
        )
    )
