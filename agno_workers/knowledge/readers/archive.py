"""Checks of Office files, which are zips of XML, before a parser opens them."""

from __future__ import annotations

import io
import re
import zipfile
import zlib

from agno_workers.knowledge.readers.unreadable import Unreadable

_MAX_ENTRIES = 10_000
_MAX_BYTES = 512 * 1024 * 1024
_MAX_XML_BYTES = 128 * 1024 * 1024
_FREE_BYTES = 32 * 1024 * 1024
_MAX_RATIO = 100  # XML of an Office file shrinks to a tenth, a zip bomb to a thousandth
_MANIFEST = "META-INF/manifest.xml"
_PAGES = (".xhtml", ".html", ".htm", ".ncx", ".svg")
_PROLOG_BYTES = 4096
_ROOT = re.compile(r"<[A-Za-z_]")
_ENCODING = re.compile(r"<\?xml[^>]{0,100}encoding\s{0,9}=\s{0,9}[\"']([^\"'>]{1,40})")
_ENCODINGS = {"utf-8", "utf8", "utf-16", "us-ascii", "ascii", "iso-8859-1", "windows-1252"}


def check(content: bytes, *, pages: bool = False) -> None:
    """Raises Unreadable if the zip is broken, encrypted or too large unpacked, or its XML has a DTD. `pages` allows a DTD in pages of a
    book, which are read as HTML.

    Sizes are those in its directory. Python's zipfile unpacks no more; other libraries may, within the child's memory.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            _check_sizes(archive.infolist(), len(content))
            if _MANIFEST in archive.namelist() and b":encryption-data" in archive.read(_MANIFEST):
                raise Unreadable(
                    "encrypted", "It is a password-protected OpenDocument file: save it without a password."
                )
            for entry in archive.infolist():
                if pages and entry.filename.lower().endswith(_PAGES):
                    continue
                with archive.open(entry) as part:
                    _check_prolog(entry.filename, part.read(_PROLOG_BYTES))
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, ValueError) as error:
        raise Unreadable("unreadable", f"It is a zip that can't be unpacked: {error}.") from error
    except RuntimeError as error:  # zipfile's word for a password
        raise Unreadable("encrypted", f"It is a zip behind a password: {error}.") from error


def names(content: bytes) -> frozenset[str]:
    """Return the names of the files; empty for a broken zip."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return frozenset(archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        return frozenset()


def first_bytes(content: bytes, name: str, count: int = 100) -> bytes:
    """Return the beginning of a file; empty if it can't be read."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, archive.open(name) as part:
            return part.read(count)
    except (zipfile.BadZipFile, zlib.error, KeyError, NotImplementedError, OSError, RuntimeError, ValueError):
        return b""


def _check_sizes(entries: list[zipfile.ZipInfo], packed: int) -> None:
    if len(entries) > _MAX_ENTRIES:
        raise Unreadable("too_large", f"It contains {len(entries):,} files; the limit is {_MAX_ENTRIES:,}.")
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > _MAX_BYTES:
        raise Unreadable("too_large", f"It would unpack to {unpacked:,} bytes; the limit is {_MAX_BYTES:,}.")
    if unpacked > _FREE_BYTES and unpacked > packed * _MAX_RATIO:
        raise Unreadable(
            "too_large",
            f"Its {packed:,} bytes would unpack to {unpacked:,}, more than {_MAX_RATIO} times as much: a zip bomb.",
        )
    for entry in entries:
        if entry.filename.endswith((".xml", ".rels")) and entry.file_size > _MAX_XML_BYTES:
            raise Unreadable(
                "too_large",
                f"{entry.filename!r} in it would unpack to {entry.file_size:,} bytes; the limit is {_MAX_XML_BYTES:,}.",
            )


def _check_prolog(name: str, head: bytes) -> None:
    """Refuse DTDs, which Office XML never has: their entities could read local files or expand without end. XML is recognised by its
    first bytes, because the file itself declares which names are XML. Only encodings in which a DTD is visible are accepted.
    """
    utf16 = head.startswith((b"\xff\xfe", b"\xfe\xff", b"<\0", b"\0<"))
    big = head.startswith((b"\xfe\xff", b"\0<"))
    text = head.decode(("utf-16-be" if big else "utf-16-le") if utf16 else "latin-1", "ignore")
    if not text.lstrip("\ufeff\xef\xbb\xbf \t\r\n").startswith("<"):
        if head and name.endswith((".xml", ".rels")):
            raise Unreadable("unreadable", f"{name!r} in it is not XML in UTF-8 or UTF-16.")
        return
    encoding = _ENCODING.search(text[:300])
    if encoding and encoding[1].lower() not in _ENCODINGS:
        raise Unreadable(
            "unreadable", f"{name!r} in it is XML in {encoding[1]}, which no Office program writes."
        )
    root = _ROOT.search(text)
    if "<!DOCTYPE" in (text[: root.start()] if root else text):
        raise Unreadable("unreadable", f"{name!r} in it declares a DTD, which no Office program writes.")
    if root is None and len(head) == _PROLOG_BYTES:
        raise Unreadable("unreadable", f"{name!r} in it is not XML.")
