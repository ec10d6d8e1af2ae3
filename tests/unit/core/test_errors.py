"""Errors cross processes: as JSON in a row, by pickle in Celery's results."""

from __future__ import annotations

import copy
import pickle
from typing import Any, cast

import msgspec
import pytest

from agno_workers import errors
from agno_workers.errors import AgnoError, ModelUnavailable, RunFailed, ToolError, UnknownAgent, WaitTimeout

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, AgnoError)]
IDS: dict[str, Any] = {"run_id": "r-1", "retry_after_s": 2.5, "status": None, "known": ["a", "b"]}


def drawn() -> set[str]:
    """The names in the picture at the top of the file."""
    lines = (errors.__doc__ or "").splitlines()
    return {"AgnoError"} | {line.partition("── ")[2].split()[0] for line in lines if "── " in line}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "cross",
    [
        lambda error: pickle.loads(pickle.dumps(error)),
        copy.copy,
        lambda error: AgnoError.from_json(msgspec.json.decode(msgspec.json.encode(error.to_json()))),
    ],
    ids=["pickle", "copy", "json"],
)
def test_error_survives_pickle_copy_and_json(kind: type[AgnoError], cross: Any) -> None:
    back = cross(kind("it broke: do this.", **IDS))
    assert type(back) is kind
    assert str(back) == "it broke: do this."
    assert back.ids == IDS


def test_every_error_is_drawn_in_the_tree_and_nothing_else() -> None:
    assert {kind.__name__ for kind in KINDS} == drawn()


@pytest.mark.parametrize(
    "stored", [{"type": "ValueError", "message": "it broke", "ids": {}}, {"message": "it broke"}]
)
def test_an_error_of_a_type_unknown_here_comes_back_as_a_failed_run(stored: dict[str, Any]) -> None:
    back = AgnoError.from_json(stored)
    assert type(back) is RunFailed
    assert str(back) == "it broke"


@pytest.mark.parametrize("name", ["Any", "annotations", "_rebuild", "__builtins__", "object", ""])
def test_any_stored_type_becomes_an_error_of_the_tree(name: str) -> None:
    assert type(AgnoError.from_json({"type": name, "message": "x"})) is RunFailed


def test_documented_ids_are_attributes_and_none_when_missing() -> None:
    error = ModelUnavailable("busy", status=429, unknown="x")
    assert (error.status, error.retry_after_s, error.ids["unknown"]) == (429, None, "x")
    assert not hasattr(error, "unknown")
    assert RunFailed("it failed", run_id="r-1", reason="retries").reason == "retries"


def test_ids_of_the_reader_fill_those_that_a_stored_error_lacks() -> None:
    back = AgnoError.from_json(
        RunFailed("it failed", reason="retries").to_json(), run_id="r-1", reason="other"
    )
    assert back.ids == {"run_id": "r-1", "reason": "retries"}


def test_wait_timeout_is_a_timeout_error() -> None:
    with pytest.raises(TimeoutError):
        raise WaitTimeout("over")


def test_errors_that_callers_catch_together_share_a_base() -> None:
    assert isinstance(ModelUnavailable("x"), errors.ModelError)
    assert isinstance(UnknownAgent("x"), errors.InvalidInput)
    assert not isinstance(errors.ModelRejected("x"), ModelUnavailable)


class _Silent(Exception):
    def __init__(self, raised: BaseException | None) -> None:
        self.raised = raised

    def __str__(self) -> str:
        if self.raised is None:
            return cast(str, 5)
        raise self.raised


@pytest.mark.parametrize("raised", [RuntimeError("no"), SystemExit(3), None], ids=repr)
def test_error_whose_str_fails_is_described_by_its_type(raised: BaseException | None) -> None:
    error = _Silent(raised)
    assert errors.error_to_json(error) == {"type": "_Silent", "message": "", "ids": {}}
    described = ToolError(error).to_json()  # type: ignore[arg-type]
    assert described["message"] == ""


def test_ids_that_json_does_not_have_are_stored_as_text() -> None:
    ids = ToolError(
        "no", answer=ValueError("x"), silent=_Silent(RuntimeError()), retry_after_s=2.5
    ).to_json()["ids"]
    assert ids == {"answer": "x", "silent": "", "retry_after_s": 2.5}
