"""Objects in S3, Google Cloud Storage and Azure, through obstore (the extra `objects`).

    "s3://bucket/prefix"    "gs://bucket/prefix"    "az://container/prefix"
    {"objects": "s3://bucket/prefix", "glob": "*.pdf", "exclude": ["drafts/*"]}

A prefix is a folder or one object. Credentials and endpoints come from the workers' environment, in the variables of the stores'
own tools (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME` ...): no
description, row or message holds any of them.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from agno_workers.errors import InvalidInput, SourceError
from agno_workers.knowledge.sources import spec
from agno_workers.knowledge.sources.failures import rejected, too_large, unavailable
from agno_workers.knowledge.types import Raw, Source

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_SCHEMES = ("s3", "gs", "az")

_STORES = {"s3": ("S3Store", "AWS_"), "gs": ("GCSStore", "GOOGLE_"), "az": ("AzureStore", "AZURE_")}
_VARIABLES = tuple(prefix for _, prefix in _STORES.values())
_NO_TYPE = {"application/octet-stream", "binary/octet-stream"}  # sent for an unknown type
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")
_LIST_S = 60.0
_LIST_RETRIES = 2  # for each page; the step retries a fetch
_CHUNK = 1024 * 1024


class Objects(msgspec.Struct, frozen=True):
    """The objects to ingest."""

    objects: str
    glob: str | tuple[str, ...] = ()
    """Take only names (`*.pdf`) or paths below the prefix (`2026/*`) that match one of these. Empty: all."""
    exclude: str | tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    """Added to each."""


def takes(given: object) -> bool:
    """Return True for a description that `find` here reads."""
    if isinstance(given, str):
        return given.startswith(tuple(f"{scheme}://" for scheme in _SCHEMES))
    return isinstance(given, Mapping) and "objects" in given


def find(given: str | Mapping[str, Any], options: Mapping[str, Any] = {}) -> Iterator[Source]:
    """Yield the objects below a prefix. Empty ones, which may stand for a folder, are left out. `options["glob"]` is the default
    glob, `options["objects"]` the operator's list of buckets and prefixes (the setting knowledge.source_objects).

    Raises InvalidInput at once for an unusable description or without obstore; during the iteration SourceUnavailable (try the
    whole again) or SourceRejected.
    """
    asked = (
        Objects(given) if isinstance(given, str) else spec.read(Objects, given, "the description of objects")
    )
    scheme, bucket, prefix = _parts(asked.objects)
    _stay(asked.objects, options.get("objects", ("*",)))
    _obstore()
    globs = spec.patterns(asked.glob) or spec.patterns(options.get("glob"))
    return _listed(asked, (scheme, bucket, prefix), globs, spec.skip_of(options))


def fetch(source: Source, *, timeout_s: float, max_bytes: int, objects: Sequence[str] = ("*",)) -> Raw:
    """Return the object. Raises SourceUnavailable or SourceRejected."""
    try:
        _stay(source.uri, objects)
        obstore, (scheme, bucket, key) = _obstore(), _parts(source.uri)
    except InvalidInput as error:
        raise rejected(source.uri, f"can't be read: {error}", "invalid") from error
    ends = monotonic() + timeout_s
    with _translated(source.uri):
        answer = obstore.get(_store(scheme, bucket, timeout_s, 0), key)
        if answer.meta["size"] > max_bytes:
            raise too_large(source.uri, max_bytes)
        content = bytearray()
        for chunk in answer.stream(min_chunk_size=_CHUNK):
            content += chunk
            if len(content) > max_bytes:
                raise too_large(source.uri, max_bytes)
            if monotonic() > ends:
                raise unavailable(source.uri, f"took longer than {timeout_s:g} s")
        media_type = answer.attributes.get("Content-Type")
    return Raw(
        bytes(content), None if media_type in _NO_TYPE else media_type, _fingerprint(dict(answer.meta))
    )


def _listed(
    asked: Objects, where: tuple[str, str, str], globs: tuple[str, ...], skip: spec.Skip
) -> Iterator[Source]:
    scheme, bucket, prefix = where
    exclude = spec.patterns(asked.exclude)
    for meta in _metas(asked.objects, _store(scheme, bucket, _LIST_S, _LIST_RETRIES), prefix):
        path = meta["path"]
        below = path.removeprefix(prefix.rstrip("/")).lstrip("/") or path.rpartition("/")[2]
        if (globs and not _fits(below, globs)) or _fits(below, exclude):
            continue
        if meta["size"]:
            yield Source(
                f"{scheme}://{bucket}/{path}",
                origin=asked.objects,
                bytes=meta["size"],
                fingerprint=_fingerprint(meta),
                metadata=asked.metadata,
            )
        elif not path.endswith("/"):  # which stands for a folder
            skip("empty", f"{scheme}://{bucket}/{path}")


def _metas(uri: str, store: ObjectStore, prefix: str) -> Iterator[dict[str, Any]]:
    """Yield the object of this name, and all below it."""
    obstore = _obstore()
    with _translated(uri):
        if prefix and not prefix.endswith("/"):
            try:
                yield dict(obstore.head(store, prefix))
            except FileNotFoundError:
                pass  # a folder
            except obstore.exceptions.PermissionDeniedError:
                pass  # S3's answer for a missing object without the right to list; the list fails too
        for page in obstore.list(store, prefix or None):
            yield from map(dict, page)


def _fits(path: str, patterns: tuple[str, ...]) -> bool:
    name = path.rpartition("/")[2]
    return any(
        fnmatchcase(path, pattern.removeprefix("**/")) or fnmatchcase(name, pattern.removeprefix("**/"))
        for pattern in patterns
    )


def _fingerprint(meta: Mapping[str, Any]) -> str:
    if etag := meta.get("e_tag"):
        return f"etag:{etag}"
    return f"{meta['last_modified'].timestamp()}:{meta['size']}"


# ---- stores --------------------------------------------------------------------------------------------------


def _parts(uri: str) -> tuple[str, str, str]:
    """Split into scheme, bucket and key. It is not a URL: a key may contain `?`, `#` and `%`."""
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if "@" in bucket:
        raise InvalidInput(
            f"the address of objects {scheme}://...@... holds a user or a key: set it in the workers' environment."
        )
    if scheme not in _SCHEMES or not _BUCKET.fullmatch(bucket):
        raise InvalidInput(
            f"{uri!r} is not an address of objects: write it as s3://bucket/prefix, gs:// or az://."
        )
    return scheme, bucket, key


def check_places(places: Sequence[str]) -> None:
    """Raise InvalidInput for an entry of the operator's list that is neither `*` nor a bucket or a prefix."""
    for place in places:
        if place != "*":
            _parts(place)


