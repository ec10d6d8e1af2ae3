"""The errors for a provider's failures: worth another try, or final. Decisions only, no IO."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from agno_workers.core.policy import is_temporary, retry_after_s
from agno_workers.errors import ModelError, ModelRejected, ModelUnavailable

CONTEXT_WINDOW = "context_window"
"""The `code` of a ModelRejected for a transcript that was too long, at every provider."""

MAX_EXPLANATION = 1000  # characters of a provider's own words that go into a message

_FINAL_CODES = {
    "authentication_error", "billing_error", "billing_hard_limit_reached", "bio_policy", "content_policy_violation",
    "data_residency_mismatch", "empty_image_file", "failed_to_download_image", "insufficient_quota",
    "misalignment_policy_violation", "not_found_error", "permission_error", "request_too_large",
    "unsupported_image_media_type",
}  # fmt: skip
_FINAL_PREFIXES = ("invalid_", "image_")
_TOO_LONG_CODES = {"context_length_exceeded", "exceed_context_size_error"}
_TOO_LONG_WORDS = ("prompt is too long", "maximum context length", "exceeds the available context size")


class ErrorEvent(Exception):
    """An error that a provider reported within a stream. `code` is its word for why."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def of_status(
    name: str, status: int, body: object, headers: Mapping[str, str], now: datetime | None = None
) -> ModelError:
    """Return the error for an HTTP status of 4xx or 5xx from the model `name` (`provider:model`)."""
    code, words = explanation(body)
    if _too_long(code, words):
        return _context_window(name, status, words)
    if code in _FINAL_CODES or not is_temporary(status):
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
        return _context_window(name, None, words)
    if error.code in _FINAL_CODES or error.code.startswith(_FINAL_PREFIXES):
        return _rejected(name, None, error.code, words)
    return unavailable(name, f"broke off with {error.code or 'an error'!r}: {words}", code=error.code)


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


def rejected(name: str, message: str, *, code: str, status: int | None = None) -> ModelRejected:
    """Return the final error of the model `name` (`provider:model`) with this message."""
    provider, _, model = name.partition(":")
    return ModelRejected(message, provider=provider, model=model, status=status, code=code)


def explanation(body: object) -> tuple[str, str]:
    """Return the code and the words in the body of a provider's error, in any of the shapes that they use."""
    inner: Any = body
    while isinstance(inner, Mapping) and "error" in inner:
        inner = inner["error"]
    if isinstance(inner, Mapping):
        code = inner.get("code") if isinstance(inner.get("code"), str) else inner.get("type")
        return str(code or ""), _sentence(str(inner.get("message") or ""))
    return "", _sentence(str(inner or ""))


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
    words = " ".join(words.split())
    if len(words) > MAX_EXPLANATION:
        words = words[:MAX_EXPLANATION] + " ..."
    return words if not words or words.endswith((".", "!", "?")) else words + "."
