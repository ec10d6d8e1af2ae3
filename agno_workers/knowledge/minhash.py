"""MinHash bands, which find near-duplicates by an index lookup: shingles of five words, 16 bands of five rows.

The similarity of two documents is the Jaccard index J of their shingles. A band is a hash over ROWS minima, so two documents
share a band with probability J^5, and those that share no band are never compared. The number of shared bands estimates J.
Pairs that share at least `NEAR_BANDS` of 16 are near-duplicates, which happens with probability

    J     0.5    0.6    0.7    0.75   0.8    0.85   0.9    0.95
    p     .001   .03    .28    .55    .82    .97    .999   1.0

so a copy with another date or a changed sentence is found, and two pages of one template are not. Measured in
`tests/unit/knowledge/test_minhash.py`.

Bands are stored and compared between machines, so the integer arithmetic is written out here and independent of library
hashes, process seeds and byte order.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

BANDS = 16
ROWS = 5
SHINGLE_WORDS = 5
SHINGLE_CHARS = 12
"""Characters in a shingle of a text without blanks between words (Chinese, Japanese, Thai)."""
MIN_SHINGLES = 24
"""A shorter text has no bands: one changed word would be most of the document."""
MAX_CHARS = 1_000_000
"""Characters that are compared, from the beginning."""

Hashes = NDArray[np.uint64]

_BLOCK = 512  # shingles hashed at once: 80 x 512 x 8 bytes fit in the cache
_LONG_WORD = 16  # mean characters a word, above which a text has no blanks between words


def bands(text: str) -> tuple[int, ...]:
    """Return the bands of a text as signed 64 bit integers; empty if it is too short."""
    shingles = _shingles(text[:MAX_CHARS].casefold())
    if len(shingles) < MIN_SHINGLES:
        return ()
    least = np.full((BANDS * ROWS, 1), np.iinfo(np.uint64).max, np.uint64)
    for begin in range(0, len(shingles), _BLOCK):
        hashes = _FACTORS * shingles[begin : begin + _BLOCK]
        np.minimum(least, hashes.min(axis=1, keepdims=True), out=least)
    folded = _fold(least.reshape(BANDS, ROWS), ROWS)[:, 0]
    return tuple(folded.view(np.int64).tolist())


def _shingles(text: str) -> Hashes:
    """Hash each shingle of words, or of characters."""
    words = text.split()
    if len(text) > len(words) * _LONG_WORD:
        points = np.frombuffer("".join(words).encode("utf-32-le", "replace"), "<u4")
        return _fold(points.astype(np.uint64), SHINGLE_CHARS)
    sums = map(zlib.crc32, map(str.encode, words))
    return _fold(np.fromiter(sums, np.uint64, len(words)), SHINGLE_WORDS)


def _fold(hashes: Hashes, width: int) -> Hashes:
    """Hash each run of `width` neighbours along the last axis; their order matters."""
    runs = max(hashes.shape[-1] - width + 1, 0)
    folded = np.zeros((*hashes.shape[:-1], runs), np.uint64)
    for place in range(width):
        folded = (folded ^ hashes[..., place : place + runs]) * _PRIME
        folded ^= folded >> _HALF
    return folded


def _stream(count: int, seed: int) -> Hashes:
    """Return `count` reproducible pseudo-random numbers (splitmix64)."""
    mixed = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


_PRIME, _HALF = np.uint64(0xFF51AFD7ED558CCD), np.uint64(32)
_FACTORS = (_stream(BANDS * ROWS, 1) | np.uint64(1))[
    :, None
]  # odd: each is a permutation of the 64-bit numbers
