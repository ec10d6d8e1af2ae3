"""Every error this package raises on purpose, as one tree.

    AgnoError
    ├── SettingsError          a setting is missing, wrong or unknown: fix it and start again
    ├── EmbeddedError          an embedded server can't be installed, started or reached
    ├── Unavailable            Postgres or Redis does not answer: try again later, nothing was lost
    │   └── UnusableDatabase   (also a SettingsError) Postgres answers, and this code can't work with the database
    ├── InvalidInput           an argument of the caller is not usable: change it
    │   ├── IdempotencyConflict the key belongs to a run with another input: use another key
    │   ├── UnknownAgent       no agent of that name is registered or imported
    │   ├── SessionForbidden   the session belongs to another user
    │   ├── SessionEnded       the session takes no message any more: use another one
    │   ├── UnknownKnowledge   the database has no knowledge base of that name
    │   └── InvalidTool        a function can't be offered to a model as a tool
    ├── StateConflict          a key of state has changed since it was read: read it again, and repeat the change
    ├── SessionBusy            the session has a live run, and the caller chose `if_busy="reject"`: submit again later
    ├── RunNotFound            the database has no run of that id
    ├── SessionNotFound        the database has no session of that id
    ├── MemoryChanged          a memory is not at the expected version: read it again
    ├── MemoryNotFound         the owner has no memory of that id
    ├── NotWaiting             the step is not waiting (any more): look at the run again
    ├── RunFailed              the run ended `failed`; the message is the cause
    │   ├── StepFailed         a step of a workflow failed: catch it in the workflow, or look at the step
    │   └── LimitReached       the run met one of its agent's limits; `content` is its last text
    ├── RunCancelled           the run was cancelled before it ended
    ├── WaitTimeout            the run has not ended within the timeout, and continues: wait again
    ├── ToolError              raised by a tool's author: the model reads the message
    │   └── TryAgain           the same, after more tries
    ├── ContextFailed          a required value of the context is not available now
    ├── SourceError            a document can't be fetched
    │   ├── SourceUnavailable  worth another try later (429, 5xx, reset, time-out)
    │   └── SourceRejected     final: gone, denied, too large, or an address that is off limits
    └── ModelError
        ├── ModelUnavailable   worth another try later (429, 5xx, reset, time-out)
        └── ModelRejected      the same request will fail again (bad key, bad request)

Errors keep their facts in `ids` and survive pickle and JSON (`to_json`, `from_json`), because they cross processes.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

T = TypeVar("T")


class _Id(Generic[T]):
    """A typed attribute that reads one of `ids`; None where the error has no such id."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, error: AgnoError | None, owner: type) -> T | None:
        value: T | None = error.ids.get(self._name) if error is not None else None
        return value


class AgnoError(Exception):
    """The root of this tree. The message is a sentence that ends with the next move; `ids` is what it is about."""

    def __init__(self, message: str, **ids: Any) -> None:
        super().__init__(message)
        self.ids = ids

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self).__name__, message_of(self), self.ids)

    def to_json(self) -> dict[str, Any]:
        """Return `{"type", "message", "ids"}`, which is stored with a run and sent to its caller."""
        import msgspec  # noqa: PLC0415 - clients that meet no error do without it

        ids = msgspec.to_builtins(self.ids, enc_hook=message_of, str_keys=True)
        return {"type": type(self).__name__, "message": message_of(self), "ids": ids}

    @staticmethod
    def from_json(value: dict[str, Any], **ids: Any) -> AgnoError:
        """Return the error that `to_json` described, with these `ids` where it has none; an unknown type becomes RunFailed."""
        return _rebuild(value.get("type", ""), value.get("message", ""), ids | (value.get("ids") or {}))


class SettingsError(AgnoError):
    """A setting is missing, wrong or unknown; names the key, its place and the nearest known key."""


class EmbeddedError(AgnoError):
    """An embedded server can't be installed, started or reached."""


class Unavailable(AgnoError):
    """Postgres or Redis does not answer. Accepted runs are kept; repeat the call later."""


class UnusableDatabase(Unavailable, SettingsError):
    """Postgres answers, and this code can't work with the database: its encoding, schema, rights, or a standby. Accepted runs are kept."""

    is_other = _Id[bool]()
    """True if it is not the database that this process began to work with."""


class InvalidInput(AgnoError):
    """An argument of the caller is not usable. Nothing was stored."""


class IdempotencyConflict(InvalidInput):
    """The idempotency key belongs to an earlier run of the agent and the user, which has another input."""

    run_id = _Id[str]()
    """The earlier run."""


class UnknownAgent(InvalidInput):
    """No worker has registered an agent of that name, or this process has not imported it; see `AGNO_IMPORTS`."""


class SessionForbidden(InvalidInput):
    """The session belongs to another user, or to none. Sessions belong to the user of their first message."""

    session_id = _Id[str]()
    """The session."""


class SessionEnded(InvalidInput):
    """The session was ended or has timed out, and takes no message."""

    session_id = _Id[str]()
    """The session."""


class UnknownKnowledge(InvalidInput):
    """This database has no knowledge base of that name."""


class InvalidTool(InvalidInput):
    """A function can't be offered to a model: its name, signature or annotations are not enough."""


class SessionBusy(AgnoError):
    """A run of the session has not ended, or the session is paused, and the caller chose `if_busy="reject"`. Nothing was stored."""

    session_id = _Id[str]()
    """The session."""
    run_id = _Id[str]()
    """Its live run; None for a session that is paused."""


