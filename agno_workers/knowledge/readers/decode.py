"""Decode text as browsers do: by the byte order mark, as UTF-8, as declared, or by detection, which prefers Windows-1252.

Labels are those of the WHATWG Encoding Standard, in which `latin1` is Windows-1252 and `shift_jis` contains the characters of
Windows. Unlike in browsers, text that is valid UTF-8 is UTF-8 although something else is declared, a declaration that fits nothing is
ignored, and charsets that browsers have dropped (such as ISO-2022-KR, or `cp850` in an e-mail) are decoded if they are declared.
"""

from __future__ import annotations

import codecs
import re

import chardet
import webencodings

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
_SUPERSETS = {"gbk": "gb18030", "gb2312": "gb18030", "iso2022_jp": "iso2022_jp_ext", "euc_kr": "cp949", "big5": "big5hkscs"}  # fmt: skip
# Their bytes are ASCII and therefore valid UTF-8, so the declaration comes first.
_SEVEN_BIT = ("iso2022", "hz")
_WIDE = ("utf-16", "utf-32")
_CONTROLS = re.compile(rb"[\x00-\x08]")  # are not in text, but in UTF-16 of nearly all scripts
_MAY_LOOK_LIKE_UTF_8 = {"cp932", "euc_jp", "cp949", "gb18030", "big5hkscs", "cp874"}
_SHORT_BYTES = 12
_ASCII = bytes(range(128))
_MAX_SAMPLED_BYTES = 1024 * 1024
_SAMPLE_BYTES = 64 * 1024


def decode(content: bytes, declared: str | None = None) -> str:
    """Decode without the byte order mark. Invalid bytes become U+FFFD. Raises Unreadable if the text is too long."""
    text = _decoded(content, declared).lstrip("\ufeff")  # some programs write a second one
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
    charset = codec(declared)
    if charset is None and b"\x1b$B" in content and content.isascii():
        charset = "iso2022_jp_ext"
    if charset and charset.startswith((*_SEVEN_BIT, *_WIDE) if _CONTROLS.search(content) else _SEVEN_BIT):
        return content.decode(charset, "as_browsers")
    try:
        text = content.decode("utf-8")
        if charset is None or text.isascii() or not _is_short_and(charset, content):
            return text
    except UnicodeDecodeError:
        pass
    if charset:
        text = content.decode(charset, "replace" if charset == "utf-8" else "as_browsers")
        valid, invalid = _counts(text)
        if invalid <= valid:
            return text
    # Damage to UTF-8, often at the end. In another charset, hardly anything is valid UTF-8 by chance.
    text = content.decode("utf-8", "replace")
    valid, invalid = _counts(text)
    if valid and (invalid * 4 <= valid or text.find("\ufffd") >= len(text) - 3):
        return text
    return content.decode(_detected(content), "as_browsers")


def _counts(text: str) -> tuple[int, int]:
    """Count the characters that are not ASCII, and the bytes that were invalid."""
    invalid = text.count("\ufffd")
    return len(text) - len(text.encode("ascii", "ignore")) - invalid, invalid


def _is_short_and(charset: str, content: bytes) -> bool:
    """Return whether the text is valid in this charset, and so short that it may be valid UTF-8 by chance."""
    if charset not in _MAY_LOOK_LIKE_UTF_8 or len(content.translate(None, _ASCII)) > _SHORT_BYTES:
        return False
    return "\ufffd" not in content.decode(charset, "as_browsers")


def codec(label: str | None) -> str | None:
    """Return the codec of this label; None if it is not the name of a charset."""
    label = label.strip() if label and label.isascii() else ""
    name = _web_codec(label)
    if name is None:
        try:
            name = codecs.lookup(label).name
            if name in _NO_CHARSETS:
                return None
            b" ".decode(name, "replace")  # rejects base64, zlib, rot13 ..., which are codecs, too
        except (LookupError, ValueError):
            return None
        name = _web_codec(name) or name  # Python has more spellings, such as `latin-1`
    return _SUPERSETS.get(name, name)


def _web_codec(label: str) -> str | None:
    found = webencodings.lookup(label)
    if found is None or found.name in ("replacement", "x-user-defined"):
        return None
    return str(found.codec_info.name)


# What the codecs of Python lack of what browsers decode.


