"""Requests to a provider as its own SDK writes them, within one deadline, and the events of the answer.

The SDK knows the addresses, the keys and the headers. The connections are ours (net/pool.py), and so is reading the
events: the SDKs build an object for every event, which takes five times the CPU for a short answer and twenty times
for a long one, and OpenAI's reader leaves a chat before its last byte, so that its connection can't be used again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from agno_workers.core.messages import Delta, Emit, Reply
from agno_workers.errors import ModelError
from agno_workers.models import faults
from agno_workers.models.wire import decode, objects
from agno_workers.net.errors import Unreachable
from agno_workers.net.sse import events

if TYPE_CHECKING:
    import httpx2

    from agno_workers.net.pool import Answer, PooledClient, Request, Writer

T = TypeVar("T")

DRAIN_S = 0.5  # wait for the end of a complete answer, so that its connection can be used again


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a POST; a GET has none."""

    json: dict[str, Any]
    """JSON, or the fields of a form that has files."""
    files: dict[str, tuple[str, bytes, str]] | None = None
    """Name, content and media type, by field."""


Write = Callable[[str, Body | None], "Request"]
"""Write a request with this body to a path. The SDK is imported here."""


def written(http: Writer, sdk: Any, stream: Any, path: str, body: Body | None) -> Request:
    """Write a request by an OpenAI or Anthropic SDK client around `http`, without its headers about this machine.

    `stream` is the SDK's Stream.
    """
    http.event_hooks = {"request": [_remove_telemetry]}
    unread: dict[str, Any] = {"cast_to": object, "stream": True, "stream_cls": stream[object]}
    if body is None:
        answer = sdk.get(path, **unread)
    else:
        form = {"headers": {"Content-Type": "multipart/form-data"}} if body.files else {}
        answer = sdk.post(path, body=body.json, files=body.files, options=form, **unread)
    return http.written(answer.response)


class Fold(Protocol):
    """Builds one Reply from the events of one answer."""

    complete: bool
    """The last event is in: nothing after it matters."""

    def add(self, event: dict[str, Any]) -> Delta | None:
        """Add the next event; return what a watcher sees of it.

        May raise ErrorEvent, and anything that reading an unexpected shape raises.
        """
        ...

    def reply(self) -> Reply:
        """Return the whole reply. Raises ValueError, which says what is missing; also as `add` does."""
        ...


class ProviderTransport:
    """Requests to one model. Threads may share it, and it survives a fork."""

    def __init__(self, name: str, secret: str, write: Write, client: PooledClient | None = None) -> None:
        """`client` is that of this process if it is not given."""
        self._name = name
        self._secret = secret
        self._write = write
        self._client = client
        self._written: dict[str, Request] = {}

    def ask(self, path: str, body: dict[str, Any], fold: Fold, timeout_s: float, emit: Emit) -> Reply:
        """Post the body, fold the events of the answer into a Reply, and emit their deltas as they arrive.

        Everything, from the look-up of the host's name to the last byte, takes at most `timeout_s`. What `emit` raises
        goes up unchanged, and the connection is closed.
        """
        with self._answer(path, Body(json=body), timeout_s) as (answer, chunks):
            for data in events(chunks):
                for delta in self._add(fold, data):
                    emit(delta)
                if fold.complete:
                    break
            reply = self._finish(fold)
            answer.deadline.begin(DRAIN_S)
            try:
                deque(answer, maxlen=0)
            except Unreachable:
                pass  # the reply is complete; the connection is not used again
            return reply

    def fetch(self, path: str, timeout_s: float, body: Body | None = None) -> bytes:
        """Post the body, or get the path; return the whole answer, which is not a stream of events."""
        with self._answer(path, body, timeout_s) as (_, chunks):
            return b"".join(chunks)

    def read(self, answer: bytes, reader: Callable[[dict[str, Any]], T]) -> T:
        """Return the result of `reader` for the object in an answer.

        If it can't read that, raise the error that some servers send with status 200, else ModelUnavailable.
        """
        body: dict[str, Any] = {}
        try:
            (body,) = objects(decode(answer)) or ({},)
            return reader(body)
        except faults.UNREADABLE as error:
            is_error = faults.has_error(body) or faults.explanation(body)[1]
            failure = (
                faults.of_event(self._name, faults.error_event(body))
                if is_error
                else faults.unreadable(self._name, error, answer)
            )
            raise self._without_secret(failure) from None

    @contextmanager
    def _answer(
        self, path: str, body: Body | None, timeout_s: float
    ) -> Iterator[tuple[Answer, Iterator[bytes]]]:
        """Yield the answer and its chunks; after the block, or an error in it, close it."""
        with self._translated():
            answer = self._sender().send(self._request(path, body), timeout_s)
        with closing(answer):
            chunks = self._chunks(answer)
            if not 200 <= answer.status < 300:
                explained = _decoded(b"".join(chunks))
                raise self._without_secret(
                    faults.of_status(self._name, answer.status, explained, answer.headers)
                )
            yield answer, chunks

    def _request(self, path: str, body: Body | None) -> Request:
        """Let the SDK write the request; with JSON only the first to each path, from which the others differ in the body."""
        if body is None or body.files:
            return self._write(path, body)
        if path not in self._written:
            self._written[path] = self._write(path, Body(json={}))
        return msgspec.structs.replace(self._written[path], content=msgspec.json.encode(body.json))

    def _sender(self) -> PooledClient:
        if self._client is None:
            from agno_workers.net.pool import CLIENT  # noqa: PLC0415 - imports the HTTP clients, 0.3 s

            self._client = CLIENT
        return self._client

    def _chunks(self, answer: Answer) -> Iterator[bytes]:
        with self._translated():
            yield from answer

    def _add(self, fold: Fold, data: bytes) -> list[Delta]:
        """Add the objects in the data of an event. Some servers send null to keep the connection open."""
        try:
            value = decode(data)
            found = objects(value)
            if not found and value is not None:
                raise TypeError("not an object")
            return [delta for event in found if (delta := fold.add(event))]
        except faults.ErrorEvent as error:
            raise self._without_secret(faults.of_event(self._name, error)) from None
        except faults.UNREADABLE as error:
            raise self._without_secret(faults.unreadable(self._name, error, data)) from None

    def _finish(self, fold: Fold) -> Reply:
        try:
            return fold.reply()
        except ValueError as error:  # says what is missing
            raise self._without_secret(faults.unavailable(self._name, str(error))) from None
        except faults.UNREADABLE as error:
            raise self._without_secret(faults.unreadable(self._name, error)) from None

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Raise an error of the network as a ModelError; any other is a bug, and goes up unchanged."""
        try:
            yield
        except Unreachable as error:
            raise self._without_secret(faults.unavailable(self._name, error.what)) from None

    def _without_secret(self, error: ModelError) -> ModelError:
        """Return the same error without the key, which a provider may have repeated."""
        words = str(error).replace(self._secret, "***") if len(self._secret) >= 8 else str(error)
        return type(error)(words, **error.ids)


def _remove_telemetry(request: httpx2.Request) -> None:
    """Remove the headers in which the SDKs describe this machine and their use."""
    for header in [name for name in request.headers if name.startswith("x-stainless-")]:
        del request.headers[header]


def _decoded(body: bytes) -> Any:
    """Return the body of an error as JSON, or as text."""
    try:
        return decode(body)
    except (ValueError, RecursionError):
        return body.decode("utf-8", "replace").strip()
