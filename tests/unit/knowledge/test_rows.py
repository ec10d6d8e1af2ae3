"""Each row of a file is a document; a column or an id that is wrong is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agno_workers.errors import InvalidInput
from agno_workers.knowledge.readers import detect, read_rows
from agno_workers.knowledge.readers.unreadable import Unreadable
from agno_workers.knowledge.types import Rows, Source
from tests.fakes import documents as made

CSV = b'sku,name,about,price,zip\nA1,Bike,"Red, fast",10.5,01067\n\nA 2,Car,Blue,7,80331\n'
LINES = b'{"id": 7, "by": {"name": "Ann", "tags": ["x", "y"]}, "stock": 1.5}\n\n{"id": "b", "note": "n", "open": true}\n'


def rows_of(content: bytes, name: str, rows: Rows, **given: Any) -> list[Source]:
    source = Source(f"file:///{name}", rows=rows, **given)
    return list(read_rows(content, detect(content, None, name), source))


@pytest.mark.parametrize(
    ("content", "name", "rows", "found"),
    [
        (CSV, "a.csv", Rows("sku", "about", "name", ("price", "zip")), [
            ("A1", "Bike", "Red, fast", {"price": 10.5, "zip": "01067"}), ("A%202", "Car", "Blue", {"price": 7, "zip": "80331"}),
        ]),
        (CSV, "a.csv", Rows("sku", ("name", "about")), [
            ("A1", None, "name: Bike\nabout: Red, fast", {}), ("A%202", None, "name: Car\nabout: Blue", {}),
        ]),
        (CSV, "a.csv", Rows(("zip", "sku"), title="name", metadata="price"), [
            ("01067%2FA1", "Bike", "Red, fast", {"price": 10.5}), ("80331%2FA%202", "Car", "Blue", {"price": 7}),
        ]),
        (b"Prices 2031\n\nsku;name\nA1;Bike\n", "a.csv", Rows("sku"), [("A1", None, "Bike", {})]),
        (LINES, "a.jsonl", Rows("id", "note", "by.name", ("stock", "open", "by.tags")), [
            ("7", "Ann", "Ann", {"stock": 1.5, "by.tags": ["x", "y"]}), ("b", None, "n", {"open": True}),
        ]),
        (b'[{"id": 1, "by": {"name": "Ann"}, "tags": ["x", "y"]}]', "a.json", Rows("id"), [
            ("1", None, "tags: x, y\nby.name: Ann", {}),
        ]),
        (made.xlsx(), "a.xlsx", Rows("place", metadata="metres"), [("Fundy", None, "", {"metres": 16}), ("Malo", None, "", {"metres": 12.5})]),
        (made.ods(), "a.ods", Rows("place", "metres", sheet="Tides"), [("Fundy", None, "16", {})]),
    ],
)  # fmt: skip
def test_row_is_a_document(content: bytes, name: str, rows: Rows, found: list[Any]) -> None:
    read = rows_of(content, name, rows)
    origin = f"file:///{name}"
    assert {each.origin for each in read} == {origin}
    assert [
        (each.uri.removeprefix(f"{origin}#"), each.title, each.text, each.metadata) for each in read
    ] == found


def test_row_keeps_the_origin_and_metadata_of_its_file() -> None:
    first, _ = rows_of(
        CSV, "a.csv", Rows("sku", metadata="price"), origin="file:///", metadata={"team": "shop"}
    )
    assert (first.origin, first.metadata) == ("file:///", {"team": "shop", "price": 10.5})


def test_fingerprint_changes_with_its_own_row_only() -> None:
    before = rows_of(CSV, "a.csv", Rows("sku", "about", metadata="price"))
    after = rows_of(b"\n" + CSV.replace(b",7,", b",8,"), "a.csv", Rows("sku", "about", metadata="price"))
    assert [one.fingerprint == other.fingerprint for one, other in zip(before, after, strict=True)] == [
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("content", "name", "rows", "words"),
    [
        (CSV, "a.csv", Rows("SKU"), "no column 'SKU': did you mean 'sku'. Its columns are sku, name, about, price, zip"),
        (CSV, "a.csv", Rows("sku", "abuot"), "no column 'abuot': did you mean 'about'"),
        (CSV, "a.csv", Rows("sku", title="nam"), "did you mean 'name'"),
        (CSV, "a.csv", Rows("sku", title="@@"), r"no column '@@'\. Its columns"),
        (CSV, "a.csv", Rows("sku", metadata=("price", "zipp")), "did you mean 'zip'"),
        (CSV + b"A1,x,y,1,2\nA1,x,y,1,2\n", "a.csv", Rows("sku"), r"'A1' in rows 2, 5, 6"),
        (CSV + b",x,y,1,2\n", "a.csv", Rows("sku"), "row 5 has no 'sku'"),
        (CSV + b"A3,x,y,1,2,3\n", "a.csv", Rows("sku"), "row 5 has 6 cells and the header 5"),
        (b"sku,name,name\nA1,x,y\n", "a.csv", Rows("sku", "name"), "2 columns 'name'"),
        (b"sku,name\n", "a.csv", Rows("sku"), "no rows below its header"),
        (LINES, "a.jsonl", Rows("id", "by.nam"), "did you mean 'by.name'"),
        (json.dumps([{"id": 1}, 2]).encode(), "a.json", Rows("id"), "record 2 is not an object"),
        (made.xlsx(), "a.xlsx", Rows("place", sheet="tides"), "no sheet 'tides': did you mean 'Tides'"),
    ],
)  # fmt: skip
def test_wrong_rows_are_refused_by_name(content: bytes, name: str, rows: Rows, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        rows_of(content, name, rows)


def test_format_without_rows_is_refused() -> None:
    with pytest.raises(Unreadable, match=r"text/markdown, which has no rows: use CSV"):
        rows_of(made.MARKDOWN, "a.md", Rows("id"))
