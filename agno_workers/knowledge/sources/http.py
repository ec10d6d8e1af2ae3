"""An HTTP client for addresses that others name: it goes where it checked, and nowhere else.

A host's name is looked up once for each hop, each of its addresses is checked (addresses.py), and the connection goes to
exactly one of those: whoever answers differently the next time is not asked again. TLS is still for the name. Redirects are
followed by hand, each one a hop of its own. There is no proxy, whatever the environment says, and no cookie.

One connection a request, on http.client: nothing of it is kept, shared or tried again.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from ipaddress import ip_address
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any

from agno_workers.core.policy import retry_after_s
from agno_workers.errors import SourceError, SourceRejected, SourceUnavailable
from agno_workers.net import urls
from agno_workers.net.addresses import Address, Opening, check
from agno_workers.net.urls import Url

USER_AGENT = "agno-workers/0.1 (document ingestion)"
MAX_REDIRECTS = 5

Resolve = Callable[[str, int], Sequence[str]]
"""The IP addresses of a host, as text. Raises OSError."""

_REDIRECTS = {301, 302, 303, 307, 308}
_TRY_AGAIN = {408, 409, 425, 429}  # and all of 5xx
_GONE = {404, 410}
_DENIED = {401, 402, 403, 407, 451}
_CHUNK = 64 * 1024


def look_up(host: str, port: int) -> Sequence[str]:
    """What the system says."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@cache
def _tls() -> ssl.SSLContext:
    """Loading the certificates takes 20 ms: once a process."""
    return ssl.create_default_context()


@dataclass(frozen=True)
class Response:
    """An answer of 2xx, or of 304 to a question that allowed for it."""

    url: Url
    """After all redirects."""
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    content: bytes


@dataclass(frozen=True)
class Net:
    """The way to the network. Any number of threads may use one."""

    allow: tuple[Opening, ...] = ()
    """What may be asked although it isn't public, or is on another port."""
    resolve: Resolve = look_up
    tls: Callable[[], ssl.SSLContext] = _tls
    connect_s: float = 10.0
    """For the name, again for each address, and again for TLS."""
    read_s: float = 20.0
    """Of silence."""
    user_agent: str = USER_AGENT

    def get(
        self,
        url: Url,
        *,
        timeout_s: float,
        max_bytes: int,
        headers: Mapping[str, str] = {},
        conditional: Callable[[Url], Mapping[str, str]] = lambda _: {},
    ) -> Response:
        """Ask, and follow redirects. All of it takes at most `timeout_s`, and the body has at most `max_bytes`, on the wire and
        unpacked.

        `headers` may hold credentials: only the origin of `url` gets them. `conditional` gives the headers of a question that may
        be answered by 304.

        Raises SourceUnavailable (try later, see `retry_after_s`) or SourceRejected (final, see `code`).
        """
        clock = _Clock(timeout_s)
        seen = {url}
        hop = url
        for _ in range(MAX_REDIRECTS + 1):
            conditions = conditional(hop)
            asked = {**(headers if hop.origin == url.origin else {}), **conditions}
            answer = self._hop(hop, asked, clock, max_bytes)
            if isinstance(answer, Response):
                if answer.status == 304 and not conditions:
                    raise _rejected(
                        hop, "says that it did not change, which was not asked (304)", "rejected", 304
                    )
                return answer
            if hop.scheme == "https" and answer.scheme == "http":
                raise _rejected(hop, "redirects from https to http", "redirect")
            if answer in seen:
                raise _rejected(hop, f"redirects in a circle, to {answer}", "redirect")
            seen.add(answer)
            hop = answer
        raise _rejected(url, f"redirects more than {MAX_REDIRECTS} times", "redirect")

    def _hop(self, url: Url, headers: Mapping[str, str], clock: _Clock, max_bytes: int) -> Response | Url:
        """The answer, or where it sends us."""
        try:
            addresses = self._addresses(url, clock)
            with self._connect(url, addresses, clock) as line:
                connection = _Connection(url, line)
                connection.request("GET", url.target, headers=self._headers(url, headers))
                with closing(connection.getresponse()) as response:
                    return _answer(url, response, max_bytes)
        except SourceError:
            raise
        except ssl.SSLCertVerificationError as error:
            raise _rejected(
                url, f"has a certificate that doesn't hold ({error.verify_message})", "rejected"
            ) from error
        except socket.gaierror as error:
            if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
                raise _rejected(url, "has a host that doesn't exist", "rejected") from error
            raise _unavailable(url, f"has a host that can't be looked up ({error.strerror})") from error
        except TimeoutError as error:
            raise _unavailable(url, str(error) or "did not answer in time") from error
        except (OSError, http.client.HTTPException) as error:
            raise _unavailable(url, f"could not be read ({_words(error)})") from error

    def _addresses(self, url: Url, clock: _Clock) -> list[Address]:
        """Where to go: looked up, and checked."""
        if url.address is not None:
            addresses = [url.address]
        else:
            found = _within(clock.left(self.connect_s), lambda: self.resolve(url.host, url.port))
            addresses = [ip_address(text) for text in found]
        if not addresses:
            raise _unavailable(url, "has a host without an address")
        check(url, addresses, self.allow)
        return addresses

    def _connect(self, url: Url, addresses: Iterable[Address], clock: _Clock) -> _Line:
        """To the first address that takes us."""
        failure = OSError("no address")
        for address in addresses:
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            try:
                plain = socket.socket(family, socket.SOCK_STREAM)
            except OSError as error:  # no IPv6 here
                failure = error
                continue
            try:
                plain.settimeout(clock.left(self.connect_s))
                plain.connect((str(address), url.port))
                return _Line(self._secured(plain, url, clock), clock, self.read_s)
            except ssl.SSLCertVerificationError:
                plain.close()
                raise
            except OSError as error:
                plain.close()
                failure = error
        raise failure

    def _secured(self, plain: socket.socket, url: Url, clock: _Clock) -> socket.socket:
        if url.scheme == "http":
            return plain
        plain.settimeout(clock.left(self.connect_s))
        return self.tls().wrap_socket(plain, server_hostname=url.host)

    def _headers(self, url: Url, given: Mapping[str, str]) -> dict[str, str]:
        return {
            "Host": url.authority,
            "User-Agent": self.user_agent,
            "Accept": "*/*",
            "Accept-Encoding": "gzip",
            "Connection": "close",
            **given,
        }


