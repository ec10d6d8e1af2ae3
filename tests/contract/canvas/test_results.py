"""Celery's results and options of runs: `AsyncResult`, `GroupResult`, `apply_async`."""

from __future__ import annotations

import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from celery import chain, chord, group
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult, GroupResult, ResultSet
from kombu.entity import Queue

from agno_workers import Client
from agno_workers.broker.app import AgnoCelery
from agno_workers.core.run import RunStatus
from agno_workers.errors import IdempotencyConflict, InvalidInput
from agno_workers.sdk.verbs import RunResult
from tests import invariants
from tests.agents import caller, echo, failing, holding, running, shouter
from tests.conftest import ROOT
from tests.contract.canvas.conftest import WAIT_S, Plain, sections

_HEADLINE = 'Zürich – "naïve" \\ 東京 🚀 \u2028\t\x7f'


# Queues.


def test_run_of_an_unregistered_agent_waits_in_the_queue_of_the_settings(
    app: AgnoCelery, client: Client, database: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.conf.task_routes, "agno.turn", {"queue": "my-agents"})
    sent = app.send_task("agno.run", ["a"], {"agent": "tomorrow", "allow_unknown": True})
    found = database.execute("SELECT queue FROM agno.run WHERE id = %s", [sent.id]).fetchone()
    client.runs.get(sent.id).cancel()
    assert found == ("my-agents",)


# Results.


