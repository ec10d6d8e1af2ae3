"""E-mail (.eml): the body, with the names of attachments in the metadata."""

from __future__ import annotations

from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any, cast

from agno_workers.knowledge.readers import hypertext, plain
from agno_workers.knowledge.readers.decode import decode
from agno_workers.knowledge.readers.unreadable import Unreadable
from agno_workers.knowledge.types import Block, Parsed

_MAX_PARTS = 1000
_HEADERS = {
    "from": "from", "to": "to", "cc": "cc", "date": "date", "message-id": "message_id", "in-reply-to": "in_reply_to",
    "list-id": "list",
}  # fmt: skip


def read(content: bytes, _media_type: str, _name: str) -> Parsed:
    """Read the subject as title. Plain text is preferred to HTML; attachments are listed and not opened."""
    try:
        message = BytesParser(policy=policy.default).parsebytes(content)
        parts = _parts(message)
        blocks = tuple(block for part in parts for block in _blocks(part))
        metadata = _metadata(message)
    except RecursionError as error:
        raise Unreadable("unreadable", "It is an e-mail whose parts are nested too deeply.") from error
    if attachments := [found for part in message.walk() if (found := _attachment(part))][:_MAX_PARTS]:
        metadata["attachments"] = attachments
    subject = " ".join(str(message.get("subject", "")).split())
    return Parsed(blocks, subject or None, metadata)


def _parts(message: EmailMessage) -> list[EmailMessage]:
    """Return the body, or all text parts of a malformed e-mail."""
    body = message.get_body(("plain", "html"))
    if body is not None:
        return [cast(EmailMessage, body)]
    texts = [
        part for part in message.walk() if part.get_content_maintype() == "text" and not part.is_attachment()
    ]
    return texts[:_MAX_PARTS]


def _blocks(part: EmailMessage) -> tuple[Block, ...]:
    content = part.get_payload(decode=True)
    if not isinstance(content, bytes):
        return ()
    charset = part.get_content_charset()
    if part.get_content_subtype() == "html":
        return hypertext.read(content, f"text/html; charset={charset or ''}", "").blocks
    return tuple(plain.blocks(decode(content, charset)))


def _metadata(message: EmailMessage) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for header, key in _HEADERS.items():
        if value := " ".join(str(message.get(header, "")).split()):
            found[key] = value[:2000]
    return found


def _attachment(part: Any) -> dict[str, Any] | None:
    if not part.is_attachment() and not part.get_filename():
        return None
    payload = part.get_payload(decode=True)
    return {
        "name": (part.get_filename() or "")[:500],
        "media_type": part.get_content_type(),
        "bytes": len(payload) if isinstance(payload, bytes) else 0,
    }
