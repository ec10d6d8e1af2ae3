"""Find the sources that a description names, and fetch the bytes of a source.

To add a kind: write a file beside this one with `takes` and `find`, and add it to `_KINDS`; with `fetch`, and lines in `_SCHEMES`,
if its sources do not hold their text. A kind is imported when first needed, since most ingestions need one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

import msgspec
from msgspec.structs import replace

from agno_workers.errors import InvalidInput, SettingsError, SourceRejected
from agno_workers.knowledge.sources import records, spec
from agno_workers.knowledge.sources.files import check_roots
from agno_workers.knowledge.sources.objects import check_places
from agno_workers.knowledge.types import Raw, Rows, Source
from agno_workers.net.addresses import openings

SourceInput = str | Mapping[str, Any] | Source

_KINDS = ("files", "inline", "objects", "web", "database", "api")
_SCHEMES = {
    "db": "records",
    "api": "records",
    "file": "files",
    "http": "web",
    "https": "web",
    "s3": "objects",
    "gs": "objects",
    "az": "objects",
}
"""The kinds that fetch, by scheme; any other source holds its text."""
_KEYS = ("path", "text", "objects", "sitemap", "url", "database", "api")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


class Allowed(msgspec.Struct, frozen=True):
    """The operator's lists of what sources may use, since their authors have the rights of the workers otherwise. Empty: nothing of
    its kind. See the settings knowledge.source_...
    """

    allow: tuple[str, ...] = ()
    """Private addresses; see net/addresses.py."""
    roots: tuple[str, ...] = ()
    """Folders."""
    variables: tuple[str, ...] = ()
    """Environment variables that are sent in headers."""
    databases: tuple[str, ...] = ()
    """Environment variables with the URL of a database."""
    objects: tuple[str, ...] = ()
    """Buckets and prefixes."""


NOTHING = Allowed()


def find(
    given: SourceInput, options: Mapping[str, Any] = {}, *, allowed: Allowed = NOTHING
) -> Iterator[Source]:
    """Yield the sources that a path, a URL, a description or a Source names, each with `options["metadata"]` and
    `options["rows"]`. `options["skip"]` is called with the reason and the uri of what a folder, a sitemap or a bucket leaves out.

    `options` come from the caller, so the operator's lists in them are ignored. Raises InvalidInput for a description that can't be used,
    as early as possible; during the iteration SourceUnavailable (try the whole again) or SourceRejected.
    """
    metadata, rows = options.get("metadata") or {}, options.get("rows")
    if isinstance(given, Mapping) and "rows" in given and "uri" not in given:
        given = dict(given)
        rows = given.pop("rows")
    asked = spec.read(Rows, rows, "the description of rows") if isinstance(rows, Mapping) else rows
    found = _found(given, {**options, **msgspec.structs.asdict(allowed)})
    if not metadata and not asked:
        return found
    return (
        replace(source, metadata={**metadata, **source.metadata}, rows=source.rows or asked)
        for source in found
    )


def fetch(source: Source, timeout_s: float, max_bytes: int, *, allowed: Allowed = NOTHING) -> Raw:
    """Return the bytes of a source. Its `fingerprint` may be the last one: a server then answers that nothing changed.

    Raises SourceUnavailable (worth another try) or SourceRejected (final).
    """
    kind = None if source.text is not None else _SCHEMES.get(scheme_of(source.uri))
    if kind is None:
        return records.fetch(source, timeout_s=timeout_s, max_bytes=max_bytes)
    key = {"web": "allow", "files": "roots", "objects": "objects"}.get(kind)
    more = {key: getattr(allowed, key)} if key else {}
    try:
        raw: Raw = _module(kind).fetch(source, timeout_s=timeout_s, max_bytes=max_bytes, **more)
    except InvalidInput as error:  # only this document fails
        raise SourceRejected(str(error), uri=source.uri, code="invalid") from error
    return raw


def check(allowed: Allowed) -> None:
    """Raise SettingsError for an unusable list of the operator."""
    for key, read, value in (
        ("knowledge.source_allow", openings, allowed.allow),
        ("knowledge.source_roots", check_roots, allowed.roots),
        ("knowledge.source_variables", spec.check_variables, allowed.variables),
        ("knowledge.source_databases", spec.check_variables, allowed.databases),
        ("knowledge.source_objects", check_places, allowed.objects),
    ):
        try:
            read(value)
        except InvalidInput as error:
            raise SettingsError(f"setting {key!r}: {error}", key=key) from error


def scheme_of(uri: str) -> str:
    """Return the scheme of a URI in lower case, or an empty string."""
    match = _SCHEME.match(uri)
    return match[1].lower() if match else ""


def _found(given: SourceInput, options: Mapping[str, Any]) -> Iterator[Source]:
    if isinstance(given, Mapping) and "uri" in given:  # a Source in JSON
        given = spec.read(Source, given, "a source")
    if isinstance(given, Source):
        if given.text is None and scheme_of(given.uri) not in _SCHEMES:
            raise InvalidInput(_advice(given.uri))
        return iter([given])
    for kind in _KINDS:
        module = _module(kind)
        if module.takes(given):
            sources: Iterator[Source] = module.find(given, options)
            return sources
    raise InvalidInput(_advice(given))


def _module(kind: str) -> ModuleType:
    return import_module(f"agno_workers.knowledge.sources.{kind}")


def _advice(given: object) -> str:
    if isinstance(given, Mapping):
        return f"a description of sources has one of the keys {', '.join(_KEYS)}, not only {sorted(map(str, given))}."
    scheme = scheme_of(str(given))
    near = difflib.get_close_matches(scheme, _SCHEMES, n=1)
    hint = (
        f"Did you mean {near[0]}:?"
        if near
        else "Pass a text as {'text': ...}, and a path without `:` before its first `/`."
    )
    return f"{given!r} is not a source ({', '.join(_SCHEMES)} or a path). {hint}"
