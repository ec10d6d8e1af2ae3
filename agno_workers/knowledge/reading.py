"""Reading documents outside of the worker: a pool of child processes, each reading one document at a time.

A document that crashes its child, or takes too long or too much memory, is refused, and nothing else: those before it in
the batch keep their results, those behind it are read by the next child. The children are plain subprocesses, since
Celery's workers may have no children of multiprocessing; they are the same under threads and prefork.
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
    """Up to `size` children, started when needed. Safe to use from threads; a forked process starts children of its own.

    `time_limit_s` is the CPU time of one document, and half of what it may take by the clock, since a busy machine is no
    fault of the document. `memory_limit_bytes` is a child's address space.
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
        """What becomes of each, in order. Waits for a free child: at most as long as the batches before it may take.

        Raises Unavailable when no child can be started, and what a chunking strategy raises as an AgnoError: then
        nothing was judged, and the batch may be tried again.
        """
        outcomes: list[Prepared | Refusal] = []
        tried_twice = -1
        while len(outcomes) < len(items):
            with self._child() as child:
                try:
                    for outcome in child.read(items[len(outcomes) :], chunking):
                        outcomes.append(outcome)  # noqa: PERF402 - those before a death are kept
                except Died as death:
                    if death.from_outside and tried_twice != len(outcomes):
                        tried_twice = len(outcomes)
                    else:
                        outcomes.append(death.refusal)
        return outcomes

    def close(self) -> None:
        """Ends the children, once the batches under way are read. A worker that just exits need not: they end with it."""
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
            if child.can_go_on:
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
            raise RuntimeError("This Reading is closed: make another one.")
        child = self._starter.submit(Child, msgspec.structs.replace(self._order, parent=os.getpid())).result()
        self._children.add(child)
        return child

    def _begin(self) -> None:
        self._places = threading.BoundedSemaphore(self._size)
        self._idle: list[Child] = []  # append and pop are each one step for all threads
        self._children = weakref.WeakSet[Child]()
        self._closed = False
        # The kernel ends a child with the thread that started it, so that is one which lives as long as we do.
        self._starter = ThreadPoolExecutor(1, "reading")

    def _leave(self) -> None:
        """In a forked process: the children are its parent's, and so is the thread that started them."""
        for child in self._children:
            child.leave()
        self._begin()


def _begin_again(reading: weakref.ref[Reading]) -> None:
    if found := reading():
        found._leave()
