"""Files as sources: which are found, how they are named, and how they are read."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agno_workers.errors import InvalidInput, SourceRejected, SourceUnavailable
from agno_workers.knowledge.sources import files
from agno_workers.knowledge.sources.files import path_of, uri_of
from agno_workers.knowledge.types import Raw, Source


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """
    docs/
        README.md  notes.txt  empty.md  .secret.md
        guides/  start.md  deep/end.md  drafts/old.md
        .git/    config.md
    outside.md
    """
    docs = tmp_path / "docs"
    for name in (
        "README.md",
        "notes.txt",
        ".secret.md",
        "guides/start.md",
        "guides/deep/end.md",
        "guides/drafts/old.md",
        ".git/config.md",
    ):
        path = docs / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"This is {name}.")
    (docs / "empty.md").touch()
    (tmp_path / "outside.md").write_text("Outside.")
    return docs


def found(given: Any, options: dict[str, Any] | None = None) -> list[Source]:
    return list(files.find(given, options or {}))


def names(given: Any, folder: Path, options: dict[str, Any] | None = None) -> list[str]:
    return [path_of(source.uri).removeprefix(f"{folder}/") for source in found(given, options)]


def read(source: Source, **limits: Any) -> Raw:
    return files.fetch(source, **{"timeout_s": 5, "max_bytes": 1_000_000} | limits)


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ({}, ["README.md", "guides/deep/end.md", "guides/drafts/old.md", "guides/start.md", "notes.txt"]),
        ({"glob": "*.txt"}, ["notes.txt"]),
        ({"glob": ["*.txt", "start.md"]}, ["guides/start.md", "notes.txt"]),
        ({"glob": "guides/*.md"}, ["guides/start.md"]),
        ({"glob": "guides/**"}, ["guides/deep/end.md", "guides/drafts/old.md", "guides/start.md"]),
        ({"glob": "**/d*/*.md"}, ["guides/deep/end.md", "guides/drafts/old.md"]),
        ({"glob": "./README.md"}, ["README.md"]),
        ({"glob": "/*.md"}, ["README.md"]),
        ({"glob": "[!R]*.md", "exclude": "drafts"}, ["guides/deep/end.md", "guides/start.md"]),
        ({"exclude": ["guides/d*", "*.txt"]}, ["README.md", "guides/start.md"]),
        ({"exclude": "guides/"}, ["README.md", "notes.txt"]),
        (
            {"glob": "*.md", "hidden": True, "exclude": "guides"},
            [".git/config.md", ".secret.md", "README.md"],
        ),
        ({"glob": "nothing"}, []),
    ],
    ids=str,
)
def test_folder_is_all_files_below_it(folder: Path, description: dict[str, Any], expected: list[str]) -> None:
    assert names({"path": str(folder), **description}, folder) == expected


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("*.md", ["README.md"]),
        ("**/*.md", ["README.md", "guides/deep/end.md", "guides/drafts/old.md", "guides/start.md"]),
        ("guides/*/e*", ["guides/deep/end.md"]),
        ("g?ides/[a-s]*.md", ["guides/start.md"]),
        ("*/none", []),
    ],
)
def test_a_glob_is_a_path(folder: Path, glob: str, expected: list[str]) -> None:
    assert names(f"{folder}/{glob}", folder) == expected


def test_a_file_whose_name_looks_like_a_glob_is_that_file(folder: Path) -> None:
    (folder / "what[1].md").write_text("One.")
    assert names(f"{folder}/what[1].md", folder) == ["what[1].md"]


def test_what_a_folder_leaves_out_is_reported_with_its_reason(folder: Path) -> None:
    (folder / "gone.md").symlink_to(folder / "nothing")
    (folder / "out.md").symlink_to(folder.parent / "outside.md")
    (folder / "same.md").symlink_to(folder / "README.md")
    (folder / "again.md").symlink_to(folder / "guides")
    (folder / "guides/loop.md").symlink_to(folder)
    os.mkfifo(folder / "pipe.md")
    skipped: set[tuple[str, str]] = set()

    def skip(reason: str, uri: str) -> None:
        skipped.add((reason, path_of(uri).removeprefix(f"{folder}/")))

    found = names({"path": str(folder), "glob": "*.md"}, folder, {"skip": skip})
    assert found == ["README.md", "guides/deep/end.md", "guides/drafts/old.md", "guides/start.md"]
    assert skipped == {
        ("hidden", ".git"), ("hidden", ".secret.md"), ("empty", "empty.md"), ("not a file", "pipe.md"), ("broken link", "gone.md"),
        ("link out of the folder", "out.md"), ("link to a file that is in", "same.md"),
        ("link to a folder that is in", "again.md"), ("link to a folder that is in", "guides/loop.md"),
    }  # fmt: skip
    skipped.clear()
    names({"path": str(folder), "glob": "*.txt", "exclude": ".git"}, folder, {"skip": skip})
    assert skipped == set(), "what nobody asked for is not missed"


def test_glob_of_the_ingestion_is_the_default(folder: Path) -> None:
    assert names(str(folder), folder, {"glob": ["*.txt"]}) == ["notes.txt"]
    assert names({"path": str(folder), "glob": "README.md"}, folder, {"glob": "*.txt"}) == ["README.md"]


def test_source_is_described_without_reading_it(folder: Path) -> None:
    path = folder / "notes.txt"
    os.utime(path, ns=(0, 1_700_000_000_123_456_789))
    (source,) = found({"path": str(folder), "glob": "*.txt", "metadata": {"team": "ops"}})
    assert source == Source(
        f"file://{path}",
        origin=f"file://{folder}#glob=*.txt",
        bytes=18,
        fingerprint="stat:18:1700000000123456789",
        metadata={"team": "ops"},
    )
    assert read(source) == Raw(b"This is notes.txt.", None, "stat:18:1700000000123456789")


def test_changed_file_has_another_fingerprint(folder: Path) -> None:
    (before,) = found(str(folder / "notes.txt"))
    (folder / "notes.txt").write_text("That is notes.txt.")
    os.utime(folder / "notes.txt", ns=(0, 1))
    (after,) = found(str(folder / "notes.txt"))
    assert before.fingerprint != after.fingerprint
    assert read(before).fingerprint == after.fingerprint


@pytest.mark.parametrize(
    ("one", "other"),
    [({}, {"glob": "*.md"}), ({"glob": "*.md"}, {"glob": ["*.md", "*.txt"]}), ({}, {"follow_links": True})],
)
def test_file_that_another_glob_leaves_out_was_not_removed(
    folder: Path, one: dict[str, Any], other: dict[str, Any]
) -> None:
    """Sources that their origin no longer lists are removed, so origins differ."""
    assert found({"path": str(folder), **one})[0].origin != found({"path": str(folder), **other})[0].origin


def test_single_file_has_no_origin_and_may_be_empty_or_hidden(folder: Path) -> None:
    for name in ("empty.md", ".secret.md", "README.md"):
        (source,) = found(str(folder / name))
        assert source.origin == ""


# Links.


def test_links_that_lead_out_of_the_folder_are_followed_only_when_asked(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "far.md").write_text("Far.")
    (folder / "file-link.md").symlink_to(tmp_path / "outside.md")
    (folder / "folder-link").symlink_to(tmp_path / "other")
    (folder / "broken.md").symlink_to(tmp_path / "none")
    plain = names(str(folder), folder)
    assert not any("link" in name or "far" in name for name in plain)
    asked = names({"path": str(folder), "follow_links": True}, folder)
    assert asked == [*plain, "file-link.md", "folder-link/far.md"]
    for source in found({"path": str(folder), "follow_links": True}):
        assert read(source).content


def test_a_folder_beside_whose_name_begins_alike_is_outside(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "docs-private").mkdir()
    (tmp_path / "docs-private" / "salary.md").write_text("Much.")
    (folder / "a.md").symlink_to(tmp_path / "docs-private" / "salary.md")
    assert "a.md" not in names(str(folder), folder)


def test_links_within_the_folder_yield_each_file_once(folder: Path) -> None:
    plain = names(str(folder), folder)
    (folder / "again.md").symlink_to(folder / "README.md")
    (folder / "guides" / "up").symlink_to(folder)
    (folder / "guides" / "self").symlink_to(folder / "guides" / "self")
    assert names(str(folder), folder) == plain


def test_a_mounted_config_map_is_read_through_its_hidden_folder(tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "app.md").write_text("Settings.")
    (tmp_path / "..data").symlink_to("..2026")
    (tmp_path / "app.md").symlink_to("..data/app.md")
    (source,) = found(str(tmp_path))
    assert path_of(source.uri) == f"{tmp_path}/app.md"
    assert read(source).content == b"Settings."


def test_a_folder_that_is_a_link_itself_is_what_was_asked_for(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(folder)
    assert names(f"{tmp_path}/current/", tmp_path / "current") == names(str(folder), folder)
    assert all(read(source).content for source in found(str(tmp_path / "current")))


def test_a_file_that_was_replaced_by_a_link_out_of_the_folder_is_not_read(
    folder: Path, tmp_path: Path
) -> None:
    (source,) = found({"path": str(folder), "glob": "*.txt"})
    (folder / "notes.txt").unlink()
    (folder / "notes.txt").symlink_to(tmp_path / "outside.md")
    with pytest.raises(SourceRejected, match="is a link now that leads out of its folder") as caught:
        read(source)
    assert caught.value.code == "off_limits"


# Anything but files.


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[Path]:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(tmp_path)  # a socket's path is short
        listener.bind("socket")
        os.chdir(here)
        yield tmp_path


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ("name", "kind"), [("fifo", "a FIFO"), ("socket", "a socket"), ("/dev/null", "a device")]
)
def test_anything_but_a_file_is_refused_without_waiting(odd: Path, name: str, kind: str) -> None:
    path = odd / name
    with pytest.raises(InvalidInput, match=f"is {kind}: name a file or a folder"):
        found(str(path))
    with pytest.raises(SourceRejected):
        read(Source(uri_of(str(path))))
    assert found(str(odd)) == []


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("{}/none", "'.*/none' does not exist where the workers run"),
        ("{}/none/*.md", "'.*/none' does not exist"),
        ("{}/README.md/*.md", "README.md' is not a folder"),
        ("", "'' is not a path"),
        ("a\0b", "is not a path"),
        ("file://server/share/a.md", "is on another machine: write file:///path"),
        ("file:relative.md", "is on another machine|is not a path"),
        ({"path": "x", "globb": "*"}, "unknown key 'globb': did you mean 'glob'"),
        ({"path": 7}, "Expected `str`, got `int`"),
    ],
)
def test_unusable_path_is_refused_at_once(folder: Path, path: Any, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        files.find(path.format(folder) if isinstance(path, str) else path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_can_not_be_read_ends_the_search(folder: Path) -> None:
    """Skipping it would remove its documents."""
    (folder / "guides").chmod(0)
    try:
        with pytest.raises(InvalidInput, match=r"guides' can't be read: Permission denied. .* or exclude it"):
            found(str(folder))
        assert "notes.txt" in names({"path": str(folder), "exclude": "guides"}, folder)
    finally:
        (folder / "guides").chmod(0o755)


def test_file_that_was_removed_or_grew_is_rejected(folder: Path) -> None:
    (source,) = found(str(folder / "notes.txt"))
    with pytest.raises(SourceRejected, match="has more than 10 bytes") as caught:
        read(source, max_bytes=10)
    assert caught.value.code == "too_large"
    (folder / "notes.txt").unlink()
    with pytest.raises(SourceRejected, match="is gone") as caught:
        read(source)
    assert caught.value.code == "gone"
    (folder / "notes.txt").mkdir()
    with pytest.raises(SourceRejected, match="only files can be read"):
        read(source)


@pytest.mark.timeout(10)
def test_endless_file_is_rejected() -> None:
    """Its size is 0, as in /proc."""
    path = "/proc/self/mem"
    with pytest.raises((SourceRejected, SourceUnavailable)):
        read(Source(uri_of(path)))


def test_slow_read_is_worth_another_try(folder: Path) -> None:
    with pytest.raises(SourceUnavailable, match="took longer than -1 s"):
        read(Source(uri_of(str(folder / "notes.txt"))), timeout_s=-1)


# Names.


@settings(deadline=None)
@given(
    st.lists(
        st.binary(min_size=1, max_size=20).filter(
            lambda name: not set(name) & set(b"/\0") and name not in (b".", b"..")
        ),
        min_size=1,
        max_size=3,
    )
)
def test_any_name_survives_as_a_uri(parts: list[bytes]) -> None:
    path = os.fsdecode(b"/" + b"/".join(parts))
    uri = uri_of(path)
    assert uri.isascii()
    assert path_of(uri) == path


def test_a_name_that_is_not_utf8_is_found_and_read(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9 100%#?.txt"
    Path(os.fsdecode(path)).write_text("Coffee.")
    (source,) = found(str(tmp_path))
    assert source.uri == f"file://{tmp_path}/caf%E9%20100%25%23%3F.txt"
    assert read(source).content == b"Coffee."
    (again,) = found(source.uri)
    assert again.uri == source.uri


def test_a_path_may_begin_at_home_or_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(folder)
    assert (
        path_of("~/notes.txt")
        == path_of("notes.txt")
        == path_of("guides/../notes.txt")
        == f"{folder}/notes.txt"
    )
    assert path_of("file:///~/notes.txt") == "/~/notes.txt"


# Roots.


@pytest.fixture
def roots(folder: Path) -> dict[str, Any]:
    return {"roots": (str(folder / "guides"),)}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("guides", ["guides/deep/end.md", "guides/drafts/old.md", "guides/start.md"]),
        ("guides/start.md", ["guides/start.md"]),
        ("guides/deep/*", ["guides/deep/end.md"]),
        ("guides/../guides/deep", ["guides/deep/end.md"]),
    ],
)
def test_paths_within_a_root_are_read(folder: Path, roots: dict[str, Any], path: str, expected: list[str]) -> None:  # fmt: skip
    assert names(f"{folder}/{path}", folder, roots) == expected
    assert all(read(source, **roots).content for source in found(f"{folder}/{path}", roots))


@pytest.mark.parametrize("path", [
    "", "README.md", "*.md", "*/start.md", "guides/../README.md", "guides-too", "none", "no*ne/x", "guides/out.md", "guides/up",
    "guides/up/*.md",
])  # fmt: skip
def test_path_outside_of_the_roots_is_refused_even_if_missing(
    folder: Path, roots: dict[str, Any], path: str
) -> None:
    (folder / "guides-too").mkdir()
    (folder / "guides/out.md").symlink_to(folder / "README.md")
    (folder / "guides/up").symlink_to(folder)
    with pytest.raises(InvalidInput, match=r"outside of the folders that the workers may read.*source_roots"):
        found(f"{folder}/{path}", roots)


def test_links_that_lead_out_of_the_roots_are_listed_and_not_read(
    folder: Path, roots: dict[str, Any], tmp_path: Path
) -> None:
    (folder / "guides/out.md").symlink_to(tmp_path / "outside.md")
    (folder / "guides/up").symlink_to(tmp_path)
    (folder / "guides/in.md").symlink_to(folder / "guides/deep/end.md")
    inside = ["guides/deep/end.md", "guides/drafts/old.md", "guides/start.md"]
    assert names(str(folder / "guides"), folder, roots) == inside
    sources = found({"path": str(folder / "guides"), "follow_links": True}, roots)
    outside = [source for source in sources if not path_of(source.uri).endswith(tuple(inside))]
    assert [path_of(source.uri) for source in outside] == [f"{folder}/guides/out.md", f"{folder}/guides/up"]
    for source in outside:
        assert (source.bytes, source.fingerprint) == (0, None)
        with pytest.raises(SourceRejected, match="source_roots") as caught:
            read(source, **roots)
        assert caught.value.code == "off_limits"


@pytest.mark.parametrize("name", ["README.md", "none.md", "guides/out.md"])
def test_source_outside_of_the_roots_is_never_fetched(folder: Path, roots: dict[str, Any], name: str) -> None:
    (folder / "guides/out.md").symlink_to(folder / "README.md")
    with pytest.raises(SourceRejected, match="source_roots") as caught:
        read(Source(uri_of(str(folder / name))), **roots)
    assert caught.value.code == "off_limits"


def test_a_file_that_becomes_a_link_out_of_the_roots_while_it_is_opened_is_not_read(
    folder: Path, roots: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, opened = folder / "guides/start.md", os.open

    def too_late(*given: Any) -> int:
        path.unlink()
        path.symlink_to(folder / "README.md")
        return opened(*given)

    monkeypatch.setattr(os, "open", too_late)
    with pytest.raises(SourceRejected, match="source_roots"):
        read(Source(uri_of(str(path))), **roots)


def test_root_may_be_a_link_that_changes(folder: Path, tmp_path: Path) -> None:
    current = tmp_path / "current"
    current.symlink_to(folder / "guides/deep")
    roots = {"roots": (str(current),)}
    (source,) = found(str(current), roots)
    assert read(source, **roots).content
    current.unlink()
    current.symlink_to(folder / "guides/drafts")
    (source,) = found(str(current), roots)
    assert read(source, **roots).content
    with pytest.raises(InvalidInput):
        found(str(folder / "guides/deep"), roots)


@pytest.mark.parametrize(("root", "says"), [("docs", "not an absolute path"), ("/no/such/folder", "not a folder here")])  # fmt: skip
def test_invalid_root_is_refused(root: str, says: str) -> None:
    files.check_roots(["/"])
    with pytest.raises(InvalidInput, match=says):
        files.check_roots(["/", root])


@pytest.mark.parametrize(
    ("given", "takes"),
    [
        ("docs", True),
        ("docs/a:b.md", True),
        ("./a:b.md", True),
        ("file:///a", True),
        ("~/docs", True),
        ("https://example.com", False),
        ("s3://bucket", False),
        ({"path": "docs"}, True),
        ({"url": "docs"}, False),
    ],
)
def test_string_without_a_scheme_is_a_path(given: Any, takes: bool) -> None:
    assert files.takes(given) is takes
