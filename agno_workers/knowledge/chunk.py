"""Split documents into chunks.

`structure` follows the document: sections by headings, within them blocks, then lines of lists, tables and code and sentences of prose.
It splits a sentence only if it is longer than a chunk. Among equally good boundaries it takes the one that a checksum of the
preceding words selects, not the last that fits: after an edit the boundaries realign within a few chunks, and only what was edited is
embedded again.

`fixed` takes windows of `max_chars`, split at blanks. `module:function` is your own; its chunks are split to `max_tokens`, too.

No chunk is empty, or longer than `max_chars` or `max_tokens`. In order, they cover the text except for headings, which are in the
paths of chunks.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, cast
from zlib import crc32

from msgspec.structs import replace

from agno_workers.errors import InvalidInput
from agno_workers.knowledge.normalise import GAP, Normal, clean
from agno_workers.knowledge.tokens import Tokens, tokens
from agno_workers.knowledge.types import Block, Chunk, Chunking, Parsed, Place, embedded_text

Path = tuple[str, ...]
Strategy = Callable[[Parsed, Chunking], tuple[str, Sequence[Chunk]]]


def split(normal: Normal, chunking: Chunking) -> tuple[str, tuple[Chunk, ...]]:
    """Return the text that offsets refer to, and its chunks. Raises InvalidInput for a strategy that can't be loaded or fails."""
    match chunking.strategy:
        case "structure":
            text, cuts = normal.text, list(_by_structure(normal, chunking))
        case "fixed":
            text, cuts = normal.text, list(_fixed(normal, chunking))
        case own:
            text, cuts = _by(own, normal.parsed, chunking)
    counted = _within_tokens(cuts, tokens(chunking.tokenizer), chunking.max_tokens)
    places = _PlacesOf(normal) if text is normal.text else None
    return text, tuple(_chunk(position, cut, count, places) for position, (cut, count) in enumerate(counted))


class Cut(NamedTuple):
    """A chunk whose tokens are not counted yet."""

    body: str
    start: int
    heading: Path
    above: str = ""
    """The repeated header row of a table."""
    kind: str = "paragraph"
    """The kind of its block, if it is part of one."""
    place: Place | None = None
    """That of the user's own chunk."""

    @property
    def content(self) -> str:
        return f"{self.above}\n{self.body}" if self.above else self.body

    @property
    def embedded(self) -> str:
        return embedded_text(self.heading, self.content)


def _chunk(position: int, cut: Cut, count: int, places: _PlacesOf | None) -> Chunk:
    digest = hashlib.sha256(cut.embedded.encode()).digest()
    end = cut.start + len(cut.body)
    place = cut.place if places is None else places(cut.start, end)
    return Chunk(position, cut.content, cut.heading, cut.start, end, count, digest, place)


class _PlacesOf:
    """Finds the pages, rows or lines of a chunk by its offsets."""

    def __init__(self, normal: Normal) -> None:
        self._starts, self._blocks = normal.starts, normal.parsed.blocks
        self._line_ends: dict[int, list[int]] = {}
        self._is_placed = any(block.place is not None for block in self._blocks)

    def __call__(self, start: int, end: int) -> Place | None:
        """Return the place of the first block that has one, extended over the blocks of the same part."""
        if not self._is_placed:
            return None
        found: Place | None = None
        for index in range(max(bisect_right(self._starts, start) - 1, 0), bisect_left(self._starts, end)):
            each = self._part(index, start - self._starts[index], end - self._starts[index])
            if found is None or each is None:
                found = found or each
            elif found.part == each.part and each.unit in (found.unit, ""):
                found = replace(found, last=max(found.last, each.last))
            elif found.part == each.part and not found.unit:  # a heading
                found = each
        return found

    def _part(self, index: int, start: int, end: int) -> Place | None:
        """Return the place of a part of a block, between two offsets in its text: some of its lines, if they are numbered."""
        block = self._blocks[index]
        if block.place is None or not block.lines:
            return block.place
        if index not in self._line_ends:
            self._line_ends[index] = [match.start() for match in re.finditer("\n", block.text)]
        ends = self._line_ends[index]
        if len(ends) != len(block.lines) - 1:  # a line without visible characters was removed
            return block.place
        first, last = bisect_left(ends, max(start, 0)), bisect_left(ends, end)
        return replace(block.place, first=block.lines[first], last=block.lines[last])


# Structure: merge tiny sections, split large ones.


class _Section(NamedTuple):
    """The text below a heading, up to the next one."""

    head: int
    """The offset of its heading."""
    start: int
    """The offset of its text, or of the heading if there is no text."""
    end: int
    above: Path
    """The headings above its own."""
    path: Path
    """The headings above `start`."""
    first: int
    last: int
    """The range of its blocks, without `last`."""
    part: str
    """Its sheet or attachment."""
    is_tiny: bool = False


