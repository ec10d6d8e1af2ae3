"""Writes the table of settings in operations.md from `Settings` itself: ./run python docs/settings_table.py

A test says when the page is behind the code.
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

from agno_workers import settings
from agno_workers.settings import Settings

PAGE = Path(__file__).parent / "operations.md"
BEGIN, END = "<!-- settings -->\n", "<!-- /settings -->"


def table() -> str:
    """One line a setting, in the order of the class: key, variable, default, and the docstring below the field."""
    rows = ["| key | variable | default | |", "| --- | --- | --- | --- |"]
    docs = _docstrings()
    for name, field in Settings.model_fields.items():
        kind = "secret" if field.annotation.__name__ == "SecretStr" else ""  # type: ignore[union-attr]  # all are classes
        default = "not set" if kind or field.default == "" else f"`{field.default}`"
        rows.append(f"| `{name}` | `AGNO_{name.upper()}` | {default} | {docs.get(name, '')} |")
    return "\n".join(rows) + "\n"


def written(page: str) -> str:
    """The page with the table as it should be."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


def _docstrings() -> dict[str, str]:
    """The text below each field."""
    (found,) = (
        node for node in ast.parse(inspect.getsource(settings)).body
        if isinstance(node, ast.ClassDef) and node.name == "Settings"
    )  # fmt: skip
    docs, last = {}, ""
    for node in found.body:
        match node:
            case ast.AnnAssign(target=ast.Name(id=name)):
                last = name
            case ast.Expr(value=ast.Constant(value=str(text))) if last:
                docs[last], last = " ".join(text.split()), ""
    return docs


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
