"""Submitting many runs at once, beside one by one; and how long a worker takes to bring them to their ends."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from agno_workers import wiring
from benchmarks.peers import stock
from benchmarks.report import Report, Row
from benchmarks.stage import Options, stage
from benchmarks.timing import WAIT_S, alternate, each_s
from benchmarks.workload import simple

_SENT = """SELECT extract(epoch FROM max(step.sent_at) - min(batch.created_at))::float8 AS sent_s
FROM agno.batch JOIN agno.run ON run.batch_id = batch.id JOIN agno.step ON step.run_id = run.id WHERE batch.id = %(id)s"""


def run(options: Options) -> Report:
    few, many, calls = options.pick(10_000, 500), options.pick(100_000, 1000), options.pick(300, 20)
    rounds = options.pick(5, 1)
    with stage() as on_stage:
        each_s(_ours, 5)
        each_s(stock.send_noop, 5)
        smaller, singles, stocks = alternate(
            rounds,
            lambda: _map_s(few),
            lambda: each_s(_ours, calls),
            lambda: each_s(stock.send_noop, calls),
        )
        larger = tuple(_map_s(many) for _ in range(options.pick(2, 1)))
        setting = on_stage.setting(options)
    queued = options.pick(5000, 100)
    drained, by_one, sent = _drain(options, queued, options.pick(2, 1))
    ours, celery = "agent.apply_async, one by one", "stock apply_async, one by one"
    return Report(
        name="bulk",
        title="agent.map: many runs in one transaction",
        setting=f"{setting}; no worker while submitting, {calls} calls a round one by one",
        rows=(
            Row(
                measure=f"submitting {few} runs, per run",
                unit="s",
                ours=smaller,
                peer=singles,
                against=ours,
                aim="<=0.02x",
                readme=True,
            ),
            Row(measure=f"submitting {few} runs, per run", unit="s", ours=smaller, peer=stocks, against=celery, readme=True),
            Row(measure=f"submitting {many} runs, per run", unit="s", ours=larger, peer=singles, against=ours),
            Row(measure=f"{queued} runs to their ends", unit="/s", ours=drained, peer=by_one, against=ours),
            Row(measure="the same, until the keeper has sent all", unit="/s", ours=sent),
        ),
        notes=(
            "both of ours are on the disk of Postgres when they return; a stock task is in the memory of Redis.",
            "to their ends: from the first submit to the last result, with one worker, runs of one turn.",
        ),
    )  # fmt: skip


def _drain(options: Options, count: int, rounds: int) -> tuple[tuple[float, ...], ...]:
    """Runs a second of a batch and of single runs; and runs per second that the keeper sent."""
    sent: list[float] = []

    def batch() -> float:
        began = perf_counter()
        submitted = simple.map(["Say hello."] * count)
        submitted.wait(timeout=count / 10 + WAIT_S)
        took = perf_counter() - began
        (row,) = wiring.services().database.pool.run(_SENT, {"id": submitted.id})
        sent.append(count / row["sent_s"])
        return count / took

    def singles() -> float:
        began = perf_counter()
        some = count // 5
        for result in [simple.delay("Say hello.") for _ in range(some)]:
            result.get(timeout=some / 10 + WAIT_S)
        return some / (perf_counter() - began)

    with stage() as on_stage, on_stage.worker(options):
        ours, peers = alternate(rounds, batch, singles)
    return ours, peers, tuple(sent)


def _map_s(count: int) -> float:
    inputs = [f"Say hello to number {number}." for number in range(count)]
    began = perf_counter()
    simple.map(inputs)
    return (perf_counter() - began) / count


def _ours() -> Any:
    return simple.apply_async(("Say hello.",))
