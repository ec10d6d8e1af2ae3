"""Ten tools side by side and what comes after them, beside stock Celery's chord of ten tasks and a body."""

from __future__ import annotations

from statistics import median

from benchmarks.peers import stock
from benchmarks.report import Report, Row
from benchmarks.stage import Options, stage
from benchmarks.timing import alternate, latencies_s, p95, per_s
from benchmarks.workload import fan_out

CHORD = "stock chord of 10 + body"


def run(options: Options) -> Report:
    one_by_one, at_once = options.pick(20, 3), options.pick(100, 10)
    rounds = options.pick(5, 1)
    told: list[str] = []
    with stage() as on_stage, on_stage.worker(options), on_stage.stock_worker(options):
        ours, chords = alternate(
            rounds,
            lambda: latencies_s(lambda: fan_out.delay("10"), one_by_one),
            lambda: latencies_s(lambda: stock.fan_out(10), one_by_one),
            told=told,
        )
        fast, fast_chords = alternate(
            rounds,
            lambda: per_s(lambda: fan_out.delay("10"), at_once),
            lambda: per_s(lambda: stock.fan_out(10), at_once),
            told=told,
        )
        long, long_chords, raw = alternate(
            rounds,
            lambda: per_s(lambda: fan_out.delay("5x3"), at_once),
            lambda: per_s(lambda: stock.fan_out(19), at_once),
            lambda: per_s(lambda: stock.raw(20), at_once),
            told=told,
        )
        setting = on_stage.setting(options)
    rate = f"{at_once} at once"
    return Report(
        name="fanout",
        title="fan-out and body, tools and tasks without work",
        setting=setting,
        rows=(
            Row(
                measure="10 tools and the turn after them, p50", unit="s", ours=tuple(map(median, ours)),
                peer=tuple(map(median, chords)), against=CHORD, aim="<= 0.6x", readme=True,
            ),
            Row(
                measure="the same, p95", unit="s", ours=tuple(map(p95, ours)), peer=tuple(map(p95, chords)), against=CHORD,
            ),
            Row(
                measure=f"the same, {rate}", unit="/s", ours=fast, peer=fast_chords, against=CHORD,
                readme=True,
            ),
            Row(
                measure=f"runs of 6 turns and 5 x 3 tools, {rate}", unit="/s", ours=long, peer=long_chords,
                against="stock chord of 19 + body", aim=">= 5x",
            ),
            Row(
                measure=f"runs of 6 turns and 5 x 3 tools, {rate}", unit="/s", ours=long, peer=raw,
                against="20 stock tasks, nothing after them", aim=">= 1.3x", readme=True,
            ),
        ),
        notes=tuple(told),
    )  # fmt: skip
