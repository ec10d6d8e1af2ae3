"""The HTTP client for URLs that others name, against malicious sites."""

from __future__ import annotations

import gzip
import itertools
import socket
import ssl
import threading
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from time import monotonic

import pytest

from agno_workers.errors import SourceError, SourceRejected, SourceUnavailable
from agno_workers.knowledge.sources.http import get, guarded
from agno_workers.net import urls
from agno_workers.net.addresses import openings
from agno_workers.net.client import GuardedClient, Response
from tests.fakes.site import CERTIFICATE, Request, head, page, site

LOCAL = openings(["127.0.0.1"])
MB = 1024 * 1024


def ask(
    url: str, client: GuardedClient | None = None, *, timeout_s: float = 10, max_bytes: int = MB, headers: Mapping[str, str] = {}
) -> Response:  # fmt: skip
    client = client or guarded(["127.0.0.1"])
    return get(client, urls.parse(url), timeout_s=timeout_s, max_bytes=max_bytes, headers=headers)


def refusal(url: str, client: GuardedClient | None = None, **limits: float) -> SourceError:
    with pytest.raises(SourceError) as caught:
        ask(url, client, **limits)  # type: ignore[arg-type]
    return caught.value


class Names:
    """A resolver that returns each of its answers once, and the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.asked: list[tuple[str, int]] = []
        self._answers = itertools.chain(answers, itertools.repeat(answers[-1]))

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append((host, port))
        return next(self._answers)


# ---- addresses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/", "http://localhost/", "http://localhost./", "http://0.0.0.0/", "http://169.254.169.254/latest/",
        "http://[::1]/", "http://[::]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:a9fe:a9fe]/", "http://１２７.0.0.1/",
        "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/", "http://[fd00:ec2::254]/", "http://10.0.0.1/", "https://192.168.1.1/",
        "http://100.100.100.200/", "http://255.255.255.255/", "http://[fe80::1]/",
    ],
)  # fmt: skip
def test_addresses_of_this_machine_and_its_network_are_off_limits(url: str) -> None:
    assert refusal(url, GuardedClient()).code == "off_limits"


@pytest.mark.parametrize(
    "answer",
    [
        ["127.0.0.1"], ["10.1.2.3"], ["169.254.169.254"], ["::1"], ["fe80::1%lo"], ["::ffff:127.0.0.1"], ["fd00::1"],
        ["8.8.8.8", "127.0.0.1"], ["2606:4700::1111", "::1"], ["0.0.0.0"],
    ],
)  # fmt: skip
def test_a_name_whose_address_is_private_is_off_limits(answer: list[str]) -> None:
    assert refusal("http://innocent.example/", GuardedClient(resolve=lambda *_: answer)).code == "off_limits"


def test_a_name_is_looked_up_once_and_the_connection_goes_to_what_was_checked() -> None:
    """DNS rebinding: the first answer is allowed, and the second is not looked up."""
    with site({"/": page("hello")}) as here:
        names = Names(["127.0.0.1"], ["127.0.0.2"])
        client = GuardedClient(openings(["127.0.0.1"]), resolve=names)
        assert ask(f"http://rebind.example:{here.port}/", client).content == b"hello"
        assert names.asked == [("rebind.example", here.port)]
        assert here.requests[0].headers["host"] == f"rebind.example:{here.port}"

        assert refusal(f"http://rebind.example:{here.port}/", client).code == "off_limits"
        assert len(here.requests) == 1


def test_redirect_is_looked_up_and_checked_again() -> None:
    with site({"/": page(status=302, location="/again"), "/again": page("in")}) as here:
        names = Names(["127.0.0.1"], ["127.0.0.2"])
        client = GuardedClient(openings(["127.0.0.1"]), resolve=names)
        assert refusal(f"http://rebind.example:{here.port}/", client).code == "off_limits"
        assert here.paths == ["/"]


def test_the_first_address_that_answers_is_asked() -> None:
    with site({"/": page("hello")}) as here:
        client = GuardedClient(
            openings(["127.0.0.0/8", "::1"]), resolve=lambda *_: ["127.9.9.9", "::1", "127.0.0.1"]
        )
        assert ask(f"http://many.example:{here.port}/", client).content == b"hello"


def test_proxy_of_the_environment_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    with site({"/": page("direct")}) as here, site({"*": page("by proxy")}) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url())
        assert ask(here.url()).content == b"direct"
        assert proxy.requests == []


# ---- redirects ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "location",
    [
        "http://169.254.169.254/latest/meta-data/", "//169.254.169.254/", "http://[::ffff:169.254.169.254]/", "http://10.0.0.1/",
        "http://localhost:22/", "http://metadata.example/", "https://[::1]/",
    ],
)  # fmt: skip
def test_a_redirect_into_the_network_is_refused(location: str) -> None:
    with site({"/": page(status=302, location=location)}) as here:
        client = GuardedClient(
            openings([f"127.0.0.1:{here.port}"]),
            resolve=lambda host, _: ["127.0.0.1" if host == "localhost" else "169.254.169.254"],
        )
        assert refusal(here.url(), client).code == "off_limits"


@pytest.mark.parametrize(
    ("location", "code", "why"),
    [
        ("file:///etc/passwd", "invalid", "http://"),
        ("gopher://127.0.0.1/", "invalid", "http://"),
        ("http://ann:secret@127.0.0.1/", "invalid", "a password"),
        ("http://2130706433/", "invalid", "more than one way"),
        ("", "redirect", "without a Location"),
        ("/", "redirect", "in a circle"),
        ("/b", "redirect", "in a circle"),
    ],
)
def test_a_redirect_that_leads_nowhere_is_refused(location: str, code: str, why: str) -> None:
    answers = {"/": page(status=302, location=location), "/b": page(status=301, location="/c"), "/c": page(status=307, location="/b")}  # fmt: skip
    with site(answers) as here:
        error = refusal(here.url())
        assert error.code == code
        assert why in str(error)


@pytest.mark.parametrize(("hops", "arrives"), [(1, True), (5, True), (6, False)])
def test_five_redirects_are_followed_and_no_more(hops: int, arrives: bool) -> None:
    answers = {f"/{n}": page(status=302, location=f"/{n + 1}") for n in range(hops)}
    with site({**answers, f"/{hops}": page("here")}) as here:
        if arrives:
            response = ask(here.url("/0"))
            assert (response.content, response.url.path) == (b"here", f"/{hops}")
        else:
            assert refusal(here.url("/0")).code == "redirect"
            assert len(here.requests) == 6


def test_credentials_go_to_the_origin_they_are_for_and_nowhere_else() -> None:
    with site({"/": page("there")}) as there:
        with site(
            {"/": page(status=302, location="/b"), "/b": page(status=302, location=there.url())}
        ) as here:
            ask(here.url(), headers={"Authorization": "Bearer secret", "X-Api-Key": "secret"})
        assert [request.headers.get("authorization") for request in here.requests] == ["Bearer secret"] * 2
        assert there.requests
        assert "secret" not in str(there.requests)


# ---- TLS ---------------------------------------------------------------------------------------------------


def _server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def _believer() -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(CERTIFICATE))


def test_the_certificate_is_for_the_name_although_the_connection_goes_to_the_address() -> None:
    indicated: list[str | None] = []
    context = _server_tls()
    context.sni_callback = lambda _socket, name, _context: indicated.append(name)
    with site({"/": page("safe")}, context) as here:
        client = GuardedClient(LOCAL, resolve=lambda *_: ["127.0.0.1"], tls=_believer)
        assert ask(f"https://docs.example.test:{here.port}/", client).content == b"safe"
        assert indicated == ["docs.example.test"]
        for other in (f"https://other.example.test:{here.port}/", here.url()):
            assert "certificate" in str(refusal(other, client))
        assert len(here.requests) == 1


def test_untrusted_certificate_is_refused() -> None:
    with site({"/": page("?")}, _server_tls()) as here:
        error = refusal(
            f"https://docs.example.test:{here.port}/", GuardedClient(LOCAL, resolve=lambda *_: ["127.0.0.1"])
        )
        assert isinstance(error, SourceRejected)
        assert here.requests == []


def test_a_redirect_from_https_to_http_is_refused() -> None:
    with site({"/": page("in the open")}) as plain:
        with site({"/": page(status=301, location=plain.url())}, _server_tls()) as here:
            client = GuardedClient(LOCAL, resolve=lambda *_: ["127.0.0.1"], tls=_believer)
            assert refusal(f"https://docs.example.test:{here.port}/", client).code == "redirect"
        assert plain.requests == []


# ---- limits ------------------------------------------------------------------------------------------------


def _for_ever(piece: bytes, first: bytes, pause: threading.Event | None = None) -> Callable[[Request], Iterator[bytes]]:  # fmt: skip
    def answer(_: Request) -> Iterator[bytes]:
        yield first
        while True:
            if pause is not None:
                pause.wait(0.02)
            yield piece

    return answer


def test_an_endless_page_is_cut_off() -> None:
    with site({"/": _for_ever(b"x" * 65536, head())}) as here:
        assert refusal(here.url(), max_bytes=MB).code == "too_large"
        assert here.left.wait(10)


def test_an_endless_page_in_chunks_is_cut_off() -> None:
    with site(
        {"/": _for_ever(b"10000\r\n" + b"x" * 65536 + b"\r\n", head(transfer_encoding="chunked"))}
    ) as here:
        assert refusal(here.url(), max_bytes=MB).code == "too_large"


def test_page_with_a_too_large_content_length_is_not_read() -> None:
    with site({"/": head(content_length=str(10**12))}) as here:
        started = monotonic()
        assert refusal(here.url(), timeout_s=30).code == "too_large"
        assert monotonic() - started < 10


def test_page_of_the_maximum_size_is_read() -> None:
    body = b"x" * 100_000
    packed = gzip.compress(body)
    with site({"/": page(body), "/gz": page(packed, content_encoding="gzip")}) as here:
        for path in ("/", "/gz"):
            assert ask(here.url(path), max_bytes=len(body)).content == body
            assert refusal(here.url(path), max_bytes=len(body) - 1).code == "too_large"


def test_a_gzip_bomb_is_unpacked_no_further_than_the_limit() -> None:
    bomb = zlib.compressobj(9, wbits=31)
    packed = b"".join(bomb.compress(bytes(MB)) for _ in range(300)) + bomb.flush()  # 300 MB in 300 KB
    with site({"/": page(packed, content_encoding="gzip")}) as here:
        tracemalloc.start()
        try:
            assert refusal(here.url(), max_bytes=MB).code == "too_large"
            assert tracemalloc.get_traced_memory()[1] < 10 * MB
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    ("body", "encoding", "kind"),
    [
        (gzip.compress(b"hello", mtime=0)[:-9], "gzip", SourceUnavailable),
        (b"hello", "gzip", SourceRejected),
        (b"hello", "br", SourceRejected),
        (gzip.compress(gzip.compress(b"hello", mtime=0), mtime=0), "gzip, gzip", SourceRejected),
    ],
)
def test_invalid_gzip_is_an_error(body: bytes, encoding: str, kind: type[Exception]) -> None:
    with site({"/": page(body, content_encoding=encoding)}) as here:
        assert isinstance(refusal(here.url()), kind)


def test_a_gzip_of_several_parts_and_padding_is_read_whole() -> None:
    packed = gzip.compress(b"hel", mtime=0) + gzip.compress(b"lo") + bytes(512)
    with site({"/": page(packed, content_encoding="gzip")}) as here:
        assert ask(here.url()).content == b"hello"


_never = threading.Event()


@pytest.mark.parametrize(
    "answer",
    [
        _for_ever(b"x", head(), _never),
        _for_ever(b"1\r\nx\r\n", head(transfer_encoding="chunked"), _never),
        _for_ever(b"x: y\r\n", b"HTTP/1.1 200 OK\r\n", _never),
        _for_ever(b"x", b"HTTP/1.1 200 OK\r\nx: ", _never),
        _for_ever(b"HTTP/1.1 100 Continue\r\n\r\n", b"", _never),
        _for_ever(b"", b"", _never),
    ],
    ids=["body", "chunks", "headers", "one header", "continue", "silence"],
)
def test_dripping_page_ends_at_the_deadline(answer: Callable[[Request], Iterator[bytes]]) -> None:
    with site({"/": answer}) as here:
        started = monotonic()
        error = refusal(here.url(), timeout_s=0.5)
        assert isinstance(error, SourceUnavailable)
        assert "longer than 0.5 s" in str(error) or "line" in str(error)
        assert monotonic() - started < 5


def test_silence_has_its_own_limit() -> None:
    with site({"/": _for_ever(b"", head(), _never)}) as here:
        assert "sent nothing for 0.2 s" in str(
            refusal(here.url(), GuardedClient(LOCAL, read_s=0.2), timeout_s=30)
        )


def test_a_name_server_that_does_not_answer_is_not_waited_for() -> None:
    asleep = threading.Event()

    def slow(_host: str, _port: int) -> Sequence[str]:
        asleep.wait(30)
        return []

    error = refusal("http://slow.example/", GuardedClient(resolve=slow, connect_s=0.2))
    asleep.set()
    assert isinstance(error, SourceUnavailable)
    assert "name" in str(error)


def test_too_many_headers_are_refused() -> None:
    many = b"".join(b"x-%d: y\r\n" % n for n in range(5000))
    with site({"/": b"HTTP/1.1 200 OK\r\n" + many + b"\r\n"}) as here:
        assert isinstance(refusal(here.url()), SourceUnavailable)


# ---- answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (400, SourceRejected, "rejected"), (401, SourceRejected, "denied"), (403, SourceRejected, "denied"),
        (404, SourceRejected, "gone"), (410, SourceRejected, "gone"), (418, SourceRejected, "rejected"),
        (300, SourceRejected, "rejected"), (304, SourceRejected, "rejected"), (204, None, None), (203, None, None),
        (408, SourceUnavailable, None), (425, SourceUnavailable, None), (429, SourceUnavailable, None),
        (500, SourceUnavailable, None), (502, SourceUnavailable, None), (503, SourceUnavailable, None),
    ],
)  # fmt: skip
def test_a_status_is_final_or_worth_another_try(
    status: int, kind: type[SourceError] | None, code: str | None
) -> None:
    with site({"/": page(status=status)}) as here:
        if kind is None:
            assert ask(here.url()).status == status
            return
        error = refusal(here.url())
        assert (type(error), error.status, error.ids.get("code")) == (kind, status, code)
        assert here.url() in str(error)


@pytest.mark.parametrize(("status", "wish", "seconds"), [(429, "7", 7.0), (503, "0", 0.0), (503, "soon", None), (403, "9", 9.0)])  # fmt: skip
def test_retry_after_is_in_the_error(status: int, wish: str, seconds: float | None) -> None:
    with site({"/": page(status=status, retry_after=wish)}) as here:
        error = refusal(here.url())
        assert isinstance(error, SourceUnavailable)
        assert error.retry_after_s == seconds


def test_a_connection_that_breaks_is_worth_another_try() -> None:
    half = head(content_length="100") + b"half"
    chunk = head(transfer_encoding="chunked") + b"10\r\nhalf"
    with site({"/": half, "/chunk": chunk, "/empty": b"", "/odd": b"+OK redis\r\n"}) as here:
        for path in ("/", "/chunk", "/empty", "/odd"):
            assert isinstance(refusal(here.url(path)), SourceUnavailable), path
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert isinstance(refusal(f"http://127.0.0.1:{port}/"), SourceUnavailable)


def test_a_host_that_does_not_exist_is_final() -> None:
    def nobody(_host: str, _port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    def later(_host: str, _port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    assert isinstance(refusal("http://nobody.example/", GuardedClient(resolve=nobody)), SourceRejected)
    assert isinstance(refusal("http://nobody.example/", GuardedClient(resolve=later)), SourceUnavailable)


def test_request_has_only_the_needed_headers() -> None:
    with site({"/a%20b?q=1": page("hello")}) as here:
        ask(here.url("/a b?q=1#part"))
        [request] = here.requests
        assert request.path == "/a%20b?q=1"
        assert request.headers["host"] == f"127.0.0.1:{here.port}"
        assert request.headers["user-agent"].startswith("agno-workers/")
        assert set(request.headers) == {"host", "user-agent", "accept", "accept-encoding", "connection"}
