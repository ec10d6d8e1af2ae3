"""Every error this package raises on purpose, as one tree.

    AgnoError
    ├── SettingsError          a setting is missing, wrong or unknown: fix it and start again
    ├── EmbeddedError          an embedded server can't be installed, started or reached
    ├── Unavailable            Postgres or Redis does not answer: try again later, nothing was lost
    ├── InvalidInput           what the caller handed in can't be used: change it
    │   ├── UnknownAgent       no agent of that name is imported here
    │   ├── UnknownKnowledge   no knowledge base has that name
    │   └── InvalidTool        a function can't be offered to a model as a tool
    ├── RunNotFound            no run has that id
    ├── NotWaiting             nothing waits (any more) for what was answered: look again
    ├── RunFailed              the run ended `failed`; its message and ids say why
    │   └── LimitReached       it met one of its agent's limits; `content` is its last text
    ├── RunCancelled           the run was cancelled before it ended
    ├── WaitTimeout            the wait is over, the run is not: it goes on, ask again
    ├── ToolError              raised by a tool's author: the model reads the message
    │   └── TryAgain           the same, after some more tries
    ├── SourceError            a document can't be had where it comes from
    │   ├── SourceUnavailable  worth another try later (429, 5xx, reset, time-out)
    │   └── SourceRejected     final: gone, denied, too large, or an address that is off limits
    └── ModelError
        ├── ModelUnavailable   worth another try later (429, 5xx, reset, time-out)
        └── ModelRejected      the same request will fail again (bad key, bad request)

Errors keep their ids as attributes and survive JSON (`to_json`, `from_json`), because they cross processes.
"""

from __future__ import annotations

from typing import Any


class AgnoError(Exception):
    """The root of this tree. The message is a sentence that ends with the next move."""

    def __init__(self, message: str, **ids: Any) -> None:
        super().__init__(message)
        self.ids = ids

    def __getattr__(self, name: str) -> Any:
        ids = self.__dict__.get("ids", {})
        if name in ids:
            return ids[name]
        raise AttributeError(f"{type(self).__name__} has no {name!r}; it carries {sorted(ids)}")

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self).__name__, str(self), self.ids)

    def to_json(self) -> dict[str, Any]:
        """`{"type", "message", "ids"}`: what is stored with a run and sent to its caller."""
        return {"type": type(self).__name__, "message": str(self), "ids": self.ids}

    @staticmethod
    def from_json(value: dict[str, Any]) -> AgnoError:
        """The error that `to_json` described; a type unknown here comes back as `RunFailed`."""
        return _rebuild(value.get("type", ""), value.get("message", ""), value.get("ids") or {})


class SettingsError(AgnoError):
    """A setting is missing, wrong or unknown; names the key, where it was found and the nearest known one."""


class EmbeddedError(AgnoError):
    """An embedded server can't be installed, started or reached."""


class Unavailable(AgnoError):
    """Postgres or Redis does not answer. What was accepted is kept; the same call may be made again."""


class InvalidInput(AgnoError):
    """The caller handed in something unusable. Nothing was stored."""


class UnknownAgent(InvalidInput):
    """No agent of that name is imported in this process; see `AGNO_IMPORTS`."""


class UnknownKnowledge(InvalidInput):
    """No knowledge base of that name is in this database."""


class InvalidTool(InvalidInput):
    """A function can't be offered to a model: its name, signature or annotations say too little."""


class RunNotFound(AgnoError):
    """No run has that id in this database."""


class NotWaiting(AgnoError):
    """A step, or a run, does not wait for what was said to it: it was answered, expired, cancelled, or never asked."""


class RunFailed(AgnoError):
    """The run ended `failed`. `run_id`, `reason` and the cause's own ids are attributes."""


class LimitReached(RunFailed):
    """The run met one of its agent's `Limits`. `reason` names it, as `limit:turns`, and `content` is the run's last text, if any."""


class RunCancelled(AgnoError):
    """The run was cancelled before it ended."""


class WaitTimeout(AgnoError, TimeoutError):
    """The caller's patience ended before the run did. The run goes on; wait again or cancel it."""


class ToolError(AgnoError):
    """A tool's author raises this to tell the model what went wrong, in words meant for the model."""


class TryAgain(ToolError):
    """A tool raises this when the same call may work later: `TryAgain("the bank is closed", after_s=60)`. It is tried again
    by the tool's `retry`; after the last try the model reads the message.
    """

    def __init__(self, message: str, after_s: float | None = None, **ids: Any) -> None:
        super().__init__(message, **(ids if after_s is None else ids | {"after_s": after_s}))


class SourceError(AgnoError):
    """A document can't be had where it comes from. Carries `uri` (without secrets) and, where known, `status`."""


class SourceUnavailable(SourceError):
    """Worth another try: rate limit, overload, reset, time-out. `retry_after_s` is the server's wish or None."""


class SourceRejected(SourceError):
    """Final: asking again would end the same. `code` says why in a word: `gone` (it was there, or never was), `denied`,
    `off_limits`, `too_large`, `redirect`, `invalid`, `rejected`.
    """


class ModelError(AgnoError):
    """A model call did not give a reply. Carries `provider`, `model` and, where known, `status`."""


class ModelUnavailable(ModelError):
    """Worth another try: rate limit, overload, reset, time-out. `retry_after_s` is the provider's wish or None."""


class ModelRejected(ModelError):
    """Final: the same request would fail again. Mend the key, the model's name or the request."""


def error_to_json(error: Exception) -> dict[str, Any]:
    """Describe any exception as `AgnoError.to_json` describes ours."""
    if isinstance(error, AgnoError):
        return error.to_json()
    return {"type": type(error).__name__, "message": str(error), "ids": {}}


def _rebuild(name: str, message: str, ids: dict[str, Any]) -> AgnoError:
    kind = globals().get(name)
    if isinstance(kind, type) and issubclass(kind, AgnoError):
        return kind(message, **ids)
    return RunFailed(message, **ids)
