"""A pool of child processes that read documents, one at a time each.

A document that crashes its child, or exceeds its time or memory, is refused. Earlier documents of the batch keep their results,
and the next child reads the later ones. The children are plain subprocesses, because Celery's prefork workers can't have
multiprocessing children.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import msgspec

from agno_workers.knowledge.frames import Order
from agno_workers.knowledge.process import Child, Died
from agno_workers.knowledge.types import Chunking, Prepared, Raw, Refusal, Source


class Reading:
    """Starts up to `size` children when needed. Thread-safe; a forked process starts its own children.

    `time_limit_s` limits the CPU time of one document; its wall time is limited to twice as much, because the machine may be
    busy. `memory_limit_bytes` limits a child's address space.
    """

    def __init__(
        self,
        size: int,
        time_limit_s: float = 30.0,
        memory_limit_bytes: int = 1 << 30,
        prepare: str = "agno_workers.knowledge.prepare:prepare",
    ) -> None:
        self._size = size
        self._order = Order(0, time_limit_s, memory_limit_bytes, prepare)
        self._begin()
        os.register_at_fork(after_in_child=partial(_begin_again, weakref.ref(self)))

    def prepare(self, items: Sequence[tuple[Source, Raw]], chunking: Chunking) -> list[Prepared | Refusal]:
        """Read documents and return the outcomes in order. Waits for a free child.

        Raises Unavailable if no child can be started, and AgnoErrors of a chunking strategy; then the batch may be retried.
        """
        return [found for found in self._read(items, chunking) if not isinstance(found, tuple)]

    def rows(self, source: Source, raw: Raw) -> tuple[Source, ...] | Refusal:
        """Return the rows of a file as sources. Raises InvalidInput for its columns and ids, and Unavailable."""
        (found,) = self._read([(source, raw)], Chunking())
        assert not isinstance(found, Prepared)
        return found

    def _read(
        self, items: Sequence[tuple[Source, Raw]], chunking: Chunking
    ) -> list[Prepared | Refusal | tuple[Source, ...]]:
        outcomes: list[Prepared | Refusal | tuple[Source, ...]] = []
        tried_twice = -1
        while len(outcomes) < len(items):
            with self._child() as child:
                try:
                    for outcome in child.read(items[len(outcomes) :], chunking):
                        outcomes.append(outcome)  # noqa: PERF402 - outcomes before a death are kept
                except Died as death:
                    if death.from_outside and tried_twice != len(outcomes):
                        tried_twice = len(outcomes)
                    else:
                        outcomes.append(death.refusal)
        return outcomes

    def close(self) -> None:
        """Stop the children after their current batches. A worker that exits need not call this: they exit with it."""
        for _ in range(self._size):
            self._places.acquire()
        self._closed = True
        for child in self._idle:
            child.end()
        self._starter.shutdown()
        self._places.release(self._size)

    @contextmanager
    def _child(self) -> Iterator[Child]:
        with self._places:
            child = self._idle_child() or self._new_child()
            try:
                yield child
            except BaseException:
                child.end()
                raise
            if child.is_usable:
                self._idle.append(child)
            else:
                child.end()

    def _idle_child(self) -> Child | None:
        while True:
            try:
                child = self._idle.pop()
            except IndexError:
                return None
            if child.is_alive():
                return child
            child.end()

    def _new_child(self) -> Child:
        if self._closed:
            raise RuntimeError("this Reading is closed: create another one.")
        child = self._starter.submit(Child, msgspec.structs.replace(self._order, parent=os.getpid())).result()
        self._children.add(child)
        return child

    def _begin(self) -> None:
        self._places = threading.BoundedSemaphore(self._size)
        self._idle: list[Child] = []  # append and pop are atomic
        self._children = weakref.WeakSet[Child]()
        self._closed = False
        # The kernel kills a child with the thread that started it, so this thread lives as long as the pool.
        self._starter = ThreadPoolExecutor(1, "reading")

    def _leave(self) -> None:
        """Close the parent's pipes in a forked process: children and their starting thread belong to the parent."""
        for child in self._children:
            child.leave()
        self._begin()


def _begin_again(reading: weakref.ref[Reading]) -> None:
    if found := reading():
        found._leave()
