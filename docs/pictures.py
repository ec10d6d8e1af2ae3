"""Draw the pictures of teams.md and workflows.md: ./run python docs/pictures.py

They show no measurement, so they change only with this file. Needs matplotlib, as the plots of the benchmarks do.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.plots import load

IMAGES = Path(__file__).parent / "img"
_MODEL, _CODE, _WAIT, _LINE = "#cfe2f3", "#fce5cd", "#eeeeee", "#444444"
Point = tuple[float, float]


# Teams: a panel for each mode.


class Panel:
    """A drawing of one mode, in a square of 10 by 10."""

    def __init__(self, axes: Any, title: str, below: str) -> None:
        self._axes = axes
        axes.set(xlim=(0, 10), ylim=(0, 10))
        axes.axis("off")
        axes.set_title(title, fontsize=11, family="monospace", pad=2)
        axes.text(5, -0.2, below, ha="center", va="top", fontsize=8, color=_LINE)

    def box(self, at: Point, text: str, colour: str = _MODEL) -> Point:
        style = {"boxstyle": "round,pad=0.35", "facecolor": colour, "edgecolor": _LINE, "linewidth": 0.8}
        self._axes.text(*at, text, ha="center", va="center", fontsize=8.5, bbox=style, zorder=3)
        return at

    def arrow(
        self, start: Point, end: Point, text: str = "", *, both: bool = False, bend: float = 0.0
    ) -> None:
        style = {
            "arrowstyle": "<|-|>" if both else "-|>", "color": _LINE, "linewidth": 0.9, "shrinkA": 15, "shrinkB": 15,
            "mutation_scale": 9, "connectionstyle": f"arc3,rad={bend}",
        }  # fmt: skip
        self._axes.annotate("", xy=end, xytext=start, arrowprops=style, zorder=2)
        if text:
            middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 - bend * (end[0] - start[0]) / 2
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
            self._axes.text(
                *middle, text, ha="center", va="center", fontsize=7, color=_LINE, bbox=box, zorder=2.5
            )


_THREE: Sequence[Point] = ((1.6, 3.0), (5.0, 3.0), (8.4, 3.0))


def _coordinate(panel: Panel) -> None:
    leader = panel.box((5, 8), "leader")
    for place, name in zip(_THREE, "abc", strict=True):
        panel.arrow(leader, panel.box(place, name), both=True)


def _route(panel: Panel) -> None:
    leader = panel.box((1.6, 7.5), "leader")
    a, b = panel.box((5.0, 4.5), "a"), panel.box((8.4, 7.5), "b")
    user = panel.box((5.0, 1.2), "user", "white")
    panel.arrow(leader, a)
    panel.arrow(a, b, bend=-0.2)
    panel.arrow(b, a, bend=-0.2)
    panel.arrow(a, user, both=True)


def _network(panel: Panel) -> None:
    leader = panel.box((5, 8.3), "leader")
    a, b, c = (
        panel.box(place, name)
        for place, name in zip(((1.6, 4.6), (5.0, 1.6), (8.4, 4.6)), "abc", strict=True)
    )
    for one, other in ((leader, a), (leader, c), (a, b), (b, c), (a, c)):
        panel.arrow(one, other, both=True)


def _broadcast(panel: Panel) -> None:
    program, leader = panel.box((5, 8.6), "request", _CODE), panel.box((5, 1.2), "leader")
    for place, name in zip(((1.6, 4.9), (5.0, 4.9), (8.4, 4.9)), "abc", strict=True):
        member = panel.box(place, name)
        panel.arrow(program, member)
        panel.arrow(member, leader)


def _tasks(panel: Panel) -> None:
    plan = panel.box((5, 8.8), "leader's list", _CODE)
    first, second = panel.box((2.2, 5.8), "task 1: a"), panel.box((7.8, 5.8), "task 2: b")
    third, answer = panel.box((5, 3.3), "task 3: a"), panel.box((5, 0.8), "leader")
    for one, other in ((plan, first), (plan, second), (first, third), (second, third), (third, answer)):
        panel.arrow(one, other)


def _supervise(panel: Panel) -> None:
    member, reviewer = panel.box((1.8, 6.5), "member"), panel.box((8.2, 6.5), "reviewer")
    leader = panel.box((5, 1.2), "leader")
    panel.arrow(member, reviewer, "submits", bend=-0.35)
    panel.arrow(reviewer, member, "revise", bend=-0.35)
    panel.arrow(reviewer, leader, "approve, reject")


def _vote(panel: Panel) -> None:
    box = panel.box((5, 1.6), "most votes", _CODE)
    for place, name, text in zip(((1.6, 7), (5.0, 7), (8.4, 7)), "abc", ("yes", "yes", "no"), strict=True):
        panel.arrow(panel.box(place, name), box, text)


def _debate(panel: Panel) -> None:
    a, b = panel.box((1.8, 7), "a"), panel.box((8.2, 7), "b")
    judge = panel.box((5, 1.6), "judge")
    panel.arrow(a, b, "evidence", both=True)
    panel.arrow(a, judge)
    panel.arrow(b, judge)


_MODES: tuple[tuple[str, str, Callable[[Panel], None]], ...] = (
    ("coordinate", "the leader delegates, reads, answers", _coordinate),
    ("route", "a specialist takes the conversation over", _route),
    ("network", "members consult each other", _network),
    ("broadcast", "all get the request, one answer", _broadcast),
    ("tasks", "a list with needs; what is ready runs", _tasks),
    ("supervise", "a reviewer sends back or approves", _supervise),
    ("vote", "the choice with the most votes", _vote),
    ("debate", "positions change, a judge decides", _debate),
)


def teams() -> None:
    """Draw the modes: in three of them a model chooses the next move (blue), in the others code does (orange)."""
    figure, panels = load().subplots(2, 4, figsize=(11.5, 5.6))
    for axes, (name, below, draw) in zip(panels.flat, _MODES, strict=True):
        draw(Panel(axes, name, below))
    figure.subplots_adjust(left=0.02, right=0.98, top=0.93, bottom=0.07, wspace=0.12, hspace=0.35)
    figure.savefig(IMAGES / "teams.png", dpi=110)


# Workflows: the steps of one run in time.

_STEPS = (
    ("profile", 0.6, 1.5, _MODEL), ("risk", 2.1, 3.6, _MODEL), ("documents", 2.1, 3.1, _MODEL), ("a person approves", 4.2, 6.6, _WAIT),
    ("a timer: 24 h", 7.2, 9.4, _WAIT), ("welcome", 10.0, 11.2, _MODEL),
)  # fmt: skip
"""Each step with its begin, its end and its colour."""
_TURNS = (0.15, 1.65, 3.75, 6.75, 9.55, 11.35)


def workflows() -> None:
    """Draw a run: turns of its function (orange), steps on workers (blue), waits that occupy no worker (grey), and a crash."""
    pyplot = load()
    figure, axes = pyplot.subplots(figsize=(10.5, 3.9))
    for row, (name, begin, end, colour) in enumerate(_STEPS):
        axes.barh(
            -row, end - begin, left=begin, height=0.62, color=colour, edgecolor=_LINE, linewidth=0.8, zorder=3
        )
        axes.text((begin + end) / 2, -row, name, ha="center", va="center", fontsize=8.5, zorder=4)
    axes.barh(
        1.2,
        [0.3] * len(_TURNS),
        left=_TURNS,
        height=0.62,
        color=_CODE,
        edgecolor=_LINE,
        linewidth=0.8,
        zorder=3,
    )
    for number, at in enumerate(_TURNS, 1):
        axes.text(at + 0.15, 1.2, str(number), ha="center", va="center", fontsize=8.5, zorder=4)
        axes.axvline(at + 0.15, color=_LINE, linewidth=0.4, linestyle=":", zorder=1)
    axes.text(-0.15, 1.2, "turns", ha="right", va="center", fontsize=9)
    axes.text(-0.15, -2.5, "steps", ha="right", va="center", fontsize=9)
    axes.plot(5.4, 2.1, marker="x", color="#cc0000", markersize=9, markeredgewidth=2, clip_on=False)
    said = "all workers die here: turn 4 finds what was done, and executes none of it again"
    axes.text(5.6, 2.1, said, va="center", fontsize=8.5, color="#cc0000")
    axes.set(xlim=(-1.2, 11.9), ylim=(-5.6, 2.5))
    axes.axis("off")
    figure.subplots_adjust(left=0.01, right=0.99, top=0.98, bottom=0.02)
    figure.savefig(IMAGES / "workflows.png", dpi=110)


if __name__ == "__main__":
    teams()
    workflows()
