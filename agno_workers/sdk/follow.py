"""Read what is new in runs that are followed: one round trip for all of them.

A program that blocks follows one run (`RunHandle.events`), one on asyncio follows all of its runs by one thread (`aio.Follower`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from agno_workers.runs.queries import Event, RunQueries
from agno_workers.sdk.events import in_order
from agno_workers.streams import Streamed, Streams

POLL_S = 0.25
_AT_ONCE = 200  # a statement locks its runs


@dataclass
class Place:
    """How far a reader has come in a run; `read_pages` moves it."""

    run_id: str
    after: int = 0
    """The number of the last event; -1 for a reader that only waits for the end."""
    last: str = "0-0"
    """The id of the last live piece."""


@dataclass(frozen=True)
class Page:
    """New events of a run, in order, with live pieces between them."""

    items: list[Event | Streamed] = field(default_factory=list)
    is_last: bool = False
    """The run has ended, and nothing follows."""


def read_pages(
    queries: RunQueries, streams: Streams | None, places: Sequence[Place], wait_s: float
) -> list[Page | None]:
    """Return what is new at each place, None for an unknown run. Without live text to return at once, it waits `wait_s`.

    Raises Unavailable.
    """
    live = [place for place in places if place.after >= 0] if streams else []
    pieces = _pieces(streams, live, wait_s) if streams and live else {}
    if not live:
        time.sleep(wait_s)
    pages: list[Page | None] = []
    for first in range(0, len(places), _AT_ONCE):
        some = places[first : first + _AT_ONCE]
        facts = queries.follow([(place.run_id, place.after) for place in some])
        ended = [
            place for place, (status, _) in zip(some, facts, strict=True) if status and status.is_terminal
        ]
        if streams and (late := [place for place in ended if place.after >= 0]):
            for reader, more in _pieces(streams, late, 0.0).items():  # no piece before the end is missed
                pieces.setdefault(reader, []).extend(more)
        for place, (status, events) in zip(some, facts, strict=True):
            if events:
                place.after = events[-1].number
            items = [*in_order(pieces.get(id(place), ()), events)]
            pages.append(Page(items, status.is_terminal) if status else None)
    return pages


def _pieces(streams: Streams, places: Sequence[Place], wait_s: float) -> dict[int, list[Streamed]]:
    """Return the live pieces after each place, by the identity of the place."""
    oldest: dict[str, str] = {}
    for place in places:
        oldest[place.run_id] = min(oldest.get(place.run_id, place.last), place.last, key=_position)
    found, pieces = streams.read_all(oldest, wait_s), {}
    for place in places:
        fresh = [each for each in found.get(place.run_id, ()) if _position(each.id) > _position(place.last)]
        if fresh:
            place.last = fresh[-1].id
            pieces[id(place)] = fresh
    return pieces


def _position(piece_id: str) -> tuple[int, ...]:
    return tuple(map(int, piece_id.split("-")))