def _stay(uri: str, allowed: Sequence[str]) -> None:
    """Raise InvalidInput for objects that no list of the operator names. `..` in a key would lead out of a prefix."""
    places = [place.rstrip("/") for place in allowed]
    is_within = any(uri == place or uri.startswith(f"{place}/") for place in places)
    if "*" not in places and (not is_within or {".", ".."} & set(uri.split("/"))):
        raise spec.not_allowed(repr(uri), "knowledge.source_objects")


def _obstore() -> Any:
    try:
        return importlib.import_module("obstore")
    except ImportError:
        raise InvalidInput(
            "objects are read with obstore, which is not installed: pip install 'agno-workers[objects]'."
        ) from None


def _store(scheme: str, bucket: str, timeout_s: float, retries: int) -> ObjectStore:
    ours = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith(_VARIABLES)))
    return _built(os.getpid(), ours, scheme, bucket, timeout_s, retries)


@lru_cache(maxsize=16)
def _built(_pid: int, environment: tuple[tuple[str, str], ...], scheme: str, bucket: str, timeout_s: float, retries: int) -> ObjectStore:  # fmt: skip
    """Keep a store and its connections until the environment changes or the process forks."""
    name, prefix = _STORES[scheme]
    kind = getattr(importlib.import_module("obstore.store"), name)
    allow_http = dict(environment).get(f"{prefix}ALLOW_HTTP", "").lower() in ("1", "true")
    with _translated(f"{scheme}://{bucket}"):
        store: ObjectStore = kind(
            bucket,
            client_options={
                "timeout": timedelta(seconds=timeout_s),
                "connect_timeout": timedelta(seconds=min(10.0, timeout_s)),
                "allow_http": allow_http,
            },
            retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=timeout_s)},
        )
    return store


# ---- errors: obstore's messages repeat headers, bodies and signed addresses ---------------------------------


@contextmanager
def _translated(uri: str) -> Iterator[None]:
    """Raise obstore's errors as ours, without secrets and without the original."""
    try:
        yield
    except SourceError:
        raise
    except FileNotFoundError:
        raise rejected(uri, "is gone. Remove it, or correct the address.", "gone") from None
    except Exception as error:
        if not type(error).__module__.startswith("obstore") and not isinstance(error, OSError | ValueError):
            raise
        raise _error(uri, error) from None


def _error(uri: str, error: Exception) -> SourceError:
    text = str(error)
    status = int(found[1]) if (found := re.search(r"status code: (\d{3})", text)) else None
    code = f" ({found[1]})" if (found := re.search(r"<Code>(\w{1,60})</Code>", text)) else ""
    if type(error).__name__ in ("PermissionDeniedError", "UnauthenticatedError") or status in (401, 403):
        what = f"denies access{code}. Check the credentials in the workers' environment, and their rights."
        return rejected(uri, what, "denied", status)
    if type(error).__name__ == "GenericError" and (status is None or status >= 500 or status in (408, 429)):
        return unavailable(uri, f"could not be read{code}: {_discreet(text)}", status)
    what = f"can't be read{code}: {_discreet(text)}. Correct the address, or the workers' environment."
    return rejected(uri, what, "rejected", status)


def _discreet(text: str) -> str:
    """Return the first line without a URL's query, a server's answer or a secret of the environment."""
    line = re.sub(r"[?<].*", "...", text.partition("\n")[0])
    for name, value in os.environ.items():
        if name.startswith(_VARIABLES) and len(value) >= 8 and re.search(r"KEY|SECRET|TOKEN|SAS", name):
            line = line.replace(value, "***")
    return line[:300]
