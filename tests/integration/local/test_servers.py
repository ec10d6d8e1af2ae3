"""The local servers: what survives a restart or a kill, that nothing is left behind, and who may use them."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from kombu import Connection

from agno_workers import local
from agno_workers.errors import EmbeddedError
from agno_workers.local import postgres, state, supervisor

NOBODY = 65534

# Starts both servers on the given folder, prints their process ids, and waits to be killed.
LAUNCHER = """
import signal, sys
from pathlib import Path
from agno_workers import local
both = local.start(Path(sys.argv[1]), fsync=False)
print(both.postgres.pid, both.valkey.pid, flush=True)
signal.pause()
"""


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def a_folder_of_nobody() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="agno-test-"))
    os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


def test_both_answer_and_leave_nothing_behind(state_dir: Path) -> None:
    before, others = modes_above(state_dir), descendants(os.getpid())
    with local.servers(state_dir) as servers:
        family = [pid for pid in descendants(os.getpid()) if pid not in others]
        with psycopg.connect(servers.database_url) as connection:
            connection.execute("CREATE EXTENSION vector")
            row = connection.execute(
                "SELECT '[3,4]'::vector <-> '[0,0]', upper('é'), current_setting('fsync')"
            ).fetchone()
        assert row == (5.0, "É", "on")
        assert redis.Redis.from_url(servers.redis_url).config_get("maxmemory-policy") == {
            "maxmemory-policy": "noeviction"
        }
        with Connection(servers.broker_url) as broker:
            broker.SimpleQueue("greetings").put("hello")
            assert broker.SimpleQueue("greetings").get(timeout=5).payload == "hello"
        sockets = [servers.postgres.socket_dir, servers.valkey.socket_dir]
        assert all(folder.exists() for folder in sockets)

    assert len(family) > 6
    wait_until_gone(family)
    assert not any(folder.exists() for folder in sockets)
    assert modes_above(state_dir) == before


@pytest.mark.parametrize(("memory_mb", "buffers_mb"), [(256, 64), (2048, 256), (4096, 512), (65536, 512)])
def test_buffers_of_postgres_are_an_eighth_of_the_memory_within_limits(
    memory_mb: int, buffers_mb: int
) -> None:
    assert postgres._shared_buffers_mb(memory_mb) == buffers_mb


def test_memory_of_a_container_is_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(postgres, "_MEMORY_LIMIT", limit)
    machine_mb = postgres._memory_mb()
    limit.write_text("max\n")
    assert postgres._memory_mb() == machine_mb > 64
    limit.write_text(f"{64 * 2**20}\n")
    assert postgres._memory_mb() == 64


def test_neither_listens_on_the_network(state_dir: Path) -> None:
    with local.servers(state_dir, fsync=False) as servers:
        for pid in (servers.postgres.pid, servers.valkey.pid):
            files = [str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()]
            assert not tcp_sockets() & set(files)
        assert servers.postgres.socket_dir.stat().st_mode & 0o066 == 0
        assert servers.valkey.socket_dir.stat().st_mode & 0o077 == 0


def test_data_survives_a_restart_and_a_kill_and_is_gone_when_fresh(state_dir: Path) -> None:
    postgres, valkey = local.Postgres(state_dir), local.Valkey(state_dir)
    with postgres, valkey:
        urls = postgres.database_url, valkey.redis_url
        write(postgres, valkey, 1)
        for server in (postgres, valkey):
            server.stop()
            server.start()
        assert read(postgres, valkey) == [1]

        write(postgres, valkey, 2)
        postgres.kill()
        valkey.kill()
        postgres.start()
        valkey.start()
        assert read(postgres, valkey) == [1, 2]

        postgres.stop()
        valkey.stop()
        postgres.start(fresh=True)
        valkey.start(fresh=True)
        assert read(postgres, valkey) == []
        assert urls == (postgres.database_url, valkey.redis_url)


@pytest.mark.parametrize("name", ["postgres", "valkey"])
def test_a_kill_leaves_no_child(state_dir: Path, name: str) -> None:
    server = {"postgres": local.Postgres, "valkey": local.Valkey}[name](state_dir)
    others = descendants(os.getpid())
    server.start()
    family = [pid for pid in descendants(os.getpid()) if pid not in others]
    server.kill()
    wait_until_gone(family)


def test_they_end_when_their_parent_is_killed(state_dir: Path) -> None:
    with launch(state_dir) as launcher:
        family = descendants(launcher.pid)
        assert len(family) > 6
        launcher.kill()
        wait_until_gone(family)

    with local.servers(state_dir, fsync=False) as servers:  # the next start works
        assert psycopg.connect(servers.database_url).execute("SELECT 1").fetchone() == (1,)


def test_they_end_when_their_supervisors_are_killed(state_dir: Path) -> None:
    with launch(state_dir) as launcher:
        family = descendants(launcher.pid)
        for supervisor_pid in children(launcher.pid):
            os.kill(supervisor_pid, signal.SIGKILL)
        wait_until_gone(family)
    local.start(state_dir, fsync=False).stop()  # the next start removes their remains


def test_they_outlive_the_thread_that_started_them(state_dir: Path) -> None:
    valkey = local.Valkey(state_dir)
    thread = threading.Thread(target=valkey.start)
    thread.start()
    thread.join()
    with valkey:
        ended, _, _ = select.select([os.pidfd_open(valkey.pid)], [], [], 2 * supervisor.CHECK_EVERY_S)
        assert not ended
        assert redis.Redis.from_url(valkey.redis_url).ping()


def test_a_second_launcher_is_refused_with_the_pid_of_the_first(state_dir: Path) -> None:
    with launch(state_dir) as launcher:
        with pytest.raises(
            EmbeddedError, match=f"in use by process {launcher.pid}: stop that process"
        ) as caught:
            local.start(state_dir)
        assert caught.value.ids["pid"] == launcher.pid


def test_a_launcher_waits_for_the_servers_of_one_that_died(state_dir: Path) -> None:
    with launch(state_dir) as launcher:
        launcher.kill()
    local.start(state_dir, fsync=False).stop()


def test_a_long_state_path_and_odd_characters_do_not_matter(tmp_path: Path) -> None:
    with local.servers(tmp_path / ("long " * 20) / "ünïcode?&#%" / ("x" * 100), fsync=False) as servers:
        assert psycopg.connect(servers.database_url).execute("SELECT 1").fetchone() == (1,)
        assert redis.Redis.from_url(servers.redis_url).ping()


def test_an_unfinished_cluster_is_created_again(state_dir: Path) -> None:
    (state_dir / "postgres.new").mkdir(parents=True)
    (state_dir / "postgres.new" / "PG_VERSION").write_text("18\n")
    with local.Postgres(state_dir, fsync=False) as postgres:
        assert psycopg.connect(postgres.database_url).execute("SELECT 1").fetchone() == (1,)


def test_data_of_another_version_is_refused(state_dir: Path) -> None:
    with local.Postgres(state_dir, fsync=False):
        pass
    (state_dir / "postgres" / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedError, match="data of Postgres 17, but this is Postgres 18"):
        local.Postgres(state_dir).start()


def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError, match=r"can't be written to .*: set AGNO_STATE_DIR"):
        local.start(tmp_path / "file" / "state")


def test_a_server_that_cannot_start_reports_the_reason(state_dir: Path) -> None:
    with local.Postgres(state_dir, fsync=False) as postgres:
        pass
    (postgres.data_dir / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(EmbeddedError, match=r"did not start: .*The log is"):
        postgres.start()
    state.lock(state_dir, "postgres")  # and it is free again


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change its user")
def test_an_ordinary_user_can_run_them_too(a_folder_of_nobody: Path) -> None:
    python = python_for_everybody()
    with launch(a_folder_of_nobody / "state", python, user=NOBODY) as launcher:
        family = descendants(launcher.pid)
        assert len(family) > 6
        assert Path(f"/proc/{launcher.pid}").stat().st_uid == NOBODY
        launcher.kill()
        wait_until_gone(family)


@pytest.mark.skipif(os.geteuid() != 0, reason="Postgres changes its user only as root")
def test_as_root_only_postgres_changes_its_user(state_dir: Path) -> None:
    state_dir.mkdir(mode=0o700)  # a folder that user can't enter
    with local.servers(state_dir, fsync=False) as servers:
        assert Path(f"/proc/{servers.postgres.pid}").stat().st_uid == NOBODY
        assert Path(f"/proc/{servers.valkey.pid}").stat().st_uid == 0
        assert state_dir.stat().st_uid == 0
        assert state_dir.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="programs are copied only for another user")
def test_programs_that_nobody_can_reach_are_copied(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agno_workers.local.postgres._anyone_can_run", lambda program: False)
    with local.Postgres(state_dir, fsync=False) as postgres:
        program = str(Path(f"/proc/{postgres.pid}/exe").readlink())
        assert program.startswith(str(postgres.socket_dir))
        with psycopg.connect(postgres.database_url) as connection:
            connection.execute("CREATE EXTENSION vector")


def write(postgres: local.Postgres, valkey: local.Valkey, number: int) -> None:
    with psycopg.connect(postgres.database_url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS numbers (n int)")
        connection.execute("INSERT INTO numbers VALUES (%s)", [number])
    redis.Redis.from_url(valkey.redis_url).rpush("numbers", number)


def read(postgres: local.Postgres, valkey: local.Valkey) -> list[int]:
    with psycopg.connect(postgres.database_url) as connection:
        there = connection.execute("SELECT to_regclass('numbers') IS NOT NULL").fetchone() == (True,)
        rows = [n for (n,) in connection.execute("SELECT n FROM numbers ORDER BY n")] if there else []
    kept = redis.Redis.from_url(valkey.redis_url).lrange("numbers", 0, -1)
    assert rows == [int(n) for n in kept]
    return rows


@contextmanager
def launch(
    state_dir: Path, python: str = sys.executable, user: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start a program that starts both servers; it is killed at the end of the block."""
    become: dict[str, Any] = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    environment = {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [python, "-c", LAUNCHER, str(state_dir)],
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        env=environment,
        **become,
    ) as launcher:
        try:
            assert launcher.stdout
            assert launcher.stdout.readline(), "the launcher could not start its servers"
            yield launcher
        finally:
            launcher.kill()


