"""Publishing adds no statement to a step: sent messages are deleted from the outbox later."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import redis

from agno_workers.broker.delayed import DelayedTasks
from agno_workers.broker.dispatch import Dispatch
from agno_workers.core.agent import Agent
from agno_workers.core.request import run_request
from agno_workers.engine.turn import Engine
from agno_workers.models.scripted import Turn
from agno_workers.registry import Registry
from agno_workers.wiring import Services
from tests.agents import add
from tests.database import on_pool
from tests.integration.engine.conftest import CountedPool, ScriptedReplies
from tests.steps import execute_step, first_step


@pytest.fixture
def counted(services: Services) -> Iterator[CountedPool]:
    """A pool on the database of this process's services."""
    settings = services.settings
    pool = CountedPool(settings.database.url.get_secret_value(), size=2, timeout_s=10, statement_timeout_s=30)
    pool.ran = []
    yield pool
    pool.close()


def test_publishing_adds_no_statement_to_a_step(
    services: Services, counted: CountedPool, redis_client: redis.Redis
) -> None:
    replies = ScriptedReplies(Turn(calls=(("add", {"a": 1, "b": 1}),) * 3), Turn(text="ok"))
    agent = Agent(name="a", model=replies.model, tools=[add])
    here = on_pool(counted)
    engine: Engine = replace(services.engine, journal=here.journal, runnable=Registry([agent]).get)
    dispatch = Dispatch(
        services.app, submissions=here.submissions, claims=here.journal, control=here.journal, outbox=here.outbox, results=here.results, queries=here.queries,
        delayed=DelayedTasks(services.app, here.pool),
    )  # fmt: skip
    request = run_request("a", ["hi"], {"queue": "agents", "allow_unknown": True})
    run_id = services.database.submissions.submit(request).run_id
    todo = [first_step(services.database.queries, run_id)]
    while todo:
        recorded = execute_step(engine, todo.pop(0))
        dispatch.publish(recorded)
        todo += recorded.sends
    dispatch.close()
    assert [name for name in counted.ran if name != "published"] == ["claim", "finish"] * 5
    assert (redis_client.llen("tools"), redis_client.llen("agents")) == (3, 1)
    left = "SELECT count(*) AS left FROM agno.outbox WHERE step_id IN (SELECT id FROM agno.step WHERE key <> 'turn:1')"
    assert services.database.pool.run(left) == [{"left": 0}]
