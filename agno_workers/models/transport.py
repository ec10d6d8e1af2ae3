"""Asking a provider over HTTP through its own SDK: connections, the time a call may take, the events of its answer.

The SDK knows the addresses, the keys and the headers. What it leaves to us: a call has one connection of its
own, one deadline for everything, and the events are read here. The SDKs make an object of every event, which
costs five times the CPU of a short answer and twenty times that of a long one, and OpenAI's reader leaves a
chat before its last byte, so that its connection can't be used again.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from agno_workers.core.messages import Delta, Emit, Reply
from agno_workers.errors import ModelError, ModelUnavailable
from agno_workers.models import faults

if TYPE_CHECKING:
    import httpx2

    from agno_workers.net.client import PooledClient

IDLE_S = 60.0  # an idle connection is not used again after so long, and closed soon after
DRAIN_S = 0.5  # how long the end of a complete answer is awaited, so that its connection can be used again

Post = Callable[[str, dict[str, Any]], "httpx2.Response"]
"""Sends a body to a path; gives the response with its body unread. Raises the SDK's own errors."""

Connect = Callable[["httpx2.Client"], Post]
"""Makes an SDK client around an HTTP client. The place where an SDK is imported."""


class Fold(Protocol):
    """Makes one Reply from the events of one answer."""

    complete: bool
    """The last event is in: nothing after it matters."""

    def add(self, event: dict[str, Any]) -> Delta | None:
        """Take the next event in; gives what a watcher would like to see of it.

        May raise ErrorEvent, and anything that reading an unexpected shape raises.
        """
        ...

    def reply(self) -> Reply:
        """The whole. Raises ValueError, saying what is missing, when it is none."""
        ...


class ProviderTransport:
    """The way to one model. Threads may share it, and it survives a fork.

    A line is an HTTP client with at most one connection, used by one call at a time and kept for the next. One
    client for all would walk through its whole pool on every call, under one lock: with 500 threads that takes
    a third more CPU and time, and 32 clients gain half of it back.
    """

    def __init__(self, name: str, secret: str, connect: Connect) -> None:
        self._name = name
        self._secret = secret
        self._connect = connect
        self._pid = os.getpid()
        self._idle: deque[PooledClient] = deque()

    def ask(self, path: str, body: dict[str, Any], fold: Fold, timeout_s: float, emit: Emit) -> Reply:
        """Post the body, fold the events of the answer into a Reply, emit what they add as they come.

        Everything, from connecting to the last byte, takes at most `timeout_s` (only looking up the host's name
        is up to the system). What `emit` raises goes up unchanged, and the connection is closed.
        """
        with self._line() as line:
            line.deadline.begin(timeout_s)
            with closing(self._post(line, path, body)) as response:
                chunks = self._chunks(line, response)
                for data in events(chunks):
                    if delta := self._add(fold, data):
                        emit(delta)
                    if fold.complete:
                        break
                reply = self._reply(fold)
                self._drain(line, chunks)
            return reply

    def fetch(self, path: str, body: dict[str, Any], timeout_s: float) -> bytes:
        """Post the body; gives the whole answer, which is no stream of events."""
        with self._line() as line:
            line.deadline.begin(timeout_s)
            with closing(self._post(line, path, body)) as response:
                return b"".join(self._chunks(line, response))

    def _post(self, line: PooledClient, path: str, body: dict[str, Any]) -> httpx2.Response:
        try:
            return line.post(path, body)
        except Exception as error:
            raise self._translated(error, line) from None

    def _chunks(self, line: PooledClient, response: httpx2.Response) -> Iterator[bytes]:
        try:
            yield from response.iter_bytes()
        except Exception as error:
            raise self._translated(error, line) from None

    def _add(self, fold: Fold, data: bytes) -> Delta | None:
        try:
            return fold.add(msgspec.json.decode(data))
        except faults.ErrorEvent as error:
            raise self._hushed(faults.of_event(self._name, error)) from None
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            what = f"sent an event that can't be read ({type(error).__name__}: {error}): {data[:200]!r}"
            raise self._hushed(faults.unavailable(self._name, what)) from None

    def _reply(self, fold: Fold) -> Reply:
        try:
            return fold.reply()
        except ValueError as error:
            raise faults.unavailable(self._name, str(error)) from None

    def _drain(self, line: PooledClient, chunks: Iterator[bytes]) -> None:
        line.deadline.begin(DRAIN_S)
        try:
            deque(chunks, maxlen=0)
        except ModelUnavailable:
            pass  # the reply is complete; the connection is not used again

    def _translated(self, error: Exception, line: PooledClient) -> Exception:
        """Our error for the SDK's or the HTTP client's; any other is a bug, and stays what it is."""
        if type(error).__module__.partition(".")[0] not in ("openai", "anthropic", "httpx2", "httpcore2"):
            return error
        response = getattr(error, "response", None)
        if response is not None:
            body = getattr(error, "body", None)
            return self._hushed(faults.of_status(self._name, response.status_code, body, response.headers))
        if line.deadline.is_over:
            what = f"did not finish within timeout_s={line.deadline.timeout_s:g}"
        else:
            what = f"can't be reached, or the connection broke: {_root(error)}"
        return self._hushed(faults.unavailable(self._name, what))

    def _hushed(self, error: ModelError) -> ModelError:
        """The same error without the key, which a provider may have repeated."""
        words = str(error).replace(self._secret, "***") if len(self._secret) >= 8 else str(error)
        return type(error)(words, **error.ids)

    @contextmanager
    def _line(self) -> Iterator[PooledClient]:
        """An idle line, or a new one. It comes back unless something other than the provider broke the call off."""
        line = self._take()
        try:
            yield line
        except ModelError:
            self._put_back(line)
            raise
        except BaseException:
            line.close()
            raise
        else:
            self._put_back(line)

    def _take(self) -> PooledClient:
        if self._pid != os.getpid():  # forked: the parent's connections are not ours to use
            self._idle, self._pid = deque(), os.getpid()
        try:
            return self._idle.pop()
        except IndexError:
            from agno_workers.net.client import PooledClient  # noqa: PLC0415 - brings the HTTP client, 0.2 s to import

            return PooledClient(self._connect)

    def _put_back(self, line: PooledClient) -> None:
        line.idle_since = monotonic()
        self._idle.append(line)
        try:
            oldest = self._idle.popleft()
        except IndexError:
            return  # another thread took it
        if oldest.idle_since < monotonic() - IDLE_S:
            oldest.close()
        else:
            self._idle.appendleft(oldest)


def events(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The data of each server-sent event, up to OpenAI's `[DONE]` or the end."""
    data: list[bytes] = []
    for line in _lines(chunks):
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line and data:
            whole = b"\n".join(data)
            if whole == b"[DONE]":
                return
            yield whole
            data = []


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Lines without their ends. Pieces of a long line are joined once, so that it takes linear time."""
    held: list[bytes] = []
    for chunk in chunks:
        first, *more = chunk.split(b"\n")
        held.append(first)
        if more:
            yield b"".join(held).removesuffix(b"\r")
            for line in more[:-1]:
                yield line.removesuffix(b"\r")
            held = [more[-1]]


def _root(error: BaseException) -> str:
    """The words of the first cause, which say more than the SDK's `Connection error.`"""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return f"{type(error).__name__}: {error}"
