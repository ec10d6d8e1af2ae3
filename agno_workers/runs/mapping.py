"""Items and results of maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from uuid6 import uuid7

from agno_workers.core.mapping import MapOrder, MapPage
from agno_workers.core.step import ClaimedStep
from agno_workers.database.pool import jsonb, statements
from agno_workers.runs.base import Repository

_SQL = statements("runs/mapping")
_BATCH = 1_000
_BATCH_BYTES = 1024 * 1024
_PAGE = msgspec.json.Decoder(MapPage)


class MapItems(Repository):
    """See the module."""

    def store_items(self, run_id: str, items: Sequence[msgspec.Raw]) -> str:
        """Store the items of a map, in JSON, before the call that begins it; return the id of their list. A repeated turn stores another list."""
        list_id, first = str(uuid7()), 0
        while first < len(items):
            last, size = first, 0
            while last < min(len(items), first + _BATCH) and size < _BATCH_BYTES:
                size += len(bytes(items[last]))
                last += 1
            payloads = self._payloads()
            packed = [payloads.pack(item) for item in items[first:last]]
            asked = {"run_id": run_id, "list_id": list_id, "first": first, "items": jsonb(packed), "blobs": jsonb(payloads.blobs)}  # fmt: skip
            self._pool.run(_SQL["store"], asked)
            first = last
        return list_id

    def map_page(self, claim: ClaimedStep, order: MapOrder, next: int | None) -> MapPage:
        """Return what a turn of a map sees; `next` is the position of its next item, None at its first turn."""
        asked: dict[str, Any] = {"run_id": claim.run_id, "list_id": order.list_id}
        if next is None and order.is_retry:
            self._pool.run(_SQL["take_over"], asked)
        asked |= {"generation": claim.generation, "next": next or 0, "window": order.window}
        (row,) = self._pool.run(_SQL["page"], asked)
        return _PAGE.decode(row["page"])

    def map_summary(self, claim: ClaimedStep, max_bytes: int) -> tuple[int, bool]:
        """Return how many items of a map have failed, and whether its results have at most so many bytes."""
        asked = {"run_id": claim.run_id, "generation": claim.generation, "bytes": max_bytes}
        (row,) = self._pool.run(_SQL["summary"], asked)
        return row["failed"], bool(row["is_small"])

    def map_results(self, run_id: str, first: int, limit: int) -> list[dict[str, Any]]:
        """Return {"value"} or {"error"} of each item from a position on, up to the first one that has not ended."""
        rows = self._pool.run(_SQL["results"], {"run_id": run_id, "first": first, "last": first + limit - 1})
        return [
            {"value": row["value"]} if row["is_done"] else {"error": row["error"]}
            for place, row in enumerate(rows)
            if row["position"] == first + place
        ]
