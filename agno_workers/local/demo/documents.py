"""Choose the documents that the demo reads, and copy them into its own folder: its tools see only these files."""

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
"""At most this many files of a folder are visited: `demo /` must not walk a disk."""
_ASKED = 2
_QUESTIONS = (
    "What happens when the worker of a once tool dies in the middle?",
    "What does the keeper do when Redis has lost everything?",
)
"""For our own documents."""
_PACKAGE = Path(__file__).parent
_SKIPPED_FOLDERS = frozenset({"node_modules", "__pycache__", "site-packages"})


@dataclass(frozen=True)
class Document:
    """One file to read."""

    name: str
    """The path in the demo's folder."""
    text: str
    """The beginning, as much as the model gets."""
    cut_chars: int
    """Characters cut off at the end."""


@dataclass(frozen=True)
class Picked:
    """The documents, and a count of the rest."""

    source: str
    documents: list[Document]
    left_out: int
    """Files above the limit, and files that are too large or not text."""
    questions: tuple[str, ...] = ()
    """Questions that the documents may answer."""


def pick(path: Path | None, folder: Path, *, most: int, max_chars: int) -> Picked:
    """Copy at most `most` documents of `path` (None: this project's own) into `folder`, and read `max_chars` of each.

    Raises InvalidInput when nothing can be read.
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
            f"{source} contains no text to read: name a file or folder with {', '.join(sorted(SUFFIXES))} in UTF-8."
        )
    questions = _QUESTIONS if path is None else tuple(_asked(documents))
    return Picked(source, documents, left_out, questions)


def _asked(documents: list[Document]) -> Iterator[str]:
    """Ask about a heading of each of the first documents."""
    for document in documents[:_ASKED]:
        lines = [line.strip() for line in document.text.splitlines() if line.strip()]
        headings = [line.strip("# ") for line in lines if line.startswith("#") and line.strip("# ")]
        yield f"What do the documents say about {(headings[1:2] or headings or lines)[0][:80]}?"


def _found(path: Path | None) -> tuple[str, Path, list[Path]]:
    """Return the name of the source, the folder that names are relative to, and the files."""
    if path is None:
        return _own()
    if not path.exists():
        raise InvalidInput(f"{str(path)!r} does not exist: name a file or folder of text or Markdown.")
    if path.is_file():
        return str(path), path.parent, [path]
    return str(path), path, sorted(_texts_below(path))


def _own() -> tuple[str, Path, list[Path]]:
    """Return the project's documents in a checkout, else the documents of the package."""
    project = _PACKAGE.parents[2]
    files = [project / "README.md", *sorted((project / "docs").rglob("*.md"))]
    if (project / "pyproject.toml").exists() and (found := [file for file in files if file.is_file()]):
        return "this project's README and docs", project, found
    packaged = _PACKAGE / "documents"
    return "documents of the package", packaged, sorted(packaged.glob("*.md"))


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
    """Return None for a file that is not text, or is empty."""
    try:
        if file.stat().st_size > MAX_BYTES:
            return None
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    return text if text.strip() else None
