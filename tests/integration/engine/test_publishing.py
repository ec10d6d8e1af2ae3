"""What publishing adds to a step: one statement, however many messages, and none where nothing is owed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import redis

from agno_workers.broker.dispatch import Dispatch
from agno_workers.broker.submit import submit
from agno_workers.core.agent import Agent
from agno_workers.engine.registry import Registry
from agno_workers.engine.turn import Engine
from agno_workers.models.scripted import Turn
from agno_workers.runs.journal import Journal
from agno_workers.wiring import Services
from tests.agents import add
from tests.integration.engine.conftest import CountedPool, Cue
from tests.steps import first_step, take


@pytest.fixture
def counted(services: Services) -> CountedPool:
    """A pool on the database of this process's services."""
    settings = services.settings
    pool = CountedPool(settings.database_url.get_secret_value(), size=2, timeout_s=10, statement_timeout_s=30)
    pool.ran = []
    return pool


def test_publishing_what_a_step_owes_takes_one_statement(
    services: Services, counted: CountedPool, redis_client: redis.Redis
) -> None:
    cue = Cue(Turn(calls=(("add", {"a": 1, "b": 1}),) * 3), Turn(text="ok"))
    agent = Agent(name="a", model=cue.model, tools=[add])
    journal = Journal(
        counted, inline_max_bytes=1024, lease_s=60, publish_after_s=60, turn_attempts=3, worker="w"
    )
    engine: Engine = replace(services.engine, journal=journal, pool=counted, registry=Registry([agent]))
    dispatch = Dispatch(services.dispatch._app, journal, services.results, services.look)
    run_id = submit(services.journal, ["hi"], {"agent": "a"}, queue="agents").run_id
    todo = [first_step(services.look, run_id)]
    ran = []
    while todo:
        counted.ran = []
        recorded = take(engine, todo.pop(0))
        dispatch.publish(recorded)
        todo += recorded.sends
        ran.append(counted.ran)
    assert ran == [
        ["claim_turn", "finish_turn", "published"],
        ["claim_tool", "finish_tool"],
        ["claim_tool", "finish_tool"],
        ["claim_tool", "finish_tool", "published"],
        ["claim_turn", "finish_turn"],
    ]
    assert (redis_client.llen("tools"), redis_client.llen("agents")) == (3, 1)
    assert services.pool.run("SELECT count(*) AS left FROM agno.outbox WHERE step_id IN (SELECT id FROM agno.step WHERE key <> 'turn:1')") == [{"left": 0}]  # fmt: skip
    counted.close()
