"""Show the progress of runs: a live table on a terminal, else a line for each change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agno_workers.cli import screen
from agno_workers.core.run import RunStatus
from agno_workers.core.words import printable
from agno_workers.local.demo.pipeline import Watched


class Progress(Protocol):
    def show(self, runs: Sequence[Watched], now: datetime) -> None: ...


@contextmanager
def progress(console: Console) -> Iterator[Progress]:
    if not console.is_terminal:
        yield Lines(console)
        return
    with Live(console=console, refresh_per_second=12) as live:
        yield LiveTable(live)


class LiveTable:
    def __init__(self, live: Live) -> None:
        self._live = live

    def show(self, runs: Sequence[Watched], now: datetime) -> None:
        self._live.update(_table(runs, now, self._live.console.width))


class Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._printed: dict[str, RunStatus] = {}

    def show(self, runs: Sequence[Watched], now: datetime) -> None:  # noqa: ARG002 - a line shows no clock
        for watched in runs:
            run = watched.run
            if self._printed.get(run.id) != run.status:
                self._printed[run.id] = run.status
                took = f" after {screen.took(run.created_at, run.ended_at)}" if run.ended_at else ""
                self._console.print(screen.line(f"{_name(watched)}: {run.status}{took}"))


def _table(runs: Sequence[Watched], now: datetime, width: int) -> Table:
    names = min(max((len(_name(watched)) for watched in runs), default=0), width // 3)
    rows = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for column in (names, 9, 8):
        rows.add_column(
            width=column, no_wrap=True, overflow="ellipsis", justify="right" if column == 8 else "left"
        )
    rows.add_column(no_wrap=True, ratio=1)
    room = width - names - 9 - 8 - 8
    for watched in runs:
        run = watched.run
        rows.add_row(
            _name(watched), screen.status(run.status), screen.took(run.created_at, run.ended_at or now),
            Text(_preview(watched, room), "dim"),
        )  # fmt: skip
    return rows


def _name(watched: Watched) -> str:
    return screen.one_line(f"{watched.run.agent} {watched.name}", 200)


def _preview(watched: Watched, room: int) -> str:
    """Return the end of a text that is being written, or the beginning of a finished one."""
    run = watched.run
    if run.error:
        return screen.one_line(str(run.error.get("message")), room)
    if isinstance(run.content, str):
        return screen.one_line(run.content, room)
    line = printable(" ".join(watched.text.split()))
    return line if len(line) <= room else f"…{line[-max(1, room - 1) :]}"
