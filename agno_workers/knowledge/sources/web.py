"""Pages of the web: one by its URL, or all that a sitemap lists.

    "https://example.com/docs/page.html"                 one page
    "https://example.com/sitemap.xml"                    what a sitemap lists, by its name: sitemap*.xml, also .xml.gz
    {"sitemap": URL, "include": ["/docs/*"], ...}        the same, see `Sitemap`

A page is asked for only when it may have changed: a sitemap's `lastmod` is its fingerprint, or else the ETag or Last-Modified
that came with it, which costs one answer of 304. The robots.txt of a sitemap's host is kept to; a URL that somebody named by
itself is fetched as a browser would.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any
from urllib.robotparser import RobotFileParser
from xml.etree.ElementTree import ParseError

import msgspec
from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from agno_workers.errors import InvalidInput, SourceRejected
from agno_workers.knowledge.sources import spec
from agno_workers.knowledge.sources.http import USER_AGENT, get, guarded, translated
from agno_workers.knowledge.types import Raw, Source
from agno_workers.net import urls
from agno_workers.net.client import GuardedClient, gunzip
from agno_workers.net.errors import Refused
from agno_workers.net.urls import Url

SCHEMES = ("http", "https")

_SITEMAP_NAME = re.compile(r"sitemap[^/]*\.xml(\.gz)?", re.IGNORECASE)
_SITEMAP_BYTES = 50 * 1024 * 1024  # as the protocol says, unpacked
_ROBOTS_BYTES = 512 * 1024  # as RFC 9309 says
_REQUEST_S = 60.0  # for one sitemap
_SLICE = 64 * 1024
_LISTED = "lastmod:"
_GZIP = b"\x1f\x8b"


class Sitemap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to read a sitemap, or an index of them."""

    sitemap: str
    include: tuple[str, ...] = ()
    """Of the listed pages only those whose path fits one of these, `/docs/*`. Empty: all."""
    exclude: tuple[str, ...] = ()
    max_urls: int = 50_000
    """More is an error, and not cut off: what was left out would count as removed."""
    max_sitemaps: int = 1_000
    max_depth: int = 3
    """Of indexes within indexes."""
    any_host: bool = False
    """Also pages of other hosts than the sitemap's."""
    robots: bool = True
    """Leave out what robots.txt disallows."""


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One page."""

    url: str
    title: str | None = None
    metadata: dict[str, Any] = {}


def takes(given: object) -> bool:
    """Whether this description is for `find` here."""
    if isinstance(given, str):
        return given.lower().startswith(("http://", "https://"))
    return isinstance(given, Mapping) and ("sitemap" in given or set(given) <= {"url", "title", "metadata"})


def find(given: str | Mapping[str, Any], options: Mapping[str, Any] = {}) -> Iterator[Source]:
    """The sources of a URL or a sitemap. Of `options` counts `allow`: the operator's list of what may be asked although it isn't
    public (see addresses.py), which resolve.py puts there.

    Raises InvalidInput for a description that can't be used, at once. While it goes on, SourceUnavailable (try the whole again)
    or SourceRejected, never after having left something out without a word.
    """
    client = guarded(options.get("allow", ()))
    asked = _read(given)
    if isinstance(asked, Page):
        return iter([Source(str(_parsed(asked.url)), title=asked.title, metadata=asked.metadata)])
    _parsed(asked.sitemap)
    return _Walk(asked, client).sources()


def fetch(source: Source, *, timeout_s: float, max_bytes: int, allow: Sequence[str] = ()) -> Raw:
    """The page. With the fingerprint of what was read last, nothing is read while that still holds (`Raw.unchanged`).

    Raises SourceUnavailable or SourceRejected, as `Net.get`.
    """
    known = source.fingerprint
    with translated():
        asked = urls.parse(source.uri)
    answer = get(
        guarded(allow),
        asked,
        timeout_s=timeout_s,
        max_bytes=max_bytes,
        conditional=lambda hop: _conditions(known, hop, asked),
    )
    if answer.status == 304:
        return Raw(b"", fingerprint=known, unchanged=True)
    if known is not None and known.startswith(_LISTED):
        fingerprint: str | None = known  # what the sitemap will say the next time, too
    else:
        fingerprint = _fingerprint(answer.headers, answer.url if answer.url != asked else None)
    return Raw(answer.content, answer.headers.get("content-type"), fingerprint)


# ---- fingerprints: `lastmod:DATE` of a sitemap; `etag:"abc"`, `modified:DATE`, with ` URL` at the end where a redirect led there


def _fingerprint(headers: Mapping[str, str], final: Url | None) -> str | None:
    where = f" {final}" if final else ""
    if etag := headers.get("etag", "").strip():
        return f"etag:{etag}{where}"
    if modified := headers.get("last-modified", "").strip():
        return f"modified:{modified}{where}"
    return None


def _conditions(known: str | None, hop: Url, asked: Url) -> dict[str, str]:
    """The headers that make `hop` answer 304 while it is as it was; none where the fingerprint is of another page."""
    kind, _, value = (known or "").partition(":")
    value, where = _split(value)
    if (where or str(asked)) != str(hop) or not value.isascii() or not value.isprintable():
        return {}
    names = {"etag": "If-None-Match", "modified": "If-Modified-Since"}
    return {names[kind]: value} if kind in names else {}


def _split(value: str) -> tuple[str, str | None]:
    head, _, last = value.rpartition(" ")
    return (head, last) if head and last.startswith(("http://", "https://")) else (value, None)


# ---- descriptions --------------------------------------------------------------------------------------------


def _read(given: str | Mapping[str, Any]) -> Sitemap | Page:
    if isinstance(given, str):
        name = _parsed(given).path.rpartition("/")[2]
        return Sitemap(given) if _SITEMAP_NAME.fullmatch(name) else Page(given)
    kind: type[Sitemap] | type[Page] = Sitemap if "sitemap" in given else Page
    return spec.read(
        kind, given, "the description of a page" if kind is Page else "the description of a sitemap"
    )


def _parsed(url: str) -> Url:
    """Of a description; there it is its writer's mistake."""
    try:
        return urls.parse(url)
    except Refused as error:
        raise InvalidInput(f"{error} Correct it.") from error


