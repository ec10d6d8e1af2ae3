"""Failures in a canvas reach everything that waits for them, once, wherever they happen. Nothing waits for ever."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import chain, chord, group
from celery.exceptions import ChordError, NotRegistered
from celery.result import AsyncResult

from agno_workers.errors import InvalidInput, ModelRejected, RunCancelled
from agno_workers.wiring import Services
from tests import invariants
from tests.agents import caller, echo, failing, holding, nothing, running, shouter
from tests.contract.canvas.conftest import WAIT_S, Plain

# A chord whose header fails.


def test_a_failed_run_in_a_header_is_a_chord_error_of_the_body(plain: Plain) -> None:
    result = chord([echo.s("a"), failing.s("b"), echo.s("c")], plain("join"))()
    with pytest.raises(ChordError, match="the key is wrong"):
        app_result(result).get(timeout=WAIT_S)
    with pytest.raises(ModelRejected):
        result.get(timeout=WAIT_S)
    assert [part.state for part in result.parent] == ["SUCCESS", "FAILURE", "SUCCESS"]


def test_a_failed_plain_task_in_a_header_fails_a_body_that_is_a_run(plain: Plain) -> None:
    result = chord([echo.s("a"), plain("fail")], echo.s())()
    with pytest.raises(ChordError, match="plain failure"):
        app_result(result).get(timeout=WAIT_S)


def test_link_error_of_a_chord_is_called_once(plain: Plain, tmp_path: Path) -> None:
    errback, told = noting(plain, tmp_path)
    body = echo.s()
    body.link_error(errback)
    result = chord([failing.s("a"), failing.s("b"), plain("fail")], body)()
    assert told.get(timeout=WAIT_S) == result.id
    assert (tmp_path / "notes").read_text().splitlines() == [result.id]


def test_a_run_may_be_the_errback(plain: Plain) -> None:
    errback = shouter.s()
    told = errback.freeze()
    run = failing.apply_async(("a",), link_error=errback)
    assert told.get(timeout=WAIT_S) == run.id.upper()


def test_new_style_errback_receives_the_error(plain: Plain, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    body = plain("join")
    body.link_error(plain("heard"))
    result = chord([echo.s("a"), plain("fail_with", f"tell:{notes}")], body)()
    invariants.until(lambda: notes.exists() and notes.read_text().endswith("\n"))
    assert notes.read_text() == f"{result.id} ChordError\n"


def test_every_task_of_a_group_body_fails(plain: Plain) -> None:
    result = chord([failing.s("a")], group([plain("join"), echo.s()]))()
    for task in result:
        with pytest.raises(ChordError, match="the key is wrong"):
            app_result(task).get(timeout=WAIT_S)


def test_the_last_task_of_a_chain_body_fails(plain: Plain) -> None:
    result = chord([failing.s("a")], plain("join") | echo.s() | shouter.s())()
    with pytest.raises((ChordError, ModelRejected)):
        app_result(result).get(timeout=WAIT_S)


def test_the_body_of_a_chord_in_the_body_fails(plain: Plain) -> None:
    result = chord([failing.s("a")], chord([plain("join"), echo.s()], shouter.s()))()
    with pytest.raises((ChordError, ModelRejected)):
        app_result(result).get(timeout=WAIT_S)


# A chord in a chord.


@pytest.mark.parametrize("body", ["task", "run", "chain", "group", "chord"])
def test_a_failure_in_a_chord_in_a_header_reaches_the_outer_body(plain: Plain, body: str) -> None:
    bodies: dict[str, Any] = {
        "task": plain("join"),
        "run": echo.s(),
        "chain": plain("join") | echo.s(),
        "group": group([plain("join"), echo.s()]),
        "chord": chord([plain("join"), echo.s()], plain("join")),
    }
    inner = chord([echo.s("a"), failing.s("b")], bodies[body])
    result = chord([inner, echo.s("c")], plain("join"))()
    with pytest.raises(ChordError):
        app_result(result).get(timeout=WAIT_S)


def test_a_failure_three_chords_deep_reaches_the_outermost_body(plain: Plain) -> None:
    innermost = chord([echo.s("a"), plain("fail")], echo.s())
    middle = chord([innermost, echo.s("b")], group([plain("join"), shouter.s()]))
    result = chord([middle, echo.s("c")], echo.s())()
    with pytest.raises(ChordError):
        app_result(result).get(timeout=WAIT_S)


@pytest.mark.parametrize("broken", ["plain", "run"])
def test_a_failed_body_in_a_header_reaches_the_outer_body(plain: Plain, broken: str) -> None:
    inner = chord([echo.s("a")], plain("fail") if broken == "plain" else failing.s())
    with pytest.raises(ChordError):
        app_result(chord([inner, echo.s("b")], echo.s())()).get(timeout=WAIT_S)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_chain_that_fails_anywhere_in_a_header_reaches_the_body(plain: Plain, place: int) -> None:
    steps: list[Any] = [echo.s("a"), plain("same"), shouter.s()]
    steps[place] = failing.s("a") if place == 0 else failing.s()
    with pytest.raises(ChordError, match="the key is wrong"):
        app_result(chord([chain(*steps), echo.s("b")], plain("join"))()).get(timeout=WAIT_S)


@pytest.mark.parametrize("broken", ["plain", "run"])
def test_a_chain_that_fails_before_its_group_in_a_header_reaches_the_body(plain: Plain, broken: str) -> None:
    first = plain("fail") if broken == "plain" else failing.s("a")
    steps = chain(first, group([echo.s(), plain("same")]))
    with pytest.raises(ChordError):
        app_result(chord([steps, echo.s("b")], plain("join"))()).get(timeout=WAIT_S)


def test_a_chain_that_fails_before_its_chord_in_a_header_reaches_the_body(plain: Plain) -> None:
    steps = chain(failing.s("a"), chord([echo.s(), plain("same")], plain("join")))
    with pytest.raises(ChordError):
        app_result(chord([steps, echo.s("b")], plain("join"))()).get(timeout=WAIT_S)


# Chains.


def test_a_failed_run_fails_all_that_come_after_it(plain: Plain, database: psycopg.Connection) -> None:
    result = chain(echo.s("a"), failing.s(), shouter.s(), plain("upper"), echo.s())()
    with pytest.raises(ModelRejected, match="the key is wrong"):
        app_result(result).get(timeout=WAIT_S)
    with pytest.raises(ModelRejected, match="the key is wrong"):
        result.get(timeout=1)
    assert states(result) == ["SUCCESS", "FAILURE", "FAILURE", "FAILURE", "FAILURE"]
    ids = [result.id, result.parent.id, result.parent.parent.id]
    assert database.execute("SELECT id FROM agno.run WHERE id::text = ANY(%s)", [ids]).fetchall() == []


def test_a_failed_plain_task_fails_the_runs_after_it(plain: Plain) -> None:
    result = chain(echo.s("a"), plain("fail"), echo.s(), shouter.s())()
    with pytest.raises(ValueError, match="plain failure"):
        result.get(timeout=WAIT_S)  # raised as soon as any task of the chain has failed
    invariants.until(lambda: states(result) == ["SUCCESS", "FAILURE", "FAILURE", "FAILURE"])


def test_link_error_of_a_chain_is_called_once_for_the_task_that_failed(plain: Plain, tmp_path: Path) -> None:
    errback, told = noting(plain, tmp_path)
    result = chain(echo.s("a"), failing.s(), echo.s()).apply_async(link_error=errback)
    assert told.get(timeout=WAIT_S) == result.parent.id
    assert (tmp_path / "notes").read_text().splitlines() == [result.parent.id]


@pytest.mark.parametrize("broken", ["plain", "run"])
def test_a_group_after_a_failure_fails(plain: Plain, broken: str) -> None:
    first = plain("fail") if broken == "plain" else failing.s("a")
    result = chain(first, group([echo.s(), plain("same")]))()
    for task in result:
        with pytest.raises((ModelRejected, ValueError)):
            app_result(task).get(timeout=WAIT_S)


def test_a_chord_after_a_failed_run_fails(plain: Plain) -> None:
    result = chain(failing.s("a"), chord([echo.s(), plain("same")], plain("join")), shouter.s())()
    with pytest.raises(ModelRejected):
        app_result(result).get(timeout=WAIT_S)


def test_a_link_is_not_called_after_a_failure(plain: Plain, tmp_path: Path) -> None:
    linked = plain("note", path=str(tmp_path / "notes"))
    errback = plain("same")
    told = errback.freeze()
    run = failing.apply_async(("a",), link=linked, link_error=errback)
    assert told.get(timeout=WAIT_S) == run.id
    assert not (tmp_path / "notes").exists()


# What can't be sent.


def test_run_with_an_empty_input_fails_its_chain_and_stores_nothing(plain: Plain) -> None:
    """The first answer is empty, so the second run has no input; the keeper must continue."""
    result = chain(plain("same", ""), echo.s(), shouter.s())()
    with pytest.raises(InvalidInput, match="empty"):
        app_result(result).get(timeout=WAIT_S)
    result = chain(shouter.s("   x   "), echo.s())()
    assert result.get(timeout=WAIT_S) == "<   X   >"


def test_empty_answer_fails_the_next_run(plain: Plain, tmp_path: Path) -> None:
    errback, told = noting(plain, tmp_path)
    follower = echo.s()
    follower.link_error(errback)
    result = chain(nothing.s("a"), follower, shouter.s())()
    with pytest.raises(InvalidInput, match="empty"):
        app_result(result).get(timeout=WAIT_S)
    assert result.parent.state == "FAILURE"
    assert told.get(timeout=WAIT_S) == result.parent.id


def test_a_body_that_can_not_be_sent_fails(plain: Plain, tmp_path: Path) -> None:
    errback, told = noting(plain, tmp_path)
    body = app_signature(echo.s(), session_id=7)
    body.link_error(errback)
    result = chord([echo.s("a"), echo.s("b")], body)()
    with pytest.raises(InvalidInput, match="session_id"):
        app_result(result).get(timeout=WAIT_S)
    assert told.get(timeout=WAIT_S) == result.id


def test_a_body_in_a_header_that_can_not_be_sent_reaches_the_outer_body(plain: Plain) -> None:
    inner = chord([echo.s("a")], app_signature(echo.s(), session_id=7) | plain("upper"))
    with pytest.raises(ChordError):
        app_result(chord([inner, echo.s("b")], plain("join"))()).get(timeout=WAIT_S)


def test_a_link_that_can_not_be_sent_fails_alone(plain: Plain) -> None:
    broken, sound = app_signature(echo.s(), session_id=7), shouter.s()
    results = [broken.freeze(), sound.freeze()]
    result = echo.s("a").set(link=[broken, sound]) | echo.s()
    assert result.delay().get(timeout=WAIT_S) == "<<a>>"
    assert results[1].get(timeout=WAIT_S) == "<A>"
    with pytest.raises(InvalidInput):
        results[0].get(timeout=WAIT_S)


def test_unregistered_task_fails_everything_after_it(plain: Plain, tmp_path: Path) -> None:
    errback, told = noting(plain, tmp_path)
    body = echo.s()
    body.link_error(errback)
    in_a_chain = chain(echo.s("a"), plain("nobody_knows"), echo.s())()
    in_a_chord = chord([echo.s("a"), plain("nobody_knows")], body)()
    with pytest.raises(NotRegistered, match="nobody_knows"):
        app_result(in_a_chain).get(timeout=WAIT_S)
    with pytest.raises(ChordError, match="nobody_knows"):
        app_result(in_a_chord).get(timeout=WAIT_S)
    assert told.get(timeout=WAIT_S) == in_a_chord.id


def test_task_id_that_is_not_a_uuid_is_refused() -> None:
    with pytest.raises(InvalidInput, match="order-17"):
        echo.apply_async(("a",), task_id="order-17")


def test_a_wrong_argument_is_refused_before_anything_is_stored(database: psycopg.Connection) -> None:
    before = database.execute("SELECT count(*) FROM agno.run").fetchall()
    with pytest.raises(InvalidInput, match="session_id"):
        echo.delay("a", sesion_id="x")  # type: ignore[call-arg]  # mypy reports it too
    assert database.execute("SELECT count(*) FROM agno.run").fetchall() == before


# Cancelling.


def test_a_cancelled_run_fails_the_chord_that_it_is_part_of(
    plain: Plain, held: Path, services: Services
) -> None:
    result = chord([echo.s("a"), caller.s(holding(held))], plain("join"))()
    invariants.until(running(held))
    assert services.database.journal.cancel(result.parent[1].id)
    with pytest.raises(ChordError, match="was cancelled"):
        app_result(result).get(timeout=WAIT_S)
    assert [part.state for part in result.parent] == ["SUCCESS", "REVOKED"]
    held.unlink()


def test_a_cancelled_run_ends_the_chain_that_it_is_part_of(
    plain: Plain, held: Path, services: Services
) -> None:
    result = chain(caller.s(holding(held)), echo.s(), plain("upper"))()
    invariants.until(running(held))
    services.database.journal.cancel(result.parent.parent.id)
    with pytest.raises(RunCancelled):
        result.get(timeout=WAIT_S)
    with pytest.raises(RunCancelled):
        app_result(result).get(timeout=WAIT_S)
    held.unlink()


def noting(plain: Plain, folder: Path) -> tuple[Any, AsyncResult]:
    """Return an old-style errback that writes its id to a file, and a result that reads it."""
    errback = plain("note", path=str(folder / "notes"))
    return errback, errback.freeze(str(uuid.uuid4()))


def app_result(result: Any) -> AsyncResult:
    """Return the result as another process reads it: without its parents, whose errors come first."""
    return AsyncResult(result.id, app=result.app)


def app_signature(signature: Any, **wrong: Any) -> Any:
    """Return a run whose arguments are refused only at its submit."""
    signature.kwargs.update(wrong)
    return signature


def states(result: Any) -> list[str]:
    """Return the states of a chain's tasks in order."""
    return [*states(result.parent), result.state] if result.parent else [result.state]
