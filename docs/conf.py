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


PAGES = {"README.md": "overview.md", "CHANGELOG.md": "changelog.md"}
"""The pages that include files from outside of this folder."""


def _link_within_the_site(_app: Any, *given: Any) -> None:
    """Change links to README.md, CHANGELOG.md and docs/ to the pages that the site makes of them."""
    text = given[-1]
    for name, page in PAGES.items():
        text[0] = re.sub(rf"\]\((\.\./)?{name}", f"]({page}", text[0])
    text[0] = text[0].replace("](docs/", "](")


def setup(app: Any) -> None:
    """Read pages, and the files that two of them include, with links that hold in the site."""
    app.connect("source-read", _link_within_the_site)
    app.connect("include-read", _link_within_the_site)
