"""From what a caller wrote to the sources that it means, and from a source to its bytes.

To add a kind: a file beside this one with `takes`, `find`, `fetch` and `SCHEMES`, and a line in `_KINDS`. A kind is imported when
first needed: most ingestions need one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

from msgspec.structs import replace

from agno_workers.errors import InvalidInput, SettingsError, SourceRejected
from agno_workers.knowledge.sources import inline, spec
from agno_workers.knowledge.sources.addresses import openings
from agno_workers.knowledge.sources.files import check_roots
from agno_workers.knowledge.types import Raw, Source

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
"""Of what is fetched from somewhere; all else has its text with it."""
_KEYS = ("path", "text", "objects", "sitemap", "url", "database", "api")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")


def find(
    given: SourceInput,
    options: Mapping[str, Any] = {},
    *,
    allow: Sequence[str] = (),
    roots: Sequence[str] = (),
) -> Iterator[Source]:
    """The sources that are meant by a path, an address, a description or a Source itself, each with `options["metadata"]`.

    `allow` is the operator's word on which private addresses may be asked (see addresses.py), `roots` on which folders may be read;
    what `options` say of that, who submits says, and it doesn't count. Raises InvalidInput for what can't be used, as soon as that shows; while it goes on
    SourceUnavailable (try the whole again) and SourceRejected.
    """
    metadata = options.get("metadata") or {}
    found = _found(given, {**options, "allow": tuple(allow), "roots": tuple(roots)})
    if not metadata:
        return found
    return (replace(source, metadata={**metadata, **source.metadata}) for source in found)


def fetch(
    source: Source, timeout_s: float, max_bytes: int, *, allow: Sequence[str] = (), roots: Sequence[str] = ()
) -> Raw:
    """The bytes of a source. Its `fingerprint` may be the one of the last time: a server is asked whether it still holds.

    Raises SourceUnavailable (worth another try) or SourceRejected (final).
    """
    kind = None if source.text is not None else _SCHEMES.get(scheme_of(source.uri))
    if kind is None:
        return inline.fetch(source, timeout_s=timeout_s, max_bytes=max_bytes)
    more = {"web": {"allow": tuple(allow)}, "files": {"roots": tuple(roots)}}.get(kind, {})
    try:
        raw: Raw = _module(kind).fetch(source, timeout_s=timeout_s, max_bytes=max_bytes, **more)
    except InvalidInput as error:  # at the time of the fetch it is this document's fault only
        raise SourceRejected(str(error), uri=source.uri, code="invalid") from error
    return raw


def check(allow: Sequence[str], roots: Sequence[str]) -> None:
    """Raises SettingsError where the operator's word on addresses or folders can't be followed."""
    for key, followed, word in (("source_allow", openings, allow), ("source_roots", check_roots, roots)):
        try:
            followed(word)
        except InvalidInput as error:
            raise SettingsError(f"setting {key!r}: {error}", key=key) from error


def scheme_of(uri: str) -> str:
    """In lower case; empty where there is none."""
    match = _SCHEME.match(uri)
    return match[1].lower() if match else ""


def _found(given: SourceInput, options: Mapping[str, Any]) -> Iterator[Source]:
    if isinstance(given, Mapping) and "uri" in given:  # a Source that has travelled as JSON
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
        return f"a description of sources has one of the keys {', '.join(_KEYS)}, and this one has {sorted(map(str, given))}."
    scheme = scheme_of(str(given))
    near = difflib.get_close_matches(scheme, _SCHEMES, n=1)
    hint = (
        f"Did you mean {near[0]}:?"
        if near
        else "A text is handed in as {'text': ...}, a path without `:` before its first `/`."
    )
    return f"{given!r} names no source ({', '.join(_SCHEMES)} or a path). {hint}"
