"""E-mail (.eml) and mailboxes (.mbox): the body, then the attachments, read as documents of their own formats."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import policy
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import EmailMessage
from email.parser import BytesParser
from itertools import islice
from typing import Any

from msgspec.structs import replace

from agno_workers.knowledge.readers import hypertext, plain
from agno_workers.knowledge.readers import read as read_document
from agno_workers.knowledge.readers.dates import iso
from agno_workers.knowledge.readers.decode import decode
from agno_workers.knowledge.readers.detect import bitmap, detect, path_of
from agno_workers.knowledge.readers.unreadable import MAX_CHARS, Unreadable, too_long
from agno_workers.knowledge.types import Block, Parsed, Place

_MAX_PARTS = 1000
_MAX_ATTACHMENTS = 100
_MAX_DEPTH = 3
_FROM = re.compile(rb"(?:\A|(?<=\n\n)|(?<=\n\r\n))From [^\r\n]{0,500}\r?\n")
_QUOTED_FROM = re.compile(rb"^>(>*From )", re.MULTILINE)
_MAX_HEADER_CHARS = 10_000
_HEADERS = {
    "from": "from", "to": "to", "cc": "cc", "date": "date", "message-id": "message_id", "in-reply-to": "in_reply_to",
    "list-id": "list",
}  # fmt: skip
_ENCODED_WORDS = re.compile(
    r"=\?[^?\s]{1,100}\?[bq]\?[^?]*\?=(?:\s+=\?[^?\s]{1,100}\?[bq]\?[^?]*\?=)*", re.IGNORECASE
)
_STUB_SHARE = 4  # a plain text this much shorter than the HTML only says that there is HTML


def read(content: bytes, media_type: str, name: str) -> Parsed:
    """Read the subject as title. Plain text is preferred to HTML. Attachments follow, each below a heading with its name; those that
    can't be read are listed with the reason (`not_read`), and pictures are listed.
    """
    if media_type.startswith("application/mbox"):
        return _mailbox(content, name, _Budget())
    return _mail(_message(content), _Budget())


def records(content: bytes) -> Iterator[dict[str, Any]]:
    """Yield the messages of a mailbox as records: message_id, subject, from, to, cc, date and text; without attachments."""
    for each in _messages(content):
        message = _message(each)
        text = "\n\n".join(block.text for block in tuple(_body(message)) or tuple(_all_text(message)))
        fields = _fields(message)
        if "date" in fields:
            fields["date"] = iso(fields["date"])
        yield {"subject": _header(message, "subject"), **fields, "text": text}


class _Budget:
    """The number and the characters of attachments that one document may still read."""

    def __init__(self) -> None:
        self.depth = 0
        self.attachments = _MAX_ATTACHMENTS
        self.chars = MAX_CHARS // 2


def _message(content: bytes) -> EmailMessage:
    try:
        return BytesParser(policy=policy.default).parsebytes(content)
    except RecursionError as error:
        raise Unreadable("unreadable", "It is an e-mail whose parts are nested too deeply.") from error


def _mail(message: EmailMessage, budget: _Budget) -> Parsed:
    try:
        body = tuple(_body(message))
        blocks = body or tuple(_all_text(message))
        parts = list(islice(_attached(message), _MAX_PARTS))
    except RecursionError as error:
        raise Unreadable("unreadable", "It is an e-mail whose parts are nested too deeply.") from error
    metadata = _fields(message)
    for part, entry in parts:
        if body or not _is_text(part):  # or it is the body already
            blocks += _read_attachment(part, entry, budget)
    if parts:
        metadata["attachments"] = [entry for _, entry in parts]
    return Parsed(blocks, _header(message, "subject") or None, metadata)


def _fields(message: EmailMessage) -> dict[str, Any]:
    return {key: value[:2000] for header, key in _HEADERS.items() if (value := _header(message, header))}


def _attached(part: EmailMessage) -> Iterator[tuple[EmailMessage, dict[str, Any]]]:
    """Yield the attachments, also those of forwarded e-mails, but not those within another attachment."""
    if entry := _attachment(part):
        yield part, entry
    elif part.is_multipart():
        for each in part.iter_parts():
            if isinstance(each, EmailMessage):
                yield from _attached(each)


def _read_attachment(part: EmailMessage, entry: dict[str, Any], budget: _Budget) -> tuple[Block, ...]:
    """Return the blocks of an attachment below its name; none if it is a picture, or can't be read: then the entry says why."""
    name = entry["name"] or "unnamed"
    try:
        found = _contents(part, name, budget)
    except (MemoryError, ImportError):
        raise
    except Unreadable as error:
        entry["not_read"] = str(error)
        return ()
    except Exception as error:  # a bug of a parser costs this attachment only
        entry["not_read"] = f"It is broken: the parser failed with {type(error).__name__}."
        return ()
    if not found:
        return ()
    where = f"attachment {name}"
    head = Block("heading", f"Attachment: {name}", level=1, place=Place(part=where))
    return (head, *(_within(block, where) for block in found))


