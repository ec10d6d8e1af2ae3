"""Files of this machine and its mounts: one file, a folder with all below it, or a glob.

    "docs/handbook.pdf"    "docs"    "docs/**/*.md"    "file:///srv/docs"
    {"path": "docs", "glob": ["*.md", "guides/**"], "exclude": ["drafts"], "hidden": true, "follow_links": true}

By default, names that begin with a dot are left out and links that lead out of the folder are not followed. In a folder, empty
files and anything but files (a FIFO, a socket, a device) are skipped; `options["skip"]` is called with the reason and the uri of each. The order is by name, links last. A file is unchanged
while its size and modification time are.

A worker reads what is in the operator's `roots` (the setting knowledge.source_roots). A path outside of all of them, once its links are
resolved, is neither looked at nor read.
"""

# Paths are strings: a folder may have a million, and Path.resolve would follow links.
# ruff: noqa: PTH100, PTH111, PTH112, PTH115, PTH116, PTH117

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import takewhile
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec

from agno_workers.errors import InvalidInput, SourceRejected, SourceUnavailable
from agno_workers.knowledge.sources import spec
from agno_workers.knowledge.sources.failures import rejected, too_large, unavailable
from agno_workers.knowledge.types import Raw, Source

_MAGIC = re.compile(r"[*?\[]")
_CHUNK = 1024 * 1024
_FOLLOWING = "links=all"  # in an origin: the fetch may follow links too
_ALL = ("/",)
_OUTSIDE = (
    "lies outside of the folders that the workers may read: the operator has to add its folder to the setting knowledge.source_roots "
    "(AGNO_KNOWLEDGE__SOURCE_ROOTS) of the workers."
)
_FINAL = {errno.ENXIO, errno.ELOOP, errno.ENAMETOOLONG, errno.ENODEV}  # ENXIO: a socket
_KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class Files(msgspec.Struct, frozen=True):
    """The files to ingest."""

    path: str
    glob: str | tuple[str, ...] = ()
    """Take only names (`*.pdf`) or paths in the folder (`2026/**/*.md`) that match one of these. Empty: all."""
    exclude: str | tuple[str, ...] = ()
    """Leave out names or paths that match, and all below a folder that does."""
    hidden: bool = False
    """Take files and folders whose names begin with a dot."""
    follow_links: bool = False
    """Follow links that lead out of the folder."""
    metadata: dict[str, Any] = {}
    """Added to each."""


def takes(given: object) -> bool:
    """Return True for a description that `find` here reads, such as a string without a scheme."""
    if isinstance(given, str):
        return given.startswith("file:") or not re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", given)
    return isinstance(given, Mapping) and "path" in given


def find(given: str | Mapping[str, Any], options: Mapping[str, Any] = {}) -> Iterator[Source]:
    """Yield the files. `options["glob"]` is the default glob, `options["roots"]` the operator's folders.

    Raises InvalidInput at once for a path that does not exist, can't be read, is neither file nor folder, or lies outside of the
    roots; during the iteration for an unreadable folder, whose files would otherwise count as removed.
    """
    asked = Files(given) if isinstance(given, str) else spec.read(Files, given, "the description of files")
    path, roots = path_of(asked.path), tuple(options.get("roots", _ALL))
    skip = spec.skip_of(options)
    if _MAGIC.search(path) and not os.path.lexists(path):
        folder, glob = _split(path)
        _stay(path, folder, roots)
        if not stat.S_ISDIR(_stat(folder).st_mode):
            raise InvalidInput(f"{_shown(folder)} is not a folder: correct the glob {_shown(path)}.")
        return _Walk(asked, folder, (glob.split("/"),), (glob,), roots, skip).sources()
    _stay(path, path, roots)
    found = _stat(path)
    if not stat.S_ISDIR(found.st_mode):
        return iter([_source(path, found, "", asked.metadata)])
    globs = spec.patterns(asked.glob) or spec.patterns(options.get("glob"))
    return _Walk(asked, path, tuple(map(_anywhere, globs)), globs, roots, skip).sources()


