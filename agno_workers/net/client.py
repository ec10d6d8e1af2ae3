"""The HTTP client for URLs that others name, with one deadline for each call; pool.py is for servers that the operator chose.

It connects only to addresses that it checked: for each hop it looks
the host up once, checks every address (addresses.py) and connects to exactly one of those, so a name that resolves
differently the next time is not looked up again. TLS still checks the name. Each redirect is a hop of its own.
It uses no proxy of the environment, no cookie, and no connection twice.
"""

from __future__ import annotations

import socket
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from queue import Empty, SimpleQueue
from ssl import SSLCertVerificationError, SSLContext
from typing import Any

import httpx2

from agno_workers.net import urls
from agno_workers.net.addresses import Opening, check
from agno_workers.net.deadline import Deadline
from agno_workers.net.errors import NetError, Refused, Unreachable, root_cause
from agno_workers.net.urls import Url

CONNECT_S = 10.0
"""Limit for the name look-up, again for each address, and again for the TLS handshake, all within the deadline."""
MAX_REDIRECTS = 5
MAX_HEADERS = 100

Resolve = Callable[[str, int], Sequence[str]]
"""The IP addresses of a host, as text. Raises OSError."""


@cache
def tls() -> SSLContext:
    """Loading the certificates takes 20 ms: once a process."""
    context = httpx2.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def look_up(host: str, port: int) -> Sequence[str]:
    """Ask the system's resolver."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True)
class Response:
    url: Url
    """After all redirects."""
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    content: bytes
    """The body of a 2xx, unpacked. Other bodies are not read."""


@dataclass(frozen=True)
class GuardedClient:
    """A client for URLs that others name. Any number of threads may share one."""

    allow: tuple[Opening, ...] = ()
    """Exceptions for addresses that are not public and ports that are not 80 or 443."""
    resolve: Resolve = look_up
    tls: Callable[[], SSLContext] = tls
    connect_s: float = CONNECT_S
    read_s: float = 20.0
    """Limit for silence."""
    user_agent: str = "agno-workers/0.1"

    def get(
        self,
        url: Url,
        *,
        timeout_s: float,
        max_bytes: int,
        headers: Mapping[str, str] = {},
        conditional: Callable[[Url], Mapping[str, str]] = lambda _: {},
    ) -> Response:
        """Fetch a URL and follow its redirects. The whole takes at most `timeout_s`, and the body has at most
        `max_bytes`, as sent and as unpacked.

        `headers` may hold credentials: only the origin of `url` gets them. `conditional` returns the headers, if any,
        that allow a hop to answer 304. Raises Refused or Unreachable.
        """
        deadline = Deadline(timeout_s)
        seen = {url}
        hop = url
        for _ in range(MAX_REDIRECTS + 1):
            asked = {**(headers if hop.origin == url.origin else {}), **conditional(hop)}
            answer = self._hop(hop, asked, deadline, max_bytes)
            if isinstance(answer, Response):
                return answer
            if hop.scheme == "https" and answer.scheme == "http":
                raise Refused(hop, "redirects from https to http", "redirect")
            if answer in seen:
                raise Refused(hop, f"redirects in a circle, to {answer}", "redirect")
            seen.add(answer)
            hop = answer
        raise Refused(url, f"redirects more than {MAX_REDIRECTS} times", "redirect")

    def _hop(
        self, url: Url, headers: Mapping[str, str], deadline: Deadline, max_bytes: int
    ) -> Response | Url:
        """Return the response, or the URL that it redirects to."""
        timeout = httpx2.Timeout(self.read_s, connect=self.connect_s)
        try:
            with httpx2.Client(verify=self.tls(), timeout=timeout, trust_env=False) as client:
                deadline.guard(client, lambda _host, _port, left_s: self._addresses(url, left_s))
                with client.stream(
                    "GET",
                    url.origin,
                    headers=self._headers(url, headers),
                    extensions={"target": url.target.encode()},
                ) as response:
                    return _answer(url, response, max_bytes)
        except NetError:
            raise
        except (httpx2.HTTPError, OSError) as error:
            raise self._error(url, error, deadline) from error

    def _addresses(self, url: Url, left_s: float) -> list[str]:
        """Look up and check the addresses to connect to."""
        found = [url.host] if url.address else _within(url, left_s, lambda: self.resolve(url.host, url.port))
        if not found:
            raise Unreachable(url, "has a host without an address")
        check(url, map(ip_address, found), self.allow)
        return list(found)

    def _headers(self, url: Url, given: Mapping[str, str]) -> dict[str, str]:
        return {
            "Host": url.authority,
            "User-Agent": self.user_agent,
            "Accept": "*/*",
            "Accept-Encoding": "gzip",
            "Connection": "close",
            **given,
        }

    def _error(self, url: Url, error: Exception, deadline: Deadline) -> NetError:
        cause = root_cause(error)
        if isinstance(cause, SSLCertVerificationError):
            return Refused(
                url, f"has a certificate that is not valid for it ({cause.verify_message})", "rejected"
            )
        if isinstance(cause, socket.gaierror):
            if cause.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
                return Refused(url, "has a host that does not exist", "rejected")
            return Unreachable(url, f"has a host that can't be looked up ({cause.strerror})")
        if deadline.is_over:
            return Unreachable(url, f"took longer than {deadline.timeout_s:g} s")
        if isinstance(error, httpx2.ReadTimeout):
            return Unreachable(url, f"sent nothing for {self.read_s:g} s")
        return Unreachable(url, f"could not be read ({type(cause).__name__}: {str(cause)[:200]})")


def _answer(url: Url, response: httpx2.Response, max_bytes: int) -> Response | Url:
    status, headers = response.status_code, {name.lower(): value for name, value in response.headers.items()}
    if len(headers) > MAX_HEADERS:
        raise Unreachable(url, f"sent more than {MAX_HEADERS} headers")
    if status in (301, 302, 303, 307, 308):
        if location := headers.get("location"):
            return urls.join(url, location)
        raise Refused(url, f"answered {status} without a Location", "redirect")
    return Response(
        url, status, headers, _body(url, response, headers, max_bytes) if response.is_success else b""
    )


def _body(url: Url, response: httpx2.Response, headers: Mapping[str, str], max_bytes: int) -> bytes:
    if int(headers.get("content-length", 0)) > max_bytes:
        raise too_large(url, max_bytes)
    chunks = _limited(url, response.iter_raw(), max_bytes)
    match headers.get("content-encoding", "identity").strip().lower():
        case "gzip" | "x-gzip":
            chunks = gunzip(chunks, max_bytes, url)
        case "identity" | "":
            pass
        case encoding:
            raise Refused(url, f"is sent as {encoding[:40]!r}, which was not asked for", "rejected")
    return b"".join(chunks)


def _limited(url: Url, chunks: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > max_bytes:
            raise too_large(url, max_bytes)
        yield chunk


def gunzip(chunks: Iterable[bytes], max_bytes: int, url: Url) -> Iterator[bytes]:
    """Unpack at most `max_bytes`: a kilobyte may hold a megabyte, and a megabyte a gigabyte.

    Raises Refused when there is more, or when it is not gzip; Unreachable when its end is missing.
    """
    left = max_bytes
    member: Any = None  # a file may hold several, one after the other
    for chunk in chunks:
        rest = chunk
        while rest := rest if member else rest.lstrip(b"\0"):  # files are padded with zeros
            member = member or zlib.decompressobj(wbits=31)
            try:
                piece = member.decompress(rest, left + 1)
            except zlib.error:
                raise Refused(url, "is marked as gzip but is not", "rejected") from None
            left -= len(piece)
            if left < 0:
                raise too_large(url, max_bytes)
            yield piece
            rest = member.unconsumed_tail or member.unused_data
            if member.eof:
                member = None
    if member is not None:
        raise Unreachable(url, "ended before the end of its gzip")


def too_large(url: Url, max_bytes: int) -> Refused:
    return Refused(url, f"has more than {max_bytes:,} bytes", "too_large")


def _within(url: Url, timeout_s: float, call: Callable[[], Sequence[str]]) -> Sequence[str]:
    """Look a name up in a thread: the system's resolver takes no timeout."""
    answers: SimpleQueue[Sequence[str] | Exception] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(call())
        except Exception as error:  # raised in the thread that asked
            answers.put(error)

    threading.Thread(target=ask, daemon=True, name="look-up").start()
    try:
        answer = answers.get(timeout=timeout_s)
    except Empty:
        raise Unreachable(url, "has a host whose name was not found in time") from None
    if isinstance(answer, Exception):
        raise answer
    return answer
