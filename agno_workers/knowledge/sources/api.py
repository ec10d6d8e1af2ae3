"""HTTP APIs that list things as JSON, page by page: one document an item.

    {"api": "https://api.example.com/articles?per_page=100", "items": "data", "id": "id", "text": "body.text",
     "title": "title", "metadata": ["author.name", "tags"], "updated": "updated_at",
     "next": {"cursor": "meta.next", "param": "after"}, "headers_env": {"Authorization": "ARTICLES_AUTHORIZATION"}}

A path has dots, `body.text`; a number selects from a list, `authors.0.name`; an empty path is the whole answer or item. `next`
finds the next page:

    "link"                                           in the header Link, as rel="next" (RFC 8288)
    {"url": "paging.next"}                           its URL is at this path of the answer
    {"cursor": "meta.next", "param": "after"}        the value at this path is sent back as this parameter
    {"page": "page", "start": 1}                     the parameter counts pages, up to the first without items
    {"offset": "offset"}                             the parameter counts items

Documents are named `api:<name>/<id>`; one that is no longer listed is removed. Secrets come from the workers' environment:
`headers_env` holds the names of variables, each with the whole value of its header (`Bearer ...`). `options["variables"]` is the
operator's list of them (the setting knowledge.source_variables).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlencode

import msgspec

from agno_workers.errors import InvalidInput
from agno_workers.knowledge.sources import records, spec
from agno_workers.knowledge.sources.failures import rejected, unavailable
from agno_workers.knowledge.sources.http import get, guarded, parse, translated
from agno_workers.knowledge.types import Source
from agno_workers.net import urls
from agno_workers.net.client import GuardedClient, Response
from agno_workers.net.urls import Url

_PAGE_BYTES = 32 * 1024 * 1024
_SECRET_HEADERS = {"authorization", "cookie", "proxy-authorization"}
_OUR_HEADERS = {"host", "connection", "content-length", "transfer-encoding", "accept-encoding"}
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_VALUE = re.compile(r"[\x20-\x7e\t]*")
_LINK = re.compile(r"<([^<>]*)>([^<>]*)")
_REL = re.compile(r";\s*rel\s*=\s*(?:\"([^\"]*)\"|([^\s;,\"]+))", re.IGNORECASE)
_WHAT = "the description of an API"


class ByUrl(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: str


class ByCursor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    cursor: str
    param: str


class ByPage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    page: str
    start: int = 1


class ByOffset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    offset: str
    start: int = 0


Next = ByUrl | ByCursor | ByPage | ByOffset


class Api(msgspec.Struct, frozen=True):
    """The address of the items and the meaning of their fields."""

    api: str
    """The URL of the first page. It is shown with the ingestion, so it must not hold a key."""
    id: str
    """Path in an item to its permanent id."""
    text: str | tuple[str, ...]
    """Path in an item, or several whose texts are joined."""
    items: str = ""
    """Path in an answer to the list of items."""
    name: str = ""
    """The name in `api:<name>/<id>`. Default: the API's host and path."""
    title: str | None = None
    metadata: tuple[str, ...] | dict[str, str] = ()
    """Paths, which are also the names; or names with their paths."""
    updated: str | None = None
    """Path in an item to a value that changes with it; default: a hash."""
    media_type: str = "text/plain"
    next: Any = None
    """See above. None: there is one page."""
    headers: dict[str, str] = {}
    headers_env: dict[str, str] = {}
    max_pages: int = 1_000
    """More pages are an error: the items that were left out would count as removed."""
    timeout_s: float = 60.0
    """The limit for each page."""


def takes(given: object) -> bool:
    """Return True for a description that `find` here reads."""
    return isinstance(given, Mapping) and ("api" in given or {"url", "items"} <= set(given))


def find(given: Mapping[str, Any], options: Mapping[str, Any] = {}) -> Iterator[Source]:
    """Yield the items as sources with their text. `url` is another name for `api`. `options["allow"]` is as in web.py.

    Raises InvalidInput, at once for an unusable description, during the iteration for an answer without the described paths;
    SourceUnavailable (try the whole again) or SourceRejected.
    """
    if "url" in given and "api" not in given:
        given = {"api": given["url"], **{key: value for key, value in given.items() if key != "url"}}
    asked = spec.read(Api, given, _WHAT)
    pager = _pager(asked.next)
    first = parse(asked.api)
    _check_headers(asked)
    secrets = _secrets(asked, first.host, options.get("variables", ("*",)))
    return _items(asked, pager, first, guarded(options.get("allow", ())), secrets)


def _items(
    asked: Api, pager: Next | str | None, first: Url, client: GuardedClient, secrets: Mapping[str, str]
) -> Iterator[Source]:
    headers = {"Accept": "application/json", **asked.headers, **secrets}
    name = f"api:{asked.name or first.authority + first.path.rstrip('/')}"
    seen: set[Url] = set()
    count = 0
    url: Url | None
    with translated():
        url = _first(pager, first)
    while url is not None:
        if len(seen) >= asked.max_pages:
            what = f"has more than {asked.max_pages} pages: raise max_pages, or ask for less."
            raise rejected(name, what, "too_large")
        seen.add(url)
        answer = get(client, url, timeout_s=asked.timeout_s, max_bytes=_PAGE_BYTES, headers=headers)
        content = _json(answer, url)
        items = _at(content, asked.items)
        if not isinstance(items, list):
            raise InvalidInput(
                f"{name}: the answer has no list at {asked.items!r}{_has(content)}. Correct `items`."
            )
        for item in items:
            yield _document(asked, name, item)
        count += len(items)
        with translated():
            url = _next(pager, answer, content, first, len(seen), count if items else None)
        if url is not None and url in seen:
            raise rejected(name, "leads from page to page in a circle. Correct `next`.")
        if url is not None and url.origin != first.origin:
            what = f"has its next page on another host, {url.origin}, which is not followed. Ingest that API too."
            raise rejected(name, what, "redirect")