def fetch(source: Source, *, timeout_s: float, max_bytes: int, roots: Sequence[str] = _ALL) -> Raw:
    """Return the file. Never waits for a FIFO. Raises SourceUnavailable or SourceRejected."""
    path, ends = path_of(source.uri), monotonic() + timeout_s
    if not _is_allowed(path, roots):  # without telling if such a file exists
        raise _outside(source.uri)
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise _unreadable(source.uri, error) from error
    try:
        found = os.fstat(file)
        if not _is_allowed(os.readlink(f"/proc/self/fd/{file}"), roots):  # a link has just replaced it
            raise _outside(source.uri)
        _check(source, file, found, max_bytes)
        content = bytearray()
        while chunk := os.read(file, _CHUNK):
            content += chunk
            if len(content) > max_bytes:
                raise too_large(source.uri, max_bytes)
            if monotonic() > ends:
                raise unavailable(source.uri, f"took longer than {timeout_s:g} s to read")
    except OSError as error:
        raise _unreadable(source.uri, error) from error
    finally:
        os.close(file)
    return Raw(bytes(content), source.media_type, _fingerprint(found))


def check_roots(roots: Sequence[str]) -> None:
    """Raise InvalidInput for a root that is not an absolute path, or not a folder here."""
    for root in roots:
        if not os.path.isabs(root):
            raise InvalidInput(f"{root!r} is not an absolute path: write /srv/documents.")
        if not os.path.isdir(root):
            raise InvalidInput(
                f"{root!r} is not a folder here: create or mount it, or remove it from the list."
            )


def uri_of(path: str) -> str:
    """Return `file:///...`, percent-encoded byte by byte: a name need not be UTF-8."""
    return "file://" + quote_from_bytes(os.fsencode(path))


def path_of(text: str) -> str:
    """Return the absolute path of a path or a `file:` URI. Raises InvalidInput."""
    path = text
    if text.startswith("file:"):
        host, slash, rest = text.removeprefix("file:").removeprefix("//").partition("/")
        if host not in ("", "localhost") or not slash:
            raise InvalidInput(f"{text!r} is on another machine: write file:///path, with three slashes.")
        path = os.fsdecode(unquote_to_bytes("/" + rest))
    if "\0" in path or not path.strip():
        raise InvalidInput(f"{text!r} is not a path: name a file or a folder.")
    return os.path.abspath(os.path.expanduser(path) if path is text else path)


# ---- walking -------------------------------------------------------------------------------------------------

Pattern = list[str]
"""A glob, name by name."""


