"""A web site on localhost whose answers tests choose byte by byte, to test what net/ does.

    with site({"/": page("hello")}) as here:
        here.url("/")        "http://127.0.0.1:PORT/"
        here.requests        the requests: path and headers

The answer of a path is bytes, or a function of the request that yields them piece by piece; an endless answer ends when the
client leaves.
"""

from __future__ import annotations

import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CERTIFICATE = Path(__file__).parent.parent / "fixtures" / "tls" / "docs.example.test.pem"
"""Self-signed, for `docs.example.test`; its key is in the same file."""


@dataclass(frozen=True)
class Request:
    path: str
    """With its query."""
    headers: Mapping[str, str]
    """Names in lower case."""
    method: str = "GET"
    body: bytes = b""


Answer = bytes | Callable[[Request], "bytes | Iterator[bytes]"]


def page(body: bytes | str = b"", status: int = 200, **headers: str) -> bytes:
    """Return a whole answer. `content_type="text/html"` becomes the header content-type."""
    content = body.encode() if isinstance(body, str) else body
    fields = {"content-length": str(len(content))} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return head(status, **fields) + content


def head(status: int = 200, **headers: str) -> bytes:
    """Return the head of an answer."""
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]  # fmt: skip
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")


@dataclass
class Site:
    port: int
    answers: dict[str, Answer]
    scheme: str = "http"
    requests: list[Request] = field(default_factory=list)
    left: threading.Event = field(default_factory=threading.Event)
    """Set when a client leaves in the middle of an answer."""

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.requests]


@contextmanager
def site(answers: Mapping[str, Answer], tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """Serve these paths until the block ends; `*` stands for all others, which are 404 by default."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            try:
                if tls is not None:
                    self.request.settimeout(10)
                    self.request = tls.wrap_socket(self.request, server_side=True)
                    self.rfile, self.wfile = self.request.makefile("rb"), self.request.makefile("wb", 0)
                self._answer()
            except OSError:
                here.left.set()

        def finish(self) -> None:
            self.request.close()

        def _answer(self) -> None:
            first = self.rfile.readline().decode("latin-1").split()
            if len(first) < 2:
                return
            lines = iter(lambda: self.rfile.readline().decode("latin-1").strip(), "")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}  # fmt: skip
            body = self.rfile.read(int(headers.get("content-length", 0)))
            request = Request(first[1], headers, first[0], body)
            here.requests.append(request)
            answer = here.answers.get(request.path, here.answers.get("*", page("nothing here", 404)))
            given: Any = answer if isinstance(answer, bytes) else answer(request)
            for piece in [given] if isinstance(given, bytes) else given:
                self.wfile.write(piece)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True
        block_on_close = False

    with Server(("127.0.0.1", 0), Handler) as server:
        here = Site(server.server_address[1], dict(answers), "http" if tls is None else "https")
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield here
        finally:
            server.shutdown()