def _contents(part: EmailMessage, name: str, budget: _Budget) -> tuple[Block, ...]:
    payload = part.get_payload(decode=True)
    if part.get_content_type() == "message/rfc822" and (inner := part.get_payload()):
        payload = (
            inner[0].as_bytes() if isinstance(inner, list) and isinstance(inner[0], EmailMessage) else b""
        )
    if not isinstance(payload, bytes) or bitmap(payload):
        return ()
    if budget.attachments <= 0 or budget.chars <= 0:
        raise Unreadable(
            "too_large", f"The e-mail has more than {_MAX_ATTACHMENTS} attachments, or too much text in them."
        )
    budget.attachments -= 1
    media_type = detect(payload, part.get_content_type(), part.get_filename() or "")  # not the subject
    if media_type.startswith(("message/rfc822", "application/mbox")):
        if budget.depth >= _MAX_DEPTH:
            raise Unreadable("too_large", f"It is an e-mail in an e-mail, {_MAX_DEPTH} levels deep.")
        budget.depth += 1
        try:
            is_one = media_type.startswith("message/")
            found = _attached_mail(payload, budget) if is_one else _mailbox(payload, name, budget)
        finally:
            budget.depth -= 1
    else:
        found = read_document(payload, media_type, name)
    budget.chars -= sum(len(block.text) for block in found.blocks)
    if budget.chars < 0:
        raise Unreadable(
            "too_large", f"The attachments contain more than {MAX_CHARS // 2:,} characters of text."
        )
    return found.blocks


def _attached_mail(content: bytes, budget: _Budget) -> Parsed:
    message = _message(content)
    found = _mail(message, budget)
    return Parsed((_forwarded(message), *found.blocks), found.title, found.metadata)


def _forwarded(message: EmailMessage) -> Block:
    return Block("paragraph", f"From: {_header(message, 'from')}\nSubject: {_header(message, 'subject')}")


def _within(block: Block, part: str) -> Block:
    """Put a block below the heading of its attachment or message."""
    place = block.place or Place()
    return replace(
        block,
        level=min(block.level + 1, 9) if block.kind == "heading" else 0,
        place=replace(place, part=f"{part}, {place.part}" if place.part else part),
    )


# Mailboxes: messages one after the other, each after a line that begins with `From `.


def _mailbox(content: bytes, name: str, budget: _Budget) -> Parsed:
    """Read each message below a heading with its subject; the place has its number."""
    blocks: list[Block] = []
    number = chars = 0
    for number, each in enumerate(_messages(content), 1):
        found = _mail(_message(each), budget)
        at = Place("message", number)
        about = "\n".join(
            f"{key.capitalize()}: {found.metadata[key]}"
            for key in ("from", "to", "date")
            if key in found.metadata
        )
        blocks.append(Block("heading", found.title or f"Message {number}", level=1, place=at))
        blocks += [Block("paragraph", about, place=at)] if about else []
        blocks += [
            _within(block, str(at)) if block.place or block.level else replace(block, place=at)
            for block in found.blocks
        ]
        chars += sum(len(block.text) for block in found.blocks)
        if chars > MAX_CHARS:
            raise too_long(chars)
    return Parsed(tuple(blocks), path_of(name).name or None, {"messages": number})


def _messages(content: bytes) -> Iterator[bytes]:
    found = list(_FROM.finditer(content))
    ends = [*(each.start() for each in found[1:]), len(content)]
    for each, end in zip(found, ends, strict=False):
        yield _QUOTED_FROM.sub(rb"\1", content[each.end() : end])


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
                yield _forwarded(each)
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
        if _is_text(part):
            yield from _blocks(part)


def _is_text(part: EmailMessage) -> bool:
    return part.get_content_maintype() == "text" and not part.is_attachment()


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
    if not name and part.get_content_type() == "message/rfc822":  # mail programs name few that they forward
        name = next(
            (_header(each, "subject") for each in part.iter_parts() if isinstance(each, EmailMessage)), ""
        )
    return {
        "name": (name or "")[:500],
        "media_type": part.get_content_type(),
        "bytes": len(payload) if isinstance(payload, bytes) else 0,
    }
