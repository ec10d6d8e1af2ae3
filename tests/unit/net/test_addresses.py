"""The address policy of fetches."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from agno_workers.errors import InvalidInput
from agno_workers.net import urls
from agno_workers.net.addresses import check, openings, why_off_limits
from agno_workers.net.errors import Refused

PUBLIC = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "93.184.216.34", "100.63.255.255", "100.128.0.0", "126.255.255.255",
    "128.0.0.0", "168.63.129.15", "169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.0.3.0",
    "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0", "223.255.255.255",
    "2001:200::1", "2001:4860:4860::8888", "2003::1", "2606:2800:220:1::1", "2a00:1450:4001::1", "3ffe:ffff::1",
    "::ffff:8.8.8.8",
]  # fmt: skip
OFF = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.100.100.200", "100.127.255.255", "127.0.0.1",
    "127.255.255.254", "168.63.129.16", "169.254.0.1", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255",
    "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.1", "192.168.255.255",
    "192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1",
    "255.255.255.255",
    "::", "::1", "::2", "::127.0.0.1", "::8.8.8.8", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1",
    "::ffff:0.0.0.0", "::ffff:0:127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::8.8.8.8", "64:ff9b:1::1", "100::1", "100:0:0:1::1",
    "2001::1", "2001:2::1", "2001:10::1", "2001:20::1", "2001:1ff::1", "2001:db8::1", "2002:7f00:1::1", "2002:a9fe:a9fe::",
    "2620:4f:8000::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fdff::1", "fe80::1", "fe80::1%eth0", "febf::1",
    "fec0::1", "ff02::1", "200::1", "4000::1", "8000::1", "e000::1", "2606:2800::1%eth0",
]  # fmt: skip


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_may_be_asked(address: str) -> None:
    assert why_off_limits(ip_address(address)) is None


@pytest.mark.parametrize("address", OFF)
def test_any_other_address_is_off_limits_with_a_reason(address: str) -> None:
    assert "RFC" in (why_off_limits(ip_address(address)) or "")


def test_what_the_standard_library_calls_private_is_off_limits() -> None:
    """A second opinion, on a sample of all of IPv4."""
    sample = [ip_address((a << 24) + (b << 16) + (c << 8) + 1) for a in range(256) for b in range(0, 256, 5) for c in (0, 2, 99, 100, 113, 129, 255)]  # fmt: skip
    assert [str(a) for a in sample if not a.is_global and not why_off_limits(a)] == []


@pytest.mark.parametrize(
    ("allow", "url", "address", "may"),
    [
        ([], "http://a.example/", "10.0.0.1", False),
        ([], "http://a.example/", "8.8.8.8", True),
        ([], "https://a.example/", "8.8.8.8", True),
        ([], "http://a.example:443/", "8.8.8.8", True),
        ([], "http://a.example:8080/", "8.8.8.8", False),
        ([], "http://a.example:22/", "8.8.8.8", False),
        (["10.0.0.0/8"], "http://a.example/", "10.0.0.1", True),
        (["10.0.0.0/8"], "http://a.example:8080/", "10.0.0.1", True),
        (["10.0.0.0/8"], "http://a.example/", "127.0.0.1", False),
        (["10.0.0.0/8"], "http://a.example/", "::ffff:10.0.0.1", True),
        (["10.0.0.1"], "http://a.example/", "10.0.0.2", False),
        (["10.0.0.1:8080"], "http://a.example:8080/", "10.0.0.1", True),
        (["10.0.0.1:8080"], "http://a.example:80/", "10.0.0.1", False),
        (["fd00::/8"], "http://a.example/", "fd00::1", True),
        (["::1"], "http://a.example/", "::1", True),
        (["[::1]:8080"], "http://a.example:8080/", "::1", True),
        (["[::1]:8080"], "http://a.example/", "::1", False),
        (["a.example"], "http://a.example/", "10.0.0.1", True),
        (["A.Example."], "http://a.example/", "10.0.0.1", True),
        (["a.example"], "http://b.a.example/", "10.0.0.1", False),
        (["a.example"], "http://aa.example/", "10.0.0.1", False),
        (["a.example:8443"], "https://a.example:8443/", "8.8.8.8", True),
        (["a.example:8443"], "https://a.example:8444/", "8.8.8.8", False),
        (["*.example"], "http://a.example/", "10.0.0.1", True),
        (["*.example"], "http://b.a.example/", "10.0.0.1", True),
        (["*.a.example"], "http://a.example/", "10.0.0.1", False),
        (["*.a.example"], "http://ba.example/", "10.0.0.1", False),
    ],
)
def test_allow_list_allows_what_it_names(allow: list[str], url: str, address: str, may: bool) -> None:
    def ask() -> None:
        check(urls.parse(url), [ip_address(address)], openings(allow))

    if may:
        ask()
    else:
        with pytest.raises(Refused, match="off limits") as caught:
            ask()
        assert caught.value.code == "off_limits"


def test_one_private_address_is_enough_to_refuse_a_host() -> None:
    with pytest.raises(Refused, match=r"10\.0\.0\.0/8: private \(RFC 1918\)"):
        check(urls.parse("http://a.example/"), [ip_address("8.8.8.8"), ip_address("10.0.0.1")], ())


@pytest.mark.parametrize(
    "entry",
    ["", "*", "a b", "999.1.1.1", "10.0.0.1/8", "10.0.0.0/33", "http://a/", "a:0", "a:65536", "a:", "u@a", "[a]:1", "2130706433", 3, None],
)  # fmt: skip
def test_entry_that_is_not_a_host_or_network_is_refused(entry: object) -> None:
    with pytest.raises(InvalidInput, match="not a host or network"):
        openings([entry])  # type: ignore[list-item]


def test_an_allow_list_is_a_list() -> None:
    with pytest.raises(InvalidInput, match=r"write \['127\.0\.0\.1'\]"):
        openings("127.0.0.1")