def _by_structure(normal: Normal, chunking: Chunking) -> Iterator[Cut]:
    for section in _together(_sections(normal), chunking.max_chars):
        path = shortened(section.path, max(chunking.max_chars // 2, 80))
        blocks = normal.parsed.blocks[section.first : section.last]
        kind = blocks[0].kind if len(blocks) == 1 else "paragraph"
        if section.end - section.start <= chunking.max_chars:
            yield Cut(normal.text[section.start : section.end], section.start, path, "", kind)
            continue
        starts = normal.starts[section.first : section.last]
        marks = [mark for start, block in zip(starts, blocks, strict=True) for mark in _marks(start, block)]
        places = _Places(normal.text, section.end, marks, _Headers(starts, blocks, chunking.max_chars // 3))
        for above, start, stop in places.split(section.start, chunking.max_chars, chunking.overlap_chars):
            yield Cut(normal.text[start:stop], start, path, above, kind)


def _sections(normal: Normal) -> Iterator[_Section]:
    """Yield sections in order. A heading that is followed by a smaller one has no section: it is in the path of others."""
    title, blocks, text = normal.parsed.title, normal.parsed.blocks, normal.text
    headings = [index for index, block in enumerate(blocks) if block.kind == "heading"]
    open_: list[Block] = []
    for index, last in zip([-1, *headings], [*headings, len(blocks)], strict=True):
        if index >= 0:
            while open_ and open_[-1].level >= blocks[index].level:
                open_.pop()
            open_.append(blocks[index])
        first = index + 1
        end = normal.starts[last] - len(GAP) if last < len(blocks) else len(text)
        above, path = _path(title, open_[:-1]), _path(title, open_)
        at = blocks[max(index, 0)].place if blocks else None
        part = at.part if at else ""
        if first < last:
            head = normal.starts[max(index, 0)]
            yield _Section(head, normal.starts[first], end, above, path, first, last, part)
        elif index >= 0 and (last == len(blocks) or blocks[last].level <= blocks[index].level):
            yield _Section(normal.starts[index], normal.starts[index], end, above, above, first, last, part)


def _together(sections: Iterator[_Section], max_chars: int) -> Iterator[_Section]:
    """Merge tiny neighbours of one part under the same heading, up to `max_chars`, with their own headings in the text."""
    held: _Section | None = None
    for each in sections:
        section = each._replace(is_tiny=each.end - each.head <= max_chars // 4)
        if held is not None:
            is_near = held.is_tiny and section.is_tiny and held.part == section.part
            fits = is_near and section.end - held.head <= max_chars
            if fits and section.above == held.path:  # a subsection
                held = held._replace(end=section.end, last=section.last)
                continue
            if fits and section.above == held.above:
                held = held._replace(start=held.head, end=section.end, path=held.above, last=section.last)
                continue
            yield held
        held = section
    if held is not None:
        yield held


def _path(title: str | None, headings: Sequence[Block]) -> Path:
    """Join the title and the headings, unless a heading repeats the title."""
    texts = tuple([block.text for block in headings])
    if title is None or title.casefold() in map(str.casefold, texts):
        return texts
    return (title, *texts)


def shortened(path: Path, max_chars: int) -> Path:
    """Shorten a path: the first and the last heading are the most specific, so those between are dropped first, then the first."""
    while len(path) > 1 and len(" > ".join(path)) > max_chars:
        path = (path[0], *path[2:]) if len(path) > 2 else path[1:]
    if path and len(path[-1]) > max_chars:
        cut = path[-1][: max(max_chars - 1, 0)].rstrip()
        return (*path[:-1], f"{cut}…") if cut else ()
    return path


class _Headers:
    """Finds the header row that a chunk repeats if it starts within a table."""

    def __init__(self, starts: Sequence[int], blocks: Sequence[Block], max_chars: int) -> None:
        self._starts, self._blocks, self._max_chars = starts, blocks, max_chars

    def __call__(self, begin: int) -> str:
        index = bisect_right(self._starts, begin) - 1
        if index < 0 or self._blocks[index].kind != "table":
            return ""
        header = _HEADER.match(self._blocks[index].text, 0, self._max_chars + 1)  # a longer one is ignored
        if header is None or begin < self._starts[index] + header.end():
            return ""
        return header[1]


_HEADER = re.compile(r"([^\n]+(?:\n[-|:+= ]+)?)\n")  # with the rule below it, as in Markdown


# Other strategies.


def _fixed(normal: Normal, chunking: Chunking) -> Iterator[Cut]:
    path = _path(normal.parsed.title, ())
    places = _Places(normal.text, len(normal.text))
    for _, start, stop in places.split(0, chunking.max_chars, chunking.overlap_chars):
        yield Cut(normal.text[start:stop], start, path)


def _by(own: str, parsed: Parsed, chunking: Chunking) -> tuple[str, list[Cut]]:
    """Split with the user's function. Positions, tokens and hashes are computed here."""
    text, chunks = _function(own)(parsed, chunking)
    contents = ((chunk, clean(chunk.content).rstrip()) for chunk in chunks)
    return text, [
        Cut(content, chunk.start, tuple(map(clean, chunk.heading)), place=chunk.place)
        for chunk, content in contents
        if content
    ]


def _function(name: str) -> Strategy:
    module, _, attribute = name.partition(":")
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidInput(
            f"the chunking strategy {name!r} can't be loaded: {error}. Use structure, fixed or module:function.",
            strategy=name,
        ) from error
    if not callable(found):
        raise InvalidInput(f"the chunking strategy {name!r} is not a function: name one.", strategy=name)
    return cast(Strategy, found)


# Splitting a section.


class _Mark(NamedTuple):
    """A possible boundary: a chunk may end at `stop` and the next start at `at`, with blanks in between."""

    stop: int
    at: int
    rank: int


_LINE_WRAP, _SENTENCE, _LINE, _BLOCK = 1, 2, 3, 4

_NEW_LINE = re.compile(r"\n+")
_SENTENCE_END = re.compile(
    r"[\n.!?…。！？]"  # tested by lookbehind: a pattern that starts with a set is six times as fast
    r"(?:(?<=\n)\n*+"
    r"|(?<=[.!?…])[\"'”’)\]»]*+(\s++)(?=[^a-z0-9])"  # followed by the start of a sentence
    r"|(?<=[。！？])[\"'”’」』）]*+)"
)


def _marks(start: int, block: Block) -> Iterator[_Mark]:
    """Yield the boundaries of a block, its start first."""
    yield _Mark(start - len(GAP), start, _BLOCK)
    yield from _inner_marks(start, block.text, block.kind)


def _inner_marks(start: int, text: str, kind: str) -> Iterator[_Mark]:
    if kind in ("code", "table"):
        for match in _NEW_LINE.finditer(text):
            yield _Mark(start + match.start(), start + match.end(), _LINE)
        return
    for match in _SENTENCE_END.finditer(text):
        begin, end = match.span()
        if text[begin] == "\n":
            rank = _LINE if kind == "list" or end - begin > 1 else _LINE_WRAP
            yield _Mark(start + begin, start + end, rank)
        else:
            yield _Mark(start + (match.start(1) if match[1] else end), start + end, _SENTENCE)


def _nothing_above(_: int) -> str:
    return ""


class _Places:
    """Splits a text at the best boundaries."""

    def __init__(
        self, text: str, end: int, marks: Sequence[_Mark] = (), above: Callable[[int], str] = _nothing_above
    ) -> None:
        self._text, self._end, self._marks, self._above = text, end, marks, above
        self._ats = [mark.at for mark in marks]

    def split(self, begin: int, max_chars: int, overlap_chars: int = 0) -> Iterator[tuple[str, int, int]]:
        """Yield chunks as (repeated header, start, stop) in order. Each contains new text, and fits in `max_chars` together with its
        header.
        """
        covered = told = begin
        while True:
            above = self._above(begin)
            room = max_chars - len(above) - bool(above)
            if covered - begin > room // 2:  # the header row leaves no room for an overlap
                begin = covered
                continue
            if self._end - begin <= room:
                if begin < self._end:
                    yield above, begin, self._end
                return
            stop, at = self._place(begin, covered, room)
            stop = begin + len(self._text[begin:stop].rstrip())
            if stop > max(begin, told):  # more than blanks
                yield above, begin, stop
                told = stop
            begin, covered = self._back(at, begin, overlap_chars), at

    def _place(self, begin: int, covered: int, room: int) -> tuple[int, int]:
        """Return the best end of a chunk that starts at `begin`, after `covered`: between blocks in the second half of the room, another
        good boundary in the last third, an earlier one, a line or a blank, or anywhere.
        """
        inside, high = begin + room * 2 // 3, min(begin + room, self._end - room // 4)
        first = bisect_right(self._ats, max(covered, begin + room // 2))
        best = self._best(first, inside, high)
        if best is not None and best.rank >= _SENTENCE:
            return best.stop, best.at
        least = begin + room // 8
        for index in range(bisect_right(self._ats, inside) - 1, -1, -1):
            mark = self._marks[index]
            if mark.at <= covered or mark.stop <= begin:
                break
            if mark.rank >= _LINE or (mark.rank == _SENTENCE and mark.stop >= least):
                return mark.stop, mark.at
        if best is not None:
            return best.stop, best.at
        blank = self._text.rfind(" ", max(covered + 1, begin + room // 4), begin + room + 1)
        if blank >= 0:
            return blank, self._past_blanks(blank)
        anywhere = self._between_letters(begin + room, covered + 1)
        return anywhere, self._past_blanks(anywhere)

    def _best(self, first: int, inside: int, high: int) -> _Mark | None:
        """Return the boundary of the highest rank up to `high`; within a block only after `inside`. The checksum of the preceding words
        decides between equal ones.
        """
        best: _Mark | None = None
        choice = 0
        for index in range(first, len(self._marks)):
            mark = self._marks[index]
            if mark.stop > high:
                break
            if (best is not None and mark.rank < best.rank) or (mark.rank < _BLOCK and mark.at <= inside):
                continue
            checksum = crc32(self._text[max(mark.stop - 32, 0) : mark.stop].encode())
            if best is None or mark.rank > best.rank or checksum < choice:
                best, choice = mark, checksum
        return best

    def _between_letters(self, at: int, least: int) -> int:
        """Move back a few characters, so that letters keep their accents and emoji stay whole."""
        for place in range(at, max(least, at - 16) - 1, -1):
            before, after = self._text[place - 1], self._text[place]
            if not unicodedata.combining(after) and after not in _JOINERS and before != "\u200d":
                return place
        return at

    def _past_blanks(self, at: int) -> int:
        while at < self._end and self._text[at].isspace():
            at += 1
        return at

    def _back(self, at: int, begin: int, overlap_chars: int) -> int:
        """Return the start of the next chunk, which repeats up to `overlap_chars` of this one."""
        least = max(at - overlap_chars, begin + 1)
        if overlap_chars == 0 or least >= at:
            return at
        index = bisect_left(self._ats, least)
        if index < len(self._ats) and self._ats[index] < at:
            return self._ats[index]
        blank = self._text.find(" ", least, at - 1)
        return blank + 1 if blank >= 0 else least


_JOINERS = frozenset("\u200c\u200d\ufe0e\ufe0f\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")


# The token limit.


def _within_tokens(cuts: list[Cut], tokenizer: Tokens, limit: int) -> list[tuple[Cut, int]]:
    """Split cuts that exceed the token limit, and return all with their tokens. Only parts of split cuts are counted again."""

    def is_over(cut: Cut, count: int) -> bool:
        return count > limit and (len(cut.body) > 1 or bool(cut.heading or cut.above))

    counted = _counted(cuts, tokenizer)
    while over := [(cut, count) for cut, count in counted if is_over(cut, count)]:
        of_headings = tokenizer.counts([embedded_text(cut.heading, "") for cut, _ in over])
        parts = [
            list(_smaller(cut, count, heading, limit))
            for (cut, count), heading in zip(over, of_headings, strict=True)
        ]
        lengths, fresh = map(len, parts), iter(_counted([part for each in parts for part in each], tokenizer))
        counted = [
            pair for each in counted for pair in (islice(fresh, next(lengths)) if is_over(*each) else (each,))
        ]
    return counted


def _counted(cuts: list[Cut], tokenizer: Tokens) -> list[tuple[Cut, int]]:
    return list(zip(cuts, tokenizer.counts([cut.embedded for cut in cuts]), strict=True))


def _smaller(cut: Cut, count: int, of_heading: int, limit: int) -> Iterator[Cut]:
    """Shorten the headings if they take more than half of the limit; otherwise split, assuming that tokens are evenly distributed."""
    if cut.heading and (of_heading > limit // 2 or len(cut.content) == 1):
        chars = len(" > ".join(cut.heading))
        yield cut._replace(heading=shortened(cut.heading, min(chars * limit // (2 * of_heading), chars - 1)))
        return
    share = max(limit - of_heading, 1) / max(count - of_heading, 1)
    max_chars = max(min(int(len(cut.content) * share * 0.95), len(cut.body) - 1), 1)
    marks = list(_inner_marks(0, cut.body, cut.kind))
    places = _Places(cut.body, len(cut.body), marks, _headers(cut, max_chars // 3))
    for above, start, stop in places.split(0, max_chars):
        yield cut._replace(body=cut.body[start:stop], start=cut.start + start, above=above)


def _headers(cut: Cut, max_chars: int) -> Callable[[int], str]:
    """Return the header row for the parts of a cut."""
    if not cut.above:
        return _Headers((0,), (Block(cut.kind, cut.body),), max_chars)  # type: ignore[arg-type]  # the kind of a block
    above = cut.above if len(cut.above) <= max_chars else ""
    return lambda _: above
