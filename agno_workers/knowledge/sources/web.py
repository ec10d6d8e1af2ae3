"""Web pages: one by its URL, or all that a sitemap lists.

    "https://example.com/docs/page.html"                 one page
    "https://example.com/sitemap.xml"                    the pages of a sitemap, known by its name: sitemap*.xml, also .xml.gz
    {"sitemap": URL, "include": ["/docs/*"], ...}        the same, see `Sitemap`

A page is fetched again only when it may have changed: its fingerprint is the sitemap's `lastmod`, or else the ETag or
Last-Modified of the last answer, which costs one answer of 304. Pages of a sitemap are fetched only if their
host's robots.txt allows it, unless `robots` is false; a URL named alone is fetched as by a browser, without robots.txt.
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

from agno_workers.errors import SourceRejected
from agno_workers.knowledge.sources import spec
from agno_workers.knowledge.sources.failures import rejected
from agno_workers.knowledge.sources.http import USER_AGENT, get, guarded, parse, translated
from agno_workers.knowledge.types import Raw, Source
from agno_workers.net import urls
from agno_workers.net.client import GuardedClient, gunzip
from agno_workers.net.errors import Refused
from agno_workers.net.urls import Url

_SITEMAP_NAME = re.compile(r"sitemap[^/]*\.xml(\.gz)?", re.IGNORECASE)
_SITEMAP_BYTES = 50 * 1024 * 1024  # the limit of the protocol, unpacked
_ROBOTS_BYTES = 512 * 1024  # the limit of RFC 9309
_REQUEST_S = 60.0  # for one sitemap
_SLICE = 64 * 1024
_LISTED = "lastmod:"
_GZIP = b"\x1f\x8b"


class Sitemap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sitemap, or an index of sitemaps."""

    sitemap: str
    include: tuple[str, ...] = ()
    """Take only pages whose path matches one of these, `/docs/*`. Empty: all."""
    exclude: tuple[str, ...] = ()
    max_urls: int = 50_000
    """More pages are an error: those that were left out would count as removed."""
    max_sitemaps: int = 1_000
    max_depth: int = 3
    """The limit for indexes in indexes."""
    any_host: bool = False
    """Take pages of other hosts than the sitemap's."""
    robots: bool = True
    """Leave out pages that robots.txt disallows."""


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One page."""

    url: str
    title: str | None = None
    metadata: dict[str, Any] = {}


def takes(given: object) -> bool:
    """Return True for a description that `find` here reads."""
    if isinstance(given, str):
        return given.lower().startswith(("http://", "https://"))
    return isinstance(given, Mapping) and ("sitemap" in given or set(given) <= {"url", "title", "metadata"})


def find(given: str | Mapping[str, Any], options: Mapping[str, Any] = {}) -> Iterator[Source]:
    """Yield the sources of a URL or a sitemap. `options["allow"]` is the operator's list of private addresses (see
    net/addresses.py), which resolve.py sets.

    Raises InvalidInput at once for an unusable description; during the iteration SourceUnavailable (try the whole again) or
    SourceRejected, so that no page is left out silently.
    """
    client = guarded(options.get("allow", ()))
    asked = _read(given)
    if isinstance(asked, Page):
        return iter([Source(str(parse(asked.url)), title=asked.title, metadata=asked.metadata)])
    parse(asked.sitemap)
    return _Walk(asked, client, spec.skip_of(options)).sources()


def fetch(source: Source, *, timeout_s: float, max_bytes: int, allow: Sequence[str] = ()) -> Raw:
    """Return the page; while its last fingerprint is still valid, without its content (`Raw.unchanged`).

    Raises SourceUnavailable or SourceRejected.
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
        fingerprint: str | None = known  # the sitemap will list the same
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
    """Return the headers for a 304 from an unchanged `hop`; none if the fingerprint is another page's."""
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
        name = parse(given).path.rpartition("/")[2]
        return Sitemap(given) if _SITEMAP_NAME.fullmatch(name) else Page(given)
    kind: type[Sitemap] | type[Page] = Sitemap if "sitemap" in given else Page
    return spec.read(
        kind, given, "the description of a page" if kind is Page else "the description of a sitemap"
    )


# ---- sitemaps ------------------------------------------------------------------------------------------------


class _Walk:
    """One walk through a sitemap and those that it leads to."""

    def __init__(self, asked: Sitemap, client: GuardedClient, skip: spec.Skip) -> None:
        self._asked = asked
        self._skip = skip
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
                what = (
                    f"leads to sitemaps more than {self._asked.max_depth} indexes deep: raise max_depth, or "
                )
                raise rejected(str(self._top), f"{what}name the inner ones.")
            else:
                inner = urls.join(url, entry.location)
                if self._is_ours(inner):
                    yield from self._sitemap(inner, depth + 1)

    def _page(self, entry: Entry) -> Iterator[Source]:
        try:
            url = urls.parse(entry.location)
        except Refused:
            # It becomes a source whose fetch fails, and so reports the reason.
            yield Source(entry.location, origin=str(self._top))
            return
        if str(url) in self._seen or not self._is_wanted(url):
            return
        if not self._is_ours(url):
            self._skip("another host", str(url))
            return
        if self._asked.robots and not self._rules(url).can_fetch(USER_AGENT, str(url)):
            self._skip("robots.txt", str(url))
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
        return not any(fnmatchcase(url.path, pattern) for pattern in asked.exclude)

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
        move = f"raise {key}, or select some with include."
        return rejected(str(self._top), f"lists more than {limit} {what}: {move}", "too_large")


def robots(url: Url, client: GuardedClient) -> RobotFileParser:
    """Return the rules of a host. A 4xx allows everything; a host that does not answer is tried again later (RFC 9309).

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
    """An entry of a sitemap."""

    location: str
    modified: str | None = None
    index: bool = False
    """Another sitemap."""


def read_sitemap(content: bytes, uri: str) -> Iterator[Entry]:
    """Yield the entries of a sitemap or an index, in constant memory. Raises SourceRejected for anything else."""
    reader = _Reader()
    parser = DefusedXMLParser(target=reader, forbid_dtd=True)
    try:
        for start in range(0, len(content), _SLICE):
            parser.feed(content[start : start + _SLICE])
            yield from reader.taken()
        parser.close()
    except (ParseError, DefusedXmlException, ValueError) as error:
        what = f"is not a valid sitemap ({type(error).__name__}: {error}). Correct it, or name its pages."
        raise rejected(uri, what) from error
    yield from reader.taken()


class _Reader:
    """Reads entries without building a tree, and ignores unknown elements."""

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
        """Return the entries since the last call."""
        entries, self._entries = self._entries, []
        return entries
