from __future__ import annotations

from pathlib import Path

import pytest

from agno_workers.core.tool import ToolContext
from agno_workers.local.demo.tools import FolderTools
from agno_workers.tools import collect, execute

GUIDE = """# Guide

See [the notes](notes.txt), and ![a picture](cat.png).
```python
# not a heading, [not](a-link)
```
## Words
Words, words.
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    (folder / "guide.md").write_text(GUIDE)
    (folder / "sub" / "notes.txt").write_text("one Two\n")
    (folder / "secret.key").write_text("words")
    (tmp_path / "outside.md").write_text("outside words")
    (folder / "escape.md").symlink_to(tmp_path / "outside.md")
    return folder


@pytest.mark.parametrize(
    ("name", "arguments", "content"),
    [
        ("list_files", "{}", '["guide.md","sub/notes.txt"]'),
        ("search_text", '{"query": "TWO"}', '["sub/notes.txt:1: one Two"]'),
        ("word_count", '{"path": "sub/notes.txt"}', "2"),
        ("headings", '{"path": "guide.md"}', '["# Guide","## Words"]'),
        ("longest_line", '{"path": "sub/notes.txt"}', "one Two"),
        ("count_code_blocks", '{"path": "guide.md"}', "1"),
        ("most_common_words", '{"path": "sub/notes.txt"}', '{"one":1,"two":1}'),
        ("links", '{"path": "guide.md"}', '["notes.txt"]'),
    ],
)
def test_tools_of_the_demo_read_its_folder(
    name: str, arguments: str, content: str, root: Path, ctx: ToolContext
) -> None:
    outcome = execute(collect([FolderTools(root)])[name], name, arguments, ctx)
    assert (outcome.kind, outcome.content) == ("ok", content)


@pytest.mark.parametrize(
    "path", ["../outside.md", "/etc/hostname", "escape.md", "secret.key", "none.md", "sub"]
)
def test_a_path_outside_the_folder_does_not_exist(path: str, root: Path, ctx: ToolContext) -> None:
    tools = collect([FolderTools(root)])
    outcome = execute(tools["word_count"], "word_count", f'{{"path": "{path}"}}', ctx)
    assert (outcome.kind, outcome.content.split(". ")[0]) == ("raised", f"There is no file {path!r}")