def _as_browsers(error: UnicodeError) -> tuple[str, int]:
    """Decode the characters of NEC and IBM within EUC-JP and ISO-2022-JP, which all Japanese programs write, and the euro in GBK."""
    assert isinstance(error, UnicodeDecodeError)
    pair = error.object[error.start : error.start + 2]
    if error.encoding in ("euc_jp", "iso2022_jp_ext") and len(pair) == 2:
        row, cell = pair[0] & 0x7F, pair[1] & 0x7F
        in_its_bytes = (pair[0] & pair[1]) >> 7 == (error.encoding == "euc_jp")
        if in_its_bytes and 0x20 < row < 0x7F and 0x20 < cell < 0x7F:
            return _of_windows(row - 0x20, cell - 0x20), error.start + 2
    if error.encoding == "gb18030" and pair[:1] == b"\x80":
        return "€", error.start + 1
    return "\ufffd", error.end


def _of_windows(row: int, cell: int) -> str:
    """Decode a cell of JIS X 0208 by the table of Windows."""
    lead = (row - 1) // 2 + (0x81 if row < 63 else 0xC1)
    trail = cell + (0x9E if row % 2 == 0 else 0x3F if cell < 64 else 0x40)
    return bytes((lead, trail)).decode("cp932", "replace")


codecs.register_error("as_browsers", _as_browsers)


# Detection. It was measured on short and long texts in 47 languages: all Western ones must become Windows-1252, because it is what
# most files without a declaration are in. Mac and DOS charsets are never guessed.

_CANDIDATES = (
    "windows-1252", "windows-1250", "iso-8859-2", "windows-1251", "koi8-r", "koi8-u", "windows-1253", "windows-1254", "windows-1255",
    "windows-1256", "windows-1257", "windows-1258", "cp874", "cp932", "euc-jp", "cp949", "gb18030", "big5",
)  # fmt: skip
_LATIN = {"cp1250", "iso8859-2", "cp1254", "cp1257", "cp1258"}
# ASCII, and the quotation marks, dashes, euro and blanks that all Windows charsets share.
_COMMON = re.compile(rb"[\x00-\x80\x82\x84\x85\x91-\x97\xa0\xab\xbb]+")
# What the languages of Windows-1252 write besides ASCII. A text within one of these alphabets is in none of Central Europe.
_ALPHABETS = [
    (letters + letters.upper()).encode("cp1252", "ignore")
    for letters in (
        "äöüßåæøé", "áéíóúüñç¿¡ªº", "áàâãéêíóôõúüçªº", "àâæçéèêëîïôœùûüÿ", "àèéìíîòóùú", "àçèéíïòóúüñ·", "ëéïóöüáíèêç",
    )
]  # fmt: skip
_MARKUP = re.compile(rb"([\x00-\x7f]{24})[\x00-\x7f]+([\x00-\x7f]{24})")  # hides a language, if there is much
_GERMANIC = _ALPHABETS[0]  # no words of other scripts are within it, either
_SYMBOLS = bytes(range(0x80, 0xC0))
# Letters of other scripts come in words; Western ones that are not ASCII stand alone or in pairs.
_WORDS = re.compile(rb"[\xc0-\xff]{3,}|[\xa1-\xff]{4,}")
_MIN_LETTERS = 4
_MIN_DISTINCT_LETTERS = 3
_MIN_IN_WORDS = 0.3
_NEARLY_AS_LIKELY = 0.7


def _detected(content: bytes) -> str:
    """Return Windows-1252 unless the text is clearly in another charset."""
    sample = content
    if len(content) > _MAX_SAMPLED_BYTES:
        sample = b"\n".join(line for line in content.split(b"\n") if not line.isascii())[:_MAX_SAMPLED_BYTES]
    sample = _MARKUP.sub(rb"\1 \2", sample)[:_SAMPLE_BYTES]
    letters = _COMMON.sub(b"", sample)
    if len(letters) < _MIN_LETTERS or len(set(letters)) < _MIN_DISTINCT_LETTERS:
        return "cp1252"
    if not letters.translate(None, _GERMANIC):
        return "cp1252"
    likely = [
        (found["confidence"], codec(found["encoding"]) or "cp1252")
        for found in chardet.detect_all(sample, include_encodings=_CANDIDATES, compat_names=False)
    ]
    best, charset = max(likely)
    western = max((confidence for confidence, each in likely if each == "cp1252"), default=0.0)
    if western >= best * _NEARLY_AS_LIKELY:
        return "cp1252"
    if charset in _LATIN:
        is_western = any(not letters.translate(None, alphabet) for alphabet in (*_ALPHABETS, _SYMBOLS))
        return "cp1252" if is_western else charset
    # Half of the bytes of Shift_JIS look like ASCII.
    is_in_words = sum(map(len, _WORDS.findall(sample))) >= len(letters) * _MIN_IN_WORDS or charset == "cp932"
    return charset if is_in_words else "cp1252"
