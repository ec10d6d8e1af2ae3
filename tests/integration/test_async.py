"""The verbs on asyncio: those that block, without a thread for each run that is waited for."""

from __future__ import annotations

import asyncio
import inspect
import threading
from pathlib import Path
from typing import Any

import pytest

from agno_workers import (
    AsyncClient,
    Batch,
    Client,
    RunCancelled,
    RunHandle,
    RunStatus,
    StateConflict,
    UnknownAgent,
    WaitTimeout,
)
from agno_workers.broker.app import AgnoCelery
from agno_workers.errors import ModelRejected, RunNotFound
from agno_workers.runs.queries import Event
from agno_workers.sdk import aio, client
from agno_workers.sdk.approvals import Requirement
from agno_workers.sdk.ingestion import Ingestion
from agno_workers.sdk.sessions import SessionHandle, Sessions
from agno_workers.sdk.states import StateHandle
from tests import invariants
from tests.agents import echo, failing, holding, running
from tests.conftest import Worker
from tests.places import Place

WAIT_S = 60
NOBODY = "0198c0de-0000-7000-8000-000000000000"


def open_client(place: Place) -> AsyncClient:
    return AsyncClient(place.database_url, place.servers.redis_url)


@pytest.mark.parametrize(
    ("blocking", "ours", "own"),
    [
        (Client, aio.AsyncClient, {"close"}),
        (client.Runs, aio.AsyncRuns, set()),
        (Sessions, aio.AsyncSessions, set()),
        (SessionHandle, aio.AsyncSession, set()),
        (client.Batches, aio.AsyncBatches, set()),
        (client.Approvals, aio.AsyncApprovals, set()),
        (client.Ingestions, aio.AsyncIngestions, set()),
        (client.KnowledgeHandle, aio.AsyncKnowledge, set()),
        (StateHandle, aio.AsyncState, set()),
        (RunHandle, aio.AsyncRun, set()),
        (Ingestion, aio.AsyncIngestion, set()),
        (Batch, aio.AsyncBatch, {"polls", "rounds"}),
        (Requirement, aio.AsyncRequirement, {"id", "run_id", "facts", "tool", "needs", "arguments", "arguments_json"}),
    ],
)  # fmt: skip
def test_each_verb_has_its_twin(blocking: type, ours: type, own: set[str]) -> None:
    for name, member in inspect.getmembers(blocking):
        if name.startswith("_") or name in own or name == "not_ended":
            continue
        twin = getattr(ours, name, None)
        assert twin is not None, f"{ours.__name__} has no {name}"
        if inspect.isfunction(member) and inspect.isfunction(twin):
            assert list(inspect.signature(twin).parameters) == list(inspect.signature(member).parameters)


def test_state_is_changed_by_many_tasks(place: Place) -> None:
    async def main() -> None:
        async with open_client(place) as client:
            state = client.state("session", "s")
            await asyncio.gather(*(state.increment("n") for _ in range(20)))
            assert await state.get("n") == 20
            with pytest.raises(StateConflict):
                await state.set("n", 0, expected_version=3)

    asyncio.run(main())


def test_agent_is_awaited(app: AgnoCelery, worker: Worker) -> None:
    async def main() -> None:
        run = await echo.adelay("a", user_id="u1")
        assert await run == "<a>"
        assert (await run.run()).user_id == "u1"
        assert (await run.wait()).status is RunStatus.DONE
        assert (await run.wait(0)).status is RunStatus.DONE  # as the blocking one: it has ended
        assert (await echo.arun("b", timeout=WAIT_S)).content == "<b>"
        with pytest.raises(ModelRejected):
            await failing.arun("c")

    asyncio.run(main())