class _Walk:
    """One walk through a folder: real files and folders first, then links to those that were not seen yet."""

    def __init__(
        self, asked: Files, folder: str, patterns: tuple[Pattern, ...], globs: tuple[str, ...], roots: Sequence[str],
        skip: spec.Skip,
    ) -> None:  # fmt: skip
        self._asked = asked
        self._skip = skip
        self._roots = roots
        self._folder = folder
        self._names_at = len(folder.rstrip("/")) + 1
        self._real = os.path.realpath(folder)
        self._patterns = patterns
        self._exclude = tuple(map(_anywhere, spec.patterns(asked.exclude)))
        self._origin = _origin(folder, globs, asked.follow_links)
        self._seen: set[tuple[int, int]] = set()
        self._links: list[str] = []

    def sources(self) -> Iterator[Source]:
        yield from self._below(self._folder)
        while self._links:
            links, self._links = sorted(self._links, key=os.fsencode), []
            for link in links:
                yield from self._behind(link)

    def _below(self, folder: str) -> Iterator[Source]:
        """Yield the files below a folder, unless it was walked before."""
        try:
            is_new = self._is_new(os.stat(folder))
        except FileNotFoundError:
            return  # removed meanwhile
        if not is_new and Path(folder).is_symlink() and self._is_picked(folder):
            self._skip("link to a folder that is in", uri_of(folder))
        for entry in _entries(folder) if is_new else ():
            if self._is_excluded(entry.path):
                continue
            if entry.name.startswith(".") and not self._asked.hidden:
                if (self._leads_on if entry.is_dir() else self._is_picked)(entry.path):
                    self._skip("hidden", uri_of(entry.path))
                continue
            if entry.is_symlink():
                self._links.append(entry.path)
            elif not entry.is_dir(follow_symlinks=False):
                yield from self._file(entry.path)
            elif self._leads_on(entry.path):
                yield from self._below(entry.path)

    def _behind(self, link: str) -> Iterator[Source]:
        real = os.path.realpath(link)
        if not self._asked.follow_links and not _is_within(real, self._real):
            if self._is_picked(link):
                self._skip("link out of the folder", uri_of(link))
            return
        if not _is_allowed(real, self._roots):
            if self._is_picked(link):  # its fetch reports the error
                yield Source(uri_of(link), self._origin, metadata=self._asked.metadata)
            return
        if not os.path.isdir(real):
            yield from self._file(link, is_link=True)
        elif self._leads_on(link):
            yield from self._below(link)

    def _file(self, path: str, is_link: bool = False) -> Iterator[Source]:
        if not self._is_picked(path):
            return
        try:
            found = os.stat(path)
        except OSError:  # or it was removed meanwhile
            if is_link:
                self._skip("broken link", uri_of(path))
            return
        if not stat.S_ISREG(found.st_mode):
            self._skip("not a file", uri_of(path))
        elif not found.st_size:
            self._skip("empty", uri_of(path))
        elif self._is_new(found) or not is_link:  # hard links count as files of their own
            yield _source(path, found, self._origin, self._asked.metadata)
        else:
            self._skip("link to a file that is in", uri_of(path))

    def _is_new(self, found: os.stat_result) -> bool:
        identity = (found.st_dev, found.st_ino)
        if identity in self._seen:
            return False
        self._seen.add(identity)
        return True

    def _is_excluded(self, path: str) -> bool:
        return any(_fits(self._names(path), pattern) for pattern in self._exclude)

    def _is_picked(self, path: str) -> bool:
        return not self._patterns or any(_fits(self._names(path), pattern) for pattern in self._patterns)

    def _leads_on(self, folder: str) -> bool:
        return not self._patterns or any(_leads_on(self._names(folder), each) for each in self._patterns)

    def _names(self, path: str) -> list[str]:
        return path[self._names_at :].split("/")


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: os.fsencode(entry.name))
    except FileNotFoundError:
        return []  # removed meanwhile
    except OSError as error:
        raise InvalidInput(
            f"the folder {_shown(folder)} can't be read: {error.strerror}. Let the workers read it, or exclude it."
        ) from error


def _split(path: str) -> tuple[str, str]:
    """Split before the first name with a `*`, `?` or `[` into a folder and a glob."""
    names = path.split("/")
    plain = list(takewhile(lambda name: not _MAGIC.search(name), names))
    return "/".join(plain) or "/", "/".join(names[len(plain) :])


def _anywhere(glob: str) -> Pattern:
    """A name alone matches at any depth, as in `.gitignore`; a path counts from the folder."""
    names = [name for name in glob.split("/") if name not in ("", ".")]
    return names if "/" in glob.rstrip("/") else ["**", *names]


def _fits(names: list[str], pattern: Pattern) -> bool:
    """Return True if a path matches a glob: `**` is any number of folders, and no other star matches a `/`."""
    if not pattern:
        return not names
    if pattern[0] == "**":
        return any(_fits(names[at:], pattern[1:]) for at in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], pattern[0]) and _fits(names[1:], pattern[1:])