class StateConflict(AgnoError):
    """A key of state has changed since it was read, so nothing was written: read it again, and repeat the change."""

    scope = _Id[str]()
    """The scope of the state, such as `session`."""
    owner = _Id[str]()
    """The session, the user or the other owner of the state."""
    key = _Id[str]()
    """The key that has changed."""
    version = _Id[int]()
    """Its version now."""


class MemoryChanged(AgnoError):
    """A memory is not at the expected version: somebody changed it meanwhile. Read it again."""

    memory_id = _Id[str]()
    """The memory."""
    version = _Id[int]()
    """Its version now."""


class RunNotFound(AgnoError):
    """This database has no run of that id."""


class SessionNotFound(AgnoError):
    """This database has no session of that id."""

    session_id = _Id[str]()
    """The id that was asked for."""


class MemoryNotFound(AgnoError):
    """The owner has no memory of that id: it does not exist, or belongs to another owner."""

    memory_id = _Id[str]()
    """The id that was asked for."""


class NotWaiting(AgnoError):
    """The step or run is not waiting: it was answered, it expired, it was cancelled, or it never waited."""


class RunFailed(AgnoError):
    """The run ended `failed`."""

    run_id = _Id[str]()
    """The run that failed."""
    reason = _Id[str]()
    """Why, in a word: `retries`, `worker_lost`, `limit:turns` ..."""


class StepFailed(RunFailed):
    """A step of a workflow failed. Raised in the workflow's function, which may catch it; otherwise the run fails with it."""

    step = _Id[str]()
    """The id of the step."""
    error = _Id[dict[str, Any]]()
    """The error of the step, as `to_json` describes it."""


class LimitReached(RunFailed):
    """The run met one of its agent's `Limits`; `reason` names it, as `limit:turns`."""

    content = _Id[str]()
    """The run's last text, if any."""


class RunCancelled(AgnoError):
    """The run was cancelled before it ended."""

    run_id = _Id[str]()
    """The run that was cancelled."""


class WaitTimeout(AgnoError, TimeoutError):
    """The run has not ended within the caller's timeout, and continues; wait again or cancel it."""

    run_id = _Id[str]()
    """None for a batch."""
    batch_id = _Id[str]()
    """None for a run."""


class ToolError(AgnoError):
    """Raised by a tool's author: the model reads the message."""


class TryAgain(ToolError):
    """Raised by a tool when the same call may work later: `TryAgain("the bank is closed", after_s=60)`. The tool's `retry`
    counts the tries; after the last one the model reads the message.
    """

    after_s = _Id[float]()
    """The least number of seconds before the next try."""

    def __init__(self, message: str, after_s: float | None = None, **ids: Any) -> None:
        super().__init__(message, **(ids if after_s is None else ids | {"after_s": after_s}))


class ContextFailed(AgnoError):
    """A required value of the context is not available now: correct its function, or give it `on_error="omit"`."""

    agent = _Id[str]()
    """The name of the agent."""
    key = _Id[str]()
    """The name of the value."""


class SourceError(AgnoError):
    """A document can't be fetched from its address."""

    uri = _Id[str]()
    """The address, without secrets."""
    status = _Id[int]()
    """The HTTP status, if there was an answer."""
    code = _Id[str]()
    """The kind of a final failure: `gone`, `denied`, `off_limits`, `too_large`, `redirect`, `invalid` or `rejected`."""


class SourceUnavailable(SourceError):
    """Worth another try: rate limit, overload, reset, time-out."""

    retry_after_s = _Id[float]()
    """The server's wish, if it has one."""


class SourceRejected(SourceError):
    """Final: the same request would fail again."""


class ModelError(AgnoError):
    """A model call has no reply."""

    provider = _Id[str]()
    """`openai`, `anthropic`, or the name before the `:` of another model."""
    model = _Id[str]()
    """The model's name at the provider."""
    status = _Id[int]()
    """The HTTP status, if there was an answer."""
    code = _Id[str]()
    """The provider's word for the cause; `context_window` for an input that is too long, at every provider."""


class ModelUnavailable(ModelError):
    """Worth another try: rate limit, overload, reset, time-out."""

    retry_after_s = _Id[float]()
    """The provider's wish, if it has one."""


class ModelRejected(ModelError):
    """Final: the same request would fail again. Correct the key, the model's name or the request."""


def error_to_json(error: Exception) -> dict[str, Any]:
    """Describe any exception as `AgnoError.to_json` does."""
    if isinstance(error, AgnoError):
        return error.to_json()
    return {"type": type(error).__name__, "message": message_of(error), "ids": {}}


def message_of(error: object) -> str:
    """Return the text of any exception or other object; empty if its own `__str__` fails."""
    try:
        return str.__str__(str(error))
    except BaseException:  # it is the author's code, which may raise SystemExit too
        return ""


def notes(error: BaseException) -> list[str]:
    """Return what was added to an error with `add_note`, such as the traceback of a module of AGNO_IMPORTS."""
    return [str(note) for note in getattr(error, "__notes__", ())]


def _rebuild(name: str, message: str, ids: dict[str, Any]) -> AgnoError:
    kind = globals().get(name)
    if isinstance(kind, type) and issubclass(kind, AgnoError):
        return kind(message, **ids)
    return RunFailed(message, **ids)