# ---- sitemaps ------------------------------------------------------------------------------------------------


class _Walk:
    """One way through a sitemap and those that it leads to."""

    def __init__(self, asked: Sitemap, client: GuardedClient) -> None:
        self._asked = asked
        self._client = client
        self._top = urls.parse(asked.sitemap)
        self._seen: set[str] = set()
        self._sitemaps = 0
        self._robots: dict[str, RobotFileParser] = {}

    def sources(self) -> Iterator[Source]:
        with translated():
            yield from self._sitemap(self._top, 0)

    def _sitemap(self, url: Url, depth: int) -> Iterator[Source]:
        if str(url) in self._seen:
            return
        self._seen.add(str(url))
        self._sitemaps += 1
        if self._sitemaps > self._asked.max_sitemaps:
            raise self._too_many("sitemaps", "max_sitemaps", self._asked.max_sitemaps)
        for entry in read_sitemap(self._content(url), str(url)):
            if not entry.index:
                yield from self._page(entry)
            elif depth >= self._asked.max_depth:
                raise SourceRejected(
                    f"{self._top} leads to sitemaps more than {self._asked.max_depth} indexes deep: raise max_depth, or name "
                    "the inner ones.", uri=str(self._top), code="rejected",
                )  # fmt: skip
            else:
                inner = urls.join(url, entry.location)
                if self._is_ours(inner):
                    yield from self._sitemap(inner, depth + 1)

    def _page(self, entry: Entry) -> Iterator[Source]:
        try:
            url = urls.parse(entry.location)
        except Refused:
            # It becomes a source all the same, and fails as one, with its reason.
            yield Source(entry.location, origin=str(self._top))
            return
        if str(url) in self._seen or not self._is_ours(url) or not self._is_wanted(url):
            return
        self._seen.add(str(url))
        if len(self._seen) - self._sitemaps > self._asked.max_urls:
            raise self._too_many("pages", "max_urls", self._asked.max_urls)
        fingerprint = f"{_LISTED}{entry.modified}" if entry.modified else None
        yield Source(str(url), origin=str(self._top), fingerprint=fingerprint)

    def _is_ours(self, url: Url) -> bool:
        return self._asked.any_host or url.host == self._top.host

    def _is_wanted(self, url: Url) -> bool:
        asked = self._asked
        if asked.include and not any(fnmatchcase(url.path, pattern) for pattern in asked.include):
            return False
        if any(fnmatchcase(url.path, pattern) for pattern in asked.exclude):
            return False
        return not asked.robots or self._rules(url).can_fetch(USER_AGENT, str(url))

    def _rules(self, url: Url) -> RobotFileParser:
        if url.origin not in self._robots:
            self._robots[url.origin] = robots(url, self._client)
        return self._robots[url.origin]

    def _content(self, url: Url) -> bytes:
        content = get(self._client, url, timeout_s=_REQUEST_S, max_bytes=_SITEMAP_BYTES).content
        if content.startswith(_GZIP):
            return b"".join(gunzip([content], _SITEMAP_BYTES, url))
        return content

    def _too_many(self, what: str, key: str, limit: int) -> SourceRejected:
        return SourceRejected(
            f"{self._top} lists more than {limit} {what}: raise {key}, or pick some with include.",
            uri=str(self._top), code="too_large",
        )  # fmt: skip