def children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []  # it ended meanwhile


def descendants(pid: int) -> list[int]:
    return [found for child in children(pid) for found in (child, *descendants(child))]


def wait_until_gone(pids: list[int]) -> None:
    """Wait until each of these processes has ended."""
    for pid in pids:
        try:
            watch = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ended, _, _ = select.select([watch], [], [], 30)
        os.close(watch)
        assert ended, f"process {pid} is still there: {Path(f'/proc/{pid}/cmdline').read_text()}"


def python_for_everybody() -> str:
    """Return a Python of our version that any user may run: ours may be installed in root's home."""
    for folder in (Path(sys.executable).parent, Path("/usr/local/bin"), Path("/usr/bin")):
        python = folder / f"python3.{sys.version_info.minor}"
        try:
            subprocess.run([python, "-c", ""], user=NOBODY, group=NOBODY, extra_groups=[], check=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return str(python)
    return pytest.skip("no Python of this version that an ordinary user may run")


def modes_above(folder: Path) -> dict[Path, int]:
    return {parent: parent.stat().st_mode for parent in folder.parents}


def tcp_sockets() -> set[str]:
    """Return the TCP sockets as a process's open files name them."""
    tables = [table for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")) if table.exists()]
    return {f"socket:[{line.split()[9]}]" for table in tables for line in table.read_text().splitlines()[1:]}
