"""Groups of tools, and the collection of an agent's mixed list of tools into one table by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from agno_workers.core.tool import Tool
from agno_workers.errors import InvalidTool
from agno_workers.tools.decorate import FunctionTool, tool
from agno_workers.tools.signature import describe


class Toolkit:
    """A named group of tools: `Toolkit("maths", [add, multiply])`, or a subclass whose public methods with `@tool` are its tools,
    bound to the instance.

    `include` selects tools by name, `exclude` leaves some out; an unknown name raises InvalidTool when the toolkit is built. A
    subclass with its own `__init__` needs to call `super().__init__` only for a name or a selection.
    """

    name: str = ""
    """The name in errors. Default: the name of the class."""
    _given: tuple[object, ...] = ()
    _include: frozenset[str] | None = None
    _exclude: frozenset[str] = frozenset()

    def __init__(
        self,
        name: str = "",
        tools: Iterable[object] = (),
        *,
        include: Iterable[str] | None = None,
        exclude: Iterable[str] = (),
    ) -> None:
        self.name = name or type(self).__name__
        self._given = tuple(tools)
        self._include = None if include is None else frozenset(include)
        self._exclude = frozenset(exclude)
        self.tools()

    def tools(self) -> dict[str, Tool]:
        """Return the selected tools by name: the methods in the order of their definition, then the given tools."""
        found = _table([*_methods(self), *_flatten(self._given)])
        unknown = ((self._include or frozenset()) | self._exclude) - found.keys()
        if unknown:
            raise InvalidTool(
                f"{self!r} has no tool {', '.join(sorted(unknown))} to include or exclude;"
                f" it has {', '.join(sorted(found)) or 'none'}."
            )
        included = found.keys() if self._include is None else self._include
        return {name: each for name, each in found.items() if name in included and name not in self._exclude}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


def collect(tools: Iterable[object]) -> dict[str, Tool]:
    """Return tools by name, in order, from tools, plain functions, toolkits (instances, or classes without required arguments) and
    nested lists of these.

    A function that is listed twice counts once. Raises InvalidTool for two functions with one name, and for anything that is not
    a tool.
    """
    return _table(_flatten(tools))


def _table(tools: Iterable[Tool]) -> dict[str, Tool]:
    found: dict[str, Tool] = {}
    for each in tools:
        if isinstance(each, FunctionTool) and each.unbound:
            raise InvalidTool(f"{describe(each.function)} is a method: pass an instance of its toolkit.")
        other = found.setdefault(each.name, each)
        if other.function != each.function:
            raise InvalidTool(
                f"two tools are named {each.name!r}: {describe(other.function)} and {describe(each.function)}."
                " Remove one, or rename it with @tool(name=...)."
            )
    return found


def _flatten(item: Any) -> Iterator[Tool]:
    if isinstance(item, Tool):
        yield item
    elif isinstance(item, Toolkit):
        yield from item.tools().values()
    elif isinstance(item, type) and issubclass(item, Toolkit):
        yield from _instance(item).tools().values()
    elif callable(item):
        yield _made(item)
    elif isinstance(item, Iterable) and not isinstance(item, str | bytes | Mapping):
        for inner in item:
            yield from _flatten(inner)
    else:
        raise InvalidTool(f"{item!r} is not a tool: pass functions, tools, toolkits or lists of them.")


def _made(function: Any) -> Tool:
    """Return the tool of a plain function. It is made once, because that takes a millisecond, and agents may share it."""
    known = getattr(function, "__agno_tool__", None)
    if (
        isinstance(known, FunctionTool) and known.function is function
    ):  # not that of a function which this one wraps
        return known
    made = tool(function)
    with suppress(AttributeError, TypeError):  # a method, a builtin
        function.__agno_tool__ = made
    return made


def _instance(kind: type[Toolkit]) -> Toolkit:
    try:
        return kind()
    except TypeError as error:
        text = f"{kind.__qualname__} cannot be built without arguments ({error}): pass an instance."
        raise InvalidTool(text) from error


def _methods(toolkit: Toolkit) -> Iterator[Tool]:
    """Yield the public methods with `@tool`, base classes first; an override keeps the position of the original."""
    marked: dict[str, bool] = {}
    for kind in reversed(type(toolkit).__mro__):
        for name, attribute in vars(kind).items():
            plain = attribute.__func__ if isinstance(attribute, staticmethod) else attribute
            marked[name] = isinstance(plain, Tool)
    for name, is_tool in marked.items():
        if is_tool and not name.startswith("_"):
            yield getattr(toolkit, name)