def _answer(url: Url, response: http.client.HTTPResponse, max_bytes: int) -> Response | Url:
    headers = {name.lower(): value for name, value in response.getheaders()}
    status = response.status
    if status in _REDIRECTS:
        location = headers.get("location", "").encode("latin-1", "replace").decode("utf-8", "replace")
        if not location:
            raise _rejected(url, f"answered {status} without saying where to", "redirect", status)
        return urls.join(url, location)
    if status == 304:
        return Response(url, status, headers, b"")
    if not 200 <= status < 300:
        raise of_status(url, status, headers)
    return Response(url, status, headers, _body(url, response, headers, max_bytes))


def of_status(url: Url, status: int, headers: Mapping[str, str], now: datetime | None = None) -> SourceError:
    """What an answer that is none means for us."""
    wish = retry_after_s(headers, now or datetime.now(UTC))
    if status in _TRY_AGAIN or status >= 500 or (status == 403 and wish is not None):
        return _unavailable(url, f"answered {status}", status, wish)
    if status in _GONE:
        return _rejected(url, f"is gone ({status})", "gone", status)
    if status in _DENIED:
        return _rejected(url, f"is not for us ({status})", "denied", status)
    return _rejected(url, f"answered {status}", "rejected", status)


def _body(url: Url, response: http.client.HTTPResponse, headers: Mapping[str, str], max_bytes: int) -> bytes:
    if (response.length or 0) > max_bytes:
        raise too_large(str(url), max_bytes)
    chunks: Iterable[bytes] = _wire(url, response, max_bytes)
    match headers.get("content-encoding", "identity").strip().lower():
        case "gzip" | "x-gzip":
            chunks = gunzip(chunks, max_bytes, str(url))
        case "identity" | "":
            pass
        case encoding:
            raise _rejected(url, f"comes as {encoding[:40]!r}, which was not asked for", "rejected")
    return b"".join(chunks)


def _wire(url: Url, response: http.client.HTTPResponse, max_bytes: int) -> Iterator[bytes]:
    """The body as it comes. http.client counts a body that ended early as a short one."""
    size = 0
    while chunk := response.read(_CHUNK):
        size += len(chunk)
        if size > max_bytes:
            raise too_large(str(url), max_bytes)
        yield chunk
    if response.length:
        raise _unavailable(url, f"broke off {response.length} bytes before its end")


