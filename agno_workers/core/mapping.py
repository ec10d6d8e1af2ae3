"""A map: one function, agent, team or workflow for each item of a list, at most `window` of them at once.

It is a run of its own, MAP_RUN, which every worker knows: its items are rows, each is a call of it, and a turn of it reads counts and the next
items, whatever their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import msgspec

from agno_workers.core.checks import brief
from agno_workers.core.run import RunKind
from agno_workers.core.runnable import Program
from agno_workers.core.tool import Effect, Policy
from agno_workers.errors import InvalidInput, RunFailed, StepFailed

OnError = Literal["collect", "fail"]
MAP_RUN = Program(name="agno:map", kind=RunKind.WORKFLOW, body=lambda _: None)
"""The run of a map; `engine.mapping` takes its turns."""
MOST_LISTED = 1_000
"""The most results that are returned as a list."""
MOST_LISTED_BYTES = 256 * 1024
MOST_AT_ONCE = 1_000


class MapOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """The work of a map, as its run stores it."""

    list_id: str
    """Its items in `agno.map_item`."""
    count: int
    window: int
    on_error: OnError
    name: str
    """The agent, team or workflow, or the function."""
    queue: str
    """The queue of its items."""
    turn_queue: str
    run_kind: RunKind | None = None
    """None: it calls a function."""
    parameter: str = ""
    """The argument of the function that an item is."""
    effect: Effect | None = None
    max_attempts: int = 1
    policy: Policy = Policy()
    is_retry: bool = False
    """An earlier run of this map may have results."""


class MapPage(msgspec.Struct, frozen=True):
    """The facts that a turn of a map sees."""

    arrived: int
    """Items that have ended."""
    open: int
    items: list[tuple[int, Any]]
    """The next items and their positions, as many as there is room for."""
    barrier_id: str | None = None
    failed: tuple[str, str] | None = None
    """The key of the first of the latest items that failed, and why."""


ReadPage = Callable[[str, int, int], list[Any]]
"""Return the results of the run of a map, from a position on, so many at most."""


@dataclass
class MapResult:
    """The results of a map with many items, or large ones. They are read in pages when they are used, in the order of the items.

    An item that failed is a StepFailed in place of its result.
    """

    run_id: str
    """The run of the map; each item is a step of it. `RunHandle(run_id).map_results()` reads them elsewhere."""
    count: int
    """The number of items."""
    failed: int
    """How many of them failed."""
    _pages: ClassVar[tuple[ReadPage, ...]] = ()

    def reading(self, read: ReadPage) -> MapResult:
        """Return it with its results."""
        self.__dict__["_pages"] = (read,)
        return self

    def results(self, page: int = 1_000) -> Iterator[Any]:
        """Yield the results, reading so many at once. Raises InvalidInput outside the workflow's function."""
        if not self._pages:
            raise InvalidInput(
                f"the results of the map {self.run_id} can't be read here: read them with RunHandle.map_results().",
                run_id=self.run_id,
            )
        for first in range(0, self.count, page):
            found = self._pages[0](self.run_id, first, page)
            yield from found
            if len(found) < min(page, self.count - first):
                raise RunFailed(f"the results of the map {self.run_id} were deleted, from item {first + len(found)} on: make it again with another id.", run_id=self.run_id, reason="result_deleted")  # fmt: skip

    def __iter__(self) -> Iterator[Any]:
        return self.results()

    def __len__(self) -> int:
        return self.count


class Mapped(NamedTuple):
    """The call of a map for each of its items."""

    what: Any
    items: Sequence[Any]
    window: int
    on_error: OnError


def mapped(id: str, items: Any, what: Any, window: int, on_error: str) -> Mapped:
    """Return what a map is to do. Raises InvalidInput."""
    if isinstance(items, str | bytes) or not isinstance(items, Sequence):
        raise InvalidInput(
            f"flow.map({id!r}) takes a list, or the id of an earlier step whose result is one, got {brief(items)}: write list(...) around it, "
            "since the items are stored.",
            step=id,
        )
    if type(window) is not int or not 1 <= window <= MOST_AT_ONCE:
        raise InvalidInput(f"flow.map({id!r}): window must be a whole number from 1 to {MOST_AT_ONCE:,}, got {window!r}.", step=id)  # fmt: skip
    if on_error not in ("collect", "fail"):
        raise InvalidInput(f"flow.map({id!r}): on_error must be 'collect' or 'fail', got {on_error!r}.", step=id)  # fmt: skip
    return Mapped(what, items, window, "fail" if on_error == "fail" else "collect")


def read_item(position: int, stored: dict[str, Any], read: Callable[[Any], Any]) -> Any:
    """Return the result of an item: `stored` has its value, or the error with which it failed."""
    if "value" in stored:
        return read(stored["value"])
    error = stored.get("error") or {}
    return StepFailed(f"item {position} failed: {error.get('message') or 'cancelled'}", step=f"item:{position}", error=error)  # fmt: skip
