"""The same faults for a chord of stock Celery: Redis as broker and result backend, with the settings that are recommended
for work that must not be lost (acks_late, reject_on_worker_lost), and a visibility_timeout that fits in our time.
"""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import os
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from celery import Celery, chord

from agno_workers import local
from tests.chaos.cluster import Faults, Fleet, Lines, celery_command
from tests.chaos.history import Verdict
from tests.chaos.ours import Options, Say, telling
from tests.chaos.plan import CLIENTS, WORKERS, Fault, only
from tests.chaos.proxy import Network

KINDS = only(
    "kill -9 of a worker", "kill -9 of a pool child", "pause of a worker", "SIGTERM of a worker",
    "FLUSHALL", "redis down", "redis slow", "redis connections reset", "redis silent", "redis answers lost",
)  # fmt: skip
_WIDTH = 3
_VISIBILITY_S = 5.0
_QUIET_S = 4 * _VISIBILITY_S
"""The seconds without a further end of a chord after which the rest counts as lost."""
_CROWDED = 60
_LOOK_EVERY_S = 0.25


def connected(url: str) -> Celery:
    celery = Celery("chaos_stock", broker=url, backend=url, set_as_current=False)
    celery.conf.update(
        task_default_queue="stock",
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        broker_transport_options={"visibility_timeout": _VISIBILITY_S},
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        redis_socket_timeout=5.0,
    )
    return celery


if "CHAOS_STOCK_URL" in os.environ:  # in its worker
    app = connected(os.environ["CHAOS_STOCK_URL"])

    @app.task(name="stock.part")
    def part(number: int) -> int:
        time.sleep(random.choice((0.005, 0.01, 0.02, 0.05, 0.3)))
        return number

    @app.task(name="stock.body")
    def body(results: list[int], key: str) -> int:
        with Path(os.environ["CHAOS_LEDGER"]).open("ab", buffering=0) as ledger:
            ledger.write(f"{key}\n".encode())
        return len(results)


def run(options: Options, faults: list[Fault], say: Say) -> Verdict:
    """Run chords during faults and a long calm period, and count those whose body ran."""
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="chaos-stock-", ignore_cleanup_errors=True)
            )
        )
        servers = stack.enter_context(local.servers(folder, fsync=options.fsync))
        stack.enter_context(telling(folder, servers))
        lines = Lines(stack.enter_context(Network()), servers)
        ledger = folder / "ledger"
        commands = {name: celery_command("tests.chaos.stock", name, "-Q", "stock") for name in WORKERS}
        environments = {
            name: {"CHAOS_STOCK_URL": lines.redis_url(name), "CHAOS_LEDGER": str(ledger)} for name in WORKERS
        }
        fleet = Fleet(commands, environments, folder)
        stack.callback(fleet.stop)
        fleet.start()
        callers = stack.enter_context(_callers(lines.redis_url(CLIENTS), ledger, options))
        return _play(options, Faults(faults, servers, lines, fleet), callers, ledger, say)


def _play(options: Options, faults: Faults, callers: _Callers, ledger: Path, say: Say) -> Verdict:
    pause = threading.Event()
    began = time.monotonic()
    try:
        faults.begin()
        pause.wait(options.seconds)
        faults.join(options.settle_s)
    finally:
        callers.stop()
        faults.heal()
    say(f"the calm of stock Celery, until nothing has ended for {_QUIET_S:.0f} s")
    callers.join(options.settle_s)
    ended, changed = _ended(ledger), time.monotonic()
    while time.monotonic() < changed + _QUIET_S and callers.acknowledged - set(ended):
        pause.wait(_LOOK_EVERY_S)
        if (now := _ended(ledger)) != ended:
            ended, changed = now, time.monotonic()
    kinds = Counter(happened.fault.kind for happened in faults.happened)
    lost = callers.acknowledged - set(ended)
    counters: dict[str, Any] = {
        "submissions": callers.attempted,
        "attempts to submit": callers.attempted,
        "acknowledged": len(callers.acknowledged),
        "ended well": len(callers.acknowledged) - len(lost),
        "lost": len(lost),
        "duplicated": sum(count > 1 for count in ended.values()),
        "faults": sum(kinds.values()),
        "faults by kind": dict(sorted(kinds.items())),
        "answers lost": faults.lines.answers_lost,
        "workers started": faults.fleet.starts,
        "calm until all had ended, s": round(time.monotonic() - began - options.seconds, 1)
        if not lost
        else "never",
    }
    return Verdict(counters, [f"lost: chord {key}" for key in sorted(lost)])


def _ended(ledger: Path) -> Counter[str]:
    """Count how often the body of each chord ran; the body itself records it, so that a lost result is not a lost chord."""
    return Counter(ledger.read_text().split() if ledger.exists() else [])


class _Callers:
    """Threads that submit chords until they are told to stop. Each has an app of its own, and a new one after an error:
    Celery says itself that "the application must be restarted" once its result backend was away for too long.
    """

    def __init__(self, url: str, ledger: Path, options: Options) -> None:
        self.attempted = 0
        self.acknowledged: set[str] = set()
        self._url = url
        self._ledger = ledger
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(f"{options.seed} stock {number}",), daemon=True)
            for number in range(options.callers)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def join(self, timeout_s: float) -> None:
        for thread in self._threads:
            thread.join(timeout_s / len(self._threads))

    def _work(self, name: str) -> None:
        dice, count, celery = random.Random(name), 0, _caller(self._url)
        while not self._stopping.wait(dice.uniform(0.1, 0.5)):
            with self._lock:
                waiting = len(self.acknowledged - set(_ended(self._ledger)))
            if waiting > _CROWDED + self.attempted // 2:  # of what is lost, nobody waits for the end
                continue
            count += 1
            key = f"{name} {count}".replace(" ", "-")
            with self._lock:
                self.attempted += 1
            try:
                header = [celery.signature("stock.part", [n]) for n in range(_WIDTH)]
                chord(header, celery.signature("stock.body", kwargs={"key": key}), app=celery).apply_async()
            except Exception:  # whatever it was: the caller was not told that it is accepted
                celery.close()
                celery = _caller(self._url)
                continue
            with self._lock:
                self.acknowledged.add(key)
        celery.close()


def _caller(url: str) -> Celery:
    """A result backend without a consumer of results, whose stop takes minutes after an outage."""
    celery = connected(url)
    backend = celery.backend
    backend.on_task_call = lambda *_: {}
    backend.add_pending_result = backend.remove_pending_result = lambda result, *_, **__: result
    return celery


@contextmanager
def _callers(url: str, ledger: Path, options: Options) -> Iterator[_Callers]:
    callers = _Callers(url, ledger, options)
    try:
        yield callers
    finally:
        callers.stop()
        callers.join(30)
