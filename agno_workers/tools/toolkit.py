"""Tools that belong together, and how an agent's mixed list of tools becomes one table by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from agno_workers.core.tool import Tool
from agno_workers.errors import InvalidTool
from agno_workers.tools.decorate import FunctionTool, tool
from agno_workers.tools.signature import describe


class Toolkit:
    """A named group of tools: `Toolkit("maths", [add, multiply])`, or a subclass whose public methods
    marked with `@tool` are its tools, bound to the instance.

    `include` keeps these names only, `exclude` leaves these out; a name that the toolkit does not have raises
    InvalidTool. Either is checked when the toolkit is made. A subclass with an `__init__` of its own calls
    `super().__init__` where it wants a name or a selection, and may leave it out otherwise.
    """

    name: str = ""
    """For people: errors name the toolkit by it. Default: the name of the class."""
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
        """The selected tools by name: the methods in the order of their definition, then those given."""
        found = _table([*_methods(self), *_flatten(self._given)])
        unknown = ((self._include or frozenset()) | self._exclude) - found.keys()
        if unknown:
            raise InvalidTool(
                f"{self!r} has no tool {', '.join(sorted(unknown))} to include or exclude;"
                f" it has {', '.join(sorted(found)) or 'none'}."
            )
        kept = found.keys() if self._include is None else self._include
        return {name: each for name, each in found.items() if name in kept and name not in self._exclude}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"


def collect(tools: Iterable[object]) -> dict[str, Tool]:
    """One table by name from tools, plain functions, toolkits (instances, or classes that need no arguments)
    and nested lists of these, in order.

    The same function twice counts once. Raises InvalidTool for two functions under one name, and for
    anything that is no tool.
    """
    return _table(_flatten(tools))


def _table(tools: Iterable[Tool]) -> dict[str, Tool]:
    found: dict[str, Tool] = {}
    for each in tools:
        if isinstance(each, FunctionTool) and each.unbound:
            raise InvalidTool(f"{describe(each.function)} is a method: hand in an instance of its toolkit.")
        other = found.setdefault(each.name, each)
        if other.function != each.function:
            raise InvalidTool(
                f"two tools are called {each.name!r}: {describe(other.function)} and {describe(each.function)}."
                " Leave one out, or rename it with @tool(name=...)."
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
        yield tool(item)
    elif isinstance(item, Iterable) and not isinstance(item, str | bytes | Mapping):
        for inner in item:
            yield from _flatten(inner)
    else:
        raise InvalidTool(f"{item!r} is no tool: hand in functions, tools, toolkits or lists of them.")


def _instance(kind: type[Toolkit]) -> Toolkit:
    try:
        return kind()
    except TypeError as error:
        text = f"{kind.__qualname__} can't be made without arguments ({error}): hand in an instance."
        raise InvalidTool(text) from error


def _methods(toolkit: Toolkit) -> Iterator[Tool]:
    """The marked public methods, base classes first; what a subclass overrides, it replaces in place."""
    marked: dict[str, bool] = {}
    for kind in reversed(type(toolkit).__mro__):
        for name, attribute in vars(kind).items():
            plain = attribute.__func__ if isinstance(attribute, staticmethod) else attribute
            marked[name] = isinstance(plain, Tool)
    for name, is_tool in marked.items():
        if is_tool and not name.startswith("_"):
            yield getattr(toolkit, name)
