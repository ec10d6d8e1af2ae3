"""A worker that can't keep our promises does not start, and says why in one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis

from agno_workers.broker.checks import redis_refusal
from agno_workers.broker.queues import DEPLOYMENT_KEY
from agno_workers.errors import Unavailable
from tests.conftest import ROOT
from tests.forking import inherited
from tests.refusals import REFUSALS, refusing
from tests.servers import Servers


@pytest.fixture(scope="session")
def servers(own_servers: Servers) -> Servers:
    """These tests configure Redis."""
    return own_servers


def refusal(
    environment: dict[str, str], queues: str = "agents", pool: str = "solo", app: str = "agno_workers"
) -> str:
    """Start a worker that is expected to refuse, and return its only line."""
    ended = refused(environment, queues, pool, app)
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("agno-workers: ")]
    assert "Traceback" not in ended.stderr
    return line


def refused(
    environment: dict[str, str], queues: str = "agents", pool: str = "solo", app: str = "agno_workers"
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "celery", "-A", app, "worker", "-Q", queues, "-P", pool]
    ended = subprocess.run(
        command, cwd=ROOT, env=inherited() | environment, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 2, ended.stderr
    return ended


@pytest.mark.parametrize(
    ("app", "pool"),
    [("agno_workers", "prefork"), ("agno_workers", "threads"), ("tests.contract.canvas.shop", "solo")],
)
def test_it_refuses_a_redis_that_throws_queues_away(
    app: str, pool: str, environment: dict[str, str], redis_client: redis.Redis
) -> None:
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        assert "noeviction" in refusal(environment, pool=pool, app=app)
    finally:
        redis_client.config_set("maxmemory-policy", "noeviction")


def test_it_refuses_a_redis_that_refuses_its_commands(
    environment: dict[str, str], redis_client: redis.Redis
) -> None:
    with refusing(redis_client, "NOPERM of a command"):
        assert "Redis refuses BRPOP agents: NOPERM" in refusal(environment)


def test_it_refuses_queues_of_another_deployment(
    environment: dict[str, str], redis_client: redis.Redis
) -> None:
    redis_client.set(DEPLOYMENT_KEY, "another-id shop_production")
    told = refusal(environment)
    assert "belong to another deployment, that of the Postgres database 'shop_production'" in told
    assert "AGNO_BROKER__KEY_PREFIX" in told


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_noticed_and_nothing_is_changed(name: str, redis_client: redis.Redis) -> None:
    assert redis_refusal(redis_client, ["agents"], remote_control=True) is None
    assert redis_client.keys() == []
    with refusing(redis_client, name) as refused:
        redis_client.connection_pool.disconnect(inuse_connections=False)
        try:
            told = redis_refusal(redis_client, ["agents"], remote_control=True)
        except Unavailable as error:
            told = str(error)
        assert refused.told in str(told)
    assert redis_refusal(redis_client, ["agents"], remote_control=True) is None


def test_it_refuses_a_database_that_was_not_migrated(environment: dict[str, str], database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA agno CASCADE")
    assert "agno-workers db upgrade" in refusal(environment)


def test_it_refuses_an_agent_with_a_wrong_field(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(
        "from agno_workers import Agent\nagent = Agent(name='buyer', model='scripted:echo', limits=5)\n"
    )
    told = refused(environment | {"AGNO_IMPORTS": "wrong", "PYTHONPATH": f"{tmp_path}:{ROOT}"}).stderr
    assert "agent 'buyer': limits must be Limits(...), got 5" in told
    assert f'File "{tmp_path}/wrong.py", line 2' in told


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("import asyncio; raise asyncio.CancelledError", "asyncio.exceptions.CancelledError"),
        ("KEY = {}['none']", "KeyError: 'none'"),
    ],
)
def test_it_refuses_a_module_that_raises_and_shows_its_lines(
    code: str, error: str, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "raising.py").write_text(code)
    raising = environment | {"AGNO_IMPORTS": "raising", "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    *lines, raised, sentence = refused(raising).stderr.splitlines()
    place = lines.index(f'  File "{tmp_path}/raising.py", line 1, in <module>')
    assert (lines[place + 1], raised) == (f"    {code}", error)
    said = "agno-workers: the worker does not start: AGNO_IMPORTS names 'raising', which cannot be imported: "
    assert (
        sentence == f"{said}{error.rpartition('.')[2]} ({tmp_path}/raising.py, line 1). Correct the module."
    )


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("AGNO_DATABASE_URL", "postgresql://127.0.0.1:1/nobody", "Postgres can't be reached"),
        ("AGNO_BROKER_URL", "redis://127.0.0.1:1/0", "Redis can't be reached"),
        ("AGNO_IMPORTS", "no.such.module", "no.such.module"),
        ("AGNO_LEASE", "15", "did you mean 'AGNO_RUNS__LEASE_S'"),
    ],
)
def test_it_refuses_a_wrong_setting(environment: dict[str, str], name: str, value: str, told: str) -> None:
    assert told in refusal(environment | {name: value})


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [("AGNO_KNOWLEDGE__SOURCE_ROOTS", "/no/such/folder", "not a folder here"), ("AGNO_KNOWLEDGE__SOURCE_ALLOW", "10.0.0.1/8", "source_allow")],
)  # fmt: skip
def test_one_for_knowledge_refuses_what_can_not_be_kept_to(
    environment: dict[str, str], name: str, value: str, told: str
) -> None:
    assert told in refusal(environment | {name: value}, queues="agents,knowledge")


@pytest.mark.parametrize(
    ("requires", "queues", "told"),
    [
        ("no-lxml; extra == 'knowledge'", "agents,knowledge", "its queue 'knowledge' needs the extra 'knowledge', of which no-lxml is not installed: pip install \"agno-workers[knowledge]\""),
        ("no-obstore; extra == 'objects'", "knowledge", "pip install \"agno-workers[objects]\""),
        ("no-anthropic", "agents", "no-anthropic is not installed: pip install \"agno-workers\""),
        ("", "knowledge", "which can't be imported (ImportError: libmagic.so: no such file)"),
    ],
    ids=["extra", "objects", "always", "broken"],
)  # fmt: skip
def test_it_refuses_what_it_lacks_the_packages_for(
    requires: str, queues: str, told: str, environment: dict[str, str], tmp_path: Path
) -> None:
    """The metadata of another installation, first on the path, requires one package more."""
    metadata = tmp_path / "agno_workers-0.1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: agno-workers\nVersion: 0.1.0\n{requires and 'Requires-Dist: '}{requires}\n")  # fmt: skip
    if not requires:
        (tmp_path / "chardet.py").write_text("raise ImportError('libmagic.so: no such file')")
    changed = {"PYTHONPATH": f"{tmp_path}:{ROOT}", "AGNO_KNOWLEDGE__SOURCE_OBJECTS": "documents"}
    assert told in refusal(environment | changed, queues=queues)
