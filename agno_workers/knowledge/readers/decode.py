"""Decode text: by the byte order mark, as UTF-8, as declared, or by detection."""

from __future__ import annotations

import codecs
import re

from charset_normalizer import from_bytes

from agno_workers.knowledge.readers.unreadable import MAX_CHARS, too_long

_MARKS = (  # the longer ones first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Python codecs that are not charsets of documents.
_NO_CHARSETS = {
    "utf-7", "idna", "punycode", "unicode_escape", "raw-unicode-escape", "undefined", "mbcs", "oem", "palmos",
}  # fmt: skip
# Browsers treat Latin-1 and ASCII as Windows-1252.
_AS_BROWSERS_DO = {"iso8859-1": "cp1252", "ascii": "cp1252", "gb2312": "gb18030", "gbk": "gb18030"}
# Their bytes are ASCII and therefore valid UTF-8, so the declaration comes first.
_LOOKS_LIKE_ASCII = ("iso2022", "hz", "utf-16", "utf-32")
_SAMPLE_BYTES = 64 * 1024


def decode(content: bytes, declared: str | None = None) -> str:
    """Decode without the byte order mark. Invalid bytes become U+FFFD.

    UTF-8 comes before the declaration: text in another charset is hardly ever valid UTF-8, and declarations are often wrong.
    Raises Unreadable if the text is too long.
    """
    text = _decoded(content, declared)
    if len(text) > MAX_CHARS:
        raise too_long(len(text))
    return text


def charset_of(media_type: str) -> str | None:
    """Return `latin-1` for `text/html; charset="latin-1"`."""
    found = re.search(r"charset\s{0,9}=\s{0,9}[\"']?([\w.:-]{1,40})", media_type[:500], re.IGNORECASE)
    return found[1] if found else None


def marked(content: bytes) -> tuple[bytes, str] | None:
    """Return the byte order mark and its charset. UTF-16 of Latin letters is recognised without a mark."""
    for mark, charset in _MARKS:
        if content.startswith(mark):
            return mark, charset
    even, odd = content[0:400:2].count(0), content[1:400:2].count(0)
    half = min(len(content), 400) // 2
    if half >= 4 and min(even, odd) == 0 and max(even, odd) > half * 0.7:
        return b"", "utf-16-le" if odd else "utf-16-be"
    return None


def _decoded(content: bytes, declared: str | None) -> str:
    if mark := marked(content):
        return content[len(mark[0]) :].decode(mark[1], "replace")
    charset = _codec(declared)
    if charset and charset.startswith(_LOOKS_LIKE_ASCII):
        return content.decode(charset, "replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        # An error far into the text, or at its end, is damage to UTF-8 rather than another charset.
        nearly = error.start > _SAMPLE_BYTES or len(content) - error.start < 4
    if charset and charset != "utf-8":
        try:
            return content.decode(charset)
        except UnicodeDecodeError:
            pass  # a wrong declaration
    return content.decode("utf-8" if nearly else _by_looks(content), "replace")


def _codec(name: str | None) -> str | None:
    """Return the codec of this name, as browsers interpret it."""
    try:
        found = codecs.lookup(name.strip()).name if name and name.isascii() else None
        if found is None or found in _NO_CHARSETS:
            return None
        b"".decode(found)  # rejects base64, zlib, rot13 ..., which are codecs, too
    except (LookupError, ValueError):
        return None
    return _AS_BROWSERS_DO.get(found, found)


def _by_looks(content: bytes) -> str:
    """Detect the charset from the beginning, because charset-normalizer is slow. The default is Windows-1252, as in browsers."""
    best = from_bytes(content[:_SAMPLE_BYTES]).best()
    return best.encoding if best is not None else "cp1252"
