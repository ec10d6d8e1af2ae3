"""The keeper: the loop that puts right what a crash left behind, and the renewal of leases.

Each worker has both, as threads of its main process; a busy or dead pool can't starve them. One keeper does the
rounds, the others stand by. Rules, as in sql/keeper.sql:

    1  Redis lost its memory (a key there no longer equals a row here): everything that is ready is sent again
    2  an outbox row that was not published in time (`publish_after_s`) is published
    3  a lease that ran out: the step is ready again, or, without a further attempt, ends
    4  a sent step that nobody claimed for 3 s while its queue is empty: its message was lost, it is sent again; where
       the queue is never empty, after a minute, and then after twice that, and so on
    5  timers that have come are sent

Every rule may be carried out twice or by two keepers at once; each round logs what it did, and an outage of
Postgres or Redis costs rounds, never the thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

import psycopg
import redis

from agno_workers.broker import queues
from agno_workers.broker.dispatch import Dispatch
from agno_workers.errors import Unavailable
from agno_workers.storage.journal import Hopeless, Journal, Recorded, Send
from agno_workers.storage.pool import Connection, Pool

log = logging.getLogger(__name__)

EPOCH_KEY = "agno:epoch"
_BATCH = 100  # a batch is sent well within the keeper's lease
_PATIENCE_S = 60.0
_AGAIN_S = 1.0  # an outbox row that a keeper took and did not strike out is taken again after this
_ERRORS = (Unavailable, psycopg.Error, redis.RedisError, OSError)


class Keeper:
    """The rounds. `bury` ends a step that no attempt ended."""

    def __init__(
        self, journal: Journal, dispatch: Dispatch, client: redis.Redis, bury: Callable[[Hopeless], Recorded], *,
        lease_s: float, resend_after_s: float,
    ) -> None:  # fmt: skip
        self._journal = journal
        self._dispatch = dispatch
        self._redis = client
        self._bury = bury
        self._lease_s = lease_s
        self._resend_after_s = resend_after_s
        self._look_for_lost_at = 0.0

    def round(self) -> bool:
        """One round; False: another worker's keeper does them. A rule that fails is logged and keeps no other from its
        work, but an outage of Postgres, which each would meet, is raised.
        """
        if not self._lead():
            return False
        for rule in (
            self.expire_leases,
            self.send_due,
            self.publish_outbox,
            self.check_epoch,
            self.resend_lost,
        ):
            try:
                rule()
            except (Unavailable, psycopg.Error):
                raise
            except (redis.RedisError, OSError) as error:
                log.warning("%s waits for Redis: %s", rule.__name__, error)
            except Exception:
                log.exception("%s failed; the next round tries again", rule.__name__)
        return True

    def check_epoch(self) -> None:
        """Rule 1."""
        epoch = self._journal.epoch()
        if self._redis.get(EPOCH_KEY) == epoch.encode():
            return
        log.warning("Redis lost its memory (or is new): sending every ready step again")
        noticed = self._journal.now()  # what is sent from here on is not sent twice
        while lost := self._journal.take_forgotten(noticed, _BATCH):
            self._send("forgotten", lost)
            if len(lost) < _BATCH:
                break
            if not self._lead():
                return  # the next keeper finds the key missing, and sends the rest
        self._redis.set(EPOCH_KEY, epoch)

    def publish_outbox(self) -> None:
        """Rule 2."""
        while owed := self._journal.take_outbox(_BATCH, _AGAIN_S):
            log.info("publishing %d message(s) that were left behind", len(owed))
            self._dispatch.send([item for item in owed if isinstance(item, Send)])
            self._dispatch.go_on([item for item in owed if not isinstance(item, Send)])
            if len(owed) < _BATCH or not self._lead():
                break

    def expire_leases(self) -> None:
        """Rule 3."""
        self._send("expired", self._journal.release_expired(_BATCH))
        for step in self._journal.hopeless(_BATCH):
            try:
                self._dispatch.publish(self._bury(step))
            except (Unavailable, psycopg.OperationalError):
                raise
            except Exception:
                log.exception("a step can't be ended", extra={"run_id": step.run_id, "step_id": step.step_id})

    def send_due(self) -> None:
        """Rule 5."""
        self._send("due", self._journal.take_due(_BATCH))

    def resend_lost(self) -> None:
        """Rule 4, once a second. A queue that is never empty may hide a lost message: a step that waits for long is sent
        again whatever its queue holds, each time after twice the patience.
        """
        if time.monotonic() < self._look_for_lost_at:
            return
        self._look_for_lost_at = time.monotonic() + 1.0
        silent = self._journal.silent_queues(self._resend_after_s)
        empty = [queue for queue in silent if queues.length(self._redis, queue) == 0]
        if empty:
            self._send("lost", self._journal.take_lost(empty, self._resend_after_s, _BATCH))
        self._send("long waiting", self._journal.take_overdue(_PATIENCE_S, _BATCH))

    def _lead(self) -> bool:
        return self._journal.lead(self._lease_s)

    def _send(self, why: str, sends: list[Send]) -> None:
        if sends:
            log.info("sending %d %s step(s)", len(sends), why)
            self._dispatch.send(sends)


class Rounds(threading.Thread):
    """Does the keeper's rounds each `every_s`, and at once when somebody submits by SQL."""

    def __init__(self, keeper: Keeper, pool: Pool, *, every_s: float, standby_s: float) -> None:
        super().__init__(name="agno-keeper", daemon=True)
        self._keeper = keeper
        self._pool = pool
        self._every_s = every_s
        self._standby_s = standby_s
        self._stopping = threading.Event()

    def run(self) -> None:
        listener: Connection | None = None
        while not self._stopping.is_set():
            try:
                listener = listener or _listening(self._pool)
                leads = self._keeper.round()
                for _ in listener.notifies(timeout=self._every_s if leads else self._standby_s, stop_after=1):
                    pass
            except _ERRORS as error:
                log.warning("the keeper's round was cut short: %s", error)
                _close(listener)
                listener = None
                self._stopping.wait(self._every_s)
            except Exception:
                log.exception("the keeper's round failed; the next one follows")
                self._stopping.wait(self._standby_s)
        _close(listener)

    def stop(self) -> None:
        self._stopping.set()


class Renewal(threading.Thread):
    """Renews the leases of all steps that this worker carries, in one statement each `every_s`."""

    def __init__(
        self,
        journal: Journal,
        carried: Callable[[], Iterable[str]],
        lose: Callable[[set[str]], None],
        *,
        every_s: float,
    ) -> None:
        super().__init__(name="agno-renewal", daemon=True)
        self._journal = journal
        self._carried = carried
        self._lose = lose
        self._every_s = every_s
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.wait(self._every_s):
            try:
                if carried := list(self._carried()):
                    self._lose(self._journal.renew(carried))
            except _ERRORS as error:
                log.warning("leases were not renewed: %s", error)
            except Exception:
                log.exception("leases were not renewed; the next try follows")

    def stop(self) -> None:
        self._stopping.set()


def _listening(pool: Pool) -> Connection:
    listener = pool.dedicated()
    listener.execute("LISTEN agno_outbox")
    return listener


def _close(listener: Connection | None) -> None:
    if listener is not None:
        listener.close()
