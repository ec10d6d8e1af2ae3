"""E-mail (.eml): the body, with the names of attachments in the metadata."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import policy
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any

from agno_workers.knowledge.readers import hypertext, plain
from agno_workers.knowledge.readers.decode import decode
from agno_workers.knowledge.readers.unreadable import Unreadable
from agno_workers.knowledge.types import Block, Parsed

_MAX_PARTS = 1000
_MAX_HEADER_CHARS = 10_000
_HEADERS = {
    "from": "from", "to": "to", "cc": "cc", "date": "date", "message-id": "message_id", "in-reply-to": "in_reply_to",
    "list-id": "list",
}  # fmt: skip
_ENCODED_WORDS = re.compile(
    r"=\?[^?\s]{1,100}\?[bq]\?[^?]*\?=(?:\s+=\?[^?\s]{1,100}\?[bq]\?[^?]*\?=)*", re.IGNORECASE
)
_STUB_SHARE = 4  # a plain text this much shorter than the HTML only says that there is HTML


def read(content: bytes, _media_type: str, _name: str) -> Parsed:
    """Read the subject as title. Plain text is preferred to HTML; attachments are listed and not opened."""
    try:
        message = BytesParser(policy=policy.default).parsebytes(content)
        blocks = tuple(_body(message)) or tuple(_all_text(message))
        attachments = [found for part in message.walk() if (found := _attachment(part))][:_MAX_PARTS]
    except RecursionError as error:
        raise Unreadable("unreadable", "It is an e-mail whose parts are nested too deeply.") from error
    metadata: dict[str, Any] = {
        key: value[:2000] for header, key in _HEADERS.items() if (value := _header(message, header))
    }
    if attachments:
        metadata["attachments"] = attachments
    return Parsed(blocks, _header(message, "subject") or None, metadata)


def _body(part: EmailMessage) -> Iterator[Block]:
    """Yield the text of a part in reading order: the better alternative, all text between attachments, and forwarded e-mails."""
    if _attachment(part):
        return
    parts = [each for each in part.iter_parts() if isinstance(each, EmailMessage)][:_MAX_PARTS]
    match part.get_content_type():
        case "text/plain" | "text/html":
            yield from _blocks(part)
        case "multipart/alternative":
            yield from _better([(each.get_content_type(), tuple(_body(each))) for each in parts])
        case "multipart/related" | "multipart/signed":  # pictures of the first part, or its signature, follow
            yield from next(filter(None, (tuple(_body(each)) for each in parts)), ())
        case "message/rfc822":
            for each in parts:
                yield Block(
                    "paragraph", f"From: {_header(each, 'from')}\nSubject: {_header(each, 'subject')}"
                )
                yield from _body(each)
        case _:
            for each in parts:
                yield from _body(each)


def _better(alternatives: list[tuple[str, tuple[Block, ...]]]) -> tuple[Block, ...]:
    """Return the plain text, unless it is blank or too short to be the same text."""
    plain_text = next((blocks for kind, blocks in alternatives if kind == "text/plain"), ())
    rich = next((blocks for kind, blocks in reversed(alternatives) if kind != "text/plain" and blocks), ())
    return rich if _letters(plain_text) * _STUB_SHARE < _letters(rich) else plain_text


def _letters(blocks: tuple[Block, ...]) -> int:
    return sum(sum(map(str.isalnum, block.text)) for block in blocks)


def _all_text(message: EmailMessage) -> Iterator[Block]:
    """Yield all text of an e-mail whose body has a file name, or an unknown type of text."""
    for part in list(message.walk())[:_MAX_PARTS]:
        if part.get_content_maintype() == "text" and not part.is_attachment():
            yield from _blocks(part)


def _blocks(part: EmailMessage) -> tuple[Block, ...]:
    content = part.get_payload(decode=True)
    if not isinstance(content, bytes):
        return ()
    charset = part.get_content_charset()
    if part.get_content_subtype() == "html":
        return hypertext.read(content, f"text/html; charset={charset or ''}", "").blocks
    return tuple(plain.blocks(decode(content, charset)))


def _header(message: EmailMessage, name: str) -> str:
    """Return a header as one line. It may be raw bytes in any charset, or encoded words, which may split a character between two."""
    text = next((value[:_MAX_HEADER_CHARS] for key, value in message.raw_items() if key.lower() == name), "")
    if not text.isascii():  # the parser keeps bytes as surrogates
        charsets = (part.get_content_charset() for part in message.walk())
        text = decode(text.encode("utf-8", "surrogateescape"), next(filter(None, charsets), None))
    return " ".join(_ENCODED_WORDS.sub(_decoded_words, text).split())


def _decoded_words(words: re.Match[str]) -> str:
    try:
        return "".join(
            decode(each, (charset or "").partition("*")[0]) if isinstance(each, bytes) else each
            for each, charset in decode_header(words[0])
        )
    except (HeaderParseError, ValueError):  # broken base64
        return words[0]


def _attachment(part: EmailMessage) -> dict[str, Any] | None:
    name = part.get_filename()
    if not part.is_attachment() and not name:
        return None
    payload = part.get_payload(decode=True)
    return {
        "name": (name or "")[:500],
        "media_type": part.get_content_type(),
        "bytes": len(payload) if isinstance(payload, bytes) else 0,
    }
