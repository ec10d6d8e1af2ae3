"""Write the table of settings in reference-settings.md from their classes: ./run python docs/settings_table.py

A test fails when the page is behind the code.
"""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

from agno_workers.settings import KEYS, SECTIONS, Section, Settings, variable

PAGE = Path(__file__).parent / "reference-settings.md"
BEGIN, END = "<!-- settings -->\n", "<!-- /settings -->"


def table() -> str:
    """Return a line for each setting, in the order of the classes: key, variable, default, and the docstring below the field."""
    rows = ["| key | variable | default | meaning |", "| --- | --- | --- | --- |"]
    for key in KEYS:
        section, _, name = key.rpartition(".")
        owner = SECTIONS[section] if section else Settings
        default = owner.model_fields[name].default
        shown = (
            f"`{default}`"
            if isinstance(default, int | float) or (default and isinstance(default, str))
            else "not set"
        )
        rows.append(f"| `{key}` | `{variable(key)}` | {shown} | {_docstrings(owner)[name]} |")
    return "\n".join(rows) + "\n"


def written(page: str) -> str:
    """Return the page with the current table."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


def _docstrings(owner: type[Section]) -> dict[str, str]:
    """Return the text below each field."""
    (found,) = ast.parse(inspect.getsource(owner)).body
    docs, last = {}, ""
    for node in found.body:  # type: ignore[attr-defined]  # it is a class
        match node:
            case ast.AnnAssign(target=ast.Name(id=name)):
                last = name
            case ast.Expr(value=ast.Constant(value=str(text))) if last:
                docs[last], last = " ".join(text.split()), ""
    return docs


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
