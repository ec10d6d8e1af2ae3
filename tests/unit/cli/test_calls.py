"""The arguments of calls, as a person reads them."""

from __future__ import annotations

import json

import pytest

from agno_workers.cli.calls import MAX_VALUE_CHARS, arguments, hidden

LONG = "x" * 500
MORE = "… (302 more characters)"


@pytest.mark.parametrize(
    ("given", "lines", "cut"),
    [
        ({"note": LONG, "amount": 1000000}, ["note: " + MORE, "amount: 1000000"], 1),
        (
            {"payment": {"note": LONG, "amount": 1000000}},
            ["payment.note: " + MORE, "payment.amount: 1000000"],
            1,
        ),
        ({"to": [{"note": LONG}, {"iban": "DE1"}]}, ["to[0].note: " + MORE, 'to[1].iban: "DE1"'], 1),
        ({"n": list(range(300)), "amount": 5}, ["n[49]: 49", "n: … (250 more values)", "amount: 5"], 250),
        ({"a": "short", "b" * 300: {}}, ['a: "short"', "b" * 300 + ": {}"], 0),
        ({"pad": "p" * 190, "x\x1b[31m\n": "\u202e"}, ['"x\\u001b[31m\\n": "\\u202e"'], 0),
    ],
)
def test_each_value_has_its_own_line_and_its_own_cut(given: object, lines: list[str], cut: int) -> None:
    text = json.dumps(given)
    shown = arguments(text).splitlines()
    for line in lines:
        name, ellipsis, end = line.partition("…")
        assert any(each.strip().startswith(name) and each.endswith(ellipsis + end) for each in shown), line
    assert hidden(text) == cut
    assert "…" not in arguments(text, full=True)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"amount": 1, "pad": "%s", "amount": 1000000}', "amount: 1000000"),
        ('{"pad": "%s", "amount": 1.00000000000000000001}', "amount: 1.00000000000000000001"),
        ('{"pad": "%s", "amount": 1e999}', "amount: 1e999"),
        ('{"pad": "%s", "amount": "\\u0031\\u0030"}', 'amount: "10"'),
        ('["%s", 1]', "not a JSON object: ["),
        ('{"pad": "%s", "amount": 5', "not a JSON object: {"),
    ],
)
def test_arguments_are_shown_as_the_tool_may_read_them(text: str, line: str) -> None:
    assert any(each.strip().startswith(line) for each in arguments(text % LONG, full=True).splitlines())


def test_deep_nesting_is_shown() -> None:
    deep = '{"a":' * 400 + "1" + "}" * 400
    assert arguments(deep, full=True).endswith(".a: 1")
    assert "not a JSON object" in arguments('{"a":' * 100_000)


def test_short_arguments_stay_on_their_line() -> None:
    assert arguments('{"a":\n1}') == ' {"a": 1}'
    assert hidden("x" * MAX_VALUE_CHARS) == 0
