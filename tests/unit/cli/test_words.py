"""The format of times, amounts, texts and addresses on the command line."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import pytest

from agno_workers.cli.connection import without_password
from agno_workers.cli.ids import short_ids
from agno_workers.cli.screen import age, console, dollars, length, one_line, table

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.00423, "4.2 ms"),
        (0.0423, "42 ms"),
        (1.25, "1.2 s"),
        (3, "3 s"),
        (59.99, "1 min 0 s"),
        (125, "2 min 5 s"),
        (3 * 3600 + 600, "3 h 10 min"),
        (80 * 3600, "3 d"),
        (-1, "0 s"),
    ],
)
def test_length_of_time_has_one_or_two_units(seconds: float, said: str) -> None:
    assert length(timedelta(seconds=seconds)) == said


def test_age_has_one_unit() -> None:
    assert age(ago(125), NOW) == "2 min"
    assert age(None, NOW) == ""


def test_text_is_shortened_to_one_line() -> None:
    assert one_line("a\n  b", 10) == "a b"
    assert one_line("abcdef", 4) == "abc…"


def test_only_the_last_column_of_a_table_is_shortened() -> None:
    built = table(20, ("id", "text"), [("0123456789", "long " * 10)])
    assert [column.width for column in built.columns] == [10, 8]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host:5432/db", "postgresql://me:***@host:5432/db"),
        ("redis://:secret@host/0", "redis://:***@host/0"),
        ("redis://host/0", "redis://host/0"),
        ("postgresql://agno@/agno?host=/tmp/s", "postgresql://agno@/agno?host=/tmp/s"),
    ],
)
def test_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize(
    ("usd", "said"), [(0, "$0.00"), (1, "$1.00"), (12.345, "$12.35"), (0.1, "$0.10"), (0.0042, "$0.0042")]
)
def test_amount_has_the_decimals_that_it_needs(usd: float, said: str) -> None:
    assert dollars(usd) == said


def test_short_ids_are_as_long_as_tells_them_apart() -> None:
    first, second = "0198c0de-0000-7000-8000-00000000abcd", "0198c0de-0000-7000-8000-10000000abcd"
    assert short_ids([first, first]) == {first: "0000abcd"}
    assert short_ids([first, second]) == {first: "00000000abcd", second: "10000000abcd"}


def test_wide_console_is_wide_on_a_dumb_terminal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "80")
    assert console().width > 200  # this is no terminal
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert console(wide=True).width > 200
    assert console().width == 80