def _document(asked: Api, name: str, item: object) -> Source:
    key = _at(item, asked.id)
    if key is None or isinstance(key, dict | list | bool):
        raise InvalidInput(f"{name}: an item has no id at {asked.id!r}{_has(item)}. Correct `id`.")
    paths = (asked.text,) if isinstance(asked.text, str) else asked.text
    texts = [records.as_text(value).strip() for path in paths if (value := _at(item, path)) is not None]
    named = asked.metadata if isinstance(asked.metadata, dict) else {path: path for path in asked.metadata}
    return records.document(
        name,
        key,
        "\n\n".join(text for text in texts if text),
        title=_at(item, asked.title) if asked.title else None,
        metadata={field: _at(item, path) for field, path in named.items()},
        updated=_at(item, asked.updated) if asked.updated else None,
        media_type=asked.media_type,
    )


# ---- the next page -------------------------------------------------------------------------------------------


def _pager(given: Any) -> Next | str | None:
    what = f"`next` in {_WHAT}"
    match given:
        case None:
            return None
        case "link":
            return "link"
        case {"url": _}:
            return spec.read(ByUrl, given, what)
        case {"cursor": _}:
            return spec.read(ByCursor, given, what)
        case {"page": _}:
            return spec.read(ByPage, given, what)
        case {"offset": _}:
            return spec.read(ByOffset, given, what)
        case _:
            raise InvalidInput(
                f"{what} is {given!r}: write it as 'link', or with one of the keys url, cursor, page, offset."
            )


def _first(pager: Next | str | None, first: Url) -> Url:
    match pager:
        case ByPage(page=param, start=start) | ByOffset(offset=param, start=start):
            return _with(first, param, str(start))
        case _:
            return first


def _next(
    pager: Next | str | None, answer: Response, content: object, first: Url, pages: int, count: int | None
) -> Url | None:  # fmt: skip
    """Return the next URL after so many pages and items. `count` is None if this page had no items."""
    match pager:
        case ByPage(page=param, start=start):
            return None if count is None else _with(first, param, str(start + pages))
        case ByOffset(offset=param, start=start):
            return None if count is None else _with(first, param, str(start + count))
        case ByCursor(cursor=path, param=param):
            value = _at(content, path)
            return _with(first, param, records.as_text(value)) if value not in (None, "", False) else None
        case ByUrl(url=path):
            target = _at(content, path)
            return urls.join(answer.url, target) if isinstance(target, str) and target else None
        case "link":
            link = next_link(answer.headers.get("link", ""))
            return urls.join(answer.url, link) if link is not None else None
        case _:
            return None


def next_link(header: str) -> str | None:
    """Return the target with rel="next" of a Link header."""
    for target, parameters in _LINK.findall(header):
        for relations in _REL.findall(parameters):
            if "next" in (relations[0] or relations[1]).lower().split():
                return str(target)
    return None


def _with(url: Url, param: str, value: str) -> Url:
    """Return the URL with one parameter set."""
    query = [(key, old) for key, old in parse_qsl(url.target.partition("?")[2], True) if key != param]
    return urls.parse(f"{url.origin}{url.path}?{urlencode([*query, (param, value)])}")


# ---- answers -------------------------------------------------------------------------------------------------


def _json(answer: Response, url: Url) -> object:
    try:
        return msgspec.json.decode(answer.content)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        what = f"did not answer with JSON ({type(error).__name__}); its address may be wrong"
        raise unavailable(str(url), what) from error


def _at(value: Any, path: str) -> Any:
    """Return the value at a path, or None."""
    for name in path.split(".") if path else ():
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal():
            value = value[int(name)] if int(name) < len(value) else None
        else:
            return None
    return value


def _has(value: object) -> str:
    """Describe the actual value for a message."""
    if isinstance(value, dict):
        return f", but {', '.join(repr(key[:40]) for key in list(value)[:12])}"
    return f", but is a {type(value).__name__}"


# ---- descriptions --------------------------------------------------------------------------------------------


def _check_headers(asked: Api) -> None:
    for header in [*asked.headers, *asked.headers_env]:
        if not _HEADER.fullmatch(header) or header.lower() in _OUR_HEADERS:
            raise InvalidInput(f"{_WHAT} has the header {header!r}, which can't be set. Remove it.")
    for header, value in asked.headers.items():
        if header.lower() in _SECRET_HEADERS:
            raise InvalidInput(
                f"{_WHAT} has {header} in `headers`, which are stored and shown: put the name of an environment variable "
                "into `headers_env`."
            )  # fmt: skip
        if not _VALUE.fullmatch(value):
            raise InvalidInput(f"{_WHAT} has an invalid value of the header {header!r}. Correct it.")


def _secrets(asked: Api, host: str, allowed: Sequence[str]) -> dict[str, str]:
    """Return the headers from the environment, of variables that the operator allowed for this host."""
    names = [name for name, _, at in (each.partition("@") for each in allowed) if at.lower() in ("", host)]
    secrets = {
        header: spec.from_environment(
            variable, f"{_WHAT} at {host}", names, "knowledge.source_variables"
        ).strip()
        for header, variable in asked.headers_env.items()
    }
    for header, value in secrets.items():
        if not _VALUE.fullmatch(value):
            raise InvalidInput(
                f"{_WHAT}: the variable {asked.headers_env[header]!r} holds an invalid value for a header. Correct it."
            )
    return secrets