def _leads_on(names: list[str], pattern: Pattern) -> bool:
    """Return True if something below a folder may match."""
    for name, want in zip(names, pattern, strict=False):
        if want == "**":
            return True
        if not fnmatchcase(name, want):
            return False
    return len(names) < len(pattern)


# ---- one file ------------------------------------------------------------------------------------------------


def _source(path: str, found: os.stat_result, origin: str, metadata: dict[str, Any]) -> Source:
    return Source(
        uri_of(path), origin, bytes=found.st_size, fingerprint=_fingerprint(found), metadata=metadata
    )


def _fingerprint(found: os.stat_result) -> str:
    return f"stat:{found.st_size}:{found.st_mtime_ns}"


def _origin(folder: str, globs: tuple[str, ...], follow_links: bool) -> str:
    """Include the glob in the origin: a file that another glob leaves out was not removed."""
    picked = [f"glob={quote_from_bytes(os.fsencode(glob), safe='/*?[]!')}" for glob in globs]
    picked += [_FOLLOWING] if follow_links else []
    return uri_of(folder) + (f"#{'&'.join(picked)}" if picked else "")


def _stat(path: str) -> os.stat_result:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise InvalidInput(
            f"{_shown(path)} does not exist where the workers run: name a file or a folder that is there."
        ) from None
    except OSError as error:
        raise InvalidInput(
            f"{_shown(path)} can't be read: {error.strerror}. Let the workers read it."
        ) from error
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        raise InvalidInput(f"{_shown(path)} is {_kind(found)}: name a file or a folder.")
    if not os.access(path, os.R_OK, effective_ids=True):
        raise InvalidInput(f"{_shown(path)} can't be read: Permission denied. Let the workers read it.")
    return found


def _check(source: Source, file: int, found: os.stat_result, max_bytes: int) -> None:
    """Check again, as the file may have been replaced since it was found, also by a link."""
    if not stat.S_ISREG(found.st_mode):
        raise rejected(source.uri, f"is {_kind(found)} now: only files can be read.", "invalid")
    if found.st_size > max_bytes:
        raise too_large(source.uri, max_bytes)
    folder, _, picked = source.origin.partition("#")
    if not folder.startswith("file:") or _FOLLOWING in picked.split("&"):
        return
    if not _is_within(os.readlink(f"/proc/self/fd/{file}"), os.path.realpath(path_of(folder))):
        what = "is a link now that leads out of its folder: set follow_links to read it."
        raise rejected(source.uri, what, "off_limits")


def _stay(path: str, folder: str, roots: Sequence[str]) -> None:
    """Raise InvalidInput if `folder`, which `path` leads to, is off limits, whether it exists or not."""
    if not _is_allowed(folder, roots):
        raise InvalidInput(f"{_shown(path)} {_OUTSIDE}")


def _outside(uri: str) -> SourceRejected:
    return rejected(uri, _OUTSIDE, "off_limits")


def _is_allowed(path: str, roots: Sequence[str]) -> bool:
    """Resolve the roots each time: one may be a link that a deploy changes."""
    real = os.path.realpath(path)
    return any(_is_within(real, os.path.realpath(root)) for root in roots)


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _kind(found: os.stat_result) -> str:
    return next((name for is_one, name in _KINDS if is_one(found.st_mode)), "not a file")


def _shown(path: str) -> str:
    """Return a path for a message, which is stored: bytes that are not UTF-8 become question marks."""
    return repr(path.encode(errors="replace").decode())


def _unreadable(uri: str, error: OSError) -> SourceRejected | SourceUnavailable:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return rejected(uri, "is gone. Remove it, or correct the path.", "gone")
    if isinstance(error, PermissionError | IsADirectoryError) or error.errno in _FINAL:
        return rejected(uri, f"can't be read: {error.strerror}. Let the workers read it.", "denied")
    return unavailable(uri, f"can't be read: {error.strerror}")
