"""The errors for a provider's failures: worth another try, or final. Decisions only, no IO."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from agno_workers.core.policy import is_temporary, retry_after_s
from agno_workers.core.words import safe_text
from agno_workers.errors import ModelError, ModelRejected, ModelUnavailable
from agno_workers.models.wire import fields, text, tokens

CONTEXT_WINDOW = "context_window"
"""The `code` of a ModelRejected for a transcript that was too long, at every provider."""

MAX_EXPLANATION = 1000  # characters of a provider's own words that go into a message

MAX_CODE = 100
MAX_SHOWN_BYTES = 200  # of an answer that can't be read
UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
"""The errors that reading an answer of an unexpected shape raises."""

_FINAL_CODES = {
    "authentication_error", "billing_error", "billing_hard_limit_reached", "bio_policy", "content_policy_violation",
    "data_residency_mismatch", "empty_image_file", "failed_to_download_image", "insufficient_quota",
    "misalignment_policy_violation", "not_found_error", "permission_error", "request_too_large",
    "unsupported_image_media_type",
}  # fmt: skip
_TEMPORARY_CODES = {"tool_use_failed"}
"""Groq: the model wrote a call that can't be read; it may write a better one."""
_FINAL_PREFIXES = ("invalid_", "image_")
_ERRORS = ("error", "errors", "detail", "base_resp")
_WORDS = ("message", "msg", "detail", "status_msg", "error_msg", "error_message")
_TOO_LONG_CODES = {"context_length_exceeded", "exceed_context_size_error"}
_TOO_LONG_WORDS = ("prompt is too long", "maximum context length", "exceeds the available context size")


class ErrorEvent(Exception):
    """An error that a provider reported in an answer of status 200. `code` is its word for why."""

    def __init__(self, code: str, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        """The HTTP status that some servers write into the body."""


def error_event(body: object) -> ErrorEvent:
    """Return the error in the body of an answer."""
    return ErrorEvent(*explanation(body), _status(_innermost(body)))


def has_error(body: Mapping[str, Any]) -> bool:
    """Return True if the body reports an error under one of the names that servers use."""
    return "error" in (body.get("type"), body.get("object")) or _reported(body) is not None


def of_status(
    name: str, status: int, body: object, headers: Mapping[str, str], now: datetime | None = None
) -> ModelError:
    """Return the error for an HTTP status of 4xx or 5xx from the model `name` (`provider:model`)."""
    code, words = explanation(body)
    if _too_long(code, words):
        return _context_window(name, status, words)
    if code in _FINAL_CODES or not (is_temporary(status) or code in _TEMPORARY_CODES):
        return _rejected(name, status, code, words)
    return unavailable(
        name,
        f"answered {status}: {words or 'no explanation'}",
        status=status,
        code=code,
        retry_after_s=retry_after_s(headers, now or datetime.now(UTC)),
    )


def of_event(name: str, error: ErrorEvent) -> ModelError:
    """Return the error for an error event within a stream. An unknown code is worth another try."""
    words = _sentence(str(error))
    if _too_long(error.code, words):
        return _context_window(name, error.status, words)
    is_final = error.code in _FINAL_CODES or error.code.startswith(_FINAL_PREFIXES)
    if is_final or not (is_temporary(error.status or 500) or error.code in _TEMPORARY_CODES):
        return _rejected(name, error.status, error.code, words)
    what = repr(error.code or str(error.status or "")).replace("''", "an error")
    return unavailable(
        name, f"broke off with {what}: {words or 'no explanation'}", status=error.status, code=error.code
    )


def unavailable(
    name: str,
    what: str,
    *,
    status: int | None = None,
    code: str = "",
    retry_after_s: float | None = None,
) -> ModelUnavailable:
    """Return the error `{name} {what}. Try again later.`"""
    provider, _, model = name.partition(":")
    return ModelUnavailable(
        f"{name} {_sentence(what)} Try again later.",
        provider=provider, model=model, status=status, code=code, retry_after_s=retry_after_s,
    )  # fmt: skip


def unreadable(name: str, error: Exception, data: bytes = b"") -> ModelUnavailable:
    """Return the error for an answer, or a piece of one, whose reading raised `error`."""
    shown = data[:MAX_SHOWN_BYTES].decode("utf-8", "replace")
    return unavailable(
        name, f"sent an answer that can't be read ({type(error).__name__}: {error}): {shown!r}"
    )


def rejected(name: str, message: str, *, code: str, status: int | None = None) -> ModelRejected:
    """Return the final error of the model `name` (`provider:model`) with this message."""
    provider, _, model = name.partition(":")
    return ModelRejected(message, provider=provider, model=model, status=status, code=code)


def explanation(body: object) -> tuple[str, str]:
    """Return the code and the words in the body of a provider's error, in any of the shapes that they use."""
    inner = _innermost(body)
    if not isinstance(inner, Mapping):
        return "", _sentence(text(inner))
    codes = (inner.get(name) for name in ("code", "type", "status"))
    code = next((code for code in codes if code and isinstance(code, str)), "")
    return safe_text(code[:MAX_CODE]), _sentence(
        next((words for name in _WORDS if (words := text(inner.get(name)))), "")
    )


def _innermost(body: object) -> Any:
    """Return what servers wrap in `error`, `errors`, `detail`, `base_resp` or a list."""
    while True:
        match body:
            case list() if body:
                body = body[0]
            case Mapping() if (reported := _reported(body)) is not None:
                body = reported
            case _:
                return body


def _reported(body: Mapping[str, Any]) -> Any:
    """Return what a body has under such a name; None for null, a code of 0 without words, and a base_resp of success."""
    for name in _ERRORS:
        if value := body.get(name):
            kept = {"status_code"} if name == "base_resp" else fields(value).keys()
            if not isinstance(value, dict) or any(value.get(key) for key in kept):
                return value
    return None


def _status(inner: Any) -> int | None:
    """Return the HTTP status that an error in a body names."""
    named = (tokens(fields(inner).get(name)) for name in ("code", "status", "status_code"))
    return next((status for status in named if 400 <= status < 600), None)


def _too_long(code: str, words: str) -> bool:
    return code in _TOO_LONG_CODES or any(phrase in words.lower() for phrase in _TOO_LONG_WORDS)


def _context_window(name: str, status: int | None, words: str) -> ModelRejected:
    message = f"The transcript is longer than the context window of {name}: {words} Shorten it or use another model."
    return rejected(name, message, code=CONTEXT_WINDOW, status=status)


def _rejected(name: str, status: int | None, code: str, words: str) -> ModelRejected:
    moves = {
        401: "Check the API key.",
        403: "Check what the API key may do.",
        404: "Check the model's name and the base URL.",
    }
    if code in ("insufficient_quota", "billing_error"):
        move = "Check the plan and the bill at the provider."
    else:
        move = moves.get(status or 0, "Correct the request.")
    message = f"{name} rejected the request ({status or code}): {words or 'no explanation.'} {move}"
    return rejected(name, message, code=code, status=status)


def _sentence(words: str) -> str:
    words = " ".join(safe_text(words).split())
    if len(words) > MAX_EXPLANATION:
        words = words[:MAX_EXPLANATION] + " ..."
    return words if not words or words.endswith((".", "!", "?")) else words + "."
