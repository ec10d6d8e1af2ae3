from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agno_workers.core.tool import Effect, ToolContext
from agno_workers.errors import InvalidInput, ToolError
from agno_workers.tools import collect, execute
from agno_workers.tools.files import FileTools, Heading, Line, Link, Match

GUIDE = """# Guide #

See [the notes](notes.txt) and ![a picture](cat.png) or <https://example.org>.

## Set-up ##
```python
# not a heading, [not](a-link)
~~~
```
   ### Words: don't shout
~~~~ text
```
~~~~ still inside
~~~~
#no heading
Words, words [two](a.md "title") [links](<b.md>)
````
never closed
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "sub" / ".git").mkdir(parents=True)
    (folder / "guide.md").write_text(GUIDE)
    (folder / "notes.txt").write_text("one Two\ntwo three\n")
    (folder / "sub" / "deep.md").write_text("deep WORDS\n")
    (folder / "empty.md").write_text("")
    (folder / "latin.txt").write_bytes(b"caf\xe9 words")
    (folder / ".env").write_text("SECRET=words")
    (folder / ".hidden.md").write_text("words")
    (folder / "secret.key").write_text("words")
    (folder / "sub" / ".git" / "x.md").write_text("words")
    (tmp_path / "outside.md").write_text("outside words")
    (tmp_path / "docs-too").mkdir()
    (tmp_path / "docs-too" / "a.md").write_text("words")
    (folder / "escape.md").symlink_to(tmp_path / "outside.md")
    (folder / "key.md").symlink_to(folder / "secret.key")
    (folder / "loop.md").symlink_to(folder / "loop.md")
    (folder / "alias.md").symlink_to(folder / "notes.txt")
    return folder


@pytest.fixture
def files(root: Path) -> FileTools:
    return FileTools(root)


def test_it_offers_ten_tools_that_only_read(files: FileTools) -> None:
    tools = collect([files])

    assert len(tools) == 10
    assert {each.effect for each in tools.values()} == {Effect.PURE}
    assert all(
        "description" in each.spec.parameters["properties"].get("path", {"description"})
        for each in tools.values()
    )


def test_listed_are_the_text_files_that_really_lie_inside(files: FileTools) -> None:
    assert files.list_files() == ["alias.md", "empty.md", "guide.md", "latin.txt", "notes.txt", "sub/deep.md"]
    assert files.list_files("*.txt") == ["latin.txt", "notes.txt"]
    assert files.list_files("sub/*") == ["sub/deep.md"]


def test_a_file_is_read_up_to_a_number_of_characters(files: FileTools) -> None:
    assert files.read_file("notes.txt") == "one Two\ntwo three\n"
    assert files.read_file("notes.txt", 3) == "one\n[15 more characters; raise max_chars to see them]"
    assert files.read_file("./sub/../alias.md", 18) == "one Two\ntwo three\n"


def test_a_text_is_found_in_all_files_whatever_its_case(files: FileTools) -> None:
    assert files.search_text("WORDS") == [
        Match("guide.md", 10, "   ### Words: don't shout"),
        Match("guide.md", 16, 'Words, words [two](a.md "title") [links](<b.md>)'),
        Match("sub/deep.md", 1, "deep WORDS"),
    ]
    assert len(files.search_text("o", 2)) == 2
    assert files.search_text("[the") != []
    assert files.search_text("nowhere to be found") == []


def test_words_are_counted(files: FileTools) -> None:
    assert files.word_count("notes.txt") == 4
    assert files.word_count("empty.md") == 0
    assert files.most_common_words("notes.txt", 2) == {"two": 2, "one": 1}


def test_headings_are_those_outside_code_blocks(files: FileTools) -> None:
    assert files.headings("guide.md") == [
        Heading(1, "Guide", 1),
        Heading(2, "Set-up", 5),
        Heading(3, "Words: don't shout", 10),
    ]


def test_the_longest_line_is_found(files: FileTools) -> None:
    assert files.longest_line("notes.txt") == Line(2, 9, "two three")
    assert files.longest_line("empty.md") == Line(0, 0, "")


def test_code_blocks_are_counted_by_their_fences(files: FileTools) -> None:
    assert files.count_code_blocks("guide.md") == 3
    assert files.count_code_blocks("notes.txt") == 0


def test_links_are_those_outside_code_blocks_and_no_images(files: FileTools) -> None:
    assert files.links("guide.md") == [
        Link("the notes", "notes.txt", 3),
        Link("", "https://example.org", 3),
        Link("two", "a.md", 16),
        Link("links", "b.md", 16),
    ]


def test_the_age_of_a_file_is_told(files: FileTools, root: Path) -> None:
    os.utime(root / "notes.txt", (1_000_000_000, 1_000_000_000))

    age = files.file_age("notes.txt")

    assert age.modified_at.isoformat() == "2001-09-09T01:46:40+00:00"
    assert age.days > 9000


@pytest.mark.parametrize(
    "path",
    [
        "../outside.md",
        "/etc/passwd",
        "../docs-too/a.md",
        "escape.md",
        "sub/../../outside.md",
        "..",
        "../nowhere.md",
    ],
)
def test_a_path_that_leads_outside_is_refused_whether_it_exists_or_not(path: str, files: FileTools) -> None:
    with pytest.raises(ToolError, match="lies outside the folder"):
        files.read_file(path)


@pytest.mark.parametrize(
    "path",
    [
        "nowhere.md",
        ".",
        "",
        "sub",
        ".env",
        ".hidden.md",
        "sub/.git/x.md",
        "secret.key",
        "key.md",
        "loop.md",
        "a\0.md",
        "x" * 5000,
    ],
)
def test_what_is_not_offered_does_not_exist(path: str, files: FileTools) -> None:
    with pytest.raises(ToolError, match="There is no file"):
        files.word_count(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.sampled_from(
            ["..", ".", "/", "~", "sub", "docs", "outside.md", "guide.md", "\0", "escape.md", ".env"]
        )
    )
)
def test_no_path_at_all_leads_outside(files: FileTools, parts: list[str]) -> None:
    try:
        text = files.read_file("/".join(parts))
    except ToolError:
        return
    assert text in (GUIDE, "deep WORDS\n")


def test_a_file_that_is_no_utf8_says_so(files: FileTools) -> None:
    with pytest.raises(ToolError, match="not UTF-8"):
        files.headings("latin.txt")


def test_a_file_that_is_too_large_says_so(files: FileTools, root: Path) -> None:
    with (root / "large.txt").open("wb") as file:
        file.truncate(10 * 1024 * 1024 + 1)

    with pytest.raises(ToolError, match="larger than 10 MiB"):
        files.read_file("large.txt")


def test_the_root_must_be_a_folder(root: Path) -> None:
    with pytest.raises(InvalidInput, match="not a folder"):
        FileTools(root / "guide.md")


def test_a_model_calls_them_by_json(files: FileTools, ctx: ToolContext) -> None:
    tools = collect([files])

    def said(name: str, **arguments: object) -> str:
        return execute(tools[name], name, msgspec.json.encode(arguments).decode(), ctx).content

    assert said("longest_line", path="notes.txt") == '{"line":2,"chars":9,"text":"two three"}'
    assert said("most_common_words", path="notes.txt", n=1) == '{"two":2}'
    assert (
        said("headings", path="../x.md")
        == "'../x.md' lies outside the folder. Use a path that list_files shows."
    )
    assert "expected less than or equal to 1000" in said("search_text", query="x", max_matches=5000)
    assert '"modified_at":"20' in said("file_age", path="notes.txt")


def test_a_selection_of_them_can_be_offered(root: Path) -> None:
    assert list(FileTools(root, include=["list_files", "read_file"]).tools()) == ["list_files", "read_file"]
    assert FileTools(root, suffixes=[".key"]).list_files() == ["secret.key"]
