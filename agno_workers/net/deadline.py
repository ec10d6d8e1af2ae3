"""One deadline for all that a call does on the network.

HTTP clients count their time-outs anew with every read, so a server that sends a byte now and then is never
late. Here each connect, read and write gets what is left of the call's own time, and no more.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from ssl import SSLContext
from time import monotonic
from typing import Any

import httpcore2
import httpx2
from httpcore2 import SOCKET_OPTION, NetworkBackend, NetworkStream

_SLICE = 64 * 1024  # bytes; a slow reader gets a fresh look at the clock after each


class Deadline:
    """When the call that an HTTP client is busy with has to be over. One call at a time."""

    def __init__(self) -> None:
        self.timeout_s = inf
        self._ends = inf

    def begin(self, timeout_s: float) -> None:
        """A call begins now and has `timeout_s` seconds."""
        self.timeout_s = timeout_s
        self._ends = monotonic() + timeout_s

    @property
    def is_over(self) -> bool:
        return monotonic() >= self._ends

    def left(self, timeout_s: float | None, too_late: type[Exception]) -> float:
        """Seconds that an operation may take which has a limit of its own. Raises `too_late` when it is over."""
        left_s = self._ends - monotonic()
        if left_s <= 0:
            raise too_late("the deadline of the call is over")
        return left_s if timeout_s is None else min(timeout_s, left_s)

    def guard(self, client: httpx2.Client) -> None:
        """Make every connection of this client, through a proxy or not, keep to this deadline.

        httpx2 has no door for it: network backends are a public idea of httpcore2, but only its pools take one.
        """
        for transport in (client._transport, *client._mounts.values()):
            pool = getattr(transport, "_pool", None)
            if pool is not None:
                pool._network_backend = _Backend(pool._network_backend, self)


class _Backend(NetworkBackend):
    """An httpcore2 NetworkBackend whose operations end with the deadline."""

    def __init__(self, inner: NetworkBackend, deadline: Deadline) -> None:
        self._inner = inner
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> _Stream:
        left_s = self._deadline.left(timeout, httpcore2.ConnectTimeout)
        stream = self._inner.connect_tcp(host, port, left_s, local_address, socket_options)
        return _Stream(stream, self._deadline)

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[SOCKET_OPTION] | None = None
    ) -> _Stream:
        left_s = self._deadline.left(timeout, httpcore2.ConnectTimeout)
        return _Stream(self._inner.connect_unix_socket(path, left_s, socket_options), self._deadline)

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


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
