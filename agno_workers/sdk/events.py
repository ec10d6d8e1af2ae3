"""The order of live text among the events of a run. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agno_workers.runs.queries import Event
from agno_workers.streams import Streamed

_ENDS_STEP = frozenset({"ModelCallCompleted", "ModelCallError", "ToolCallCompleted", "ToolCallError"})
_ENDS_RUN = frozenset({"RunCompleted", "RunError", "RunCancelled"})


def in_order(pieces: Iterable[Streamed], events: Iterable[Event]) -> Iterator[Event | Streamed]:
    """Yield the pieces of a step after its start and before its end.

    The events were read after the pieces: the start of a step is committed before its first piece is written, so each start is among
    them, or was yielded earlier.
    """
    pending = list(pieces)
    for event in events:
        if event.event in _ENDS_RUN:
            ready = pending
        elif event.event in _ENDS_STEP:
            ready = [piece for piece in pending if piece.step_id == event.subject]
        else:  # the start of an attempt follows the pieces of the attempts before it
            ready = [
                piece
                for piece in pending
                if piece.step_id == event.subject and 0 < piece.attempt < event.attempt
            ]
        yield from ready
        pending = [piece for piece in pending if piece not in ready] if ready else pending
        yield event
    yield from pending
