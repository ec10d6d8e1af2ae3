"""The rows of benchmarks: their aims, and the laws that are fitted to growing costs."""

from __future__ import annotations

import pytest

from benchmarks.plots import Line
from benchmarks.report import Row, judged


@pytest.mark.parametrize(
    ("aim", "is_met"),
    [
        (">=2x", True),
        (">= 2.5x", False),
        ("<=5 ms", True),
        ("< 3 ms", False),
        ("<=34 ms CPU", True),
        ("<=33 ms CPU", False),
    ],
)
def test_an_aim_is_of_the_ratio_the_value_or_the_cpu(aim: str, is_met: bool) -> None:
    row = Row(measure="a run", unit="s", ours=(0.004,), cpu=(0.0335,), peer=(0.002,), aim=aim)
    assert judged(row) == [f"{aim} {'✓' if is_met else '✗'}"]


def test_an_aim_that_cannot_be_read_is_refused() -> None:
    with pytest.raises(ValueError, match="'fast'"):
        judged(Row(measure="a run", unit="s", ours=(1.0,), aim="fast"))


def test_the_law_of_a_line_is_its_power() -> None:
    line = Line(image="", label="", by="", unit="ms", x=(1, 10, 100), y=((3.0,), (29.0, 31.0), (300.0,)))
    factor, power = line.law
    assert (round(factor, 2), round(power, 2), round(line.last_power, 2)) == (3.0, 1.0, 1.0)
