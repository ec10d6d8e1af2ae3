"""The handles of sessions in programs: with the agents' code, without it, and on asyncio."""

from __future__ import annotations

import asyncio

import pytest

from agno_workers import AsyncClient, Client, Session, SessionForbidden
from agno_workers.broker.app import AgnoCelery
from tests.agents import echo
from tests.conftest import Worker
from tests.places import Place

WAIT_S = 60


def test_process_with_the_agents_submits_to_a_session(app: AgnoCelery, worker: Worker) -> None:
    session = Session("s")
    assert session.submit(echo, "a", user_id="ann").result(timeout=WAIT_S) == "<a>"
    run = session.submit("echo", "b")
    assert run.result(timeout=WAIT_S) == "<b>"
    assert [each.session_id for each in session.runs] == ["s", "s"]
    assert [message.text for message in session.messages] == ["a", "<a>", "b", "<b>"]


def test_session_of_a_client_submits_for_its_user(client: Client, worker: Worker) -> None:
    session = client.sessions.create(user_id="ann", title="Trip")
    assert session.created
    run = session.submit("echo", "a")
    assert run.result(timeout=WAIT_S) == "<a>"
    assert (run.run.user_id, run.run.session_id) == ("ann", session.id)
    assert [row.id for row in client.sessions.list(user_id="ann")] == [session.id]
    with pytest.raises(SessionForbidden):
        client.sessions.get(session.id, user_id="bob").submit("echo", "a")
    fork = session.fork(at=run)
    assert [copy.forked_from for copy in fork.runs] == [run.id]
    assert fork.submit("echo", "b").result(timeout=WAIT_S) == "<b>"
    assert client.sessions.get(fork.id, user_id="ann").delete() == 2


def test_session_is_used_on_asyncio(place: Place, worker: Worker) -> None:
    async def main() -> None:
        async with AsyncClient(place.database_url, place.servers.redis_url) as client:
            session = await client.sessions.create("s", user_id="ann")
            run = await session.submit("echo", "a")
            assert await run == "<a>"
            assert [each.id async for each in session.runs(newest_first=True)] == [run.id]
            assert [message.text async for message in session.messages()] == ["a", "<a>"]
            fork = await session.fork("f")
            assert (await fork.session()).forked_from == "s"
            assert (await session.rollback(to=None)).runs == 1
            assert await fork.delete() == 1
            assert [row.id for row in await client.sessions.list()] == ["s"]

    asyncio.run(main())