def test_client_is_awaited(place: Place, worker: Worker, tmp_path: Path) -> None:
    held = tmp_path / "held"
    held.touch()

    async def main() -> None:
        async with open_client(place) as client:
            assert await (await client.runs.submit("echo", "a", idempotency_key="k")).get(WAIT_S) == "<a>"
            assert [each.status for each in await client.runs.list(agent="echo")] == [RunStatus.DONE]
            assert "echo" in [each.name for each in await client.agents()]
            with pytest.raises(UnknownAgent):
                await client.runs.submit("nobody", "a")
            with pytest.raises(RunNotFound):
                await client.runs.get(NOBODY)
            run = await client.runs.submit("caller", holding(held))
            with pytest.raises(WaitTimeout, match=run.id):
                await run.wait(timeout=0.1)
            assert await run.cancel()
            held.unlink()
            with pytest.raises(RunCancelled):
                await run
            assert await (await run.fork(None, 'add {"a": 1, "b": 2}')).result(WAIT_S) == "3"
            batch = await client.batches.submit("echo", ["a", "b", "c"])
            got = {position: output.content async for position, output in batch.results(timeout=WAIT_S)}
            assert got == {0: "<a>", 1: "<b>", 2: "<c>"}
            assert (await batch.wait()).done == await batch.size() == 3
            assert [run.content async for run in batch.runs()] == ["<a>", "<b>", "<c>"]
            assert await client.approvals.list() == []

    asyncio.run(main())


def test_events_are_those_of_the_blocking_handle(place: Place, worker: Worker) -> None:
    async def main() -> None:
        async with open_client(place) as client:
            run = await client.runs.submit("caller", 'add {"a": 1, "b": 2}')
            live = [event async for event in run.events(timeout=WAIT_S)]
            facts = [each for each in live if isinstance(each, Event)]
            assert [each.number for each in facts] == list(range(1, len(facts) + 1))
            assert any(getattr(each, "text", "") for each in live)
            rest = [each async for each in run.events(after=2) if isinstance(each, Event)]
            assert rest == facts[2:]
            blocking = [each for each in run.blocking.events() if isinstance(each, Event)]
            assert blocking == facts
            with pytest.raises(RunNotFound):
                _ = [each async for each in client.runs.get(NOBODY).events()]

    asyncio.run(main())


def test_hundreds_of_followers_share_one_thread(place: Place, worker: Worker, tmp_path: Path) -> None:
    """Some of them are cancelled: the others go on, and so does the run."""
    held = tmp_path / "held"
    held.touch()

    async def follow(run: aio.AsyncRun, seen: list[Any]) -> list[Any]:
        async for each in run.events():
            seen.append(each)  # noqa: PERF401 - the others look at it meanwhile
        return seen

    async def main() -> None:
        async with open_client(place) as client:
            run = await client.runs.submit("caller", holding(held))
            views: list[list[Any]] = [[] for _ in range(300)]
            followers = [asyncio.create_task(follow(run, seen)) for seen in views]
            waiting = [asyncio.create_task(run.get()) for _ in range(100)]
            while not running(held)() or not all(views):
                await asyncio.sleep(0.01)
            threads = [each.name for each in threading.enumerate()]
            assert sum(name.startswith("agno-follower") for name in threads) == 1
            assert sum(name.startswith("agno-async") for name in threads) <= aio._THREADS
            for task in (*followers[::2], *waiting[::2]):
                task.cancel()
            held.unlink()
            async with asyncio.timeout(WAIT_S):
                seen = await asyncio.gather(*followers[1::2])
                assert await asyncio.gather(*waiting[1::2]) == ["released"] * 50
            assert all(
                [each.event for each in view if isinstance(each, Event)][-1] == "RunCompleted"
                for view in seen
            )
            gone = await asyncio.gather(*followers[::2], return_exceptions=True)
            assert {type(each) for each in gone} == {asyncio.CancelledError}

    asyncio.run(main())


def test_submit_of_a_cancelled_task_may_be_repeated(place: Place, app: AgnoCelery, worker: Worker) -> None:
    async def main() -> str:
        task = asyncio.create_task(echo.adelay("a", idempotency_key="once"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        answer: str = await (await echo.adelay("a", idempotency_key="once"))
        return answer

    assert asyncio.run(main()) == "<a>"
    with Client(place.database_url) as client:
        assert len(client.runs.list(agent="echo")) == 1


def test_loop_that_ends_while_its_tasks_wait_does_not_hang(place: Place, tmp_path: Path) -> None:
    async def main() -> list[asyncio.Task[Any]]:
        client = open_client(place)
        run = await client.runs.submit("tomorrow", "a", allow_unknown=True)
        tasks = [asyncio.create_task(run.get()), asyncio.create_task(run.wait())]
        await asyncio.sleep(0)
        return tasks

    assert all(task.cancelled() for task in asyncio.run(main()))
    invariants.until(lambda: not any(each.name.startswith("agno-follower") for each in threading.enumerate()))
