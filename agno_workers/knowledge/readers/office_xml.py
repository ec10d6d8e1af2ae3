"""Read and walk the XML of Office files and books, without recursion, because elements may be nested very deeply."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from typing import Any

from lxml import etree  # type: ignore[import-untyped] # ships no types

from agno_workers.knowledge.readers.unreadable import Unreadable

_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
"""The drawing for old programs: it repeats what the current ones show."""
_FILE_NAME = re.compile(r"\S+\.[A-Za-z]{3,4}")


def root(archive: zipfile.ZipFile, name: str, missing: str) -> Any:
    """Return the root of an XML file in a zip that was checked. Raises Unreadable: `missing` for a file that is not there, and for one
    that is broken or nested deeper than 256 levels.
    """
    if name not in archive.NameToInfo:
        raise Unreadable("unreadable", missing)
    try:
        return etree.fromstring(archive.read(name), etree.XMLParser(resolve_entities=False, no_network=True))
    except etree.XMLSyntaxError as error:
        raise Unreadable("unreadable", f"{name} in it is broken XML: {error}") from error


def walk(root: Any, closed: set[str]) -> Iterator[Any]:
    """Yield the elements below the root in order. Elements with a tag in `closed` are yielded, but nothing in them."""
    element = next(iter(root), None)
    while element is not None:
        inner = None
        if element.tag != _FALLBACK:
            yield element
            inner = None if element.tag in closed else next(iter(element), None)
        element = inner if inner is not None else _after(element, root)


def alternative_text(properties: Any) -> str:
    """Return the description of a picture, by its docPr or cNvPr element; empty if it is only a file name."""
    text = " ".join((properties.get("descr") or "").split())
    return "" if _FILE_NAME.fullmatch(text) else text


def _after(element: Any, root: Any) -> Any:
    """Return the next element outside of this one."""
    while element is not None and element is not root:
        following = element.getnext()
        if following is not None:
            return following
        element = element.getparent()
    return None
