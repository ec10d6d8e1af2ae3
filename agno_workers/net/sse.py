"""Server-sent events. The SDKs' decoders build an object for each event, and take quadratic time for a long line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

_BOM = b"\xef\xbb\xbf"
_OTHER_FIELDS = (b":", b"event:", b"id:", b"retry:", b"data")


def events(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the data of each event, up to OpenAI's `[DONE]` or the end.

    Servers also forget the blank line between two events or after the last one, answer with plain JSON or a page instead
    of events, and break off with a plain JSON error: such text is the data of one more event.
    """
    plain: list[bytes] = []
    found = False
    for whole in _framed(_lines(chunks), plain):
        if whole == b"[DONE]":
            break
        found = True
        yield whole
    yield from (rest for rest in _whole(plain) if not found or _is_json(rest))


def _framed(lines: Iterable[bytes], plain: list[bytes]) -> Iterator[bytes]:
    """Yield the data of each event; append the lines outside of events to `plain`."""
    data: list[bytes] = []
    for line in lines:
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line or line.isspace():
            yield from _whole(data)
            data = []
        elif not line.startswith(_OTHER_FIELDS):
            plain.append(line)
    yield from (
        whole for whole in _whole(data) if whole == b"[DONE]" or _is_json(whole)
    )  # else it was cut off


def _whole(data: list[bytes]) -> list[bytes]:
    """Return the data of an event; of several events if each of its lines is JSON of its own."""
    if len(data) > 1:
        lines = [line for line in map(bytes.strip, data) if line]
        alone = all(line == b"[DONE]" or _is_json(line) for line in lines)
        return lines if alone else [b"\n".join(data)]
    return [line] if data and (line := data[0].strip()) else []


def _is_json(data: bytes) -> bool:
    try:
        msgspec.json.decode(data, type=msgspec.Raw)
    except (ValueError, RecursionError):
        return False
    return True


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield lines without their ends: LF, CRLF or CR. Pieces of a long line are joined once, in linear time."""
    pieces: list[bytes] = []
    first, carried = True, b""
    for chunk in chunks:
        arrived = carried + chunk
        carried = b"\r" if arrived.endswith(b"\r") else b""  # an LF may follow in the next chunk
        arrived = arrived.removesuffix(carried).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        start, *more = arrived.split(b"\n")
        pieces.append(start)
        if more:
            line = b"".join(pieces)
            yield line.removeprefix(_BOM) if first else line
            first = False
            yield from more[:-1]
            pieces = [more[-1]]
    if last := b"".join(pieces):
        yield last.removeprefix(_BOM) if first else last
