"""Server-sent events. The SDKs' decoders build an object for each event, and take quadratic time for a long line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def events(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the data of each event, up to OpenAI's `[DONE]` or the end."""
    data: list[bytes] = []
    for line in _lines(chunks):
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            whole = b"\n".join(data)
            if whole == b"[DONE]":
                return
            yield whole
            data = []


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines without their ends. Pieces of a long line are joined once, in linear time."""
    pieces: list[bytes] = []
    for chunk in chunks:
        first, *more = chunk.split(b"\n")
        pieces.append(first)
        if more:
            yield b"".join(pieces).removesuffix(b"\r")
            for line in more[:-1]:
                yield line.removesuffix(b"\r")
            pieces = [more[-1]]
