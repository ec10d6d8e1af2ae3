"""Errors for a provider's failures: a table for each decision."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from agno_workers.core.policy import retry_after_s
from agno_workers.errors import ModelRejected, ModelUnavailable
from agno_workers.models.faults import (
    MAX_EXPLANATION,
    ErrorEvent,
    explanation,
    of_event,
    of_status,
)

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "Thu, 01 Jan 2026 12:01:00 GMT"}, 60.0),
        ({"retry-after": "Thu, 01 Jan 2026 12:01:00 -0000"}, 60.0),
        ({"retry-after": "Thu, 01 Jan 2026 11:59:00 GMT"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "2026-01-01T12:01:00Z"}, 60.0),
        ({"retry-after": "Thu, 01 Jan 2026 12:01:00 +0100"}, 0.0),
        ({"retry-after": f"{NOW.timestamp() + 60:.0f}"}, 60.0),
        ({"retry-after": f"{NOW.timestamp() - 60:.0f}"}, 0.0),
        ({"retry-after": f"{(NOW.timestamp() + 60) * 1000:.0f}"}, 60.0),
        ({"retry-after-ms": f"{(NOW.timestamp() + 60) * 1000:.0f}"}, 60.0),
        ({"retry-after": "5, 7"}, 5.0),
        ({"retry-after": "86400"}, 3600.0),
        ({"retry-after": "1e15"}, 3600.0),
        ({"retry-after": "9" * 400}, None),
        ({"retry-after-ms": "1e300"}, 3600.0),
        ({"retry-after": "Thu, 01 Jan 9999 12:01:00 GMT"}, 3600.0),
        ({"retry-after": "Thu, 01 Jan 99999 12:01:00 GMT"}, None),
    ],
)
def test_retry_after_is_read_from_any_header(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, NOW) == seconds


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"error": {"message": "No.", "type": "t", "code": "c"}}, ("c", "No.")),
        ({"message": "No", "type": "t", "code": None}, ("t", "No.")),
        ({"message": "No", "type": "t", "code": 400}, ("t", "No.")),
        ({"type": "error", "error": {"type": "t", "message": "No!"}}, ("t", "No!")),
        ({"status": "failed", "error": {"code": "c", "message": "No"}}, ("c", "No.")),
        ({"error": "No"}, ("", "No.")),
        ("Bad\n gateway", ("", "Bad gateway.")),
        (None, ("", "")),
        ({"error": None}, ("", "")),
    ],
)
def test_explanation_is_found_in_every_shape(body: Any, expected: tuple[str, str]) -> None:
    assert explanation(body) == expected


def test_a_long_explanation_is_cut() -> None:
    assert len(explanation("x" * 100_000)[1]) < MAX_EXPLANATION + 10


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "invalid_request_error", ModelRejected),
        (402, "billing_error", ModelRejected),
        (413, "request_too_large", ModelRejected),
        (408, "", ModelUnavailable),
        (425, "", ModelUnavailable),
        (429, "rate_limit_exceeded", ModelUnavailable),
        (400, "tool_use_failed", ModelUnavailable),
        (429, "insufficient_quota", ModelRejected),
        (500, "invalid_prompt_maybe", ModelUnavailable),
        (529, "overloaded_error", ModelUnavailable),
    ],
)
def test_a_status_is_final_or_not(status: int, code: str, kind: type[Exception]) -> None:
    error = of_status("openai:gpt-5", status, {"code": code, "message": "Why"}, {}, NOW)
    assert type(error) is kind
    assert (
        error.ids.items() >= {"provider": "openai", "model": "gpt-5", "status": status, "code": code}.items()
    )


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("server_error", ModelUnavailable),
        ("overloaded_error", ModelUnavailable),
        ("a_word_of_tomorrow", ModelUnavailable),
        ("", ModelUnavailable),
        ("invalid_prompt", ModelRejected),
        ("image_too_large", ModelRejected),
        ("authentication_error", ModelRejected),
    ],
)
def test_an_error_event_is_final_or_not(code: str, kind: type[Exception]) -> None:
    assert type(of_event("openai:gpt-5", ErrorEvent(code, "Why"))) is kind


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("context_length_exceeded", "Too long."),
        ("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
        ("BadRequestError", "This model's maximum context length is 8192 tokens."),
        ("exceed_context_size_error", "the request exceeds the available context size"),
    ],
)
def test_too_long_transcript_has_one_code(code: str, words: str) -> None:
    by_status = of_status("local:m", 400, {"code": code, "message": words}, {}, NOW)
    by_event = of_event("local:m", ErrorEvent(code, words))
    assert type(by_status) is type(by_event) is ModelRejected
    assert by_status.code == by_event.code == "context_window"
