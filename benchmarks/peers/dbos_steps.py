"""Workflows of empty steps on DBOS, as its documentation writes them, in one process that also submits them.

Run by the Python of the peer's own environment: `python dbos_steps.py DATABASE_URL KIND STEPS ALONE AT_ONCE POSTGRES_PID`, with a KIND of
`sequential` or `parallel`. Prints `{"alone_s": [...], "per_s": ..., "cpu_s": ...}`: the times of workflows one by one, the rate of AT_ONCE of
them, and their CPU with that of Postgres.

What was chosen for DBOS, and why: workflows are started in the process, without a queue, which it would poll; steps side by side are
coroutines of one event loop.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time

from dbos import DBOS  # type: ignore[import-not-found,unused-ignore]  # the peer's environment has it, ours does not

from benchmarks.processes import cpu_s


@DBOS.step()  # type: ignore[untyped-decorator,unused-ignore]
def empty(number: int) -> int:
    return number


@DBOS.step()  # type: ignore[untyped-decorator,unused-ignore]
async def empty_beside(number: int) -> int:
    return number


@DBOS.workflow()  # type: ignore[untyped-decorator,unused-ignore]
def sequential(steps: int) -> int:
    for number in range(steps):
        empty(number)
    return steps


@DBOS.workflow()  # type: ignore[untyped-decorator,unused-ignore]
async def parallel(steps: int) -> int:
    return len(await asyncio.gather(*(empty_beside(number) for number in range(steps))))


def main() -> None:
    database_url, kind = sys.argv[1:3]
    steps, alone, at_once, postgres = map(int, sys.argv[3:])
    DBOS(config={"name": "bench", "system_database_url": database_url, "log_level": "ERROR"})
    DBOS.launch()
    workflow = {"sequential": sequential, "parallel": parallel}[kind]
    DBOS.start_workflow(workflow, steps).get_result()  # warms up
    alone_s = []
    for _ in range(alone):
        began = time.perf_counter()
        DBOS.start_workflow(workflow, steps).get_result()
        alone_s.append(time.perf_counter() - began)
    before, began = cpu_s(os.getpid(), postgres), time.perf_counter()
    for handle in [DBOS.start_workflow(workflow, steps) for _ in range(at_once)]:
        handle.get_result()
    per_s, used_s = at_once / (time.perf_counter() - began), cpu_s(os.getpid(), postgres) - before
    print(json.dumps({"alone_s": alone_s, "per_s": per_s, "cpu_s": used_s / at_once}), flush=True)
    DBOS.destroy()


if __name__ == "__main__":
    main()
