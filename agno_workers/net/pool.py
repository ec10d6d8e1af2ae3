"""Reuse of connections between calls, without importing the HTTP client before the first call."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    import httpx2

    from agno_workers.net.client import PooledClient

T = TypeVar("T")

IDLE_S = 60.0
"""A connection that was idle this long is not used again, and is closed soon after."""


class ClientPool(Generic[T]):
    """Clients for calls to one server. Threads may share it, and it survives a fork.

    Each client has at most one connection and serves one call at a time. A single client for all calls would walk
    through its whole connection pool on every call, under one lock: with 500 threads that takes a third more CPU and
    time, and 32 clients gain half of it back.
    """

    def __init__(self, connect: Callable[[httpx2.Client], T]) -> None:
        """`connect` wraps a new HTTP client in what its users call, such as an SDK client."""
        self._connect = connect
        self._pid = os.getpid()
        self._idle: deque[PooledClient[T]] = deque()

    @contextmanager
    def client(self, timeout_s: float, *, keep_after: type[Exception]) -> Iterator[PooledClient[T]]:
        """Lend a client for a call of at most `timeout_s` seconds. After any error but a `keep_after` it is closed."""
        client = self._take()
        client.deadline.begin(timeout_s)
        try:
            yield client
        except keep_after:
            self._put_back(client)
            raise
        except BaseException:
            client.close()
            raise
        else:
            self._put_back(client)

    def _take(self) -> PooledClient[T]:
        if self._pid != os.getpid():  # forked: the connections belong to the parent
            self._idle, self._pid = deque(), os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            from agno_workers.net.client import PooledClient  # noqa: PLC0415 - imports the HTTP client, 0.2 s

            return PooledClient(self._connect, IDLE_S)

    def _put_back(self, client: PooledClient[T]) -> None:
        client.idle_since = monotonic()
        self._idle.append(client)
        try:
            oldest = self._idle.popleft()
        except IndexError:
            return  # another thread took it
        if oldest.idle_since < monotonic() - IDLE_S:
            oldest.close()
        else:
            self._idle.appendleft(oldest)
