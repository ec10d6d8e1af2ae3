"""Each URL has one meaning, or is refused."""

from __future__ import annotations

import pytest

from agno_workers.net import urls
from agno_workers.net.errors import Refused


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("https://example.com", "https://example.com/"),
        ("  HTTPS://Example.COM:443/A?b=C#d ", "https://example.com/A?b=C"),
        ("http://example.com:80", "http://example.com/"),
        ("http://example.com:8080/x", "http://example.com:8080/x"),
        ("http://example.com./x", "http://example.com/x"),
        ("http://example.com/a b/ü?q=ö&r=%20", "http://example.com/a%20b/%C3%BC?q=%C3%B6&r=%20"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://my_host.example/", "http://my_host.example/"),
        ("http://93.184.216.34/", "http://93.184.216.34/"),
        ("http://[2606:2800:220:1:0:0:0:1]/", "http://[2606:2800:220:1::1]/"),
        ("http://[2606:2800::1]:8080/", "http://[2606:2800::1]:8080/"),
        # Compatibility letters are converted first, so that the address shows.
        ("http://１２７.0.0.1/", "http://127.0.0.1/"),
        ("http://①②⑦.⓪.⓪.①/", "http://127.0.0.1/"),
        ("http://127。0。0。1/", "http://127.0.0.1/"),
        ("http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/", "http://localhost/"),
        ("http://127.0.0.1./", "http://127.0.0.1/"),
        ("http://[::FFFF:127.0.0.1]/", "http://[::ffff:7f00:1]/"),
        ("http://example.com/@user", "http://example.com/@user"),
    ],
)
def test_url_has_one_spelling(given: str, read: str) -> None:
    assert str(urls.parse(given)) == read
    assert str(urls.parse(read)) == read


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("ftp://example.com/", "http:// or https://"),
        ("file:///etc/passwd", "http:// or https://"),
        ("gopher://127.0.0.1:6379/_FLUSHALL", "http:// or https://"),
        ("//example.com/", "http:// or https://"),
        ("example.com", "http:// or https://"),
        ("javascript:alert(1)", "http:// or https://"),
        ("http:example.com", "no valid host"),
        ("http:///example.com", "no valid host"),
        ("http://", "no valid host"),
        ("http://./", "no valid host"),
        ("http://example..com/", "no valid host"),
        ("http://example.com../", "no valid host"),
        ("http://xn--é.example/", "not a domain name"),
        ("http://example.com\uff0fevil/", "can't be parsed"),
        (f"http://{'a' * 64}.example/", "no valid host"),
        (f"http://{'a.' * 130}example/", "no valid host"),
        ("http://ann:secret@example.com/", "a user or a password"),
        ("http://ann@example.com/", "a user or a password"),
        ("http://@example.com/", "a user or a password"),
        ("http://good.example\\@127.0.0.1/", "a user or a password"),
        ("http://good.example\\.bad.example/", "no valid host"),
        ("http://good.example#@127.0.0.1:80\r\n/", "control characters"),
        ("http://exa\tmple.com/", "control characters"),
        ("http://example.com/\r\nX-Injected: 1", "control characters"),
        ("http://example.com/\x00", "control characters"),
        ("http://exam ple.com/", "no valid host"),
        ("http://ex%61mple.com/", "percent sign"),
        ("http://127.0.0.1%2f@example.com/", "a user or a password"),
        ("http://[fe80::1%25eth0]/", "percent sign"),
        ("http://[fe80::1%eth0]/", "percent sign"),
        ("http://[::1/", "can't be parsed"),
        ("http://::1/", "can't be parsed"),
        ("http://[1.2.3.4]/", "can't be parsed"),
        ("http://[v1.example]/", "not an IPv6"),
        ("http://[::1]evil.example/", "not an IPv6|can't be parsed"),
        ("http://2130706433/", "in more than one way"),
        ("http://0x7f000001/", "in more than one way"),
        ("http://017700000001/", "in more than one way"),
        ("http://0177.0.0.1/", "in more than one way"),
        ("http://0x7f.0.0.1/", "in more than one way"),
        ("http://127.1/", "in more than one way"),
        ("http://127.0.1/", "in more than one way"),
        ("http://0/", "in more than one way"),
        ("http://127.0.0.01/", "in more than one way"),
        ("http://256.0.0.1/", "in more than one way"),
        ("http://1.2.3.4.5/", "in more than one way"),
        ("http://example.0x1/", "in more than one way"),
        ("http://example.com:0/", "port 0"),
        ("http://example.com:65536/", "can't be parsed"),
        ("http://example.com:80a/", "can't be parsed"),
        ("http://example.com:-1/", "can't be parsed"),
        (f"http://example.com/{'a' * 9000}", "more than"),
    ],
)
def test_ambiguous_url_is_refused(given: str, why: str) -> None:
    with pytest.raises(Refused, match=why) as caught:
        urls.parse(given)
    assert caught.value.code == "invalid"


@pytest.mark.parametrize(
    "given",
    ["http://ann:s3cret@h/", "http://ann:s3cret@h:x/", "http://ann:s3cret/x@h/", "ftp://ann:s3cret@h/", "http://ann:s3cret@[::1/"],
)  # fmt: skip
def test_a_password_is_not_repeated(given: str) -> None:
    with pytest.raises(Refused) as caught:
        urls.parse(given)
    assert "s3cret" not in f"{caught.value} {caught.value.url}"


@pytest.mark.parametrize(
    ("reference", "meant"),
    [
        ("/b", "https://example.com/b"),
        ("b?c=1", "https://example.com/a/b?c=1"),
        ("//other.example/x", "https://other.example/x"),
        ("http://other.example", "http://other.example/"),
        ("../../../b", "https://example.com/b"),
        ("", "https://example.com/a/?q=1"),
    ],
)
def test_reference_is_resolved_from_its_page(reference: str, meant: str) -> None:
    assert str(urls.join(urls.parse("https://example.com/a/?q=1"), reference)) == meant
