"""Check the addresses of servers without repeating a piece of them: they hold passwords."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, urlsplit

PLACEHOLDER = "change-me"
"""Stands in examples for a password, and is refused as one."""
_STILL_EXAMPLE = f"its password is {PLACEHOLDER}, as in an example: set one of your own, on the server too"
_ENCODE = (
    "the address can't be parsed: percent-encode the characters # / ? @ ; [ ] in its user and password "
    "(# is %23, / is %2F, @ is %40)"
)


def redis_fault(url: str, schemes: tuple[str, ...] = ("redis", "rediss", "redis+socket")) -> str | None:
    """Return why this is not the address of a Redis, or None."""
    if re.search(r"[\x00-\x20\x7f]", url):
        return "the address has a blank or a control character in it"
    if PLACEHOLDER in url:
        return _STILL_EXAMPLE
    scheme, found, _ = url.partition("://")
    if not found or scheme not in schemes:
        return f"the address of Redis must begin with {', '.join(f'{each}://' for each in schemes)}: write redis://HOST:6379/0"
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return _ENCODE if "@" in url else "its host or port can't be read: redis://HOST:6379/0"
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


_POSTGRES = re.compile(r"postgres(?:ql)?(?:\+\w+)?")
_FORM = "write postgresql://USER:PASSWORD@HOST:5432/DATABASE"


def check_postgres(address: str) -> None:
    """Raises ValueError, without any piece of the address, for a URL that libpq can't read, or would read wrongly.

    `key=value` forms pass: libpq refuses wrong ones itself.
    """
    if PLACEHOLDER in address:
        raise ValueError(_STILL_EXAMPLE)
    if not (url := re.match(r"([\w+.-]*)://(.*)", address, re.DOTALL)):
        return
    scheme, rest = url.groups()
    if not _POSTGRES.fullmatch(scheme):
        raise ValueError(f"it is not one of Postgres: {_FORM}")
    authority, _, path = rest.partition("/")
    _, at, hosts = authority.partition("@")
    hosts = (hosts if at else authority).partition("?")[0]
    ports = [host.rpartition("]")[2].partition(":")[2] for host in hosts.split(",")]
    database = path.partition("?")[0]
    if "@" in hosts + database or not all(re.fullmatch(r"\d{0,5}", port) for port in ports):
        raise ValueError(
            f"its host, port or database can't be read: {_FORM}, and in the user and the password %40 for @, %2F for /, "
            "%3F for ?, %3A for :"
        )
    if re.search(r"%(?![0-9A-Fa-f]{2})", rest):
        raise ValueError(
            "a % is not followed by two hexadecimal digits: write %25 for % in a user or a password"
        )
