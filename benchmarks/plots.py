"""Draw how a cost grows: points, and dashed the power law that fits them best. Needs matplotlib, which only this module imports, when it draws."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import linear_regression, median
from typing import Any

import msgspec

from benchmarks.report import Report, Row, Unit

_UNITS: dict[str, tuple[Unit, float]] = {"ms": ("s", 1e-3), "runs per second": ("/s", 1.0)}
"""Units of axes, and those of rows."""
_NARROW = 6.0
"""Values that differ by less are drawn on a linear axis from 0."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One cost, by the amount of work."""

    image: str
    """The file's name without its ending; lines with the same one are drawn together, a panel for each unit."""
    label: str
    by: str
    """The label of the x axis: the amount of work."""
    unit: str
    """The label of the y axis."""
    x: tuple[float, ...]
    y: tuple[tuple[float, ...], ...]
    """The values that were measured at each x."""

    @property
    def medians(self) -> list[float]:
        return [median(values) for values in self.y]

    @property
    def law(self) -> tuple[float, float]:
        """The c and k of the c * n^k that fits the points best."""
        slope, intercept = linear_regression(list(map(math.log, self.x)), list(map(math.log, self.medians)))
        return math.exp(intercept), slope

    @property
    def last_power(self) -> float:
        """The k between the last two points."""
        (x0, x1), (y0, y1) = self.x[-2:], self.medians[-2:]
        return math.log(y1 / y0) / math.log(x1 / x0)

    def rows(self) -> Iterator[Row]:
        unit, size = _UNITS[self.unit]
        for x, values in zip(self.x, self.y, strict=True):
            measured = tuple(value * size for value in values)
            yield Row(measure=f"{self.label}, {self.by}: {x:,.0f}", unit=unit, ours=measured)
        yield Row(measure=f"{self.label}, grows as n to the power of", unit="", ours=(self.law[1],))
        yield Row(measure="the same, between its last two points", unit="", ours=(self.last_power,))


class Growth(Report, frozen=True, kw_only=True):
    """A report with lines to draw."""

    lines: tuple[Line, ...]


def load() -> Any:
    """Return matplotlib's pyplot, without a screen. Raises ImportError with what to install."""
    try:
        import matplotlib  # noqa: PLC0415 - only plots need it
    except ImportError as error:
        raise ImportError(
            "plots need matplotlib: pip install -e '.[dev]', or `./run`, which has it."
        ) from error
    matplotlib.use("agg")
    from matplotlib import pyplot  # noqa: PLC0415

    return pyplot


def draw(lines: Sequence[Line], folder: Path) -> None:
    """Write `NAME.png` for each image of the lines."""
    folder.mkdir(parents=True, exist_ok=True)
    for image in dict.fromkeys(line.image for line in lines):
        _draw([line for line in lines if line.image == image], folder / f"{image}.png")


def _draw(lines: Sequence[Line], path: Path) -> None:
    pyplot = load()
    units = list(dict.fromkeys(line.unit for line in lines))
    figure, panels = pyplot.subplots(
        1, len(units), figsize=(6.0 * len(units), 4.0), squeeze=False, layout="constrained"
    )
    for panel, unit in zip(panels[0], units, strict=True):
        drawn = [line for line in lines if line.unit == unit]
        for number, line in enumerate(drawn):
            factor, power = line.law
            label = f"{line.label}: n^{power:z.2f}, at the end n^{line.last_power:z.2f}"
            style = {"color": f"C{number}", "linewidth": 1}
            panel.plot(line.x, line.medians, "o-", label=label, **style)
            between = [line.x[0] * (line.x[-1] / line.x[0]) ** (part / 50) for part in range(51)]
            panel.plot(between, [factor * x**power for x in between], "--", **style)
            panel.vlines(line.x, [min(each) for each in line.y], [max(each) for each in line.y], **style)
        panel.set(xscale="log", xlabel=lines[0].by, ylabel=unit)
        panel.set_xticks(lines[0].x, [f"{x:,.0f}" for x in lines[0].x])
        panel.xaxis.minorticks_off()
        values = [value for line in drawn for each in line.y for value in each]
        if max(values) > _NARROW * min(values):
            panel.set_yscale("log")
            panel.set_ylim(top=4 * max(values))  # room for the legend
            panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            panel.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
        else:
            panel.set_ylim(0, 1.15 * max(values))
        panel.grid(alpha=0.3)
        panel.legend(frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
