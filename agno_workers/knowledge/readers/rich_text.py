"""RTF: paragraphs, headings by their styles, lists and tables, without deleted and hidden text. Notes and comments follow their paragraph;
page headers come first and footers last.

Own code, because the libraries return plain text without headings and tables. It never opens what a file refers to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from agno_workers.knowledge.readers.tables import table
from agno_workers.knowledge.readers.titles import best
from agno_workers.knowledge.readers.unreadable import MAX_CHARS, Unreadable, too_long
from agno_workers.knowledge.types import Block, Parsed

_TOKEN = re.compile(
    r"\\(?P<word>[A-Za-z]{1,32})(?P<number>-?\d{1,12})?[ ]?|\\'(?P<byte>[0-9A-Fa-f]{2})|\\(?P<sign>[^A-Za-z])|(?P<group>[{}])|[\r\n\0]+"
    r"|(?P<text>[^\\{}\r\n\0]+)"
)
_MAX_DEPTH = 10_000
_PAGE_NUMBER_LETTERS = 10
_CHARSETS = {
    77: "mac_roman", 128: "cp932", 129: "cp949", 134: "gb18030", 136: "cp950", 161: "cp1253", 162: "cp1254", 163: "cp1258", 177: "cp1255",
    178: "cp1256", 186: "cp1257", 204: "cp1251", 222: "cp874", 238: "cp1250",
}  # fmt: skip
_CHARS = {
    "tab": "\t", "line": "\n", "lbr": "\n", "emdash": "—", "endash": "–", "lquote": "‘", "rquote": "’", "ldblquote": "“", "rdblquote": "”",
    "bullet": "•", "emspace": " ", "enspace": " ", "qmspace": " ", "nestcell": " ", "nestrow": "\n",
}  # fmt: skip
_SIGNS = {"~": "\xa0", "_": "-", "\\": "\\", "{": "{", "}": "}", "\t": "\t"}
_INFO = {
    "title": "title",
    "author": "author",
    "subject": "description",
    "keywords": "keywords",
    "creatim": "date",
}
_SKIPPED = {
    "colortbl", "pict", "nonshppict", "sp", "shprslt", "xe", "tc", "fldinst", "ftnsep", "ftnsepc", "ftncn", "aftnsep", "aftnsepc", "aftncn",
    "template", "filetbl", "info", "pntxta", "pntxtb", "themedata", "datastore", "latentstyles", "listtable", "upr",
}  # fmt: skip
_SHOWN_WITH_STAR = {"shpinst", "ud", "annotation", "atnauthor", "footnote"}
_MARGINS = {f"{kind}{page}": kind for kind in ("header", "footer") for page in ("", "l", "r", "f")}


@dataclass
class _State:
    """Properties of a group, which end with it."""

    to: str = "body"
    """Where the text goes; empty: nowhere."""
    around: str = "body"
    unicode_skip: int = 1
    font: int = -1
    hidden: bool = False
    deleted: bool = False
    style: int = 0
    outline: int = -1
    in_table: bool = False
    depth: int = 0


@dataclass
class _Style:
    name: str = ""
    outline: int = -1


@dataclass
class _Paragraph:
    """Text that is being collected, for each place that it goes to."""

    parts: list[str] = field(default_factory=list)
    is_item: bool = False
    has_page_number: bool = False

    def text(self) -> str:
        text = "".join(self.parts).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return text.strip(" \t\n")


def read(content: bytes, _media_type: str, _name: str) -> Parsed:
    """Read the title of the file, or the paragraph with the style Title."""
    reader = _Reader(content.decode("latin-1"))
    blocks = tuple(reader.blocks())
    headers, footers = (
        tuple(Block("paragraph", line) for line in reader.margins[kind]) for kind in ("header", "footer")
    )
    metadata = {key: value for key, value in reader.info.items() if value}
    title = metadata.pop("title", None)
    return Parsed((*headers, *blocks, *footers), best(title, reader.title), metadata)


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._state = _State()
        self._stack: list[_State] = []
        self._codepage = "cp1252"
        self._fonts: dict[int, str] = {}
        self._styles: dict[int, _Style] = {}
        self._bytes = bytearray()
        self._skip = 0
        """Characters to leave out, which repeat a \\u for old programs."""
        self._open: dict[str, _Paragraph] = {}
        self._cells: list[str] = []
        self._rows: list[list[str]] = []
        self._items: list[str] = []
        self._notes: list[str] = []
        """Notes of the current paragraph."""
        self._waiting: list[str] = []
        """Notes of the current list or table."""
        self._note_count = 0
        self.title: str | None = None
        self.info: dict[str, Any] = {}
        self.margins: dict[str, dict[str, None]] = {"header": {}, "footer": {}}

    def blocks(self) -> Iterator[Block]:
        """Read the file in one pass."""
        at, chars = 0, 0
        while found := _TOKEN.match(self._text, at):
            at = found.end()
            word, group = found["word"], found["group"]
            if found["byte"]:
                self._byte(int(found["byte"], 16))
                continue
            if self._bytes:
                self._flush_bytes()
            if found["text"]:
                self._add(found["text"])
            elif group == "{":
                self._skip = 0
                if len(self._stack) > _MAX_DEPTH:
                    raise Unreadable("unreadable", "It is an RTF file whose groups are nested too deeply.")
                self._stack.append(replace(self._state))
            elif group == "}":
                self._skip = 0
                self._end_of_group()
            elif found["sign"]:
                at = self._sign(found["sign"], at)
            elif word == "bin":
                at += max(int(found["number"] or 0), 0)
            elif word in ("par", "sect", "row", "cell") and self._state.to == "body":
                for block in self._end(word):
                    chars += len(block.text)
                    if chars > MAX_CHARS:
                        raise too_long(chars)
                    yield block
            elif word:
                self._word(word, int(found["number"]) if found["number"] else None)
        yield from self._end("par")
        yield from self._end_of_table()
        yield from self._end_of_list()

    def _word(self, word: str, number: int | None) -> None:
        state = self._state
        match word:
            case "u" if number is not None:
                self._skip = 0
                self._add(chr(number % 65536))
                self._skip = state.unicode_skip
            case "uc":
                state.unicode_skip = min(number or 0, 10)
            case "ansicpg" if number:
                self._codepage = _codec(f"cp{number}")
            case "mac" | "pc" | "pca":
                self._codepage = {"mac": "mac_roman", "pc": "cp437", "pca": "cp850"}[word]
            case "f":
                state.font = number or 0
            case "fcharset" if state.to == "fonttbl":
                self._fonts[state.font] = _CHARSETS.get(number or 0, "")
            case "v" | "deleted":
                setattr(state, {"v": "hidden"}.get(word, word), number != 0)
            case "plain":
                state.hidden = state.deleted = False
                state.font = -1
            case "pard":
                state.style, state.outline, state.in_table = 0, -1, False
            case "s":
                state.style = number or 0
            case "outlinelevel":
                state.outline = -1 if number is None else number
                if state.to == "stylesheet":
                    self._styles.setdefault(state.style, _Style()).outline = state.outline
            case "intbl":
                state.in_table = True
            case "chpgn":
                self._into().has_page_number = True
            case "par" | "sect" | "cell" | "row":
                self._add("\n")
            case "listtext" | "pntext":
                self._into().is_item = True
                state.to = ""
            case "ilvl":
                state.depth = min(number or 0, 8)
            case "footnote":
                self._note_count += 1
                self._add(f"[{self._note_count}]")
                self._open["note"] = _Paragraph([f"[{self._note_count}] "])
                state.to = "note"
            case "annotation":
                author = self._open.pop("noter", _Paragraph()).text()
                self._open["note"] = _Paragraph([f"Comment ({author}): " if author else "Comment: "])
                state.to = "note"
            case "atnauthor":
                state.to = "noter"
            case "ud":
                state.to = state.around
            case "fonttbl" | "stylesheet":
                state.to = word
            case "yr" | "mo" | "dy" | "hr" | "min" if state.to == "date":
                self._open.setdefault("date", _Paragraph()).parts.append(f"{number or 0:02} ")
            case _ if word in _SKIPPED:
                state.around, state.to = state.to, ""
            case _ if word in _INFO and state.to == "" and self._stack and word != "creatim":
                state.to = _INFO[word]
            case "creatim":
                state.to = "date"
            case _ if word in _MARGINS:
                state.to = _MARGINS[word]
            case _ if word in _CHARS:
                self._add(_CHARS[word])
            case _:
                pass

    def _sign(self, sign: str, at: int) -> int:
        if sign == "*":
            following = _TOKEN.match(self._text, at)
            if following and following["word"] not in _SHOWN_WITH_STAR:
                self._state.to = ""
                return following.end()
        elif sign in "\r\n" and self._state.to == "body":
            self._add("\n")
        elif sign in _SIGNS:
            self._add(_SIGNS[sign])
        return at

    def _byte(self, byte: int) -> None:
        if self._skip:
            self._skip -= 1
        else:
            self._bytes.append(byte)

    def _flush_bytes(self) -> None:
        codec = self._fonts.get(self._state.font) or self._codepage
        text = self._bytes.decode(codec, "replace")
        self._bytes.clear()
        self._add(text)

    def _into(self) -> _Paragraph:
        return self._open.setdefault(self._state.to, _Paragraph())

    def _add(self, text: str) -> None:
        if self._skip:
            text, self._skip = text[self._skip :], max(self._skip - len(text), 0)
        state = self._state
        if state.to == "stylesheet":
            style = self._styles.setdefault(state.style, _Style())
            style.name += text.partition(";")[0]
        elif state.to not in ("", "fonttbl") and not state.hidden and not state.deleted:
            self._into().parts.append(text)

    def _end_of_group(self) -> None:
        ended, self._state = self._state, self._stack.pop() if self._stack else _State()
        if ended.to == self._state.to:
            return
        if ended.to == "note" and (text := self._open.pop("note", _Paragraph()).text()):
            self._notes.append(" ".join(text.split()))
        elif ended.to in self.margins and (found := self._open.pop(ended.to, None)):
            for line in found.text().split("\n"):
                if line.strip() and not (
                    found.has_page_number and sum(map(str.isalpha, line)) <= _PAGE_NUMBER_LETTERS
                ):
                    self.margins[ended.to][line.strip()] = None
        elif ended.to == "date" and (found := self._open.pop("date", None)):
            year, month, day, hour, minute = (*"".join(found.parts).split(), *["00"] * 5)[:5]
            if int(year):
                self.info["date"] = f"{int(year):04}-{month}-{day}T{hour}:{minute}:00"
        elif ended.to in _INFO.values() and (found := self._open.pop(ended.to, None)):
            self.info[ended.to] = " ".join(found.text().split())[:2000]

    def _end(self, word: str) -> Iterator[Block]:
        """End a paragraph, a cell or a row."""
        state, found = self._state, self._open.pop("body", _Paragraph())
        text = found.text()
        notes, self._notes = self._notes, []
        if word in ("cell", "row") or state.in_table or (found.is_item and not self._level()):
            self._waiting += notes
        if word == "cell":
            self._cells.append(text)
        elif word == "row":
            self._rows.append(self._cells)
            self._cells = []
        elif state.in_table:
            self._open["body"] = _Paragraph([f"{text}\n"] if text else [])
        elif text:
            yield from self._end_of_table()
            if found.is_item and not self._level():
                self._items.append(f"{'  ' * state.depth}- {text}")
            else:
                yield from self._end_of_list()
                yield self._block(text)
                yield from (Block("paragraph", note) for note in notes)

    def _level(self) -> int:
        """Return the level of the heading by its outline level or the name of its style; 0 for text."""
        style = self._styles.get(self._state.style, _Style())
        outline = self._state.outline if self._state.outline >= 0 else style.outline
        if 0 <= outline < 9:
            return outline + 1
        name = style.name.strip().lower()
        if name.startswith("heading ") and name[8:9].isdecimal():
            return int(name[8]) or 1
        return 1 if name == "title" else 0

    def _block(self, text: str) -> Block:
        if level := self._level():
            if self._styles.get(self._state.style, _Style()).name.strip().lower() == "title":
                self.title = self.title or text
            return Block("heading", " ".join(text.split()), level=level)
        return Block("paragraph", text)

    def _end_of_table(self) -> Iterator[Block]:
        if self._rows:
            yield from self._end_of_list()
            yield from filter(None, [table(self._rows)])
            self._rows = []
            yield from self._follow()

    def _end_of_list(self) -> Iterator[Block]:
        if self._items:
            yield Block("list", "\n".join(self._items))
            self._items = []
            yield from self._follow()

    def _follow(self) -> Iterator[Block]:
        yield from (Block("paragraph", text) for text in self._waiting)
        self._waiting = []


def _codec(name: str) -> str:
    try:
        b"".decode(name)
    except LookupError:
        return "cp1252"
    return name
