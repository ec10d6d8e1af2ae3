"""Where a benchmark plays: real servers with fsync on, and workers of ours and of stock Celery on the same two."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from time import perf_counter

from agno_workers import local, wiring
from agno_workers.database import migrate
from agno_workers.local import LocalServers
from agno_workers.local.supervised import Supervised
from agno_workers.local.supervisor import ProcessSpec
from benchmarks import workload
from benchmarks.peers import stock

ROOT = Path(__file__).parents[1]


def data_folder(name: str) -> Path:
    """Return the folder of a data set that is not a part of this project: the environment variable of that name, or benchmarks/data/<name>."""
    return Path(os.environ.get(name.upper(), ROOT / "benchmarks" / "data" / name))


WARM_S = 120.0
"""How long a worker may take from its start to its first result."""
_INSTALL = (
    "agno is not measured: --agno-python names no Python that has it. "
    "./run uv venv benchmarks/.venv && ./run uv pip install --python benchmarks/.venv 'agno[os]==3.1.10' 'psycopg[binary]'"
)
_QUEUES = ("agents", "tools")
_BRPOP_S = 1.5
"""Longer than a worker still waits in Redis for queues that it has just been told to leave."""


@dataclass(frozen=True)
class Options:
    """The options of the command line."""

    quick: bool = False
    pool: str = "threads"
    concurrency: int = 64
    """Threads or processes of our worker."""
    peer_concurrency: int = 16
    """The same of a worker of stock Celery, which gains nothing by more."""
    agno_python: Path = ROOT / "benchmarks" / ".venv" / "bin" / "python"
    """The Python of an environment with agno in it; the rows beside agno are left out where there is none."""

    def pick(self, full: int, quick: int) -> int:
        """How many: for a real measurement, or for a look whether it works."""
        return quick if self.quick else full

    def lacks_agno(self) -> tuple[str, ...]:
        """Return a note about how to measure agno, too, if it is not there."""
        return () if self.agno_python.exists() else (_INSTALL,)


@dataclass(frozen=True)
class Stage:
    """Servers that run, and this process's services connected to them."""

    servers: LocalServers
    folder: Path
    fsync_s: float
    """The seconds that the disk needs to sync 4 KiB."""

    @property
    def stock_url(self) -> str:
        """The same Valkey, another of its databases."""
        return self.broker_url(1)

    def broker_url(self, database: int) -> str:
        return f"{self.servers.broker_url}?virtual_host={database}"

    def setting(self, options: Options | None = None) -> str:
        servers = f"embedded Postgres 18 and Valkey on this machine, fsync on ({self.fsync_s * 1000:.2g} ms for 4 KiB)"
        if options is None:
            return servers
        return f"{servers}; one worker process: -P {options.pool} -c {options.concurrency}, log level WARNING"

    @contextmanager
    def worker(self, options: Options, *, name: str = "ours", **environment: str) -> Iterator[int]:
        """Start a worker of ours for all queues, warm it up, and yield its process id."""
        with self.celery("agno_workers", options, "-Q", ",".join(_QUEUES), name=name, **environment) as pid:
            _wait_for(name)
            workload.fan_out.delay("2").get(timeout=WARM_S)
            yield pid

    @contextmanager
    def stock_worker(self, options: Options) -> Iterator[int]:
        """Start a worker of stock Celery, warm it up, and yield its process id."""
        peer = replace(options, concurrency=options.peer_concurrency)
        with self.celery("benchmarks.peers.stock", peer, name="stock") as pid:
            stock.fan_out(2).get(timeout=WARM_S)
            yield pid

    @contextmanager
    def celery(self, app: str, options: Options, *more: str, name: str, **environment: str) -> Iterator[int]:
        words = (
            f"celery -A {app} worker -n {name}@bench -l WARNING -P {options.pool} -c {options.concurrency}"
        )
        command = [sys.executable, "-m", *words.split(), "--without-gossip", "--without-mingle", *more]
        with self.process(command, name, **environment) as pid:
            yield pid

    @contextmanager
    def process(self, command: list[str], name: str, **environment: str) -> Iterator[int]:
        """A process that ends with us, even when we are killed; its output goes to a log in `folder`."""
        plain = ("HOME", "LANG", "PATH", "PYTHONPATH", "TMPDIR")
        ours = ("AGNO_", "BENCH_")
        inherited = {key: value for key, value in os.environ.items() if key in plain or key.startswith(ours)}
        spec = ProcessSpec(command, str(ROOT), inherited | environment)
        log = self.folder / f"{name}.log"
        kept = Supervised(spec, log)
        try:
            yield kept.pid
        except Exception as error:
            error.add_note(f"the last words of {name}: {log.read_text(errors='replace')[-2000:]}")
            raise
        finally:
            kept.stop()


class Workers:
    """Workers of ours that take messages in turns."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        """`pids` has the process of each, by its name; at first all take messages."""
        self._pids = pids
        self._listening = set(pids)

    def only(self, *names: str) -> list[int]:
        """Let only these workers take messages, and return their process ids."""
        control = wiring.celery_app().control
        for queue in _QUEUES:
            if left := self._listening - set(names):
                control.cancel_consumer(queue, destination=_nodes(left), reply=True, timeout=WARM_S)
            if new := set(names) - self._listening:
                control.add_consumer(queue, destination=_nodes(new), reply=True, timeout=WARM_S)
        if self._listening - set(names):
            time.sleep(_BRPOP_S)
        self._listening = set(names)
        return [self._pids[name] for name in names]


def _wait_for(name: str) -> None:
    """Until a worker that has just been started listens."""
    control, deadline = wiring.celery_app().control, time.monotonic() + WARM_S
    while not control.ping(destination=_nodes([name]), timeout=1.0):
        if time.monotonic() > deadline:
            raise TimeoutError(f"worker {name} does not answer after {WARM_S:g} s")


def _nodes(names: Iterable[str]) -> list[str]:
    return [f"{name}@bench" for name in names]


@contextmanager
def stage() -> Iterator[Stage]:
    """Fresh servers with an empty, migrated database. Nothing of AGNO_* from outside counts."""
    before = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="agno-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with local.servers(folder, fsync=True) as servers:
            try:
                for variable in [each for each in os.environ if each.startswith("AGNO_")]:
                    del os.environ[variable]
                on_stage = Stage(servers, folder, _fsync_s(folder))
                os.environ |= {
                    "AGNO_DATABASE_URL": servers.database_url,
                    "AGNO_BROKER_URL": servers.broker_url,
                    "AGNO_IMPORTS": "benchmarks.workload,benchmarks.programs",
                    "BENCH_STOCK_URL": on_stage.stock_url,
                }
                migrate.upgrade(servers.database_url)
                wiring.forget()
                stock.connect(on_stage.stock_url)
                yield on_stage
            finally:
                wiring.forget()
                os.environ.clear()
                os.environ |= before


def _fsync_s(folder: Path) -> float:
    took = []
    with (folder / "probe").open("wb", buffering=0) as file:
        for _ in range(20):
            file.write(bytes(4096))
            began = perf_counter()
            os.fsync(file.fileno())
            took.append(perf_counter() - began)
    return median(took)
