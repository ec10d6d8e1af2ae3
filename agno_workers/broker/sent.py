"""Deletes sent messages from the outbox later, many in one statement: a commit less for each step.

What a kill leaves in the outbox is sent again by the keeper after `runs.publish_after_s`, which does no harm (see dispatch.py).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from agno_workers.errors import Unavailable
from agno_workers.forks import after_fork
from agno_workers.runs.outbox import Outbox

log = logging.getLogger(__name__)

_AFTER_S = 0.05


class SentMessages:
    """Collects ids of sent messages, and deletes them in a thread of its own, at most `_AFTER_S` later.

    Any thread calls `add`. Python joins the thread when the process exits, so that the last ids are deleted; `close` does so
    before. A forked process has its own thread, and leaves its parent's ids to the parent. While Postgres is unreachable, ids are
    dropped after each failed attempt, and nothing commits new ones.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._after_s = min(_AFTER_S, outbox.publish_after_s / 4)  # before the keeper sends them again
        self._reset()
        after_fork(self, SentMessages._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._ids: list[int] = []
        self._executor = ThreadPoolExecutor(1, "agno-outbox")

    def add(self, outbox_ids: Sequence[int]) -> None:
        """Have these messages deleted soon."""
        with self._lock:
            is_first = outbox_ids and not self._ids
            self._ids += outbox_ids
        if is_first:
            try:
                self._executor.submit(self._delete_later)
            except RuntimeError:  # the main thread has ended, and Python starts no threads
                self._delete()

    def close(self) -> None:
        """Delete what is left, and end the thread."""
        self._executor.shutdown()

    def _delete_later(self) -> None:
        time.sleep(self._after_s)
        self._delete()

    def _delete(self) -> None:
        with self._lock:
            ids, self._ids = self._ids, []
        try:
            self._outbox.published(ids)
        except Unavailable as error:
            log.warning("%d sent message(s) remain in the outbox, and are sent again: %s", len(ids), error)
        except Exception:
            log.exception("%d sent message(s) remain in the outbox, and are sent again", len(ids))
