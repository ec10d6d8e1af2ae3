"""Servers, proxied connections and workers, and the faults that are injected into them."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import redis

from agno_workers.local import LocalServers
from agno_workers.local.supervised import Supervised
from agno_workers.local.supervisor import ProcessSpec
from tests.chaos.plan import CLIENTS, EVERYBODY, WORKERS, Fault
from tests.chaos.proxy import Mode, Network, Proxy

ROOT = Path(__file__).parents[2]
_WATCH_EVERY_S = 0.1
_READY_S = 60.0
_PASSED_ON = ("HOME", "LANG", "PATH", "PYTHONPATH", "TMPDIR")


class Lines:
    """A proxy to Postgres and one to Redis for each process, so that a partition may cut off only one of them."""

    def __init__(self, network: Network, servers: LocalServers) -> None:
        parts = urlsplit(servers.database_url)
        folder = parse_qs(parts.query)["host"][0]
        self._database = parts.path.lstrip("/")
        self._user = parts.netloc.rstrip("@")
        who = (CLIENTS, *WORKERS)
        self.postgres = {name: network.proxy(f"{folder}/.s.PGSQL.5432") for name in who}
        self.redis = {name: network.proxy(urlsplit(servers.redis_url).path) for name in who}

    def database_url(self, who: str) -> str:
        return f"postgresql://{self._user}@127.0.0.1:{self.postgres[who].port}/{self._database}"

    def redis_url(self, who: str) -> str:
        return f"redis://127.0.0.1:{self.redis[who].port}/0"

    def of(self, lane: str, on: str) -> list[Proxy]:
        lines = self.postgres if lane == "postgres" else self.redis
        return list(lines.values()) if on == EVERYBODY else [lines[on]]

    @property
    def answers_lost(self) -> int:
        return sum(line.swallowed for line in [*self.postgres.values(), *self.redis.values()])


class Fleet:
    """Worker processes; a new one replaces each that ends, as with a service manager."""

    def __init__(
        self, commands: Mapping[str, list[str]], environments: Mapping[str, dict[str, str]], folder: Path
    ) -> None:
        self._commands = commands
        self._environments = environments
        self._folder = folder
        self._workers: dict[str, Supervised] = {}
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self._watch = threading.Thread(target=self._keep_running, name="chaos-fleet", daemon=True)
        self.starts = 0

    def start(self) -> None:
        """Start all, and wait until they are ready."""
        for name in self._commands:
            self._start(name)
        until = time.monotonic() + _READY_S
        while not all(b"ready." in self.log(name).read_bytes() for name in self._commands):
            if time.monotonic() > until or not all(worker.is_running() for worker in self._workers.values()):
                raise RuntimeError(f"the workers were not ready within {_READY_S:.0f} s; their logs say why")
            self._ending.wait(_WATCH_EVERY_S)
        self._watch.start()

    def stop(self) -> None:
        """Kill all workers."""
        self._ending.set()
        if self._watch.is_alive():
            self._watch.join()
        for worker in self._workers.values():
            worker.kill()

    def kill(self, name: str) -> None:
        with self._lock, suppress(ProcessLookupError):  # it may have ended by itself
            self._workers[name].kill()

    def signal(self, name: str, what: signal.Signals) -> None:
        with self._lock, suppress(ProcessLookupError):
            if self._workers[name].is_running():
                os.kill(self._workers[name].pid, what)

    def kill_child(self, name: str) -> bool:
        """Kill one process of a prefork pool; False when it has none at the moment."""
        with self._lock:
            pid = self._workers[name].pid
            try:
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
                os.kill(int(children[0]), signal.SIGKILL)
            except (OSError, IndexError):
                return False
            return True

    def log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _start(self, name: str) -> None:
        environment = {key: os.environ[key] for key in _PASSED_ON if key in os.environ}
        spec = ProcessSpec(
            self._commands[name], str(ROOT), environment | self._environments[name], stop_timeout_s=30.0
        )
        self._workers[name] = Supervised(spec, self.log(name))
        self.starts += 1

    def _keep_running(self) -> None:
        while not self._ending.wait(_WATCH_EVERY_S):
            with self._lock:
                for name, worker in self._workers.items():
                    if not worker.is_running():
                        worker.wait()
                        self._start(name)


def celery_command(app: str, name: str, *more: str) -> list[str]:
    """A Celery worker; the second one of WORKERS has a prefork pool."""
    pool = ["-P", "threads", "-c", "8"] if name == WORKERS[0] else ["-P", "prefork", "-c", "2"]
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        app,
        "worker",
        "-n",
        f"{name}@chaos",
        "-l",
        "INFO",
        *pool,
    ]
    return [*command, "--without-gossip", "--without-mingle", *more]


@dataclass(frozen=True)
class Happened:
    """An injected fault, with its wall-clock times."""

    fault: Fault
    began: float
    ended: float


@dataclass
class Faults:
    """Execute a plan of faults, with one thread per lane. `heal` ends the current faults."""

    plan: list[Fault]
    servers: LocalServers
    lines: Lines
    fleet: Fleet
    happened: list[Happened] = field(default_factory=list)
    failed: list[BaseException] = field(default_factory=list)
    _calm: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def begin(self) -> None:
        began = time.monotonic()
        for lane in sorted({fault.lane for fault in self.plan}):
            mine = [fault for fault in self.plan if fault.lane == lane]
            self._threads.append(
                threading.Thread(target=self._execute_all, args=(mine, began), name=f"chaos-{lane}")
            )
        for thread in self._threads:
            thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for the end of the plan; False when it takes longer."""
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def heal(self) -> None:
        """End all faults, and start whatever was stopped."""
        self._calm.set()
        for thread in self._threads:
            thread.join()
        for line in [*self.lines.postgres.values(), *self.lines.redis.values()]:
            line.set(Mode.PASS)
        self.servers.valkey.start()
        self.servers.postgres.start()
        for name in WORKERS:
            self.fleet.signal(name, signal.SIGCONT)
        if self.failed:
            raise self.failed[0]

    def _execute_all(self, faults: list[Fault], began: float) -> None:
        for fault in faults:
            if self._calm.wait(max(0.0, began + fault.at_s - time.monotonic())):
                return
            at = time.time()
            try:
                with self._fault(fault):
                    self._calm.wait(fault.seconds)
            except Exception as error:  # raised again by `heal`: a fault that can't be done proves nothing
                self.failed.append(error)
                return
            self.happened.append(Happened(fault, at, time.time()))

    @contextmanager
    def _fault(self, fault: Fault) -> Iterator[None]:
        match fault.lane, fault.kind:
            case "workers", "kill -9 of a worker":
                self.fleet.kill(fault.on)
            case "workers", "kill -9 of a pool child":
                self.fleet.kill_child(fault.on)
            case "workers", "SIGTERM of a worker":
                self.fleet.signal(fault.on, signal.SIGTERM)
            case "workers", "pause of a worker":
                with _during(lambda: self.fleet.signal(fault.on, signal.SIGSTOP),
                             lambda: self.fleet.signal(fault.on, signal.SIGCONT)):  # fmt: skip
                    yield
                return
            case _, "FLUSHALL":
                with redis.Redis.from_url(self.servers.redis_url, socket_timeout=10) as client:
                    client.flushall()
            case _, "redis down":
                with _during(self.servers.valkey.kill, self.servers.valkey.start):
                    yield
                return
            case _, "postgres killed":
                self.servers.postgres.kill()
                self.servers.postgres.start()
            case lane, kind:
                with self._line(self.lines.of(lane, fault.on), kind.removeprefix(f"{lane} "), fault):
                    yield
                return
        yield

    @contextmanager
    def _line(self, lines: list[Proxy], kind: str, fault: Fault) -> Iterator[None]:
        dice = random.Random(str(fault))
        for line in lines:
            match kind:
                case "slow":
                    line.set(Mode.SLOW, delay_s=dice.uniform(0.02, 0.2))
                case "connections reset":
                    line.set(Mode.RESET)
                case "silent":
                    line.set(Mode.SILENT)
                case (
                    "answers lost"
                ):  # not all of them: a connection is to get through its greeting now and then
                    line.set(Mode.LOSE_ANSWERS, share=dice.uniform(0.1, 0.4), seed=dice.randrange(2**32))
                case _:
                    raise ValueError(f"unknown kind of fault {fault.kind!r}")
        try:
            yield
        finally:
            for line in lines:
                line.set(Mode.PASS)


@contextmanager
def _during(begin: Callable[[], object], end: Callable[[], object]) -> Iterator[None]:
    begin()
    try:
        yield
    finally:
        end()
