"""Equations of Office files (OMML) as a line of text: `x=(-b±√(b^2-4ac))/2a`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lxml import etree  # type: ignore[import-untyped] # ships no types

_MATH = "{http://schemas.openxmlformats.org/officeDocument/2006/math}"
EQUATION = f"{_MATH}oMath"


def equation(root: Any) -> str:
    """Return the text of an oMath element. Works upwards from the innermost parts, because they may be nested very deeply."""
    texts: dict[Any, str] = {}
    for _, element in etree.iterwalk(root, events=("end",), tag="{*}*"):
        children = [
            (etree.QName(child).localname, texts.pop(child, "")) for child in element.iterchildren("{*}*")
        ]
        name = etree.QName(element).localname
        if name == "t":
            texts[element] = element.text or ""
        elif name in _SHAPES:
            texts[element] = _SHAPES[name](_Parts(children, element.find(f"{_MATH}{name}Pr")))
        elif name not in ("del", "moveFrom"):
            texts[element] = "".join(text for _, text in children)
    return " ".join(texts.get(root, "").split())


class _Parts:
    """The parts of a fraction, a root, a sum ... as texts, and its properties."""

    def __init__(self, children: list[tuple[str, str]], properties: Any) -> None:
        self._children = children
        self._properties = properties

    def all(self, name: str) -> list[str]:
        return [text for child, text in self._children if child == name]

    def text(self, name: str = "e") -> str:
        return "".join(self.all(name)).strip()

    def group(self, name: str = "e", sign: str = "") -> str:
        """Return a part behind the sign, in parentheses, unless it is one word or number."""
        text = self.text(name)
        return f"{sign}{text}" if len(text) == 1 or text.isalnum() else text and f"{sign}({text})"

    def scripts(self) -> str:
        return self.group("sub", "_") + self.group("sup", "^")

    def sign(self, name: str, default: str) -> str:
        found = self._properties.find(f"{_MATH}{name}") if self._properties is not None else None
        return default if found is None else found.get(f"{_MATH}val", default)


def _delimited(parts: _Parts) -> str:
    inner = parts.sign("sepChr", "|").join(parts.all("e"))
    return f"{parts.sign('begChr', '(')}{inner}{parts.sign('endChr', ')')}"


_SHAPES: dict[str, Callable[[_Parts], str]] = {
    "f": lambda parts: f"{parts.group('num')}/{parts.group('den')}",
    "sSup": lambda parts: parts.group() + parts.scripts(),
    "sSub": lambda parts: parts.group() + parts.scripts(),
    "sSubSup": lambda parts: parts.group() + parts.scripts(),
    "sPre": lambda parts: parts.scripts() + parts.group(),
    "rad": lambda parts: f"{parts.text('deg')}√{parts.group()}",
    "nary": lambda parts: f"{parts.sign('chr', '∫')}{parts.scripts()} {parts.text()}",
    "d": _delimited,
    "func": lambda parts: f"{parts.text('fName')} {parts.text()}",
    "limLow": lambda parts: parts.text() + parts.group("lim", "_"),
    "limUpp": lambda parts: parts.text() + parts.group("lim", "^"),
    "acc": lambda parts: parts.text() + parts.sign("chr", "\u0302"),
    "m": lambda parts: f"[{'; '.join(parts.all('mr'))}]",
    "mr": lambda parts: ", ".join(parts.all("e")),
    "eqArr": lambda parts: "; ".join(parts.all("e")),
}
