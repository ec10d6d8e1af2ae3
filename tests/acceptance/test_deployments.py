"""Deployments that share one database of Redis: each has a key prefix, or the second one does not take messages."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from celery import Celery, chord

from agno_workers import Client, attach
from agno_workers.broker.app import AgnoCelery
from agno_workers.broker.queues import DEPLOYMENT_KEY
from agno_workers.broker.signing import sign
from agno_workers.streams import Streamed
from tests import invariants
from tests.agents import caller, echo
from tests.conftest import StartWorker
from tests.messages import Quarantined
from tests.places import Place

WAIT_S = 30
PREFIX, KEY = "staging:", "a key of these tests, and of nothing else"
USER = "staging"


@pytest.fixture
def environment(
    environment: dict[str, str], place: Place, redis_client: redis.Redis
) -> Iterator[dict[str, str]]:
    """A deployment whose user of Redis may use only keys and channels with its prefix, as docs/howto-deploy.md shows."""
    redis_client.acl_setuser(
        USER, enabled=True, passwords=["+secret"], keys=[f"{PREFIX}*"], channels=[f"{PREFIX}/{place.servers.number}.celery.pidbox"],
        categories=["+@all", "-@dangerous"], commands=["+info"],
    )  # fmt: skip
    url = place.servers.broker_url.replace("redis+socket://", f"redis+socket://{USER}:secret@")
    yield environment | {"AGNO_BROKER_URL": url, "AGNO_BROKER__KEY_PREFIX": PREFIX, "AGNO_SIGNING__KEYS": KEY}
    redis_client.acl_deluser(USER)


def test_all_keys_and_channels_of_a_deployment_begin_with_its_prefix(
    start_worker: StartWorker, app: AgnoCelery, environment: dict[str, str], place: Place, redis_client: redis.Redis,
    database_url: str,
) -> None:  # fmt: skip
    start_worker("-I", "tests.contract.canvas.plain", concurrency=4, AGNO_WORKER__CANARY_EVERY_S="0.2")
    for strange in ("agents", "tools"):
        redis_client.lpush(strange, "a message of another deployment")
    url = environment["AGNO_BROKER_URL"]
    plain = Celery("plain", broker=url, set_as_current=False)
    plain.conf.broker_transport_options = {"global_keyprefix": PREFIX}
    sign(plain, KEY)
    attached = attach(Celery("attached", broker=url, set_as_current=False))
    sent = [
        each.send_task("agno.run", ["a"], {"agent": "echo"}, queue="agents").id for each in (plain, attached)
    ]
    joined = chord([echo.s("a"), app.signature("plain.upper", ["b"])], app.signature("plain.join")).delay()
    assert caller.delay('add {"a": 1, "b": 2}').get(timeout=WAIT_S) == "3"
    assert joined.get(timeout=WAIT_S) == "<a>+B"
    with Client(database_url, url, key_prefix=PREFIX) as client:
        invariants.until(lambda: {run.id for run in client.runs.list(agent="echo")} >= set(sent))
        assert [client.runs.get(run_id).result(timeout=WAIT_S) for run_id in sent] == ["<a>"] * 2
        run = client.runs.submit("echo", "live")
        assert [each.text for each in run.events(timeout=WAIT_S) if isinstance(each, Streamed)] == ["<live>"]
    redis_client.lpush(f"{PREFIX}agents", "not a message")
    quarantine = Quarantined(database_url)
    assert quarantine.reasons(1) == ["unreadable"]
    assert quarantine()[0]["queue"] == "agents"
    assert app.control.ping(timeout=5, limit=1)
    strangers = [key for key in redis_client.scan_iter() if not key.startswith(PREFIX.encode())]
    assert sorted(strangers) == [b"agents", b"tools"]


def test_worker_stops_when_its_queues_belong_to_another_deployment(
    start_worker: StartWorker, app: AgnoCelery, redis_client: redis.Redis
) -> None:
    worker = start_worker()
    redis_client.set(f"{PREFIX}{DEPLOYMENT_KEY}", "another-id shop_production")  # after it was emptied
    worker.wait_for("belong to another deployment, that of the Postgres database 'shop_production'")
    assert worker.process.wait(timeout=WAIT_S) == 1
    told = [line for line in worker.lines if "another deployment" in line]
    assert len(told) == 1
    assert "AGNO_BROKER__KEY_PREFIX" in told[0]
