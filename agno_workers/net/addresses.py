"""The address policy of fetches: the ranges that are off limits, and what an operator allows. Decisions only, no IO.

A URL that somebody names is fetched by this machine, from inside its network. So every address that is not public is
refused. The ranges are written out, because libraries changed their minds about them from one version to the next, and
`ipaddress.is_global` lets NAT64 and 6to4 pass, which hold IPv4 addresses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from agno_workers.errors import InvalidInput
from agno_workers.net.errors import Refused
from agno_workers.net.urls import Url

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_PORTS = {80, 443}
_ENTRY = re.compile(
    r"(?P<host>\[[0-9a-fA-F:.]*:[0-9a-fA-F:.]*\](?:/\d+)?|[^:\[\]]+|[0-9a-fA-F:.]+(?:/\d+)?)(?::(?P<port>\d{1,5}))?"
)
_NAME = re.compile(r"(?:\*\.)?[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")

_OFF_LIMITS_V4 = """
    0.0.0.0/8           "this network", and on Linux this machine (RFC 791, 1122)
    10.0.0.0/8          private (RFC 1918)
    100.64.0.0/10       shared by carriers; metadata of Alibaba Cloud (RFC 6598)
    127.0.0.0/8         loopback (RFC 1122)
    168.63.129.16/32    the host of a machine on Azure, its metadata included (no RFC; Microsoft's documentation)
    169.254.0.0/16      link local; metadata of AWS, Azure, Google and others (RFC 3927)
    172.16.0.0/12       private (RFC 1918)
    192.0.0.0/24        protocol assignments; metadata of Oracle Cloud (RFC 6890)
    192.0.2.0/24        documentation (RFC 5737)
    192.31.196.0/24     AS112 (RFC 7535)
    192.52.193.0/24     AMT relays (RFC 7450)
    192.88.99.0/24      6to4 relays (RFC 3068, 7526)
    192.168.0.0/16      private (RFC 1918)
    192.175.48.0/24     AS112 (RFC 7534)
    198.18.0.0/15       benchmarks (RFC 2544)
    198.51.100.0/24     documentation (RFC 5737)
    203.0.113.0/24      documentation (RFC 5737)
    224.0.0.0/4         multicast (RFC 5771)
    240.0.0.0/4         reserved, and broadcast (RFC 1112, 919)
"""
# ::ffff:0:0/96 (RFC 4291) is missing: `unmapped` reads an IPv4 address written as IPv6 as IPv4.
_OFF_LIMITS_V6 = """
    ::/128              unspecified (RFC 4291)
    ::1/128             loopback (RFC 4291)
    ::/96               IPv4-compatible (RFC 4291)
    ::ffff:0:0:0/96     IPv4-translated (RFC 2765)
    64:ff9b::/96        IPv4 behind a translator (RFC 6052)
    64:ff9b:1::/48      IPv4 behind a local translator (RFC 8215)
    100::/64            discard (RFC 6666)
    100:0:0:1::/64      dummy (RFC 9780)
    2001::/23           protocol assignments: Teredo, benchmarks, ORCHID (RFC 2928, 4380, 5180, 7343)
    2001:db8::/32       documentation (RFC 3849)
    2002::/16           6to4, which holds an IPv4 address (RFC 3056)
    2620:4f:8000::/48   AS112 (RFC 7534)
    3fff::/20           documentation (RFC 9637)
    5f00::/16           segment routing (RFC 9602)
    fc00::/7            unique local; metadata of AWS (RFC 4193)
    fe80::/10           link local (RFC 4291)
    fec0::/10           site local (RFC 3879)
    ff00::/8            multicast (RFC 4291)
    ::/3                not global unicast, which is 2000::/3 (RFC 4291)
    4000::/2            not global unicast (RFC 4291)
    8000::/1            not global unicast (RFC 4291)
"""


def _table(text: str) -> tuple[tuple[Network, str], ...]:
    rows = (line.split(maxsplit=1) for line in text.strip().splitlines())
    return tuple((ip_network(network), what) for network, what in rows)


OFF_LIMITS = _table(_OFF_LIMITS_V4) + _table(_OFF_LIMITS_V6)


def why_off_limits(address: Address) -> str | None:
    """Return the range that makes this address off limits, `10.0.0.0/8: private (RFC 1918)`; None for a public one."""
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return "an address of one interface of this machine (RFC 4007)"
    address = unmapped(address)
    return next((f"{network}: {what}" for network, what in OFF_LIMITS if address in network), None)


def unmapped(address: Address) -> Address:
    """Return the IPv4 address of one written as IPv6, `::ffff:10.0.0.1`; any other unchanged."""
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


@dataclass(frozen=True)
class Opening:
    """One entry of an allow-list. An entry by name allows any address that the name has."""

    name: str | None
    """A host, or `*.domain` for all below it."""
    network: Network | None
    port: int | None
    """None: any."""

    def holds(self, host: str, address: Address, port: int) -> bool:
        if self.port not in (None, port):
            return False
        if self.network is not None:
            return unmapped(address) in self.network
        assert self.name is not None
        return host.endswith(self.name[1:]) if self.name.startswith("*.") else host == self.name


def openings(allow: Iterable[str]) -> tuple[Opening, ...]:
    """Read an allow-list: `10.0.0.0/8`, `127.0.0.1`, `[::1]:8080`, `wiki.intern`, `*.intern`, `host:8443`. An entry without a
    port allows all ports.

    Raises InvalidInput for an entry of any other form.
    """
    if isinstance(allow, str):
        raise InvalidInput(f"allow is a list of hosts and networks, not {allow!r}: write [{allow!r}].")
    return tuple(_opening(entry) for entry in allow)


def _opening(entry: object) -> Opening:
    match = _ENTRY.fullmatch(entry) if isinstance(entry, str) else None
    port = int(match["port"]) if match and match["port"] else None
    host = match["host"].replace("[", "").replace("]", "").lower().rstrip(".") if match else ""
    if match and (port is None or 0 < port < 65536):
        try:
            return Opening(None, ip_network(host), port)
        except ValueError:  # a name, or nothing
            if _NAME.fullmatch(host) and not re.fullmatch(r"[\d.]+", host):
                return Opening(host, None, port)
    raise InvalidInput(
        f"allow has {entry!r}, which is not a host or network: write it as '127.0.0.1', '10.0.0.0/8', 'wiki.intern', "
        "'*.intern' or 'host:8443'."
    )


def check(url: Url, addresses: Iterable[Address], allow: Iterable[Opening]) -> None:
    """Raise Refused unless each of these addresses of the URL's host is allowed on its port.

    Each, and not only the one to connect to: a host with a public and a private address is suspicious.
    """
    openings = tuple(allow)
    for address in addresses:
        if any(opening.holds(url.host, address, url.port) for opening in openings):
            continue
        if why := why_off_limits(address):
            raise Refused(url, f"is off limits: the address of {url.host!r} is in {why}", "off_limits")
        if url.port not in _PORTS:
            raise Refused(
                url, f"is off limits: port {url.port} of {url.host!r} is not 80 or 443", "off_limits"
            )
