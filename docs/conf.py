"""How Sphinx makes the site from these pages: ./run docs

Plain Markdown that also reads well where no site is: the only page that needs Sphinx is index.rst. A warning fails the build.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

project = "agno-workers"
release = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
copyright = "the authors of agno-workers"  # noqa: A001 - Sphinx's name

extensions = ["myst_parser"]
root_doc = "index"
html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = False
html_show_sphinx = False
highlight_language = "text"
myst_heading_anchors = 4
nitpicky = True


PAGES = {"overview": "README.md", "changelog": "CHANGELOG.md"}
"""Pages that show files from outside of this folder."""


def _show_and_link(_app: Any, page: str, source: list[str]) -> None:
    """Take the text of these pages from their files, and let links to them, and to docs/, lead to pages."""
    text = (ROOT / PAGES[page]).read_text(encoding="utf-8") if page in PAGES else source[0]
    for name, file in PAGES.items():
        text = re.sub(rf"\]\((\.\./)?{file}", f"]({name}.md", text)
    source[0] = text.replace("](docs/", "](").replace("](examples/", "](../examples/")


def setup(app: Any) -> None:
    """Read the pages with links that hold in the site."""
    app.connect("source-read", _show_and_link)
