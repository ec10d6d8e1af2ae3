"""URLs, parsed strictly. No IO.

URL parsers disagree about some URLs, so a check with one parser and a request with another can go to two hosts. Every
ambiguous URL is refused: users and passwords, backslashes, numbers that stand for an IP address (`http://2130706433/`,
`http://0177.1/`), zones, control characters. The others have one spelling: ASCII, lower case, no dot at the end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import quote, urljoin, urlsplit

import idna

from agno_workers.net.errors import Refused

MAX_CHARS = 8192
_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")
_BRACKETS = re.compile(r"\[[^\[\]]*:[^\[\]]*\](?::\d*)?")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_KEPT = "!#$%&'()*+,/:;=?@[]~"  # of a path and a query


@dataclass(frozen=True)
class Url:
    """`scheme://host[:port]target`."""

    scheme: str
    host: str
    """ASCII, lower case: a name or an IP address (of IPv6 without brackets)."""
    port: int
    target: str
    """Path and query, ASCII."""

    @property
    def origin(self) -> str:
        """`scheme://host[:port]`"""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == _PORTS[self.scheme] else f":{self.port}")

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        return self.origin.partition("://")[2]

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def address(self) -> IPv4Address | IPv6Address | None:
        """The host as an IP address; None for a name."""
        try:
            return IPv6Address(self.host) if ":" in self.host else IPv4Address(self.host)
        except ValueError:
            return None

    def __str__(self) -> str:
        return self.origin + self.target


def parse(text: str) -> Url:
    """Parse a URL and drop its fragment. Raises Refused, whose message repeats no password."""
    text = text.strip()
    if len(text) > MAX_CHARS:
        raise Refused(text[:100] + "...", f"has more than {MAX_CHARS} characters", "invalid")
    if _CONTROL.search(text):
        raise Refused(repr(_CONTROL.sub("?", text)), "has control characters in it", "invalid")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise Refused(_without_user(text), "can't be parsed", "invalid") from None
    shown = _without_user(text)
    if parts.scheme not in _PORTS:
        raise Refused(shown, "does not begin with http:// or https://", "invalid")
    if "@" in parts.netloc:
        raise Refused(shown, "holds a user or a password, which would be stored with it", "invalid")
    if port == 0:
        raise Refused(shown, "has the port 0", "invalid")
    if "[" in parts.netloc and not _BRACKETS.fullmatch(parts.netloc):
        raise Refused(shown, "has brackets around something that is not an IPv6 address", "invalid")
    host = _host(parts.hostname or "", shown)
    query = f"?{quote(parts.query, _KEPT)}" if parts.query else ""
    return Url(parts.scheme, host, port or _PORTS[parts.scheme], (quote(parts.path, _KEPT) or "/") + query)


def join(base: Url, reference: str) -> Url:
    """Resolve a reference of a page at `base`. Raises Refused as `parse` does."""
    try:
        return parse(urljoin(str(base), reference.strip()))
    except ValueError:
        raise Refused(_without_user(reference), "can't be parsed", "invalid") from None


def _host(given: str, shown: str) -> str:
    """Return the host as DNS knows it. ASCII comes first: `１２７.0.0.1` is a number as well."""
    if "%" in given:
        raise Refused(shown, "has a percent sign in its host, for an escape or a zone", "invalid")
    if ":" in given:
        try:
            return str(IPv6Address(given))
        except ValueError:
            raise Refused(shown, "has an IPv6 address that can't be parsed", "invalid") from None
    host = given if given.isascii() else _ascii(given, shown)
    host = host.lower().removesuffix(".")
    if not _HOST.fullmatch(host) or len(host) > 253:
        raise Refused(shown, f"has no valid host ({given!r})", "invalid")
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        try:
            return str(IPv4Address(host))
        except ValueError:
            raise Refused(
                shown,
                f"has the number {given!r} for a host, which parsers read in more than one way",
                "invalid",
            ) from None
    return host


def _ascii(host: str, shown: str) -> str:
    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise Refused(shown, f"has a host that is not a domain name ({error})", "invalid") from None


def _without_user(text: str) -> str:
    """Return `https://user:password@host/` as `https://...@host/`, for a message; it removes too much rather than too little."""
    return re.sub(r"//.*@", "//...@", text)
