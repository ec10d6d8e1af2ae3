"""HTTP requests to servers that the operator chose, such as providers: those of all threads in one event loop.

A thread that waits for its own socket is dear: with hundreds of answers at once it takes twice the CPU and memory, with
thousands ten times the CPU. Here each thread waits for a queue, and one more thread runs the event loop with the
connections of all, which are kept for the next requests.

Import this only to send a request: it imports the HTTP clients, which takes 0.3 s.
"""

from __future__ import annotations

import asyncio
import atexit
import errno
import logging
import os
import ssl
import threading
from asyncio import sslproto
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from io import BytesIO
from queue import Empty, SimpleQueue
from typing import Any

import aiohttp
import httpx2
import msgspec
from yarl import URL

from agno_workers import forks
from agno_workers.net.client import CONNECT_S, tls
from agno_workers.net.deadline import Deadline
from agno_workers.net.errors import Unreachable, root_cause

IDLE_S = 60.0
"""A connection that was idle this long is closed."""
MAX_REDIRECTS = 20
MAX_HEADER_BYTES = 64 * 1024
MAX_WAITING = 100
"""Chunks that wait for their thread; then reading pauses, and so does the server."""
PAUSE_S = 0.02
START_S, STOP_S = 60.0, 2.0

_ADDED_WHEN_SENT = {"host", "connection", "content-length", "transfer-encoding", "accept-encoding"}

sslproto.SSLProtocol.max_size = 16 * 1024  # as a TLS record: asyncio would fill 256 KB for each connection

log = logging.getLogger(__name__)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    method: str
    url: str
    headers: list[tuple[str, str]]
    """Without those that are added when it is sent, such as Host and Content-Length."""
    content: bytes
    proxy: str | None
    """The URL of the proxy that the environment names for this URL."""


class Writer(httpx2.Client):
    """An HTTP client that sends nothing: an SDK writes a request with it, for a PooledClient to send."""

    def _init_transport(self, **_: Any) -> httpx2.BaseTransport:  # type: ignore[override]  # it has no use for the options
        return _Unsent(None)

    def _init_proxy_transport(self, proxy: httpx2.Proxy, **_: Any) -> httpx2.BaseTransport:  # type: ignore[override]
        return _Unsent(proxy)

    def written(self, answer: httpx2.Response) -> Request:
        """Return the request that got this answer."""
        request, proxy = answer.request, answer.extensions["proxy"]
        return Request(
            method=request.method,
            url=str(request.url.copy_with(userinfo=b"")),  # it is in a header
            headers=[pair for pair in request.headers.multi_items() if pair[0] not in _ADDED_WHEN_SENT],
            content=request.content,
            proxy=proxy and _with_user(proxy),
        )


class _Unsent(httpx2.BaseTransport):
    """Answers with nothing, and which proxy is to be used."""

    def __init__(self, proxy: httpx2.Proxy | None) -> None:
        self._proxy = proxy

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        return httpx2.Response(200, extensions={"proxy": self._proxy})


def _with_user(proxy: httpx2.Proxy) -> str:
    if proxy.url.scheme not in ("http", "https"):
        what = f"can't be reached: the environment names a {proxy.url.scheme} proxy: name one of http:// or https://"
        raise Unreachable(proxy.url, what)
    user, password = proxy.auth or (None, None)
    return str(URL(str(proxy.url)).with_user(user).with_password(password))


