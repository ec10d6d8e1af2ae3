"""Detect the format of a document: by its first bytes, then by the server's media type, then by its name.

A PDF named `.txt` is read as a PDF. A file named `.pdf` that is not a PDF is refused, unless it is a web page, such as an error page.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from agno_workers.knowledge.readers.archive import first_bytes, names
from agno_workers.knowledge.readers.decode import charset_of, marked
from agno_workers.knowledge.readers.unreadable import Unreadable

DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
XLSB = "application/vnd.ms-excel.sheet.binary.macroenabled.12"
XLS = "application/vnd.ms-excel"
ODS = "application/vnd.oasis.opendocument.spreadsheet"
ODT = "application/vnd.oasis.opendocument.text"
ODP = "application/vnd.oasis.opendocument.presentation"
EPUB = "application/epub+zip"
RTF = "application/rtf"
MBOX = "application/mbox"

_BY_FIRST_BYTES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
)
_NOT_READ = (
    (b"\x1f\x8b", "a gzip file: unpack it first"),
    (b"BZh", "a bzip2 file: unpack it first"),
    (b"\xfd7zXZ\0", "an xz file: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z file: unpack it first"),
    (b"Rar!\x1a\x07", "a RAR file: unpack it first"),
    (b"%!PS", "a PostScript file: save it as PDF"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90", "a program"),
    (b"SQLite format 3\0", "an SQLite database: ingest a query of it"),
    (b"ID3", "sound"),
    (b"OggS", "sound or video"),
    (b"\x1aE\xdf\xa3", "video"),
    (b"PAR1", "a Parquet file: save it as CSV or JSON"),
)
_BY_SUFFIX = {
    ".html": "text/html", ".htm": "text/html", ".xhtml": "text/html",
    ".xml": "application/xml", ".rss": "application/xml", ".atom": "application/xml", ".svg": "image/svg+xml",
    ".md": "text/markdown", ".markdown": "text/markdown", ".mdx": "text/markdown",
    ".csv": "text/csv", ".tsv": "text/tab-separated-values", ".tab": "text/tab-separated-values",
    ".json": "application/json", ".geojson": "application/json", ".ipynb": "application/json",
    ".jsonl": "application/jsonl", ".ndjson": "application/jsonl",
    ".eml": "message/rfc822", ".mbox": MBOX,
    **dict.fromkeys((
        ".py", ".pyi", ".js", ".mjs", ".ts", ".tsx", ".jsx", ".java", ".kt", ".scala", ".c", ".h", ".cc", ".cpp", ".hpp",
        ".cs", ".go", ".rs", ".rb", ".php", ".pl", ".lua", ".r", ".jl", ".swift", ".sh", ".bash", ".ps1", ".sql", ".css",
        ".toml", ".yaml", ".yml", ".ini", ".cfg", ".conf",
    ), "text/x-code"),
}  # fmt: skip
_BINARY_SUFFIXES = {
    ".pdf": "a PDF", ".docx": "a DOCX file", ".pptx": "a PPTX file", ".xlsx": "an XLSX file", ".xls": "an XLS file",
    ".ods": "an ODS file", ".odt": "an ODT file", ".odp": "an ODP file", ".epub": "an EPUB", ".rtf": "an RTF file",
    ".png": "a PNG image", ".jpg": "a JPEG image", ".jpeg": "a JPEG image", ".gif": "a GIF image",
    ".webp": "a WebP image", ".tif": "a TIFF image", ".tiff": "a TIFF image", ".bmp": "a BMP image",
}  # fmt: skip
_OFFICE_PARTS = (  # some programs number them
    (re.compile(r"word/document\d{0,3}\.xml"), DOCX),
    (re.compile(r"ppt/presentation\d{0,3}\.xml"), PPTX),
    (re.compile(r"xl/workbook\d{0,3}\.xml"), XLSX),
    (re.compile(r"xl/workbook\d{0,3}\.bin"), XLSB),
)
_VARIANT = re.compile(r"-(?:template|master|master-template|web)$")
"""OTT, OTS and OTP; master documents; pages that LibreOffice writes from HTML."""
_SAID = {
    "application/xhtml+xml": "text/html", "text/xml": "application/xml", "text/x-markdown": "text/markdown",
    "text/json": "application/json", "application/x-ndjson": "application/jsonl", "application/ndjson": "application/jsonl",
    "application/jsonlines": "application/jsonl", "application/csv": "text/csv",
}  # fmt: skip
_TEXT_TYPES = {*_BY_SUFFIX.values(), "text/plain"}
_HTML = re.compile(
    r"\s*(?:<\?xml[^>]{0,200}>\s*)?(?:<!--.{0,2000}?-->\s*)?"
    r"<(?:!doctype\s+html|html|head|body|title|meta|script|article|main|table|div|p|h1)[\s>]",
    re.IGNORECASE | re.DOTALL,
)
_SVG = re.compile(r"\s*(?:<\?xml[^>]{0,200}>\s*)?(?:<!doctype\s+svg[^>]{0,500}>\s*)?<svg[\s>]", re.IGNORECASE)
_MAIL = re.compile(
    r"(?:(?:Return-Path|Received|Delivered-To|From|To|Cc|Date|Subject|Message-ID|MIME-Version|Reply-To|DKIM-Signature|"
    r"Content-Type|Content-Transfer-Encoding|X-[\w-]{1,60}): [^\n]{0,998}\n(?:[ \t][^\n]{0,998}\n){0,50}){3}"
)
_MAILBOX = re.compile(r"From [^\r\n]{1,500}\d{4}\s*\n")


def path_of(name: str) -> PurePosixPath:
    """Return the path of a file name or a URL."""
    return PurePosixPath(unquote(urlsplit(name).path) if "://" in name else name)


def detect(content: bytes, said: str | None, name: str) -> str:
    """Return the media type, with the server's charset for text. `name` is a file name or a URL.

    Raises Unreadable for an unsupported format.
    """
    if not content or content.isspace():
        raise Unreadable("empty", "It has no content.")
    suffix = path_of(name).suffix.lower()
    if binary := _binary(content):
        return binary
    head = _head_of_text(content, suffix)
    claimed = (said or "").partition(";")[0].strip().lower()
    charset = charset_of(said or "")
    found = _text_type(head, _SAID.get(claimed, claimed), suffix)
    return f"{found}; charset={charset}" if charset else found


def bitmap(content: bytes) -> str | None:
    """Return the media type of an image by its first bytes; None if it is not an image."""
    for first, found in _BY_FIRST_BYTES:
        if content.startswith(first):
            return found
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    return "image/bmp" if content[:2] == b"BM" and content[6:10] == b"\0\0\0\0" else None


def _binary(content: bytes) -> str | None:
    """Detect a binary format by the first bytes and the contents of a container; None for text and unknown formats."""
    if image := bitmap(content):
        return image
    for first, what in _NOT_READ:
        if content.startswith(first):
            raise Unreadable("unsupported", f"It is {what}.")
    if content.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _in_zip(content)
    if content.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        return _in_ole(content)
    if content.startswith(b"{\\rtf"):
        return RTF
    return "application/pdf" if b"%PDF-" in content[:1024] else None


def _in_zip(content: bytes) -> str:
    within = names(content)
    if not within:
        raise Unreadable("unreadable", "It is a broken or truncated zip, perhaps an Office file or an EPUB.")
    for part, found in _OFFICE_PARTS:
        if any(map(part.fullmatch, within)):
            return found
    said = first_bytes(content, "mimetype").decode("ascii", "replace").strip()
    kind = _VARIANT.sub("", said)
    if kind in (ODS, ODT, ODP, EPUB):
        return kind
    if "META-INF/container.xml" in within:
        return EPUB
    what = f"a zip of the type {said!r}" if said else "a zip with files in it: unpack it first"
    raise Unreadable("unsupported", f"It is {what}.")


def _in_ole(content: bytes) -> str:
    """Detect the format in an OLE container: Office before 2007, and encrypted Office files."""
    if "EncryptedPackage".encode("utf-16-le") in content:
        raise Unreadable("encrypted", "It is a password-protected Office file: save it without a password.")
    if "Workbook".encode("utf-16-le") in content or "Book\0".encode("utf-16-le") in content:
        return XLS
    raise Unreadable(
        "unsupported", "It is a DOC, PPT or MSG file of Office before 2007: save it in a current format."
    )


def _head_of_text(content: bytes, suffix: str) -> str:
    """Return the beginning as text. Raises Unreadable for binary data."""
    head = content[:4096]
    if mark := marked(head):
        return head[len(mark[0]) :].decode(mark[1], "replace")
    controls = sum(head.count(code) for code in _CONTROLS)
    if controls > len(head) // 100 + 1:
        if named := _BINARY_SUFFIXES.get(suffix):
            raise Unreadable("unreadable", f"Its name says {named}, but its content is something else.")
        raise Unreadable("unsupported", "It is neither text nor a supported binary format.")
    return head.decode("latin-1")


# Bytes that no charset uses in text, without tab, line ends, form feed, escape (ISO 2022) and the mark of JSON text sequences.
_CONTROLS = [bytes([code]) for code in range(32) if code not in (9, 10, 12, 13, 27, 30)]


def _text_type(head: str, claimed: str, suffix: str) -> str:
    if _HTML.match(head):
        return "text/markdown" if "text/markdown" in (claimed, _BY_SUFFIX.get(suffix)) else "text/html"
    if _SVG.match(head):
        return "image/svg+xml"
    if named := _BINARY_SUFFIXES.get(suffix):
        raise Unreadable("unreadable", f"Its name says {named}, but its content is text.")
    if claimed in _TEXT_TYPES - {"text/plain"}:
        return claimed
    if claimed.endswith("+json"):
        return "application/json"
    if claimed.endswith("+xml") or head.lstrip().startswith("<?xml"):
        return "application/xml"
    if suffix in _BY_SUFFIX:
        return _BY_SUFFIX[suffix]
    if _MAILBOX.match(head) and _MAIL.match(head.replace("\r\n", "\n").partition("\n")[2]):
        return MBOX
    return "message/rfc822" if _MAIL.match(head.replace("\r\n", "\n")) else "text/plain"
