"""k tools that block for a second, in one turn: how much more than a second does it take?"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.peers import stock
from benchmarks.report import Report, Row
from benchmarks.stage import Options, stage
from benchmarks.timing import alternate, latencies_s
from benchmarks.workload import parallel


def run(options: Options) -> Report:
    widths = (1, 5) if options.quick else (1, 2, 5, 10, 20, 50)
    told: list[str] = []
    roomy = replace(options, concurrency=60, peer_concurrency=60)
    with stage() as on_stage, on_stage.worker(roomy), on_stage.stock_worker(roomy):
        rows = tuple(_row(width, options.pick(3, 1), told) for width in widths)
        setting = on_stage.setting(roomy)
    return Report(
        name="parallel",
        title="k tools that block for 1 s, in one turn",
        setting=setting,
        rows=rows,
        notes=tuple(told),
    )


def _row(width: int, rounds: int, told: list[str]) -> Row:
    ours, chords = alternate(
        rounds,
        lambda: latencies_s(lambda: parallel.delay(str(width)), 1)[0],
        lambda: latencies_s(lambda: stock.parallel(width), 1)[0],
        told=told,
    )
    return Row(
        measure=f"tools of 1 s, {width} at once", unit="s", ours=ours, peer=chords, against="stock chord of as many + body",
        aim="<= 1.15 s" if width == 50 else "",
    )  # fmt: skip
