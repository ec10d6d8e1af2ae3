"""Submitting one by one: a committed row and a message, beside a message alone."""

from __future__ import annotations

from typing import Any

from benchmarks.peers import stock
from benchmarks.report import Report, times
from benchmarks.stage import Options, stage
from benchmarks.timing import alternate, each
from benchmarks.workload import simple


def run(options: Options) -> Report:
    count, rounds = options.pick(300, 20), options.pick(7, 1)
    with stage() as on_stage:
        alternate(1, lambda: each(one, 5), lambda: each(stock.send_noop, 5))  # warms up
        ours, stocks = alternate(rounds, lambda: each(one, count), lambda: each(stock.send_noop, count))
        setting = on_stage.setting()
    return Report(
        name="submit",
        title="agent.delay, one by one",
        setting=f"{setting}; no worker, {count} calls a round",
        rows=(times("one call", ours, stocks, "stock apply_async", "<=2x", readme=True),),
        notes=("what ours returns from is on the disk of Postgres; a stock task is in the memory of Redis. CPU: of the caller.",),
    )  # fmt: skip


def one() -> Any:
    return simple.apply_async(("Say hello.",))