def robots(url: Url, client: GuardedClient) -> RobotFileParser:
    """The rules of a host. One without any (4xx) allows all; one that doesn't answer is asked again later (RFC 9309).

    Raises SourceUnavailable.
    """
    rules = RobotFileParser()
    try:
        text = get(
            client, urls.join(url, "/robots.txt"), timeout_s=_REQUEST_S, max_bytes=_ROBOTS_BYTES
        ).content
    except SourceRejected as error:
        if error.ids.get("status") is None:
            raise
        text = b""
    rules.parse(text.decode("utf-8", "replace").splitlines())
    return rules


class Entry(msgspec.Struct, frozen=True):
    """What a sitemap lists."""

    location: str
    modified: str | None = None
    index: bool = False
    """Another sitemap."""


def read_sitemap(content: bytes, uri: str) -> Iterator[Entry]:
    """The entries of a sitemap or an index, in constant memory. Raises SourceRejected for what is neither."""
    reader = _Reader()
    parser = DefusedXMLParser(target=reader, forbid_dtd=True)
    try:
        for start in range(0, len(content), _SLICE):
            parser.feed(content[start : start + _SLICE])
            yield from reader.taken()
        parser.close()
    except (ParseError, DefusedXmlException, ValueError) as error:
        raise SourceRejected(
            f"{uri} is no sitemap that can be read ({type(error).__name__}: {error}). Correct it, or name its pages.",
            uri=uri, code="rejected",
        ) from error  # fmt: skip
    yield from reader.taken()


class _Reader:
    """Keeps no tree: what it doesn't know goes by."""

    def __init__(self) -> None:
        self._path: list[str] = []
        self._entries: list[Entry] = []
        self._texts: dict[str, str] = {}

    def start(self, tag: str, _attributes: object) -> None:
        name = tag.rpartition("}")[2]
        if not self._path and name not in ("urlset", "sitemapindex"):
            raise ValueError(f"it begins with <{name[:40]}>")
        self._path.append(name)
        if len(self._path) > 20:
            raise ValueError("it is nested too deeply")

    def data(self, text: str) -> None:
        name = self._path[-1] if len(self._path) == 3 else ""
        if name in ("loc", "lastmod"):
            held = self._texts.get(name, "") + text
            if len(held) > urls.MAX_CHARS:
                raise ValueError(f"it has a <{name}> of more than {urls.MAX_CHARS} characters")
            self._texts[name] = held

    def end(self, _tag: str) -> None:
        name = self._path.pop()
        if len(self._path) == 1 and name in ("url", "sitemap"):
            if location := self._texts.get("loc", "").strip():
                modified = self._texts.get("lastmod", "").strip() or None
                self._entries.append(Entry(location, modified, name == "sitemap"))
            self._texts = {}

    def close(self) -> None:
        pass

    def taken(self) -> list[Entry]:
        """The entries since the last time."""
        entries, self._entries = self._entries, []
        return entries
