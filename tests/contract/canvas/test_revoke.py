"""Celery's verbs to revoke a task cancel runs, from every app and in every part of a canvas."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from celery import Celery, chain, chord, group
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

from agno_workers.broker.app import AgnoCelery
from agno_workers.core.run import RunStatus
from agno_workers.errors import RunCancelled
from agno_workers.sdk.verbs import RunResult
from tests import invariants
from tests.agents import caller, echo, holding, running, shouter
from tests.conftest import ROOT
from tests.contract.canvas.conftest import DUE, WAIT_S, Plain, run_of
from tests.forking import inherited

Revoke = Callable[[RunResult, Celery, Celery, dict[str, str]], object]


def by_command(app: str, *words: str) -> Revoke:
    def revoke(run: RunResult, _customer: Celery, _stranger: Celery, environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "celery", "-A", app, "control", *words, run.id]
        said = subprocess.run(
            command, env=inherited() | environment, cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert "1 run(s) are cancelled" in said.stdout

    return revoke


VERBS: dict[str, Revoke] = {
    "RunResult.revoke": lambda run, *_: run.revoke(),
    "AsyncResult.revoke": lambda run, customer, *_: customer.AsyncResult(run.id).revoke(),
    "AsyncResult.revoke(terminate)": lambda run, customer, *_: customer.AsyncResult(run.id).revoke(terminate=True, signal="KILL"),
    "AsyncResult.revoke(wait)": lambda run, customer, *_: customer.AsyncResult(run.id).revoke(wait=True, timeout=5),
    "control.revoke": lambda run, customer, *_: customer.control.revoke(run.id),
    "control.revoke of a list": lambda run, customer, *_: customer.control.revoke(["another", run.id], terminate=True),
    "control.revoke in capitals": lambda run, customer, *_: customer.control.revoke(run.id.upper()),
    "control.terminate": lambda run, customer, *_: customer.control.terminate(run.id),
    "control.revoke of our app": lambda run, *_: run.app.control.revoke([run.id]),
    "GroupResult.revoke": lambda run, customer, *_: customer.GroupResult("g", [customer.AsyncResult(run.id)]).revoke(),
    "the id of a step": lambda run, customer, *_: customer.control.revoke(run.handle.steps[-1].id, terminate=True),
    "an app that knows only the broker": lambda run, _, stranger, __: stranger.control.revoke(run.id),
    "terminate by such an app": lambda run, _, stranger, __: stranger.control.terminate([run.id], signal="KILL"),
    "command of an attached app": by_command("tests.contract.canvas.shop", "revoke"),
    "command": by_command("agno_workers", "terminate", "KILL"),
    "command of the tasks": by_command("agno_workers.tasks", "revoke"),
}  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_run_is_cancelled_by(
    verb: str, held: Path, customer: Celery, stranger: Celery, environment: dict[str, str]
) -> None:
    run = caller.delay(holding(held))
    invariants.until(running(held))
    VERBS[verb](run, customer, stranger, environment)
    invariants.until(lambda: run.run_status is RunStatus.CANCELLED)
    held.unlink()
    with pytest.raises(RunCancelled):
        run.get(timeout=WAIT_S)
    assert run.state == "REVOKED"


def test_revoke_of_a_group_cancels_each_part(held: Path) -> None:
    """A chain in it counts as its last task, as in Celery."""
    result = group([caller.s(holding(held)), caller.s(holding(held)) | shouter.s()])()
    result.revoke()
    held.unlink()
    for part in result:
        with pytest.raises((RunCancelled, TaskRevokedError)):
            part.get(timeout=WAIT_S)
    assert result[1].parent.get(timeout=WAIT_S) == "released"


@pytest.mark.parametrize("by", ["our app", "an attached app"])
@pytest.mark.parametrize("shape", ["chain", "chord", "link"])
def test_later_part_of_a_canvas_is_cancelled_when_it_is_submitted(
    held: Path,
    app: AgnoCelery,
    customer: Celery,
    plain: Plain,
    database: psycopg.Connection,
    shape: str,
    by: str,
) -> None:
    first, last = caller.s(holding(held)), shouter.s()
    canvas = {
        "chain": chain(first, last, plain("same")),
        "chord": chord([first, echo.s("a")], last),
        "link": first.clone().set(link=last),
    }
    told = last.freeze()
    result = canvas[shape].delay()
    result = {"chain": result.parent, "chord": result, "link": told}[shape]
    invariants.until(running(held))
    (RunResult(result.id, app=app) if by == "our app" else customer.AsyncResult(result.id)).revoke()
    held.unlink()
    with pytest.raises((RunCancelled, TaskRevokedError)):
        result.get(timeout=WAIT_S)
    ended = "SELECT r.status, s.attempt FROM agno.run r JOIN agno.step s ON s.run_id = r.id WHERE r.id = %s"
    invariants.until(lambda: database.execute(ended, [result.id]).fetchall() == [("cancelled", 0)])


def test_message_of_a_run_that_no_worker_has_received_is_revoked(
    app: AgnoCelery, customer: Celery, database: psycopg.Connection
) -> None:
    """Also by a worker that was not there at the revoke, and so knows it only from Postgres."""
    sent = [run_of(customer, "echo", "a").apply_async(queue="unserved") for _ in range(2)]
    customer.GroupResult("g", sent[:1]).revoke()
    app.dispatch().control.revoke([sent[1].id])
    app.control.add_consumer("unserved", reply=True)
    for result in sent:
        with pytest.raises((RunCancelled, TaskRevokedError)):
            result.get(timeout=WAIT_S)
    app.control.cancel_consumer("unserved", reply=True)
    ids = [result.id for result in sent]
    executed = "SELECT count(*) FROM agno.step WHERE run_id = ANY(%s::uuid[]) AND attempt > 0"
    assert database.execute(executed, [ids]).fetchall() == [(0,)]


def test_tasks_beside_runs_are_revoked_as_in_celery(
    app: AgnoCelery, customer: Celery, plain: Plain, database: psycopg.Connection
) -> None:
    """A task that waits in Postgres for its time is revoked there, however long ago that was."""
    waiting = plain("upper", "a").apply_async(countdown=3600)
    invariants.until(
        lambda: database.execute("SELECT task_id FROM agno.delayed_task").fetchall() == [(waiting.id,)]
    )
    customer.control.revoke(waiting.id)
    database.execute(DUE)
    with pytest.raises(TaskRevokedError):
        AsyncResult(waiting.id, app=app).get(timeout=WAIT_S)
    invariants.until(lambda: database.execute("SELECT FROM agno.delayed_task").fetchall() == [])
