"""Teams and workflows with real workers: alone, inside each other, in canvas, in sessions, by name from other processes, and used wrongly."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from celery import chain, chord

from agno_workers import Client
from agno_workers.broker.app import AgnoCelery
from agno_workers.core.run import RunStatus
from agno_workers.errors import AgnoError, InvalidInput
from agno_workers.sdk.verbs import Verbs
from tests import invariants
from tests.acceptance.terminal import Type
from tests.agents import echo
from tests.conftest import StartWorker, Worker
from tests.programs import chief, desk, fifty, pair, squad, talking

WAIT_S = 60


@pytest.fixture
def worker(keep_worker: StartWorker) -> Worker:
    """One worker that has them, which no test may end or change."""
    return keep_worker(AGNO_IMPORTS="tests.programs", concurrency=64)


def asked(name: str, text: str) -> str:
    """Return the input of a leader that delegates this to a member."""
    return f"{name} {json.dumps({'task': text})}"


@pytest.mark.parametrize(
    ("program", "text", "says"),
    [(squad, asked("echo", "hi"), "<hi>"), (pair, "hi", "<hi> <hi>")],
    ids=["team", "workflow"],
)
def test_verbs_of_an_agent_work_for_a(
    program: Verbs, text: str, says: str, app: AgnoCelery, worker: Worker, client: Client, type_: Type
) -> None:
    assert program.delay(text).get(timeout=WAIT_S) == says
    assert chain(echo.si(text), program.si(text), echo.s()).delay().get(timeout=WAIT_S) == f"<{says}>"
    assert chord([program.s(text), echo.s("beside")], echo.s()).delay().get(timeout=WAIT_S)
    batch = program.map([text, text])
    assert [output.content for _, output in batch.results(WAIT_S)] == [says, says]
    assert asyncio.run(program.arun(text, timeout=WAIT_S)).content == says
    by_name = client.runs.submit(program.name, text, idempotency_key="k")
    assert by_name.result(timeout=WAIT_S) == says
    assert client.runs.submit(program.name, text, idempotency_key="k").id == by_name.id
    typed = type_("run", program.name, text, AGNO_IMPORTS="")  # the name is enough
    assert (typed.status, typed.out.strip()) == (0, says), typed.err
    assert {each.kind for each in client.runs.list(agent=program.name)} == {program.kind}


def test_chord_of_teams_and_workflows_inside_a_users_canvas(app: AgnoCelery, worker: Worker) -> None:
    header = [squad.s(asked("echo", "one")), pair.s("two"), squad.s(asked("echo", "three"))]
    said = (chord(header, echo.s()) | squad.si(asked("echo", "after"))).delay().get(timeout=WAIT_S)
    assert said == "<after>"
    assert (
        chord(header, echo.s()).delay().get(timeout=WAIT_S)
        == "<[1]\n<one>\n\n[2]\n<two> <two>\n\n[3]\n<three>>"
    )


def test_programs_work_inside_each_other(client: Client, worker: Worker) -> None:
    """A workflow and a team are members of a team, and tools of an agent; the workflow has a team as a step."""
    inner = asked("squad", asked("echo", "deep"))
    for name in (desk.name, chief.name):
        run = client.runs.submit(name, "\n".join([asked("pair", "hi"), inner]))
        assert run.result(timeout=WAIT_S) == "<hi> <hi> | <deep>"
    below = [each.agent for each in client.runs.list() if each.parent_run_id is not None]
    assert {name: below.count(name) for name in set(below)} == {"pair": 2, "squad": 4, "echo": 6}


def test_fifty_members_work_at_the_same_time(client: Client, worker: Worker, held: Path) -> None:
    run = client.runs.submit("fifty", str(held))
    invariants.until(lambda: len(list(held.parent.glob("*.running"))) == len(fifty.members))
    held.unlink()
    assert run.result(timeout=WAIT_S) == "50"


def test_team_remembers_what_was_said_in_its_session(app: AgnoCelery, worker: Worker) -> None:
    said = [talking.delay(text, session_id="s").get(timeout=WAIT_S) for text in ("my dog is Rex", "and?")]
    assert said == ["my dog is Rex", "my dog is Rex / and?"]


def test_wrong_use_gets_a_clear_error(client: Client, worker: Worker, type_: Type) -> None:
    run = client.runs.submit("unreachable", "it")
    with pytest.raises(InvalidInput, match=r"can't be a step, .* define it with def at the top of a module"):
        run.result(timeout=WAIT_S)
    assert run.status is RunStatus.FAILED
    with pytest.raises(AgnoError, match="squid"):
        client.runs.submit("squid", "hi")
    assert "squid" in type_("run", "squid", "hi").err
    failed = client.runs.submit("desk", asked("pear", "hi"))
    assert "pear" in failed.result(timeout=WAIT_S)
