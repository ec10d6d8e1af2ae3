"""Submitting many runs at once, beside one by one; and how long a worker takes to bring them to their ends."""

from __future__ import annotations

from time import perf_counter

from agno_workers import wiring
from benchmarks.peers import stock
from benchmarks.report import Report, Row, times
from benchmarks.stage import Options, stage
from benchmarks.submit import one
from benchmarks.timing import WAIT_S, Took, alternate, each
from benchmarks.workload import simple

_SENT = """SELECT extract(epoch FROM max(step.sent_at) - min(batch.created_at))::float8 AS sent_s
FROM agno.batch JOIN agno.run ON run.batch_id = batch.id JOIN agno.step ON step.run_id = run.id WHERE batch.id = %(id)s"""


def run(options: Options) -> Report:
    few, many, calls = options.pick(10_000, 500), options.pick(100_000, 1000), options.pick(300, 20)
    rounds = options.pick(5, 1)
    with stage() as on_stage:
        alternate(1, lambda: each(one, 5), lambda: each(stock.send_noop, 5))  # warms up
        smaller, singles, stocks = alternate(
            rounds, lambda: _map(few), lambda: each(one, calls), lambda: each(stock.send_noop, calls)
        )
        larger = [_map(many) for _ in range(options.pick(2, 1))]
        setting = on_stage.setting(options)
    queued = options.pick(5000, 100)
    drained, by_one, sent = _drain(options, queued, options.pick(2, 1))
    ours = "agent.apply_async, one by one"
    return Report(
        name="bulk",
        title="agent.map: many runs in one transaction",
        setting=f"{setting}; no worker while submitting, {calls} calls a round one by one",
        rows=(
            times(f"submitting {few} runs, per run", smaller, singles, ours),
            times(f"submitting {few} runs, per run", smaller, stocks, "stock apply_async, one by one", "<=0.02x", readme=True),
            times(f"submitting {many} runs, per run", larger, singles, ours),
            Row(measure=f"{queued} runs to their ends", unit="/s", ours=drained, peer=by_one, against=ours),
            Row(measure="the same, until the keeper has sent all", unit="/s", ours=sent),
        ),
        notes=(
            "CPU: of the caller.",
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


def _map(count: int) -> Took:
    inputs = [f"Say hello to number {number}." for number in range(count)]
    whole = each(lambda: simple.map(inputs), 1)
    return Took(whole.wall_s / count, whole.cpu_s / count)
