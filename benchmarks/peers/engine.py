"""The floor of a run: our engine and its SQL, without Celery and without a message. Threads call what the tasks call.

`python -m benchmarks.peers.engine THREADS COUNT [PID ...]` executes so many runs, on the settings of its environment, and prints
the cost of one as JSON, with the CPU of this process and of those.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from time import perf_counter

import msgspec

from agno_workers import wiring
from agno_workers.core.run import StepKind
from benchmarks.processes import cpu_s
from benchmarks.timing import Cost
from benchmarks.workload import fan_out

WARM = 30
"""Runs before the measured ones: connections, and plans of the statements."""
_SUBMIT = "SELECT agno.submit(%(agent)s, '5x3') FROM generate_series(1, %(count)s)"
_READY = "SELECT run_id::text, id::text AS step_id, generation, kind FROM agno.step WHERE status = 'ready'"


def main() -> None:
    threads, count, *pids = map(int, sys.argv[1:])
    wiring.services().register_agents()
    cost(threads, WARM, [])
    sys.stdout.buffer.write(msgspec.json.encode(cost(threads, count, [os.getpid(), *pids])))


def cost(threads: int, count: int, pids: Sequence[int]) -> Cost:
    """From the first claim to the last end of so many runs that wait in Postgres."""
    services = wiring.services()
    steps: SimpleQueue[tuple[str, str, int, StepKind] | None] = SimpleQueue()
    ended: SimpleQueue[Exception | None] = SimpleQueue()

    def execute() -> None:
        while step := steps.get():
            try:
                run_id, step_id, generation, kind = step
                result = services.handlers[kind].run(run_id, step_id, generation)
                for send in result.sends:
                    steps.put((send.run_id, send.step_id, send.generation, send.kind))
                if result.ended is not None:
                    ended.put(None)
            except Exception as error:
                ended.put(error)

    services.database.pool.run(_SUBMIT, {"agent": fan_out.name, "count": count})
    ready = services.database.pool.run(_READY)
    with ThreadPoolExecutor(threads) as pool:
        try:
            before, began = cpu_s(*pids), perf_counter()
            for row in ready:
                steps.put((row["run_id"], row["step_id"], row["generation"], StepKind(row["kind"])))
            for _ in range(threads):
                pool.submit(execute)
            for _ in range(count):
                if (error := ended.get(timeout=60)) is not None:
                    raise error
            return Cost(count / (perf_counter() - began), (cpu_s(*pids) - before) / count)
        finally:
            for _ in range(threads):
                steps.put(None)


if __name__ == "__main__":
    main()