def gunzip(chunks: Iterable[bytes], max_bytes: int, uri: str) -> Iterator[bytes]:
    """Unpack, and no more than `max_bytes`: a kilobyte may hold a megabyte, and a megabyte a gigabyte.

    Raises SourceRejected when there is more, or when it is no gzip; SourceUnavailable when its end is missing.
    """
    left = max_bytes
    member: Any = None  # a file may be several, one after the other
    for chunk in chunks:
        rest = chunk
        while rest := rest if member else rest.lstrip(b"\0"):  # files are padded with zeros
            member = member or zlib.decompressobj(wbits=31)
            try:
                piece = member.decompress(rest, left + 1)
            except zlib.error:
                raise SourceRejected(
                    f"{uri} says that it is packed by gzip, and isn't: it can't be read.",
                    uri=uri,
                    code="rejected",
                ) from None
            left -= len(piece)
            if left < 0:
                raise too_large(uri, max_bytes)
            yield piece
            rest = member.unconsumed_tail or member.unused_data
            if member.eof:
                member = None
    if member is not None:
        raise SourceUnavailable(
            f"{uri} broke off before the end of its gzip. Try again later.", uri=uri, retry_after_s=None
        )


def too_large(uri: str, max_bytes: int) -> SourceRejected:
    return SourceRejected(
        f"{uri} has more than {max_bytes} bytes: raise the limit of a document, or leave it out.",
        uri=uri,
        code="too_large",
    )


def _rejected(url: Url, what: str, code: str, status: int | None = None) -> SourceRejected:
    moves = {
        "gone": "Remove it, or correct the address.",
        "denied": "Check what it asks for, or leave it out.",
    }
    return SourceRejected(
        f"{url} {what}. {moves.get(code, 'Correct the address, or leave it out.')}",
        uri=str(url), status=status, code=code,
    )  # fmt: skip


def _unavailable(
    url: Url, what: str, status: int | None = None, wish: float | None = None
) -> SourceUnavailable:
    return SourceUnavailable(
        f"{url} {what}. Try again later.", uri=str(url), status=status, retry_after_s=wish
    )


def _words(error: Exception) -> str:
    text = str(error)[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class _Clock:
    """When everything has to be over."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._ends = monotonic() + timeout_s

    def left(self, at_most_s: float) -> float:
        """Seconds for the next operation. Raises TimeoutError when it is over."""
        left_s = self._ends - monotonic()
        if left_s <= 0:
            raise TimeoutError(f"took longer than {self._timeout_s:g} s")
        return min(left_s, at_most_s)


class _Connection(http.client.HTTPConnection):
    """Speaks over a line that exists, and never makes one of its own."""

    auto_open = 0

    def __init__(self, url: Url, line: _Line) -> None:
        super().__init__(url.host, url.port)
        self.sock: Any = line


class _Line:
    """What http.client needs of a socket. Every read and write looks at the clock: a byte now and then is late, too."""

    def __init__(self, sock: socket.socket, clock: _Clock, read_s: float) -> None:
        self._sock = sock
        self._clock = clock
        self._read_s = read_s

    def sendall(self, content: Any) -> None:
        self._sock.settimeout(self._clock.left(self._read_s))
        self._sock.sendall(content)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._sock, self._clock, self._read_s), _CHUNK)

    def close(self) -> None:
        """http.client means to give the socket up once the answer's head is in; it is closed below."""

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()


class _Reader(io.RawIOBase):
    def __init__(self, sock: socket.socket, clock: _Clock, read_s: float) -> None:
        self._sock = sock
        self._clock = clock
        self._read_s = read_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left_s = self._clock.left(self._read_s)
        self._sock.settimeout(left_s)
        try:
            return self._sock.recv_into(buffer)
        except TimeoutError:
            self._clock.left(self._read_s)  # it was the whole that took too long
            raise TimeoutError(f"said nothing for {left_s:.3g} s") from None


def _within(timeout_s: float, call: Callable[[], Sequence[str]]) -> Sequence[str]:
    """Look a name up in a thread: the system's resolver has no limit that a caller could set."""
    answers: SimpleQueue[Sequence[str] | Exception] = SimpleQueue()

    def ask() -> None:
        try:
            answers.put(call())
        except Exception as error:  # goes up in the thread that asked
            answers.put(error)

    threading.Thread(target=ask, daemon=True, name="look-up").start()
    try:
        answer = answers.get(timeout=timeout_s)
    except Empty:
        raise TimeoutError("has a host whose name was not found in time") from None
    if isinstance(answer, Exception):
        raise answer
    return answer
