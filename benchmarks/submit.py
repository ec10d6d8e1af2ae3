"""Submitting one by one: a committed row and a message, beside a message alone."""

from __future__ import annotations

from typing import Any

from benchmarks.peers import stock
from benchmarks.report import Report, Row
from benchmarks.stage import Options, stage
from benchmarks.timing import alternate, each_s
from benchmarks.workload import simple


def run(options: Options) -> Report:
    count, rounds = options.pick(300, 20), options.pick(7, 1)
    with stage() as on_stage:
        each_s(_ours, 5)
        each_s(stock.send_noop, 5)
        ours, stocks = alternate(rounds, lambda: each_s(_ours, count), lambda: each_s(stock.send_noop, count))
        setting = on_stage.setting()
    return Report(
        name="submit",
        title="agent.delay, one by one",
        setting=f"{setting}; no worker, {count} calls a round",
        rows=(
            Row(
                measure="one call", unit="s", ours=ours, peer=stocks, against="stock apply_async", readme=True
            ),
        ),
        notes=("what ours returns from is on the disk of Postgres; a stock task is in the memory of Redis.",),
    )


def _ours() -> Any:
    return simple.delay("Say hello.")
