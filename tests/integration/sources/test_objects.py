"""Objects, from a server with S3's API."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from obstore.exceptions import GenericError

from agno_workers.errors import InvalidInput, SourceError, SourceRejected, SourceUnavailable
from agno_workers.knowledge.sources import objects
from agno_workers.knowledge.types import Source
from tests.fakes.bucket import KEY_ID, SECRET, Bucket, bucket, etag

KEYS = ["docs/a.md", "docs/b.pdf", "docs/sub/c.md", "docs/sub/d ü&+%?#.md", "docs2/e.md", "top.txt"]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    with bucket({key: f"this is {key}".encode() for key in KEYS} | {"docs/": b"", "docs/empty.md": b""}) as started:  # fmt: skip
        for name, value in started.environment.items():
            monkeypatch.setenv(name, value)
        yield started


def uris(given: str | Mapping[str, Any], **options: Any) -> list[str]:
    return [source.uri.removeprefix("s3://library/") for source in objects.find(given, options)]


def fetch(uri: str, *, timeout_s: float = 10, max_bytes: int = 10**6) -> Any:
    return objects.fetch(Source(uri), timeout_s=timeout_s, max_bytes=max_bytes)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("s3://library", KEYS),
        ("s3://library/", KEYS),
        ("s3://library/docs", KEYS[:4]),
        ("s3://library/docs/", KEYS[:4]),
        ("s3://library/docs/sub", KEYS[2:4]),
        ("s3://library/top.txt", ["top.txt"]),
        ("s3://library/nothing/here", []),
        ({"objects": "s3://library/", "glob": "*.md"}, [KEYS[0], KEYS[2], KEYS[3], KEYS[4]]),
        ({"objects": "s3://library/docs", "glob": ["*.pdf", "sub/c*"]}, [KEYS[1], KEYS[2]]),
        ({"objects": "s3://library/docs", "glob": "**/*.md", "exclude": "sub/*"}, [KEYS[0]]),
        ({"objects": "s3://library/top.txt", "glob": "*.txt"}, ["top.txt"]),
    ],
)
def test_a_prefix_is_a_folder_or_an_object(
    here: Bucket, given: str | dict[str, Any], found: list[str]
) -> None:
    assert sorted(uris(given)) == sorted(found)


def test_a_list_goes_over_all_pages(here: Bucket) -> None:
    uris("s3://library/")
    lists = [path for method, path in here.requests if "list-type=2" in path]
    assert len(lists) == 4
    assert sum("continuation-token" in path for path in lists) == 3


def test_glob_of_the_ingestion_is_the_default(here: Bucket) -> None:
    assert uris("s3://library/", glob="*.pdf") == ["docs/b.pdf"]
    assert uris("s3://library/", glob=["*.pdf", "*.txt"]) == ["docs/b.pdf", "top.txt"]
    assert uris({"objects": "s3://library/", "glob": "*.txt"}, glob="*.pdf") == ["top.txt"]


def test_an_object_has_its_size_and_etag_and_is_not_read(here: Bucket) -> None:
    [source] = objects.find({"objects": "s3://library/docs/a.md", "metadata": {"team": "a"}})
    content = here.objects["docs/a.md"]
    assert source == Source(
        "s3://library/docs/a.md",
        origin="s3://library/docs/a.md",
        bytes=len(content),
        fingerprint=f"etag:{etag(content)}",
        metadata={"team": "a"},
    )
    assert not [path for method, path in here.requests if method == "GET" and "list-type" not in path]


def test_every_object_that_is_found_can_be_fetched(here: Bucket) -> None:
    for source in objects.find("s3://library/"):
        raw = objects.fetch(source, timeout_s=10, max_bytes=1000)
        assert raw.content == f"this is {source.uri.removeprefix('s3://library/')}".encode()
        assert (raw.fingerprint, raw.media_type) == (source.fingerprint, None)


def test_type_of_the_store_is_kept(here: Bucket) -> None:
    here.types["docs/a.md"] = "text/markdown; charset=utf-8"
    assert fetch("s3://library/docs/a.md").media_type == "text/markdown; charset=utf-8"


def test_an_object_that_is_too_large_is_not_read(here: Bucket) -> None:
    here.objects["big"] = bytes(2_000_000)
    here.drip = threading.Event()  # it would never end
    with pytest.raises(SourceRejected) as caught:
        fetch("s3://library/big", max_bytes=1_999_999)
    assert caught.value.code == "too_large"


def test_dripping_object_ends_at_the_deadline(here: Bucket) -> None:
    here.drip = threading.Event()
    started = monotonic()
    with pytest.raises(SourceUnavailable):
        fetch("s3://library/docs/a.md", timeout_s=0.5)
    assert monotonic() - started < 10


@pytest.mark.parametrize(
    ("uri", "fault", "kind", "code"),
    [
        ("s3://library/nothing", None, SourceRejected, "gone"),
        ("s3://elsewhere/a", None, SourceRejected, "gone"),
        ("s3://library/docs/a.md", 403, SourceRejected, "denied"),
        ("s3://library/docs/a.md", 401, SourceRejected, "denied"),
        ("s3://library/docs/a.md", 400, SourceRejected, "rejected"),
        ("s3://library/docs/a.md", 429, SourceUnavailable, None),
        ("s3://library/docs/a.md", 500, SourceUnavailable, None),
        ("s3://library/docs/a.md", 503, SourceUnavailable, None),
    ],
)
def test_fetch_error_is_final_or_worth_another_try(here: Bucket, uri: str, fault: int | None, kind: type[SourceError], code: str | None) -> None:  # fmt: skip
    here.fault = fault
    with pytest.raises(SourceError) as caught:
        fetch(uri)
    assert (type(caught.value), caught.value.ids.get("code")) == (kind, code)
    assert uri in str(caught.value)


@pytest.mark.parametrize(("fault", "kind"), [(403, SourceRejected), (503, SourceUnavailable)])
def test_a_list_that_fails_says_so(here: Bucket, fault: int, kind: type[SourceError]) -> None:
    here.fault = fault
    with pytest.raises(kind):
        uris("s3://library/docs/")


@pytest.mark.parametrize("fault", [400, 403, 404, 500, 503])
def test_no_error_holds_a_secret(here: Bucket, fault: int, monkeypatch: pytest.MonkeyPatch) -> None:
    here.fault = fault
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session-token-session-token")
    for call in (lambda: fetch("s3://library/docs/a.md"), lambda: uris("s3://library/docs/a.md")):
        with pytest.raises(SourceError) as caught:
            call()
        told = f"{caught.value.to_json()} {caught.value.__cause__!r} {caught.value.__suppress_context__}"
        for secret in (KEY_ID, SECRET, "session-token", "Signature"):
            assert secret not in told
        assert told.endswith("None True")


def test_secrets_are_removed_from_messages_of_obstore(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_SAS_KEY", "sv=2026&sig=abcdefgh")
    with pytest.raises(SourceUnavailable) as caught, objects._translated("az://container/a"):
        raise GenericError("the token sv=2026&sig=abcdefgh is too old\nDebug source: sv=2026&sig=abcdefgh")
    assert "the token *** is too old. Try" in str(caught.value)


def test_unreachable_store_is_worth_another_try(monkeypatch: pytest.MonkeyPatch, here: Bucket) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(SourceUnavailable):
        fetch("s3://library/docs/a.md")


def test_google_and_azure_are_asked_where_their_environment_says(here: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # fmt: skip
    here.signed = False
    account = {"gcs_base_url": f"http://127.0.0.1:{here.port}", "disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}  # fmt: skip
    (tmp_path / "account.json").write_text(json.dumps(account))
    environment = {
        "GOOGLE_SERVICE_ACCOUNT": str(tmp_path / "account.json"),
        "GOOGLE_ALLOW_HTTP": "true",
        "AZURE_STORAGE_ACCOUNT_NAME": "account",
        "AZURE_STORAGE_ACCOUNT_KEY": "c2VjcmV0LXNlY3JldA==",
        "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{here.port}",
        "AZURE_ALLOW_HTTP": "true",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for scheme in ("gs", "az"):
        found = list(objects.find(f"{scheme}://library/docs/"))
        assert sorted(source.uri.removeprefix(f"{scheme}://library/") for source in found) == sorted(KEYS[:4])
        for source in found:
            raw = objects.fetch(source, timeout_s=10, max_bytes=1000)
            assert raw.fingerprint == source.fingerprint
            assert raw.content.startswith(b"this is docs/")
        with pytest.raises(SourceRejected, match="is gone"):
            fetch(f"{scheme}://library/nothing")


@pytest.mark.parametrize("uri", ["az://container/a", "gs://bucket/a"])
def test_missing_environment_is_our_error(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", "/nowhere/account.json")
    with pytest.raises(SourceError, match=uri[:-2]):
        list(objects.find(uri))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("s3://", "is not an address of objects"),
        ("s3:///key", "is not an address of objects"),
        ("s3://key:secret@bucket/a", "holds a user or a key"),
        ({"objects": "http://bucket/a"}, "is not an address of objects"),
        ({"objects": "s3://bucket/", "globs": "*.md"}, "did you mean 'glob'"),
        ({"objects": "s3://bucket/", "glob": 5}, "Expected"),
        ({"objects": "s3://bucket/", "secret_access_key": "x"}, "unknown key 'secret_access_key'"),
    ],
)
def test_unusable_description_is_refused_at_once(given: str | dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as caught:
        objects.find(given)
    assert "secret@" not in str(caught.value)


def test_error_names_the_extra_without_obstore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(InvalidInput, match=r"agno-workers\[objects\]"):
        objects.find("s3://bucket/")


def test_takes_descriptions_of_objects() -> None:
    assert [objects.takes(given) for given in ("s3://a", "gs://a", "az://a", {"objects": "s3://a"})] == [
        True
    ] * 4
    assert [objects.takes(given) for given in ("https://a", "a/b", {"url": "x"}, 5)] == [False] * 4
