"""Format for a terminal: colours of statuses, lengths of time, texts that must fit a line."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.rule import Rule
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from agno_workers.core.words import BREAKS, printable
from agno_workers.errors import InvalidInput

COLOURS = {
    "queued": "yellow",
    "ready": "yellow",
    "running": "cyan",
    "waiting": "blue",
    "done": "green",
    "failed": "red",
    "dead": "red",
    "unknown": "magenta",
    "cancelled": "dim",
    "alive": "green",
    "silent": "yellow",
    "lost": "red",
    "stopped": "dim",
}


_WIDE = (100_000, 25)
_DRAWING_WIDTH = 80


class _SafeConsole(Console):
    """A console on which only its own styles control the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        if isinstance(renderable, Rule):
            options = (options or self.options).update(width=drawing_width(self))
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def console(*, stderr: bool = False, wide: bool = False) -> Console:
    """Return a console as wide as the terminal. `wide`, or without a terminal: one that cuts and wraps nothing.

    Texts have no markup: they may be foreign.
    """
    stream = sys.stderr if stderr else sys.stdout
    width, height = (None, None) if stream.isatty() and not wide else _WIDE
    return _SafeConsole(
        stderr=stderr, highlight=False, markup=False, emoji=False, soft_wrap=False, width=width, height=height
    )


def is_wide(console: Console) -> bool:
    """Return True for a console that cuts nothing off."""
    return console.width == _WIDE[0]


def drawing_width(console: Console) -> int:
    """Return the width of lines and bars, which fill a terminal; a file has no width."""
    return _DRAWING_WIDTH if is_wide(console) else console.width


def echo(text: str, *, err: bool = False) -> None:
    """Print text that may be foreign, and a line break."""
    typer.echo(printable(text), err=err)


def table(
    width: int, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], right: Collection[str] = ()
) -> Table:
    """Return a plain table in which only the last column is shortened to fit."""
    cells = [
        [cell if isinstance(cell, Text) else Text(printable(cell, one_line=True)) for cell in row]
        for row in rows
    ]
    wide = [max(len(name), *(row[place].cell_len for row in cells), 0) for place, name in enumerate(columns)]
    wide[-1] = max(8, min(wide[-1], width - sum(wide[:-1]) - 2 * (len(wide) - 1)))
    plain = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name, cells_wide in zip(columns, wide, strict=True):
        plain.add_column(
            name,
            width=cells_wide,
            no_wrap=True,
            overflow="ellipsis",
            justify="right" if name in right else "left",
        )
    for row in cells:
        plain.add_row(*row)
    return plain


def line(*parts: str | tuple[str, str] | Text) -> Text:
    """Assemble a line: line breaks in its texts, which may be foreign, become blanks."""
    text = Text.assemble(*parts)
    text.plain = text.plain.translate(BREAKS)
    return text


def status(word: str) -> Text:
    return Text(word, style=COLOURS.get(word, ""))


def took(begin: datetime | None, end: datetime | None) -> str:
    """Return the time between two moments; empty if one is unknown."""
    return length(end - begin) if begin and end else ""


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_LONGEST = timedelta(days=36500)


def json_or_text(value: str) -> Any:
    """Return a value that was typed: JSON if it is that, else the text."""
    try:
        return msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeError):
        return value


def must_agree(question: str) -> None:
    """Ask, and end the command without a yes. Raises InvalidInput where nobody can answer."""
    if not sys.stdin.isatty():
        raise InvalidInput(f"stdin is not a terminal, so nobody can answer: {question} Add --yes to agree.")
    typer.confirm(question, abort=True)


SINCE = typer.Option(None, "--since", metavar="TIME", help="Only those of the last 90s, 15m, 2h or 7d.")
AS_JSON = typer.Option(False, "--json", help="Print JSON, with whole ids.")
WIDE = typer.Option(False, "--wide", help="Show whole ids, and cut nothing off.")
YES = typer.Option(False, "--yes", help="Do not ask.")


def span(text: str | None, option: str) -> timedelta | None:
    """Read `90s`, `15m`, `2h`, `7d` or `1w`. Raises InvalidInput, which names the option."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,12}(?:\.\d{1,6})?)([smhdw])", text.strip())
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < seconds <= _LONGEST.total_seconds():
        raise InvalidInput(f"{option} {text!r} is not a length of time: use 90s, 15m, 2h or 7d.")
    return timedelta(seconds=seconds)


def length(span: timedelta) -> str:
    """Format a length of time: `4 ms`, `1.3 s`, `2 min 5 s`, `3 h 10 min`, `4 d`."""
    seconds = max(0.0, span.total_seconds())
    if seconds < 0.9995:
        if seconds == 0:
            return "0 s"
        return f"{seconds * 1000:.1f} ms" if seconds < 0.00995 else f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.0f} s" if seconds == int(seconds) else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d"


def one_line(text: str, width: int) -> str:
    """Return the beginning of a text on one line, as it can be printed."""
    return cut(printable(" ".join(text.split())), width)


def cut(line: str, width: int) -> str:
    """Return a line, or as much of its beginning as fits, with a mark."""
    return line if len(line) <= width else f"{line[: max(0, width - 1)]}…"


def count(number: int, noun: str) -> str:
    """Return `1 run` or `1,000 runs`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def as_json(value: Any) -> str:
    """Return JSON that a terminal can show: what it must not see is escaped by JSON itself."""
    return printable(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def age(when: datetime | None, now: datetime) -> str:
    """Return how long ago something happened, in one unit."""
    return (
        " ".join(length(timedelta(seconds=round((now - when).total_seconds()))).split()[:2]) if when else ""
    )


def plain(value: Any) -> dict[str, Any]:
    """Return a struct as JSON-like values."""
    built: dict[str, Any] = msgspec.to_builtins(value)
    return built


def indented(text: str | Text) -> Padding:
    """Indent a text by two columns, also where it wraps."""
    return Padding(text if isinstance(text, Text) else Text(text), (0, 0, 0, 2), expand=False)


def hanging(paragraph: Text, indent: int) -> Table:
    """Print the first `indent` characters of a paragraph, and wrap the rest to their right."""
    rows = Table.grid()
    rows.add_column(width=indent, no_wrap=True)
    rows.add_column(overflow="fold")
    whole = line(paragraph)
    rows.add_row(whole[:indent], whole[indent:])
    return rows


def dollars(usd: float) -> str:
    """Format US dollars, with more decimals for a small amount."""
    return f"${usd:.2f}" if usd == 0 or usd >= 0.1 else f"${usd:.6f}".rstrip("0")
