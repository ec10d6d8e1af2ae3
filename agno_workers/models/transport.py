"""Requests to a provider through its own SDK, within one deadline, and the events of the answer.

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
from agno_workers.errors import ModelError, ModelUnavailable
from agno_workers.models import faults
from agno_workers.models.wire import decode, objects
from agno_workers.net.errors import root_cause
from agno_workers.net.pool import ClientPool
from agno_workers.net.sse import events

if TYPE_CHECKING:
    import httpx2

    from agno_workers.net.client import PooledClient

T = TypeVar("T")

DRAIN_S = 0.5  # wait for the end of a complete answer, so that its connection can be used again


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a POST; a GET has none."""

    json: dict[str, Any]
    """JSON, or the fields of a form that has files."""
    files: dict[str, tuple[str, bytes, str]] | None = None
    """Name, content and media type, by field."""


Send = Callable[[str, Body | None], "httpx2.Response"]
"""Send a body to a path; return the response with its body unread. Raises the SDK's own errors."""

Connect = Callable[["httpx2.Client"], Send]
"""Make an SDK client around an HTTP client. The SDK is imported here."""


def sender(http: httpx2.Client, sdk: Any, stream: Any) -> Send:
    """Send by an OpenAI or Anthropic SDK client, without its headers about this machine. `stream`: the SDK's Stream."""
    http.event_hooks = {"request": [_remove_telemetry]}
    unread: dict[str, Any] = {"cast_to": object, "stream": True, "stream_cls": stream[object]}

    def send(path: str, body: Body | None) -> httpx2.Response:
        if body is None:
            answer = sdk.get(path, **unread)
        else:
            form = {"headers": {"Content-Type": "multipart/form-data"}} if body.files else {}
            answer = sdk.post(path, body=body.json, files=body.files, options=form, **unread)
        response: httpx2.Response = answer.response
        return response

    return send


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

    def __init__(self, name: str, secret: str, connect: Connect) -> None:
        self._name = name
        self._secret = secret
        self._pool = ClientPool(connect)

    def ask(self, path: str, body: dict[str, Any], fold: Fold, timeout_s: float, emit: Emit) -> Reply:
        """Post the body, fold the events of the answer into a Reply, and emit their deltas as they arrive.

        Everything, from connecting to the last byte, takes at most `timeout_s` (except the look-up of the host's name,
        which is up to the system). What `emit` raises goes up unchanged, and the connection is closed.
        """
        with self._response(path, Body(json=body), timeout_s) as (client, chunks):
            for data in events(chunks):
                for delta in self._add(fold, data):
                    emit(delta)
                if fold.complete:
                    break
            reply = self._finish(fold)
            client.deadline.begin(DRAIN_S)
            try:
                deque(chunks, maxlen=0)
            except ModelUnavailable:
                pass  # the reply is complete; the connection is not used again
            return reply

    def fetch(self, path: str, timeout_s: float, body: Body | None = None) -> bytes:
        """Post the body, or get the path; return the whole answer, which is not a stream of events."""
        with self._response(path, body, timeout_s) as (_, chunks):
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
    def _response(
        self, path: str, body: Body | None, timeout_s: float
    ) -> Iterator[tuple[PooledClient[Send], Iterator[bytes]]]:
        with self._pool.client(timeout_s, keep_after=ModelError) as client:
            with self._translated(client):
                response = client.call(path, body)
            with closing(response):
                yield client, self._chunks(client, response)

    def _chunks(self, client: PooledClient[Send], response: httpx2.Response) -> Iterator[bytes]:
        with self._translated(client):
            yield from response.iter_bytes()

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
    def _translated(self, client: PooledClient[Send]) -> Iterator[None]:
        """Raise errors of the SDK and the HTTP client as ModelErrors; any other is a bug, and goes up unchanged."""
        try:
            yield
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in ("openai", "anthropic", "httpx2", "httpcore2"):
                raise
            raise self._without_secret(self._error(error, client)) from None

    def _error(self, error: Exception, client: PooledClient[Send]) -> ModelError:
        response = getattr(error, "response", None)
        if response is not None:
            body = getattr(error, "body", None)
            return faults.of_status(self._name, response.status_code, body, response.headers)
        if client.deadline.is_over:
            what = f"did not finish within timeout_s={client.deadline.timeout_s:g}"
        else:
            cause = root_cause(error)
            what = f"can't be reached, or the connection broke: {type(cause).__name__}: {cause}"
        return faults.unavailable(self._name, what)

    def _without_secret(self, error: ModelError) -> ModelError:
        """Return the same error without the key, which a provider may have repeated."""
        words = str(error).replace(self._secret, "***") if len(self._secret) >= 8 else str(error)
        return type(error)(words, **error.ids)


def _remove_telemetry(request: httpx2.Request) -> None:
    """Remove the headers in which the SDKs describe this machine and their use."""
    for header in [name for name in request.headers if name.startswith("x-stainless-")]:
        del request.headers[header]
