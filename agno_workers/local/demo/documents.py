"""Which documents the demo reads, and how much of each.

They are copied into a folder of the demo's own, so that its tools see these files and nothing beside them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agno_workers.errors import InvalidInput

SUFFIXES = frozenset({".md", ".markdown", ".txt", ".rst"})
MAX_BYTES = 2 * 1024 * 1024
_LOOK_AT = 5000
"""Files looked at in a folder at the most: `demo /` must not walk a disk."""
_ASKED = 2
_QUESTIONS = (
    "What happens when the worker of a once tool dies in the middle?",
    "What does the keeper do when Redis has lost everything?",
)
"""Of our own documents."""
_PACKAGE = Path(__file__).parent
_SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__", "site-packages"})


@dataclass(frozen=True)
class Document:
    """One file to be read."""

    name: str
    """Its path in the demo's folder."""
    text: str
    """As much of it as the model gets."""
    cut_chars: int
    """What was cut off at its end."""


@dataclass(frozen=True)
class Picked:
    """Documents, and what was left aside."""

    source: str
    documents: list[Document]
    left_out: int
    """Documents past the limit, and those that are too large or no text."""
    questions: tuple[str, ...] = ()
    """That the documents may answer."""


def pick(path: Path | None, folder: Path, *, most: int, max_chars: int) -> Picked:
    """Copy at most `most` documents of `path` (None: this project's own) into `folder`, and read `max_chars` of each.

    Raises InvalidInput when there is nothing to read.
    """
    source, root, files = _found(path)
    documents: list[Document] = []
    left_out = 0
    for file in files:
        text = _text(file) if len(documents) < most else None
        if text is None:
            left_out += 1
            continue
        name = file.relative_to(root).as_posix()
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, folder / name)
        documents.append(Document(name, text[:max_chars], max(0, len(text) - max_chars)))
    if not documents:
        raise InvalidInput(
            f"{source} holds no text to read: name a file or folder with {', '.join(sorted(SUFFIXES))} in UTF-8."
        )
    questions = _QUESTIONS if path is None else tuple(_asked(documents))
    return Picked(source, documents, left_out, questions)


def _asked(documents: list[Document]) -> Iterator[str]:
    """A question for each of the first documents, after one of its headings."""
    for document in documents[:_ASKED]:
        lines = [line.strip() for line in document.text.splitlines() if line.strip()]
        headings = [line.strip("# ") for line in lines if line.startswith("#") and line.strip("# ")]
        yield f"What is said about {(headings[1:2] or headings or lines)[0][:80]}?"


def _found(path: Path | None) -> tuple[str, Path, list[Path]]:
    """What the source is called, the folder that names are relative to, and the files."""
    if path is None:
        return _own()
    if not path.exists():
        raise InvalidInput(f"{str(path)!r} does not exist: name a file or folder of text or Markdown.")
    if path.is_file():
        return str(path), path.parent, [path]
    return str(path), path, sorted(_texts_below(path))


def _own() -> tuple[str, Path, list[Path]]:
    """The project's documents where it is checked out; else some that come with the package."""
    project = _PACKAGE.parents[2]
    files = [project / "README.md", *sorted((project / "docs").glob("*.md"))]
    if (project / "pyproject.toml").exists() and (found := [file for file in files if file.is_file()]):
        return "this project's README and docs", project, found
    packaged = _PACKAGE / "documents"
    return "documents that come with the package", packaged, sorted(packaged.glob("*.md"))


def _texts_below(folder: Path) -> Iterator[Path]:
    seen = 0
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if not name.startswith(".") and name not in _SKIPPED_FOLDERS
        )
        for name in sorted(names):
            if (seen := seen + 1) > _LOOK_AT:
                return
            if Path(name).suffix in SUFFIXES and not name.startswith("."):
                yield Path(where, name)


def _text(file: Path) -> str | None:
    """None for what can't be read as text, or is empty."""
    try:
        if file.stat().st_size > MAX_BYTES:
            return None
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    return text if text.strip() else None