def test_a_result_is_read_in_another_process(environment: dict[str, str], plain: Plain) -> None:
    result = chord([echo.s("a"), plain("upper", "b")], echo.s())()
    program = (
        "import sys; from agno_workers import wiring; "
        f"print(ascii(wiring.celery_app().AsyncResult(sys.argv[1]).get(timeout={WAIT_S})))"
    )
    said = subprocess.run(
        [sys.executable, "-c", program, result.id],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == ascii(sections("<a>", "B"))


def test_states_follow_the_run(held: Path) -> None:
    result = caller.delay(holding(held))
    invariants.until(running(held))
    assert (result.state, result.ready(), result.run_status) == ("STARTED", False, RunStatus.WAITING)
    held.unlink()
    assert result.get(timeout=WAIT_S) == "released"
    assert (result.state, result.successful(), result.run_status) == ("SUCCESS", True, RunStatus.DONE)
    assert result.date_done == result.run.ended_at
    failed = failing.delay("a")
    failed.get(timeout=WAIT_S, propagate=False)
    assert (failed.state, failed.failed(), failed.run_status) == ("FAILURE", True, RunStatus.FAILED)


def test_wait_times_out_and_the_run_continues(held: Path) -> None:
    result = caller.delay(holding(held))
    for timeout in (0, 0.05):
        with pytest.raises(CeleryTimeoutError, match=result.id):
            result.get(timeout=timeout)
    held.unlink()
    assert result.get(timeout=WAIT_S) == "released"


def test_unknown_id_is_pending(app: AgnoCelery) -> None:
    for task_id in (str(uuid.uuid4()), "no-uuid"):
        result = app.AsyncResult(task_id)
        assert (result.state, result.exists(), result.result) == ("PENDING", False, None)


def test_a_group_result_is_joined_saved_and_restored(app: AgnoCelery, plain: Plain) -> None:
    result = group([echo.s("a"), plain("upper", "b"), chain(echo.s("c"), shouter.s())])()
    result.save()
    restored = GroupResult.restore(result.id, app=app)
    assert restored == result
    assert restored.join(timeout=WAIT_S) == result.get(timeout=WAIT_S) == ["<a>", "B", "<C>"]
    assert (restored.successful(), restored.completed_count()) == (True, 3)
    restored.delete()
    app.backend._cache.clear()
    assert GroupResult.restore(result.id, app=app) is None


def test_a_nested_group_result_is_restored(app: AgnoCelery, plain: Plain) -> None:
    result = group([chain(echo.s("a"), group([echo.s(), plain("upper")])), echo.s("b")])()
    result.save()
    app.backend._cache.clear()
    assert GroupResult.restore(result.id, app=app).get(timeout=WAIT_S) == [["<<a>>", "<A>"], "<b>"]


def test_result_set_joins_runs_that_were_sent_separately(plain: Plain) -> None:
    results = ResultSet([echo.delay("a"), plain("upper", "b").delay(), failing.delay("c")])
    joined = results.join(timeout=WAIT_S, propagate=False)
    assert joined[:2] == ["<a>", "B"]
    assert str(joined[2]) == "the key is wrong"


def test_forget_forgets_a_plain_task_but_never_a_run(app: AgnoCelery, plain: Plain) -> None:
    task, run = plain("upper", "a").delay(), echo.delay("a")
    for result in (task, run):
        result.get(timeout=WAIT_S)
        result.forget()
    assert app.AsyncResult(task.id).state == "PENDING"
    assert app.AsyncResult(run.id).get(timeout=1) == "<a>"


@pytest.mark.parametrize(
    "value",
    [None, "", 0, False, 1.5, 2**100, 10**16 + 0.0, [], {}, [[1], {"a": [None, _HEADLINE]}], {"ключ": {"b": 1, "a": 2}},
     {"$blob": "0" * 64}, _HEADLINE],
    ids=repr,
)  # fmt: skip
def test_json_of_any_shape_passes_through_plain_tasks_and_chords(plain: Plain, value: Any) -> None:
    result = chord([plain("same", value), plain("same", value) | plain("same")], plain("same"))()
    assert result.get(timeout=WAIT_S) == [value, value]
    assert [part.get(timeout=1) for part in result.parent] == [value, value]


def test_text_that_postgres_cannot_store_is_replaced(plain: Plain) -> None:
    result = chord([plain("same", "a\x00b"), plain("same", "a\ud800b")], plain("same"))()
    assert result.get(timeout=WAIT_S) == ["a\ufffdb", "a\ufffdb"]


def test_dates_stay_dates_on_every_path(plain: Plain) -> None:
    when = datetime(2026, 11, 22, 17, tzinfo=UTC)
    after_a_run = chain(echo.s("a"), plain("kind", when).set(immutable=True))()
    after_a_chord = chord([echo.s("a")], plain("kind", when).set(immutable=True))()
    of_a_header = chord([plain("same", when), plain("same", 1)], plain("same"))()
    linked = plain("kind", when).set(immutable=True)
    linked_result = linked.freeze()
    echo.apply_async(("a",), link=linked)
    assert [result.get(timeout=WAIT_S) for result in (after_a_run, after_a_chord, linked_result)] == [
        "datetime"
    ] * 3
    assert of_a_header.get(timeout=WAIT_S) == [when, 1]


def test_text_of_every_script_passes_through_runs() -> None:
    assert chord([echo.s(_HEADLINE), echo.s("b")], shouter.s())().get(timeout=WAIT_S) == (
        f"[1]\n<{_HEADLINE}>\n\n[2]\n<b>".upper()
    )


def test_results_of_a_megabyte_pass_through_a_chord(plain: Plain) -> None:
    result = chord([plain("big", 1_000_000) | echo.s(), plain("big", 1_000_000)], plain("join"))()
    large = "ä" * 1_000_000
    assert result.get(timeout=WAIT_S) == f"<{large}>+{large}"
    through_runs = chord([plain("big", 1_000_000) | echo.s(), echo.s("b")], shouter.s())()
    assert through_runs.get(timeout=WAIT_S) == sections(f"<{large}>", "<b>")[1:-1].upper()


# Options.


def test_task_id_of_the_caller_is_the_run_id(plain: Plain) -> None:
    given = str(uuid.uuid4())
    assert echo.apply_async(("a",), task_id=given).id == given
    assert (
        chord([echo.s("a")], plain("join")).apply_async(task_id=str(uuid.uuid4())).get(timeout=WAIT_S)
        == "<a>"
    )


def test_the_same_task_id_twice_is_one_run(database: psycopg.Connection) -> None:
    given = str(uuid.uuid4())
    for text in ("a", "b"):
        echo.apply_async((text,), task_id=given)
    assert AsyncResult(given, app=echo.s().app).get(timeout=WAIT_S) == "<a>"
    steps = database.execute("SELECT count(*) FROM agno.step WHERE run_id = %s", [given]).fetchone()
    assert steps == (1,)


def test_the_id_of_a_group_may_be_any_text(plain: Plain) -> None:
    header = group([echo.s("a"), plain("upper", "b")], task_id=f"report {uuid.uuid4()}")
    assert header.apply_async().get(timeout=WAIT_S) == ["<a>", "B"]
    nested = chain(echo.s("a"), group([echo.s(), plain("upper")]))
    named = group([nested, plain("upper", "b")], task_id=f"rapport {uuid.uuid4()}")
    assert chord(named, plain("join"))().get(timeout=WAIT_S) == "(<<a>>+<A>)+B"


@pytest.mark.parametrize("when", ["countdown", "eta", "naive eta", "eta as text"])
def test_a_run_waits_for_its_time(database: psycopg.Connection, when: str) -> None:
    eta = datetime.now(UTC) + timedelta(seconds=0.4)
    options: dict[str, dict[str, Any]] = {
        "countdown": {"countdown": 0.4},
        "eta": {"eta": eta},
        "naive eta": {"eta": eta.replace(tzinfo=None)},
        "eta as text": {"eta": eta.isoformat()},
    }
    result = echo.apply_async(("a",), **options[when])
    assert result.get(timeout=WAIT_S) == "<a>"
    (waited,) = database.execute(
        "SELECT started_at >= %s FROM agno.run WHERE id = %s", [eta, result.id]
    ).fetchall()
    assert waited == (True,)


def test_a_run_in_a_canvas_waits_for_its_time(plain: Plain, database: psycopg.Connection) -> None:
    eta = datetime.now(UTC) + timedelta(seconds=0.4)
    result = chain(echo.s("a"), shouter.s().set(eta=eta), plain("upper"))()
    assert result.get(timeout=WAIT_S) == "<A>"
    delayed = chord([echo.s("a"), echo.s("b").set(countdown=0.2)], plain("join")).apply_async(countdown=0.1)
    assert delayed.get(timeout=WAIT_S) == "<a>+<b>"
    (waited,) = database.execute(
        "SELECT started_at >= %s FROM agno.run WHERE id = %s", [eta, result.parent.id]
    ).fetchall()
    assert waited == (True,)


def test_priority_and_queue_are_kept_with_the_run(database: psycopg.Connection) -> None:
    results = [
        echo.apply_async(("a",), priority=6, queue="tools"),
        echo.s("a").set(queue="tools", priority=6).delay(),
        echo.s("a").set(queue=Queue("tools"), priority=6).delay(),
    ]
    assert [result.get(timeout=WAIT_S) for result in results] == ["<a>"] * 3
    rows = database.execute(
        "SELECT DISTINCT r.queue, r.priority, s.queue, s.priority FROM agno.run r JOIN agno.step s ON s.run_id = r.id WHERE r.id = ANY(%s::uuid[])",
        [[result.id for result in results]],
    ).fetchall()
    assert rows == [("tools", 6, "tools", 6)]


def test_stamps_are_ignored(plain: Plain) -> None:
    canvas = chord([echo.s("a"), plain("upper", "b")], echo.s() | shouter.s())
    canvas.stamp(tenant="acme")
    assert canvas().get(timeout=WAIT_S) == sections("<A>", "B")
    stamped = echo.s("a")
    stamped.stamp(tenant="acme")
    assert (
        stamped.apply_async(headers={"x": "y"}, shadow="another", ignore_result=False).get(timeout=WAIT_S)
        == "<a>"
    )


def test_every_verb_returns_a_run_result() -> None:
    for handle in (echo.delay("a"), echo.apply_async(("a",)), echo.s("a").delay(), echo.s("a").apply_async()):
        assert isinstance(handle, RunResult)
        assert handle.output(timeout=WAIT_S).content == "<a>"


# Idempotency keys in a canvas.


def test_known_key_returns_the_existing_run(database: psycopg.Connection) -> None:
    key = str(uuid.uuid4())
    first, second = [echo.delay("a", idempotency_key=key) for _ in range(2)]
    assert (first.id, second.get(timeout=WAIT_S)) == (second.id, "<a>")
    assert (first.created, second.created) == (True, False)
    with pytest.raises(IdempotencyConflict) as refused:
        chain(echo.s("b", idempotency_key=key), shouter.s())()
    assert refused.value.run_id == first.id


def test_a_canvas_that_is_sent_twice_with_keys_works_once_and_answers_twice(
    plain: Plain, database: psycopg.Connection
) -> None:
    key = str(uuid.uuid4())

    def send() -> Any:
        header = [echo.s(letter, idempotency_key=f"{key} {letter}") for letter in "abc"]
        return chord(header, echo.s("Sum up.", idempotency_key=key) | plain("upper"))()

    results = [send(), send()]
    answers = [result.get(timeout=WAIT_S) for result in results]
    assert answers == [sections("<A>", "<B>", "<C>\n\nSUM UP.")] * 2
    assert send().get(timeout=WAIT_S) == answers[0]
    worked = database.execute(
        "SELECT count(*) FROM agno.step s JOIN agno.run r ON r.id = s.run_id WHERE r.idempotency_key LIKE %s",
        [f"{key}%"],
    ).fetchone()
    assert worked == (4,)


def test_a_run_with_a_known_key_ends_as_the_first_one_does(plain: Plain, held: Path) -> None:
    key = str(uuid.uuid4())
    first = caller.delay(holding(held), idempotency_key=key)
    follower = chain(caller.s(holding(held), idempotency_key=key), plain("upper"))()
    grouped = group([caller.s(holding(held), idempotency_key=key), plain("upper", "b")])()
    invariants.until(running(held))
    held.unlink()
    assert first.get(timeout=WAIT_S) == "released"
    assert follower.get(timeout=WAIT_S) == "RELEASED"
    assert grouped.get(timeout=WAIT_S) == ["released", "B"]


def test_a_run_with_a_known_key_is_cancelled_with_the_first_one(held: Path) -> None:
    key = str(uuid.uuid4())
    first = caller.delay(holding(held), idempotency_key=key)
    grouped = group([caller.s(holding(held), idempotency_key=key)])()
    first.cancel()
    assert grouped[0].get(timeout=WAIT_S, propagate=False).run_id == first.id
    assert grouped[0].state == "REVOKED"
    held.unlink()


def test_a_key_whose_run_has_failed_fails_the_canvas(plain: Plain) -> None:
    key = str(uuid.uuid4())
    failing.delay("a", idempotency_key=key).get(timeout=WAIT_S, propagate=False)
    again = chain(failing.s("a", idempotency_key=key), plain("upper"))()
    assert (
        str(AsyncResult(again.id, app=again.app).get(timeout=WAIT_S, propagate=False)) == "the key is wrong"
    )


@pytest.mark.parametrize("option", ["expires", "time_limit", "soft_time_limit"])
def test_option_that_a_run_cannot_have_is_refused(app: AgnoCelery, option: str) -> None:
    with pytest.raises(InvalidInput, match=option):
        echo.s("a").apply_async(**{option: 600})
