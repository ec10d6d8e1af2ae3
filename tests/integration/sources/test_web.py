"""Pages and sitemaps, from sites on localhost."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from typing import Any

import pytest

from agno_workers.errors import InvalidInput, SourceRejected, SourceUnavailable
from agno_workers.knowledge.sources import web
from agno_workers.knowledge.types import Source
from tests.fakes.site import Request, Site, head, page, site

ALLOW = ["127.0.0.1"]
XMLNS = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'


def find(given: str | Mapping[str, Any]) -> list[Source]:
    return list(web.find(given, {"allow": ALLOW}))


def fetch(uri: str, known: str | None = None) -> Any:
    return web.fetch(Source(uri, fingerprint=known), timeout_s=10, max_bytes=10**6, allow=ALLOW)


def sitemap(*pages: str, modified: str = "") -> bytes:
    last = f"<lastmod>{modified}</lastmod>" if modified else ""
    entries = "".join(f"<url><loc>{url}</loc>{last}<priority>1</priority></url>" for url in pages)
    return f'<?xml version="1.0" encoding="UTF-8"?><urlset {XMLNS}>{entries}</urlset>'.encode()


def index(*sitemaps: str) -> bytes:
    entries = "".join(f"<sitemap><loc>{url}</loc></sitemap>" for url in sitemaps)
    return f"<sitemapindex {XMLNS}>{entries}</sitemapindex>".encode()


def uris(here: Site, found: list[Source]) -> list[str]:
    return [source.uri.removeprefix(here.url("")) for source in found]


# ---- one page ----------------------------------------------------------------------------------------------


def test_url_is_one_source_and_is_only_requested_by_its_fetch() -> None:
    with site({"/a": page("<p>hello", content_type="text/html; charset=latin-1")}) as here:
        [source] = find(here.url("/a"))
        assert source == Source(here.url("/a"))
        assert here.requests == []
        raw = fetch(source.uri)
        assert (raw.content, raw.media_type, raw.unchanged) == (
            b"<p>hello",
            "text/html; charset=latin-1",
            False,
        )


def test_a_page_may_come_with_a_title_and_metadata() -> None:
    given = {"url": "https://example.com", "title": "Home", "metadata": {"team": "web"}}
    assert find(given) == [Source("https://example.com/", title="Home", metadata={"team": "web"})]


@pytest.mark.parametrize(
    ("name", "value", "question"),
    [
        ("etag", '"v1"', "if-none-match"),
        ("etag", 'W/"v1 with spaces"', "if-none-match"),
        ("last_modified", "Wed, 21 Oct 2026 07:28:00 GMT", "if-modified-since"),
    ],
)
def test_a_page_that_did_not_change_costs_a_304(name: str, value: str, question: str) -> None:
    def answer(request: Request) -> bytes:
        return (
            page(status=304)
            if request.headers.get(question) == value
            else page("hello", 200, **{name: value})
        )

    with site({"/": answer}) as here:
        first = fetch(here.url())
        assert (first.content, first.unchanged) == (b"hello", False)
        again = fetch(here.url(), known=first.fingerprint)
        assert (again.content, again.unchanged, again.fingerprint) == (b"", True, first.fingerprint)


def test_a_page_that_changed_is_read_again() -> None:
    with site({"/": page("old", etag='"1"')}) as here:
        first = fetch(here.url())
        here.answers["/"] = page("new", etag='"2"')
        again = fetch(here.url(), known=first.fingerprint)
        assert (again.content, again.fingerprint) == (b"new", 'etag:"2"')


def test_etag_is_not_sent_to_another_page() -> None:
    """Two pages behind one redirect may have the same ETag."""

    def answer(request: Request) -> bytes:
        return page(status=304) if "if-none-match" in request.headers else page(request.path, etag='"1"')

    with site({"/": page(status=302, location="/one"), "/one": answer, "/two": answer}) as here:
        first = fetch(here.url())
        assert fetch(here.url(), known=first.fingerprint).unchanged
        here.answers["/"] = page(status=302, location="/two", etag='"1"')
        assert fetch(here.url(), known=first.fingerprint).content == b"/two"


@pytest.mark.parametrize(
    "known", [None, "", "lastmod:2026-01-01", "5-1700000000", 'etag:"1"\r\nX-Injected: 1', "etag:é"]
)
def test_fingerprint_of_another_kind_sends_no_condition(known: str | None) -> None:
    with site({"/": page("hello")}) as here:
        assert fetch(here.url(), known=known).content == b"hello"
        assert not {"if-none-match", "if-modified-since", "x-injected"} & set(here.requests[0].headers)


def test_unasked_304_is_rejected() -> None:
    with site({"/": page(status=304)}) as here, pytest.raises(SourceRejected, match="304"):
        fetch(here.url())


def test_a_page_is_off_limits_unless_allowed() -> None:
    with site({"/": page("hello")}) as here, pytest.raises(SourceRejected, match="off limits"):
        web.fetch(Source(here.url()), timeout_s=10, max_bytes=10**6)


# ---- sitemaps ----------------------------------------------------------------------------------------------


def test_a_sitemap_lists_its_pages_once_with_lastmod_as_fingerprint() -> None:
    with site({}) as here:
        here.answers["/sitemap.xml"] = page(
            sitemap(here.url("/a"), here.url("/b?x=1&amp;y=2"), here.url("/a"), modified="2026-01-02")
        )
        found = find(here.url("/sitemap.xml"))
        assert uris(here, found) == ["/a", "/b?x=1&y=2"]
        assert {source.fingerprint for source in found} == {"lastmod:2026-01-02"}
        assert {source.origin for source in found} == {here.url("/sitemap.xml")}


def test_the_fingerprint_of_a_listed_page_stays_its_lastmod() -> None:
    with site({"/a": page("hello", etag='"1"')}) as here:
        assert fetch(here.url("/a"), known="lastmod:2026").fingerprint == "lastmod:2026"


def test_an_index_is_followed_also_packed_and_below_folders() -> None:
    with site({}) as here:
        here.answers |= {
            "/sitemap_index.xml": page(index(here.url("/en/map.xml.gz"), here.url("/de.xml"))),
            "/en/map.xml.gz": page(
                gzip.compress(sitemap(here.url("/en/a"))), content_type="application/gzip"
            ),
            "/de.xml": page(gzip.compress(sitemap(here.url("/de/a"))), content_encoding="gzip"),
        }
        assert uris(here, find(here.url("/sitemap_index.xml"))) == ["/en/a", "/de/a"]


def test_other_hosts_are_left_out_unless_asked_for() -> None:
    with site({}) as here:
        here.answers["/map"] = page(sitemap("https://other.example/a", here.url("/a")))
        assert uris(here, find({"sitemap": here.url("/map")})) == ["/a"]
        found = find({"sitemap": here.url("/map"), "any_host": True, "robots": False})
        assert uris(here, found) == ["https://other.example/a", "/a"]


def test_sitemap_of_another_host_is_not_fetched() -> None:
    with site({"*": page(sitemap())}) as other, site({}) as here:
        here.answers["/sitemap.xml"] = page(index(other.url("/sitemap.xml", host="localhost")))
        assert find(here.url("/sitemap.xml")) == []
        assert other.requests == []


def test_include_and_exclude_select_by_path() -> None:
    with site({}) as here:
        here.answers["/map"] = page(
            sitemap(*(here.url(path) for path in ("/docs/a", "/docs/old/b", "/blog/c")))
        )
        given = {"sitemap": here.url("/map"), "include": ["/docs/*"], "exclude": ["*/old/*"]}
        assert uris(here, find(given)) == ["/docs/a"]


def test_robots_rules_are_respected() -> None:
    rules = (
        "User-agent: *\nDisallow: /private\n\nUser-agent: agno-workers\nDisallow: /private\nDisallow: /ours\n"
    )
    with site({"/robots.txt": page(rules)}) as here:
        here.answers["/map"] = page(sitemap(*(here.url(path) for path in ("/a", "/private/b", "/ours/c"))))
        assert uris(here, find({"sitemap": here.url("/map")})) == ["/a"]
        assert len(find({"sitemap": here.url("/map"), "robots": False})) == 3
        assert here.paths.count("/robots.txt") == 1


@pytest.mark.parametrize(("status", "pages"), [(404, 1), (403, 1), (410, 1), (503, None), (429, None)])
def test_site_without_rules_allows_all_and_unreachable_one_is_tried_later(status: int, pages: int | None) -> None:  # fmt: skip
    with site({"/robots.txt": page(status=status)}) as here:
        here.answers["/map"] = page(sitemap(here.url("/a")))
        if pages:
            assert len(find({"sitemap": here.url("/map")})) == pages
        else:
            with pytest.raises(SourceUnavailable, match="robots"):
                find({"sitemap": here.url("/map")})


def test_unreadable_part_fails_the_whole() -> None:
    """Otherwise its pages would count as removed."""
    with site({}) as here:
        here.answers |= {"/sitemap.xml": page(index(here.url("/1"), here.url("/2"))), "/1": page(sitemap())}
        with pytest.raises(SourceRejected, match="/2 is gone"):
            find(here.url("/sitemap.xml"))
        here.answers["/2"] = page(status=503, retry_after="3")
        with pytest.raises(SourceUnavailable) as caught:
            find(here.url("/sitemap.xml"))
        assert caught.value.retry_after_s == 3


@pytest.mark.parametrize(
    ("more", "key"), [({"max_urls": 2}, "max_urls"), ({"max_sitemaps": 2}, "max_sitemaps"), ({"max_depth": 1}, "max_depth")]
)  # fmt: skip
def test_more_than_the_limits_is_an_error_and_never_cut_off(more: dict[str, int], key: str) -> None:
    with site({}) as here:
        here.answers |= {
            "/0": page(index(here.url("/1"))),
            "/1": page(index(here.url("/2"))),
            "/2": page(sitemap(*(here.url(f"/page/{n}") for n in range(3)))),
        }
        assert len(find({"sitemap": here.url("/0")})) == 3
        with pytest.raises(SourceRejected, match=key):
            find({"sitemap": here.url("/0"), **more})


def test_a_circle_of_indexes_ends() -> None:
    with site({}) as here:
        here.answers |= {"/1": page(index(here.url("/2"))), "/2": page(index(here.url("/1"), here.url("/2")))}
        assert find({"sitemap": here.url("/1")}) == []


def test_invalid_listed_url_fails_alone() -> None:
    with site({}) as here:
        here.answers["/map"] = page(sitemap("http://0177.1/", here.url("/a")))
        bad, good = find({"sitemap": here.url("/map")})
        assert uris(here, [good]) == ["/a"]
        with pytest.raises(SourceRejected, match="more than one way"):
            fetch(bad.uri)


BOMB = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><urlset><url><loc>&b;</loc></url></urlset>'
XXE = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><urlset><url><loc>&a;</loc></url></urlset>'


@pytest.mark.parametrize(
    "content",
    [
        b"", b"<html><body>Not found</body></html>", b"<urlset><url>", b"\x00\x01", b"plain", BOMB.encode(), XXE.encode(),
        b"<urlset>" + b"<a>" * 100_000, b"<urlset><url><loc>" + b"a" * 100_000, gzip.compress(b"<nothing/>", mtime=0), b"\x1f\x8bbroken",
        b"<rss><channel><item><link>http://x/</link></item></channel></rss>",
    ],
)  # fmt: skip
def test_invalid_sitemap_is_refused(content: bytes) -> None:
    with site({"/map": page(content)}) as here, pytest.raises(SourceRejected):
        find({"sitemap": here.url("/map")})


def test_a_packed_sitemap_may_not_be_a_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_SITEMAP_BYTES", 100_000)
    with site({"/map": page(gzip.compress(bytes(10**6)))}) as here, pytest.raises(SourceRejected) as caught:
        find({"sitemap": here.url("/map")})
    assert caught.value.code == "too_large"


def test_long_sitemap_is_read_in_constant_memory() -> None:
    urls = [f"https://example.com/{n}" for n in range(20_000)]
    entries = web.read_sitemap(sitemap(*urls), "x")
    assert next(entries).location == urls[0]
    assert sum(1 for _ in entries) == len(urls) - 1


# ---- descriptions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("http://ann:secret@example.com/", "a user or a password"),
        ("http://2130706433/", "more than one way"),
        ({"sitemap": "https://example.com/s.xml", "max_url": 5}, "did you mean 'max_urls'"),
        ({"sitemap": "https://example.com/s.xml", "max_urls": "5"}, "Expected `int`"),
        ({"sitemap": 5}, "Expected `str`"),
        ({"sitemap": "file:///etc/passwd"}, "http"),
        ({"url": "https://example.com/", "metadata": []}, "Expected `object`"),
    ],
)
def test_unusable_description_is_refused_at_once(given: str | dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        web.find(given)


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ("https://example.com/", True), ("HTTP://example.com", True), ("s3://bucket/a", False), ("docs/", False),
        ({"url": "https://example.com/"}, True), ({"sitemap": "https://example.com/"}, True),
        ({"url": "https://example.com/", "items": "data"}, False), ({"database": "X"}, False), (5, False),
    ],
)  # fmt: skip
def test_takes_descriptions_of_pages(given: object, ours: bool) -> None:
    assert web.takes(given) is ours


def test_nothing_is_requested_before_the_first_source() -> None:
    with site({"/sitemap.xml": head()}) as here:
        web.find(here.url("/sitemap.xml"), {"allow": ALLOW})
        assert here.requests == []
