"""Check the addresses of servers without repeating a piece of them: they hold passwords."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

_ENCODE = (
    "the address can't be parsed: percent-encode the characters # / ? @ ; [ ] in its user and password "
    "(# is %23, / is %2F, @ is %40)"
)


def redis_fault(url: str, schemes: tuple[str, ...] = ("redis", "rediss", "redis+socket")) -> str | None:
    """Return why this is not the address of a Redis, or None."""
    scheme, found, _ = url.partition("://")
    if not found or scheme not in schemes:
        return f"the address of Redis begins with {', '.join(f'{each}://' for each in schemes)}"
    if re.search(r"[\x00-\x20\x7f]", url):
        return "the address has a blank or a control character in it"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return _ENCODE
    if "#" in url or ";" in url or "@" in parts.query:  # kombu splits at the semicolon
        return _ENCODE
    if parse_qs(parts.query).keys() & {"username", "password"}:
        return "the user and the password stand before the host: redis://USER:PASSWORD@HOST:6379/0"
    if scheme in ("redis", "rediss"):
        if "@" in parts.path:
            return _ENCODE
        if not re.fullmatch(r"/?|/\d+", parts.path):
            return "the path of the address is not the number of a database: redis://HOST:6379/0"
    return None
