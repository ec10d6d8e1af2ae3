"""Requests to servers that the operator chose, over real connections: proxies, redirects, certificates, the event loop's own life."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator

import pytest

from agno_workers.core.messages import ModelRequest, user
from agno_workers.errors import ModelUnavailable
from agno_workers.models import resolve
from agno_workers.net import pool
from agno_workers.net.client import tls
from agno_workers.net.errors import Unreachable
from agno_workers.net.pool import PooledClient, Request
from tests.fakes.site import CERTIFICATE, head, page, site
from tests.fakes.site import Request as Seen

KEY = "sk-a-secret-key"
HELLO = page('{"choices": [{"message": {"content": "hello"}, "finish_reason": "stop"}]}')


@pytest.fixture
def client() -> Iterator[PooledClient]:
    client = PooledClient()
    yield client
    client.close()


def request(url: str) -> Request:
    headers = [("Authorization", f"Bearer {KEY}")]
    return Request(method="POST", url=url, headers=headers, content=b"{}", proxy=None)


def body(client: PooledClient, url: str) -> bytes:
    return b"".join(client.send(request(url), 5.0))


def failure(client: PooledClient, url: str) -> str:
    with pytest.raises(Unreachable) as caught:
        body(client, url)
    return caught.value.what


def say(base_url: str) -> str:
    model = resolve("local:m", api_key=KEY, base_url=base_url)
    return model.ask(ModelRequest((user("x"),)), lambda _: None).message.text


def moved_to(location: str) -> bytes:
    return page(status=307, location=location, connection="close")


def endless(_: Seen) -> Iterator[bytes]:
    yield head(content_type="text/event-stream")
    while True:
        yield b'data: {"choices": [{"delta": {"content": "and "}}]}\n\n'


# ---- the way there ----------------------------------------------------------------------------------------


def test_proxy_of_the_environment_is_used_with_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with site({"*": HELLO}) as proxy, site({"*": HELLO}) as near:
        monkeypatch.setenv("HTTP_PROXY", proxy.url("", host="me:it@127.0.0.1"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert [say("http://far.example.test/v1"), say(near.url("/v1"))] == ["hello", "hello"]
        assert near.paths == ["/v1/chat/completions"]
        [seen] = proxy.requests
        assert seen.path == "http://far.example.test/v1/chat/completions"
        assert seen.headers["host"] == "far.example.test"
        assert seen.headers["proxy-authorization"] == "Basic bWU6aXQ="


def test_proxy_of_https_gets_no_key_and_its_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with site({"*": page(status=407)}) as proxy:
        monkeypatch.setenv("ALL_PROXY", proxy.url("", host="me:it@127.0.0.1"))
        with pytest.raises(
            ModelUnavailable, match=r"broke: ClientHttpProxyError: 407 Whatever\. Try"
        ) as caught:
            say("https://far.example.test/v1")
        [seen] = proxy.requests
        assert (seen.method, seen.path) == ("CONNECT", "far.example.test:443")
        assert seen.headers["proxy-authorization"] == "Basic bWU6aXQ="
        assert KEY not in str(seen)
        assert "me:it" not in str(caught.value)


def test_proxy_that_is_not_supported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(ModelUnavailable, match="the environment names a socks5 proxy: name one of http"):
        say("https://other.example.test/v1")


def test_redirect_takes_the_body_along_and_the_key_only_within_the_origin() -> None:
    with site({"*": HELLO}) as there:
        with site({"*": moved_to("/b"), "/b": moved_to(there.url())}) as here:
            assert say(here.url("/v1")) == "hello"
            seen = [*here.requests, *there.requests]
        assert [one.method for one in seen] == ["POST"] * 3
        assert len({one.body for one in seen}) == 1
        keys = [one.headers.get("authorization") for one in seen]
        assert keys == [f"Bearer {KEY}", f"Bearer {KEY}", None]
        assert seen[2].headers["host"] == f"127.0.0.1:{there.port}"


def test_redirect_to_another_protocol_is_refused_and_its_url_not_shown(client: PooledClient) -> None:
    with site({"/": moved_to("ftp://127.0.0.1/?token=secret")}) as here:
        assert "begins neither with http:// nor https://" in (said := failure(client, here.url()))
        assert "secret" not in said


def test_server_that_does_not_accept_is_told_without_its_url(
    client: PooledClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "CONNECT_S", 0.1)
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as full,
        socket.create_connection(full.getsockname()),
    ):
        said = failure(client, f"http://127.0.0.1:{full.getsockname()[1]}/?token=secret")
    assert said.endswith("ConnectionTimeoutError: no connection within 0.1 s")


def test_large_body_is_sent_in_pieces(
    client: PooledClient, recwarn: pytest.WarningsRecorder
) -> None:  # aiohttp warns of bytes that hold up the event loop
    content = bytes(3 * 2**20)
    with site({"/": page("taken")}) as there, site({"/": moved_to(there.url())}) as here:
        sent = Request(method="POST", url=here.url(), headers=[], content=content, proxy=None)
        assert b"".join(client.send(sent, 5.0)) == b"taken"
        assert [one.body for one in (*here.requests, *there.requests)] == [content] * 2
    assert not [str(each.message) for each in recwarn if each.category is ResourceWarning]


def test_redirect_in_a_circle_ends(client: PooledClient) -> None:
    with site({"/": moved_to("/")}) as here:
        assert "TooManyRedirects" in failure(client, here.url())


def test_certificate_must_be_trusted_and_for_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with site({"/": page("?")}, context) as here:
        said = []
        for trusted in ("", str(CERTIFICATE)):
            monkeypatch.setenv("SSL_CERT_FILE", trusted)
            tls.cache_clear()
            client = PooledClient()
            said.append(failure(client, here.url()))
            client.close()
        tls.cache_clear()
        assert "SSLCertVerificationError" in said[0]
        assert "self-signed certificate" in said[0]
        assert "IP address mismatch" in said[1]
        assert here.requests == []


# ---- the event loop ---------------------------------------------------------------------------------------


def test_what_emit_raises_closes_the_connection_at_once() -> None:
    class Lost(Exception):
        pass

    def lost(_: object) -> None:
        raise Lost

    with site({"*": endless}) as here:
        with pytest.raises(Lost):
            resolve("local:m", base_url=here.url("/v1")).ask(ModelRequest((user("x"),)), lost)
        assert here.left.wait(5)


def test_server_waits_for_a_thread_that_is_slow(client: PooledClient) -> None:
    size, all_sent = 64 * 2**20, threading.Event()

    def fast(_: Seen) -> Iterator[bytes]:
        yield head(content_length=str(size)) + bytes(size)
        all_sent.set()

    with site({"/": fast}) as here:
        answer = client.send(request(here.url()), 30.0)
        assert not all_sent.wait(0.5)
        assert sum(map(len, answer)) == size
        assert all_sent.wait(5)


def test_event_loop_that_a_bug_ends_is_logged_and_replaced(
    client: PooledClient, caplog: pytest.LogCaptureFixture
) -> None:
    def bug() -> None:
        raise SystemExit("a bug")

    with site({"/": endless, "/b": page("again")}) as here:
        answer = client.send(request(here.url()), 30.0)
        first = client._running()
        first._loop.call_soon_threadsafe(bug)
        with pytest.raises(Unreachable, match="was cut off"):
            for _ in answer:
                pass
        first.join(5)
        assert "the event loop of HTTP requests ended" in caplog.text
        assert body(client, here.url("/b")) == b"again"
        client.close()
        assert client._running() is not first
