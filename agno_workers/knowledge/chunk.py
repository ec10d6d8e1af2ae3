"""From a document to the chunks that are embedded and found.

`structure` cuts where the author did: sections by headings, in them between blocks, then between lines of lists, tables and
code and sentences of prose, and inside a sentence only where one is longer than a chunk. Among equally good places it takes
the one that the words before it choose (their checksum), not the last that fits: so after an edit the cuts fall where they
fell before, a few chunks on, and only what was edited is embedded again.

`fixed` takes windows of `max_chars`, cut at blanks. `module:function` is the user's own; what it gives is kept within
`max_tokens` like the others.

No chunk is empty or longer than `max_chars` or `max_tokens`; in order, they cover the text, but for headings that stand in
the path of a chunk.
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

from agno_workers.errors import InvalidInput
from agno_workers.knowledge.normalise import GAP, Normal, clean
from agno_workers.knowledge.tokens import Tokens, tokens
from agno_workers.knowledge.types import Block, Chunk, Chunking, Parsed, embedded_text

Path = tuple[str, ...]
Strategy = Callable[[Parsed, Chunking], tuple[str, Sequence[Chunk]]]


def split(normal: Normal, chunking: Chunking) -> tuple[str, tuple[Chunk, ...]]:
    """The text that offsets count in, and its chunks. Raises InvalidInput for a strategy that can't be loaded or used;
    the numbers are checked where they were handed in, see chunking.py.
    """
    match chunking.strategy:
        case "structure":
            text, cuts = normal.text, list(_by_structure(normal, chunking))
        case "fixed":
            text, cuts = normal.text, list(_fixed(normal, chunking))
        case own:
            text, cuts = _by(own, normal.parsed, chunking)
    counted = _within_tokens(cuts, tokens(chunking.tokenizer), chunking.max_tokens)
    return text, tuple(_chunk(position, cut, count) for position, (cut, count) in enumerate(counted))


class Cut(NamedTuple):
    """A chunk before its tokens are known."""

    body: str
    start: int
    heading: Path
    above: str = ""
    """The header row of a table that is continued here."""
    kind: str = "paragraph"
    """Of the block it is from, where it is from one."""

    @property
    def content(self) -> str:
        return f"{self.above}\n{self.body}" if self.above else self.body

    @property
    def embedded(self) -> str:
        return embedded_text(self.heading, self.content)


def _chunk(position: int, cut: Cut, count: int) -> Chunk:
    digest = hashlib.sha256(cut.embedded.encode()).digest()
    return Chunk(position, cut.content, cut.heading, cut.start, cut.start + len(cut.body), count, digest)


# Structure: sections, tiny ones together, large ones cut.


class _Section(NamedTuple):
    """What stands under one heading, up to the next."""

    head: int
    """Where its heading begins in the text."""
    start: int
    """Where it begins itself: under the heading, or with it, where that is all there is."""
    end: int
    above: Path
    """The headings above its own."""
    path: Path
    """The headings above what begins at `start`."""
    first: int
    last: int
    """Its blocks; `last` is not one of them."""
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
    """In order. One that has nothing under it but smaller headings is left out: it is in their paths."""
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
        if first < last:
            head = normal.starts[max(index, 0)]
            yield _Section(head, normal.starts[first], end, above, path, first, last)
        elif index >= 0 and (last == len(blocks) or blocks[last].level <= blocks[index].level):
            yield _Section(normal.starts[index], normal.starts[index], end, above, above, first, last)


def _together(sections: Iterator[_Section], max_chars: int) -> Iterator[_Section]:
    """Tiny neighbours under the same heading become one, up to `max_chars`, with their own headings in its text."""
    held: _Section | None = None
    for each in sections:
        section = each._replace(is_tiny=each.end - each.head <= max_chars // 4)
        if held is not None:
            fits = held.is_tiny and section.is_tiny and section.end - held.head <= max_chars
            if fits and section.above == held.path:  # a child, or one more of several
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
    """The title comes first, unless one of the headings repeats it."""
    texts = tuple([block.text for block in headings])
    if title is None or title.casefold() in map(str.casefold, texts):
        return texts
    return (title, *texts)


def shortened(path: Path, max_chars: int) -> Path:
    """The first and the last heading say most: those between go where all are too long, then the first."""
    while len(path) > 1 and len(" > ".join(path)) > max_chars:
        path = (path[0], *path[2:]) if len(path) > 2 else path[1:]
    if path and len(path[-1]) > max_chars:
        cut = path[-1][: max(max_chars - 1, 0)].rstrip()
        return (*path[:-1], f"{cut}…") if cut else ()
    return path


class _Headers:
    """The header row that a chunk repeats where it begins within a table."""

    def __init__(self, starts: Sequence[int], blocks: Sequence[Block], max_chars: int) -> None:
        self._starts, self._blocks, self._max_chars = starts, blocks, max_chars

    def __call__(self, begin: int) -> str:
        index = bisect_right(self._starts, begin) - 1
        if index < 0 or self._blocks[index].kind != "table":
            return ""
        header = _HEADER.match(
            self._blocks[index].text, 0, self._max_chars + 1
        )  # a long one is not looked at
        if header is None or begin < self._starts[index] + header.end():
            return ""
        return header[1]


_HEADER = re.compile(r"([^\n]+(?:\n[-|:+= ]+)?)\n")  # with the rule under it, as Markdown has it


# Strategies beside structure.


def _fixed(normal: Normal, chunking: Chunking) -> Iterator[Cut]:
    path = _path(normal.parsed.title, ())
    places = _Places(normal.text, len(normal.text))
    for _, start, stop in places.split(0, chunking.max_chars, chunking.overlap_chars):
        yield Cut(normal.text[start:stop], start, path)


def _by(own: str, parsed: Parsed, chunking: Chunking) -> tuple[str, list[Cut]]:
    """What a user's function gives. Its positions, tokens and hashes are ours to fill in."""
    text, chunks = _function(own)(parsed, chunking)
    contents = ((chunk, clean(chunk.content).rstrip()) for chunk in chunks)
    return text, [
        Cut(content, chunk.start, tuple(map(clean, chunk.heading))) for chunk, content in contents if content
    ]


