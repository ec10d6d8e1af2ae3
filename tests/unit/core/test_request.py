"""What a request for a run refuses, and what it mends."""

from __future__ import annotations

from typing import Any

import pytest

from agno_workers.core.request import MAX_METADATA_BYTES, MAX_NAME_CHARS, run_request
from agno_workers.errors import InvalidInput

LOOP: dict[str, Any] = {}
LOOP["self"] = LOOP


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ([], "metadata must be a JSON object, got []"),
        ("x" * 10_000_000, "metadata must be a JSON object, got 'xxx"),
        ({"x": object()}, "metadata can't be sent as JSON"),
        (LOOP, "metadata can't be sent as JSON"),
        ({"x": "y" * MAX_METADATA_BYTES}, "metadata takes 65,545 bytes as JSON, and the most is 65,536"),
        ({"x": "é" * (MAX_METADATA_BYTES // 2)}, "metadata takes 65,545 bytes"),
        ({"x" * MAX_METADATA_BYTES: 1}, "metadata takes 65,543 bytes"),
        ({"x": "y" * 50_000_000}, "metadata takes 50,000,009 bytes"),
    ],
    ids=["list", "text", "object", "loop", "large", "wide", "key", "huge"],
)
def test_metadata_that_no_step_should_read_is_refused_in_one_short_sentence(metadata: Any, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        run_request("a", ["x"], {"metadata": metadata})
    assert str(refused.value).startswith(said)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("metadata", [{"x": "y" * (MAX_METADATA_BYTES - 9)}, {"\ud800": "\udfff"}, {1: (2, None)}], ids=["large", "surrogates", "keys"])  # fmt: skip
def test_metadata_within_the_limit_is_kept(metadata: dict[str, Any]) -> None:
    assert run_request("a", ["x"], {"metadata": metadata}).metadata is metadata


@pytest.mark.parametrize("option", ["session_id", "user_id", "idempotency_key", "queue", "tenant", "agent"])
def test_names_have_a_limit(option: str) -> None:
    given = {"agent": "a", option: "n" * (MAX_NAME_CHARS + 1)}
    with pytest.raises(InvalidInput, match=f"{option} has 1,001 characters, and the most is 1,000"):
        run_request(given.pop("agent"), ["x"], given)


def test_input_with_lone_surrogates_in_its_keys_is_accepted() -> None:
    assert run_request("a", [{"a\ud800": ["\udfff"]}], {}).input.text == '{"a\ud800": ["\udfff"]}'


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"if_busy": "stear", "session_id": "s"}, "got 'stear'. Did you mean 'steer'?"),
        (
            {"if_busy": "interrupt"},
            "if_busy='interrupt' is about the runs of a session: pass a session_id too.",
        ),
        ({"if_busy": "steer", "session_id": "s", "countdown": 5}, "this run has a time of its own"),
        ({"if_busy": "reject", "session_id": "s", "eta": "2030-01-01"}, "this run has a time of its own"),
    ],
)
def test_if_busy_that_can_have_no_effect_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        run_request("a", ["x"], options)
    assert said in str(refused.value)
