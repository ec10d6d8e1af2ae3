"""URLs, read strictly. No IO.

Readers of URLs differ about what some of them mean, and whoever checks one and asks the other is led astray. So what is
doubtful is refused: users and passwords, backslashes, numbers that stand for an IP address (`http://2130706433/`,
`http://0177.1/`), zones, control characters. What is left is written in one way: ASCII, lower case, no dot at the end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import quote, urljoin, urlsplit

import idna

from agno_workers.errors import SourceRejected

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
        """What goes into the Host header."""
        return self.origin.partition("://")[2]

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def address(self) -> IPv4Address | IPv6Address | None:
        """Where the host is an address and no name."""
        try:
            return IPv6Address(self.host) if ":" in self.host else IPv4Address(self.host)
        except ValueError:
            return None

    def __str__(self) -> str:
        return self.origin + self.target


def parse(text: str) -> Url:
    """Read a URL; its fragment goes. Raises SourceRejected, in words that repeat no password."""
    text = text.strip()
    if len(text) > MAX_CHARS:
        raise _refused(text[:100] + "...", f"has more than {MAX_CHARS} characters")
    if _CONTROL.search(text):
        raise _refused(repr(_CONTROL.sub("?", text)), "has control characters in it")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise _refused(_without_user(text), "can't be read") from None
    shown = _without_user(text)
    if parts.scheme not in _PORTS:
        raise _refused(shown, "doesn't begin with http:// or https://")
    if "@" in parts.netloc:
        raise _refused(shown, "holds a user or a password, which would be stored with it")
    if port == 0:
        raise _refused(shown, "has the port 0")
    if "[" in parts.netloc and not _BRACKETS.fullmatch(parts.netloc):
        raise _refused(shown, "has something in brackets that is no IPv6 address")
    host = _host(parts.hostname or "", shown)
    query = f"?{quote(parts.query, _KEPT)}" if parts.query else ""
    return Url(parts.scheme, host, port or _PORTS[parts.scheme], (quote(parts.path, _KEPT) or "/") + query)


def join(base: Url, reference: str) -> Url:
    """The URL that a page at `base` means by `reference`. Raises SourceRejected as `parse` does."""
    try:
        return parse(urljoin(str(base), reference.strip()))
    except ValueError:
        raise _refused(_without_user(reference), "can't be read") from None


def _host(given: str, shown: str) -> str:
    """The name as DNS knows it. First to ASCII, then the rest: `１２７.0.0.1` is a number as well."""
    if "%" in given:
        raise _refused(shown, "has a percent sign in its host, an escape or the zone of an address")
    if ":" in given:
        try:
            return str(IPv6Address(given))
        except ValueError:
            raise _refused(shown, "has an IPv6 address that can't be read") from None
    host = given if given.isascii() else _ascii(given, shown)
    host = host.lower().removesuffix(".")
    if not _HOST.fullmatch(host) or len(host) > 253:
        raise _refused(shown, f"has no host that could exist ({given!r})")
    if _NUMBER.fullmatch(host.rpartition(".")[2]):
        try:
            return str(IPv4Address(host))
        except ValueError:
            raise _refused(
                shown, f"has the number {given!r} for a host, which is read in more than one way"
            ) from None
    return host


def _ascii(host: str, shown: str) -> str:
    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise _refused(shown, f"has a host that is no domain name ({error})") from None


def _without_user(text: str) -> str:
    """`https://user:password@host/` as `https://...@host/`, for a message; rather too much than a piece of a password."""
    return re.sub(r"//.*@", "//...@", text)


def _refused(shown: str, why: str) -> SourceRejected:
    return SourceRejected(f"The URL {shown} {why}: correct it.", uri=shown, code="invalid")
