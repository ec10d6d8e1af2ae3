"""Texts of others, as a terminal and a log may show them."""

from __future__ import annotations

import io
import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agno_workers.cli import screen
from agno_workers.core.logs import SafeFormatter
from agno_workers.core.words import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 日本語 नमस्ते", "plain ü 日本語 नमस्ते"),
        ("a\tb\nc", "a\tb\nc"),
        ("a\r\nb\rc", "a\nb\\u000dc"),
        ("\x1b[31mred\x1b]8;;x\x07", "\\u001b[31mred\\u001b]8;;x\\u0007"),
        ("\x9b31m\x85\x7f\0", "\\u009b31m\\u0085\\u007f\\u0000"),
        ("\u202egpj.exe\u2066\u200f", "\\u202egpj.exe\\u2066\\u200f"),
        ("pay\u200bpal ad\u200dmin \u2060\ufeff\u00ad\u3164", "pay\\u200bpal ad\\u200dmin \\u2060\\ufeff\\u00ad\\u3164"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\U000e0041", "\\udb40\\udc41"),
        ("caf\udce9.txt", "caf\\udce9.txt"),
        ("می\u200cخواهم क\u094d\u200dष", "می\u200cخواهم क\u094d\u200dष"),  # where it is spelling
        ("👩\u200d💻 ❤\ufe0f\u200d🔥", "👩\u200d💻 ❤\ufe0f\u200d🔥"),
    ],
)  # fmt: skip
def test_what_controls_a_terminal_or_can_not_be_seen_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_escaped_json_is_the_same_json(text: str) -> None:
    encoded = screen.as_json({text: [text]})
    assert json.loads(encoded) == {text: [text]}
    assert printable(encoded) == encoded


def test_one_line_has_no_line_breaks() -> None:
    assert printable("a\r\nb\u2028c\x85d\te", one_line=True) == "a  b c d e"


def test_console_prints_foreign_text_without_markup_links_and_emoji() -> None:
    console = screen.console()
    console.file = io.StringIO()
    for shown in ("[red]x[/] [link=u]y[/link] :smile: \x1b]8;;u\x07", screen.line("a\nb\x1b[31m"), screen.table(80, ("a",), [("x\ny\x9b",)])):  # fmt: skip
        console.print(shown)
    assert [line.rstrip() for line in console.file.getvalue().splitlines()] == [
        "[red]x[/] [link=u]y[/link] :smile: \\u001b]8;;u",
        "a b\\u001b[31m",
        "a",
        "x y\\u009b",
    ]


def _raised() -> BaseException:
    try:
        try:
            raise ValueError("no\n[forged]\x1b[31m")
        except ValueError as error:
            error.add_note("a note\n[forged]")
            raise KeyError("other") from error
    except KeyError as error:
        return error


RECORDS: dict[str, dict[str, Any]] = {
    "argument": {"msg": "turn failed: %s", "args": ("no\n[forged]\r[forged]\u2028[forged]",)},
    "exception": {"msg": "turn raised", "exc_info": (KeyError, _raised(), None)},
    "field": {"msg": "tool raised", "agent": "a\n[forged]"},
    "redirected output": {"msg": "printed\n[forged]\n"},
}


@pytest.mark.parametrize("fields", RECORDS.values(), ids=RECORDS)
def test_foreign_text_begins_no_line_of_a_log(fields: dict[str, Any]) -> None:
    formatter = SafeFormatter(logging.Formatter("[time] %(message)s %(agent)s", defaults={"agent": ""}))
    record = logging.makeLogRecord(fields)
    written = formatter.format(record)
    first, *further = written.splitlines()
    assert first.startswith("[time] ")
    assert all(line.startswith("  | ") for line in further)
    assert "\x1b" not in written
    assert vars(record) == vars(logging.makeLogRecord(fields)) | {
        name: getattr(record, name) for name in ("created", "msecs", "relativeCreated")
    }


def test_commands_print_by_screen_only() -> None:
    """Exceptions: the version, the bytes of metrics, and two that call `printable` themselves: an error, and pieces of an answer."""
    folder = Path(screen.__file__).parent
    found = {
        f"{path.name}: {call}"
        for path in folder.glob("*.py")
        if path.name != "screen.py"
        for call in re.findall(
            r"(?<![.\w])(?<!def )(print|Console|typer\.s?echo|sys\.std\w+\.write)\(", path.read_text()
        )
    }
    assert found == {
        "main.py: typer.echo",
        "main.py: sys.stderr.write",
        "metrics.py: typer.echo",
        "run.py: sys.stdout.write",
    }
