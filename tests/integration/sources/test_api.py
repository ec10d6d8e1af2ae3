"""APIs that list JSON, page by page."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import pytest

from agno_workers.errors import AgnoError, InvalidInput, SourceRejected, SourceUnavailable
from agno_workers.knowledge.sources import api, records
from agno_workers.knowledge.types import Source
from tests.fakes.site import Request, Site, page, site

Answer = Callable[[Request], bytes]


def reply(content: object, **headers: str) -> bytes:
    return page(json.dumps(content), 200, content_type="application/json", **headers)


def find(here: Site, path: str = "/list", **changed: Any) -> list[Source]:
    given = {"api": here.url(path), "id": "id", "text": "body"} | changed
    return list(api.find(given, {"allow": ["127.0.0.1"]}))


def ids(found: list[Source]) -> list[str]:
    return [source.uri.rpartition("/")[2] for source in found]


def things(*numbers: int) -> list[dict[str, Any]]:
    return [{"id": n, "body": f"Body {n}"} for n in numbers]


def query(request: Request) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(request.path.partition("?")[2]).items()}


# ---- items -------------------------------------------------------------------------------------------------


def test_item_is_a_document() -> None:
    item = {
        "key": "a/1", "content": {"title": "T", "intro": "Intro", "parts": [{"text": "First"}, {"text": "Second"}]},
        "tags": ["x"], "price": 1.5, "gone": None, "changed": "2026-01-02",
    }  # fmt: skip
    with site({"/list": reply({"data": {"things": [item]}})}) as here:
        [source] = find(
            here,
            items="data.things",
            id="key",
            text=["content.intro", "content.parts.1.text", "content.missing"],
            title="content.title",
            metadata={"tag": "tags.0", "price": "price", "gone": "gone"},
            updated="changed",
            media_type="text/markdown",
            name="things",
        )
    assert source == Source(
        "api:things/a%2F1",
        origin="api:things",
        bytes=13,
        fingerprint="updated:2026-01-02",
        media_type="text/markdown",
        title="T",
        metadata={"tag": "x", "price": 1.5},
        text="Intro\n\nSecond",
    )
    assert records.fetch(source, timeout_s=1, max_bytes=100).content == b"Intro\n\nSecond"


def test_a_whole_item_can_be_the_text_and_the_answer_the_list() -> None:
    with site({"/list": reply([{"id": 1, "n": 2}])}) as here:
        [source] = find(here, text="")
        assert (source.text, source.origin) == ('{"id":1,"n":2}', f"api:127.0.0.1:{here.port}/list")


def test_what_changed_has_another_fingerprint() -> None:
    with site({"/list": reply(things(1, 2))}) as here:
        before = find(here)
        here.answers["/list"] = reply([*things(1), {"id": 2, "body": "new"}])
        after = find(here)
    assert [old.fingerprint == new.fingerprint for old, new in zip(before, after, strict=True)] == [
        True,
        False,
    ]


# ---- pages -------------------------------------------------------------------------------------------------


def test_single_page_without_next() -> None:
    with site({"/list": reply(things(1, 2), link='</list?page=2>; rel="next"')}) as here:
        assert ids(find(here)) == ["1", "2"]


def test_pages_by_the_link_header() -> None:
    with site({}) as here:
        here.answers |= {
            "/list": reply(
                things(1),
                link='<http://elsewhere/>; rel="last", </list?p=2>; title="a, b"; rel="prefetch next"',
            ),
            "/list?p=2": reply(things(2), link=f"<{here.url('/list?p=3')}>; rel=next"),
            "/list?p=3": reply(things(3), link='</list>; rel="first"'),
        }
        assert ids(find(here, next="link")) == ["1", "2", "3"]


def test_pages_by_a_url_in_the_answer() -> None:
    with site({}) as here:
        here.answers |= {
            "/list": reply({"items": things(1), "paging": {"next": "/list/2"}}),
            "/list/2": reply({"items": things(2), "paging": {"next": None}}),
        }
        assert ids(find(here, items="items", next={"url": "paging.next"})) == ["1", "2"]


def test_pages_by_a_cursor() -> None:
    def answer(request: Request) -> bytes:
        after = query(request).get("after")
        assert query(request)["size"] == "2"
        pages = {None: (things(1, 2), "a&b=c"), "a&b=c": (things(3), 7), "7": (things(4), "")}
        items, following = pages[after]
        return reply({"items": items, "next": following})

    with site({"*": answer}) as here:
        assert ids(find(here, "/list?size=2", items="items", next={"cursor": "next", "param": "after"})) == list("1234")  # fmt: skip


@pytest.mark.parametrize(
    ("following", "asked"),
    [
        ({"page": "p"}, ["1", "2", "3"]),
        ({"page": "p", "start": 0}, ["0", "1", "2"]),
        ({"offset": "p"}, ["0", "2", "3"]),
        ({"offset": "p", "start": 1}, ["1", "3", "4"]),
    ],
)
def test_pages_by_number(following: dict[str, Any], asked: list[str]) -> None:
    pages = iter([things(1, 2), things(3), []])
    with site({"*": lambda _: reply(next(pages))}) as here:
        assert ids(find(here, "/list?p=9&q=%C3%BC", next=following)) == ["1", "2", "3"]
        assert [query(request) for request in here.requests] == [{"p": number, "q": "ü"} for number in asked]


@pytest.mark.parametrize("following", ["link", {"url": "next"}])
def test_a_next_page_on_another_host_is_not_followed_and_gets_no_secret(following: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("THINGS_KEY", "Bearer s3cret")
    with site({"*": reply([])}) as other, site({}) as here:
        target = other.url("/list")
        here.answers["/list"] = reply({"items": [], "next": target}, link=f'<{target}>; rel="next"')
        with pytest.raises(SourceRejected, match="another host"):
            find(here, items="items", next=following, headers_env={"Authorization": "THINGS_KEY"})
        assert other.requests == []


@pytest.mark.parametrize("target", ["http://169.254.169.254/", "file:///etc/passwd", "http://0x7f.1/", "http://a:b@127.0.0.1/"])  # fmt: skip
def test_next_page_at_a_private_address_is_not_fetched(target: str) -> None:
    with site({"/list": reply({"items": [], "next": target})}) as here, pytest.raises(SourceRejected):
        find(here, items="items", next={"url": "next"})


@pytest.mark.parametrize("following", ["link", {"url": "next"}, {"cursor": "next", "param": "c"}])
def test_a_circle_of_pages_is_an_error(following: Any) -> None:
    with site(
        {"*": reply({"items": things(1), "next": "/list?c=1"}, link='</list?c=1>; rel="next"')}
    ) as here:
        with pytest.raises(SourceRejected, match="in a circle"):
            find(here, items="items", next=following)
        assert len(here.requests) == 2


def test_more_pages_than_the_limit_are_an_error_and_never_cut_off() -> None:
    with site({"*": reply(things(1))}) as here:
        with pytest.raises(SourceRejected, match="max_pages"):
            find(here, next={"page": "p"}, max_pages=3)
        assert len(here.requests) == 3


# ---- secrets -----------------------------------------------------------------------------------------------


def test_secrets_come_from_the_environment_and_go_only_to_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THINGS_KEY", " Bearer s3cret\n")
    with site({"/list": reply(things(1))}) as here:
        found = find(here, headers={"X-Version": "2"}, headers_env={"Authorization": "THINGS_KEY"})
        assert here.requests[0].headers["authorization"] == "Bearer s3cret"
        assert here.requests[0].headers["x-version"] == "2"
        assert "s3cret" not in str(found)


@pytest.mark.parametrize("value", ["s3cret\r\nX-Injected: 1", "s3crét"])
def test_a_secret_that_no_header_can_hold_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("THINGS_KEY", value)
    with site({"/list": reply([])}) as here, pytest.raises(InvalidInput, match="'THINGS_KEY'") as caught:
        find(here, headers_env={"Authorization": "THINGS_KEY"})
    assert "s3c" not in str(caught.value.to_json())


# ---- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind", "why"),
    [
        (page("<html>", 200), SourceUnavailable, "JSON"),
        (page(b"[" * 100_000, 200), SourceUnavailable, "JSON"),
        (page(b'"\xff"', 200), SourceUnavailable, "JSON"),
        (page(b"", 200), SourceUnavailable, "JSON"),
        (page("no", 429, retry_after="5"), SourceUnavailable, "429"),
        (page("no", 401), SourceRejected, "denies access"),
        (page("no", 404), SourceRejected, "gone"),
        (reply({"data": []}), InvalidInput, "no list at 'items', but 'data'"),
        (reply([]), InvalidInput, "no list at 'items', but is a list"),
        (reply({"items": {}}), InvalidInput, "no list at 'items'"),
        (reply({"items": [{"key": 1}]}), InvalidInput, "no id at 'id', but 'key'"),
        (reply({"items": [{"id": {}}]}), InvalidInput, "no id"),
        (reply({"items": ["a"]}), InvalidInput, "no id at 'id', but is a str"),
    ],
)
def test_answer_without_the_described_paths_is_an_error(
    answer: bytes, kind: type[AgnoError], why: str
) -> None:
    with site({"/list": answer}) as here, pytest.raises(kind, match=why):
        find(here, items="items")


def test_an_api_of_the_network_is_off_limits_unless_allowed() -> None:
    with site({"/list": reply([])}) as here, pytest.raises(SourceRejected, match="off limits"):
        list(api.find({"api": here.url("/list"), "id": "id", "text": "body"}))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"itmes": "x"}, "did you mean 'items'"),
        ({"text": 5}, "Expected"),
        ({"api": "ftp://x"}, "http"),
        ({"api": "https://a:s3cret@x/"}, "a user or a password"),
        ({"headers": {"Authorization": "s3cret"}}, "headers_env"),
        ({"headers": {"cookie": "s3cret"}}, "headers_env"),
        ({"headers": {"Host": "x"}}, "can't be set"),
        ({"headers": {"a b": "x"}}, "can't be set"),
        ({"headers": {"x": "a\nb"}}, "invalid value of the header"),
        ({"headers_env": {"Host": "x"}}, "can't be set"),
        ({"next": "links"}, "write it as 'link'"),
        ({"next": {"pages": "p"}}, "one of the keys url, cursor, page, offset"),
        ({"next": {"cursor": "next"}}, "missing required field `param`"),
        ({"next": {"page": "p", "begin": 0}}, "did you mean"),
        ({"next": {"page": "p", "start": "0"}}, "Expected `int`"),
    ],
)
def test_unusable_description_is_refused_at_once(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as caught:
        api.find({"api": "https://example.com/", "id": "id", "text": "body"} | changed)
    assert "s3cret" not in str(caught.value)


def test_a_variable_that_is_not_set_is_named() -> None:
    with pytest.raises(InvalidInput, match="'NO_SUCH_VARIABLE' is not set"):
        list(api.find({"api": "https://example.com/", "id": "id", "text": "x", "headers_env": {"A": "NO_SUCH_VARIABLE"}}))  # fmt: skip


def test_takes_descriptions_of_apis() -> None:
    assert api.takes({"api": "x"})
    assert api.takes({"url": "x", "items": "y"})
    assert not any(
        api.takes(given) for given in ({"url": "x"}, "https://x", {"items": "x"}, {"database": "x"}, 5)
    )


def test_url_is_another_name_for_api() -> None:
    with site({"/list": reply({"items": things(1)})}) as here:
        given = {"url": here.url("/list"), "items": "items", "id": "id", "text": "body"}
        assert ids(list(api.find(given, {"allow": ["127.0.0.1"]}))) == ["1"]