def _function(name: str) -> Strategy:
    module, _, attribute = name.partition(":")
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        known = f"the strategies are structure, fixed and module:function, and {name!r}"
        raise InvalidInput(f"{known} can't be loaded: {error}. Correct it.", strategy=name) from error
    if not callable(found):
        raise InvalidInput(f"{name!r} is no function: it can't cut documents.", strategy=name)
    return cast(Strategy, found)


# Cutting a stretch of text.


class _Mark(NamedTuple):
    """A place to cut at: a chunk may end at `stop`, and the next begins at `at`; between them are blanks."""

    stop: int
    at: int
    rank: int


_LINE_WRAP, _SENTENCE, _LINE, _BLOCK = 1, 2, 3, 4

_NEW_LINE = re.compile(r"\n+")
_SENTENCE_END = re.compile(
    r"[\n.!?…。！？]"  # told apart behind it: a pattern that begins with a set is searched six times as fast
    r"(?:(?<=\n)\n*+"
    r"|(?<=[.!?…])[\"'”’)\]»]*+(\s++)(?=[^a-z0-9])"  # what follows begins like a sentence
    r"|(?<=[。！？])[\"'”’」』）]*+)"
)


def _marks(start: int, block: Block) -> Iterator[_Mark]:
    """Where a block may be cut, its beginning first."""
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
    """The places where a stretch of text may be cut, and the cutting."""

    def __init__(
        self, text: str, end: int, marks: Sequence[_Mark] = (), above: Callable[[int], str] = _nothing_above
    ) -> None:
        self._text, self._end, self._marks, self._above = text, end, marks, above
        self._ats = [mark.at for mark in marks]

    def split(self, begin: int, max_chars: int, overlap_chars: int = 0) -> Iterator[tuple[str, int, int]]:
        """Chunks as (what to repeat above it, start, stop), in order, from `begin` to the end of the stretch. Each holds
        something that the one before it doesn't, and is within `max_chars` together with what is above it.
        """
        covered = told = begin
        while True:
            above = self._above(begin)
            room = max_chars - len(above) - bool(above)
            if covered - begin > room // 2:  # a header row, and no room left for an overlap
                begin = covered
                continue
            if self._end - begin <= room:
                if begin < self._end:
                    yield above, begin, self._end
                return
            stop, at = self._place(begin, covered, room)
            stop = begin + len(self._text[begin:stop].rstrip())
            if stop > max(begin, told):  # blanks alone are nothing new
                yield above, begin, stop
                told = stop
            begin, covered = self._back(at, begin, overlap_chars), at

    def _place(self, begin: int, covered: int, room: int) -> tuple[int, int]:
        """The best place for a chunk from `begin` to end, after `covered`: between blocks in the second half of its room, another
        good one in the last third, an earlier one, a line or a blank, anywhere.
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
        """Of the highest rank, up to `high`, and past `inside` if it lies in a block; of several, the one that the words before
        it choose.
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
        """Not between a letter and its accent, nor within an emoji; as far as that takes a few steps only."""
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
        """Where the next chunk begins, so that it repeats up to `overlap_chars` of this one: at a good place."""
        least = max(at - overlap_chars, begin + 1)
        if overlap_chars == 0 or least >= at:
            return at
        index = bisect_left(self._ats, least)
        if index < len(self._ats) and self._ats[index] < at:
            return self._ats[index]
        blank = self._text.find(" ", least, at - 1)
        return blank + 1 if blank >= 0 else least


_JOINERS = frozenset("\u200c\u200d\ufe0e\ufe0f\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")


# The model's limit.


def _within_tokens(cuts: list[Cut], tokenizer: Tokens, limit: int) -> list[tuple[Cut, int]]:
    """The same cuts with their tokens, those that are too long for the model in parts. All of the text is counted once; only what
    was too long is counted again.
    """

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
    """With less of its headings, where these take more than half; else in parts that should fit, as far as characters are alike."""
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
    """What the parts of a chunk repeat."""
    if not cut.above:
        return _Headers((0,), (Block(cut.kind, cut.body),), max_chars)  # type: ignore[arg-type]  # a block's own kind
    above = cut.above if len(cut.above) <= max_chars else ""
    return lambda _: above
