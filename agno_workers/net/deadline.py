"""One deadline for everything that a call does on the network.

HTTP clients start their timeouts again with every read, so a server that sends a byte now and then is never late.
Here each connect, read and write gets at most what is left of the call's own time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from ssl import SSLContext
from time import monotonic
from typing import Any

import httpcore2
import httpx2
from httpcore2 import SOCKET_OPTION, NetworkBackend, NetworkStream

_SLICE = 64 * 1024  # bytes; the clock is read again after each slice of a slow upload

Route = Callable[[str, int, float], Sequence[str]]
"""The addresses to try for a host and port, found within so many seconds. Raises what the caller of the HTTP client gets."""


class Deadline:
    """The time by which the current call of an HTTP client must end. One call at a time."""

    def __init__(self, timeout_s: float = inf) -> None:
        self.begin(timeout_s)

    def begin(self, timeout_s: float) -> None:
        """Start a call that may take `timeout_s` seconds."""
        self.timeout_s = timeout_s
        self._ends = monotonic() + timeout_s

    @property
    def is_over(self) -> bool:
        return monotonic() >= self._ends

    def left(self, timeout_s: float | None, too_late: type[Exception]) -> float:
        """Return the seconds that one operation may take; `timeout_s` is its own limit. Raises `too_late` after the end."""
        left_s = self._ends - monotonic()
        if left_s <= 0:
            raise too_late("the deadline of the call is over")
        return left_s if timeout_s is None else min(timeout_s, left_s)

    def guard(self, client: httpx2.Client, route: Route = lambda host, _port, _timeout_s: (host,)) -> None:
        """Bind every connection of this client, proxied or not, to this deadline, and send it where `route` says.

        httpx2 has no setting for this: network backends are a public idea of httpcore2, but only its pools take one.
        """
        for transport in (client._transport, *client._mounts.values()):
            pool = getattr(transport, "_pool", None)
            if pool is not None:
                pool._network_backend = _Backend(pool._network_backend, self, route)


class _Backend(NetworkBackend):
    """An httpcore2 NetworkBackend whose operations end with the deadline."""

    def __init__(self, inner: NetworkBackend, deadline: Deadline, route: Route) -> None:
        self._inner = inner
        self._deadline = deadline
        self._route = route

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> _Stream:
        def left_s() -> float:
            return self._deadline.left(timeout, httpcore2.ConnectTimeout)

        failure: Exception = httpcore2.ConnectError("the host has no address")
        for address in self._route(host, port, left_s()):
            try:
                stream = self._inner.connect_tcp(address, port, left_s(), local_address, socket_options)
                return _Stream(stream, self._deadline)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure


class _Stream(NetworkStream):
    """An httpcore2 NetworkStream whose operations end with the deadline."""

    def __init__(self, inner: NetworkStream, deadline: Deadline) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._deadline.left(timeout, httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _SLICE):
            left_s = self._deadline.left(timeout, httpcore2.WriteTimeout)
            self._inner.write(buffer[start : start + _SLICE], left_s)

    def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> _Stream:
        left_s = self._deadline.left(timeout, httpcore2.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left_s), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def close(self) -> None:
        self._inner.close()