class Answer:
    """The answer to a request, for the thread that sent it. Closed before its end, it closes its connection."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {}
        self.deadline = Deadline(timeout_s)
        self.arrived: SimpleQueue[Any] = SimpleQueue()
        """The status and headers, the chunks, and empty bytes for the end; an error in the place of any."""
        self.receiving: Future[None] | None = None
        self._url = url

    def __iter__(self) -> Iterator[bytes]:
        """Yield chunks, unpacked, as they arrive. Raises Unreachable."""
        while chunk := self.next():
            yield chunk

    def next(self) -> Any:
        """Wait for what arrives next. The time is kept here, so the thread goes on whatever becomes of the event loop."""
        try:
            item = self.arrived.get(timeout=self.deadline.left(None, Empty))
        except Empty:
            what = f"did not finish within timeout_s={self.deadline.timeout_s:g}"
            raise Unreachable(self._url, what) from None
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        if self.receiving:
            self.receiving.cancel()


class PooledClient:
    """Sends requests. Any number of threads share one, and it survives a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: _Loop | None = None
        self._of_parents: list[_Loop | None] = []
        forks.after_fork(self, PooledClient._renew)

    def send(self, request: Request, timeout_s: float) -> Answer:
        """Send a request; return the answer, its body unread.

        Everything, from the look-up of the name to the last byte that is read, takes at most `timeout_s`. Redirects are
        followed. Raises Unreachable.
        """
        loop = self._running()
        answer = Answer(request.url, timeout_s)
        answer.receiving = loop.start_receiving(request, answer.arrived)
        try:
            answer.status, answer.headers = answer.next()
        except BaseException:
            answer.close()
            raise
        return answer

    def close(self) -> None:
        """End the event loop, and with it all requests; the next one starts another."""
        if self._loop:
            self._loop.stop()

    def _running(self) -> _Loop:
        with self._lock:
            if self._loop is None or not self._loop.is_alive():
                self._loop = _Loop(tls())
            return self._loop

    def _renew(self) -> None:
        """Forget the loop of the parent in a forked process, but keep its objects: collected, they would close connections
        that the parent uses.
        """
        self._of_parents.append(self._loop)
        self._lock, self._loop = threading.Lock(), None


class _Loop(threading.Thread):
    """The event loop, in a thread of its own. If it ends by a bug, that is logged, and the requests in it end with errors."""

    def __init__(self, certificates: ssl.SSLContext) -> None:
        super().__init__(name="http-requests", daemon=True)
        self._certificates = certificates
        self._begun: Future[asyncio.AbstractEventLoop] = Future()
        self.start()
        self._loop = self._begun.result(START_S)

    def start_receiving(self, request: Request, arrived: SimpleQueue[Any]) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(self._receive(request, arrived), self._loop)

    def stop(self) -> None:
        if self.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
            self.join(STOP_S)

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # whatever it is, it must be seen
            if self._begun.done():
                log.exception("the event loop of HTTP requests ended; the next request starts another")
            else:
                self._begun.set_exception(error)

    async def _serve(self) -> None:
        self._stopped = asyncio.Event()
        connections = aiohttp.TCPConnector(limit=0, ssl=self._certificates, keepalive_timeout=IDLE_S)
        async with aiohttp.ClientSession(
            connector=connections,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        ) as self._session:
            self._begun.set_result(asyncio.get_running_loop())
            await self._stopped.wait()

    async def _receive(self, request: Request, arrived: SimpleQueue[Any]) -> None:
        try:
            async with self._session.request(
                request.method,
                URL(request.url, encoded=True),
                headers=request.headers,
                data=BytesIO(request.content) if request.content else None,  # in pieces: other requests go on
                proxy=request.proxy,
                max_redirects=MAX_REDIRECTS,
            ) as response:
                arrived.put((response.status, response.headers))
                while chunk := await response.content.readany():
                    arrived.put(chunk)
                    while arrived.qsize() >= MAX_WAITING:
                        await asyncio.sleep(PAUSE_S)
            arrived.put(b"")
        except (aiohttp.ClientError, OSError) as error:
            arrived.put(Unreachable(request.url, _what(error)))
        except Exception as error:  # a bug, which the thread raises
            arrived.put(error)
        except BaseException:
            arrived.put(Unreachable(request.url, "was cut off: this process ends its HTTP requests"))
            raise


def _what(error: Exception) -> str:
    cause = root_cause(error)
    words = str(cause)
    if isinstance(cause, aiohttp.ClientResponseError):  # it would show URLs, as would the next three
        words = f"{cause.status} {cause.message}"
    elif isinstance(cause, aiohttp.ServerTimeoutError):
        words = f"no connection within {CONNECT_S:g} s"
    elif isinstance(cause, aiohttp.InvalidURL):
        words = cause.description or "not a URL"
    elif isinstance(cause, aiohttp.NonHttpUrlClientError):
        words = "the URL, or that of a redirect, begins neither with http:// nor https://"
    elif isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError):
        number = cause.errno or 0
        if number in errno.errorcode:  # asyncio has words of its own
            words = f"[Errno {number}] {os.strerror(number)}"
    return f"can't be reached, or the connection broke: {type(cause).__name__}: {words}"


CLIENT = PooledClient()
"""The client of this process."""

atexit.register(CLIENT.close)
