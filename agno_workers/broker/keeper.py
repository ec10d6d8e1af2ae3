"""The keeper: the loop that puts right what a crash left behind, and the renewal of leases.

Each worker has both, as threads of its main process; a busy or dead pool can't starve them. One keeper does the
rounds, the others stand by. Rules, as in runs/maintain.sql:

    1  Redis lost its memory, all of it or the last seconds, or this database went back in time (a key there no longer
       equals a row here): everything that is ready is sent again
    2  an outbox row that was not published in time (`publish_after_s`) is published
    3  a lease that ran out: the step is ready again, or, without a further attempt, ends
    4  a sent step that nobody claimed for 3 s while its queue is empty: its message was lost, it is sent again; where
       the queue is never empty, after a minute, and then after twice that, and so on
    5  timers that have come are sent; steps that nobody answered in time, runs whose deadline has come and delegated runs
       whose parent is over end
    6  an ingestion of which nothing is on its way goes on: who ended its last step did not come to that

Every rule may be carried out twice or by two keepers at once; each round logs what it did, and an outage of
Postgres or Redis costs rounds, never the thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import psycopg
import redis

from agno_workers.broker import queues
from agno_workers.broker.dispatch import Dispatch
from agno_workers.core.step import CommitResult, ExhaustedStep, ExpiredWait, StepMessage
from agno_workers.database.pool import Connection, Pool
from agno_workers.errors import Unavailable
from agno_workers.runs.claim import Claims
from agno_workers.runs.control import Control
from agno_workers.runs.maintain import Maintenance
from agno_workers.runs.outbox import Outbox
from agno_workers.signals import signal

log = logging.getLogger(__name__)

EPOCH_KEY = "agno:epoch"
_BATCH = 100  # a batch is sent well within the keeper's lease
_PATIENCE_S = 60.0
_TURN_S = 0.5  # for one rule in one round
_AGAIN_S = 1.0  # an outbox row that a keeper took and did not strike out is taken again after this
Ending = TypeVar("Ending", ExhaustedStep, ExpiredWait)
_ERRORS = (Unavailable, psycopg.Error, redis.RedisError, OSError)


@dataclass(frozen=True)
class Duties:
    """What the keeper calls for work that is not its own."""

    fail_exhausted: Callable[[ExhaustedStep], CommitResult]
    """End a step that has no attempt left."""
    expire: Callable[[ExpiredWait], CommitResult]
    """End a wait that nobody answered in time."""
    cancel_abandoned: Callable[[], object]
    """Finish cancels of batches that were cut short."""
    stalled: Callable[[int], Iterable[str]] = lambda _: ()
    """Rule 6: return some runs of other kinds whose next steps nobody scheduled."""
    schedule_next: Callable[[str], Iterable[StepMessage]] = lambda _: ()
    """Rule 6: write the next steps of such a run."""


class Keeper:
    """The rounds; see the module."""

    def __init__(
        self, maintenance: Maintenance, outbox: Outbox, control: Control, dispatch: Dispatch, client: redis.Redis, duties: Duties, *,
        lease_s: float, resend_after_s: float,
    ) -> None:  # fmt: skip
        self._maintenance = maintenance
        self._outbox = outbox
        self._control = control
        self._dispatch = dispatch
        self._redis = client
        self._duties = duties
        self._beat = 0
        self._remembered = 0  # the last beat that Redis was told
        self._lease_s = lease_s
        self._resend_after_s = resend_after_s
        self._not_before: dict[str, float] = {}
        self.has_more = False
        """Whether the last round left work for the next one, so as not to keep the other rules waiting."""

    def round(self) -> bool:
        """One round; False: another worker's keeper does them. A rule that fails is logged and keeps no other from its
        work, but an outage of Postgres, which each would meet, is raised.
        """
        self.has_more = False
        if not self._lead():
            return False
        for rule in (
            self.expire_leases,
            self.expire_waits,
            self.end_overdue,
            self.end_orphans,
            self.end_abandoned,
            self.schedule_next,
            self.send_due,
            self.publish_outbox,
            self.check_epoch,
            self.resend_lost,
        ):
            try:
                rule()
            except Unavailable:
                raise
            except (redis.RedisError, OSError) as error:
                log.warning("%s waits for Redis: %s", rule.__name__, error)
            except Exception:
                log.exception("%s failed; the next round tries again", rule.__name__)
        return True

    def end(self) -> None:
        """Do no more rounds, and let another worker's keeper do them at once."""
        self._maintenance.abdicate()

    def check_epoch(self) -> None:
        """Rule 1. Redis repeats the epoch, and the number of the last round: a greater one than this round's is from a time
        that this database has forgotten, a smaller one than it was told from a time to which Redis has gone back.
        """
        epoch = self._maintenance.epoch()
        remembered = _remembered(self._redis.get(EPOCH_KEY))
        if (
            remembered is not None
            and remembered.epoch == epoch
            and self._remembered <= remembered.beat <= self._beat
        ):
            self._remember(epoch)
            return
        if remembered is not None and remembered.epoch == epoch and remembered.beat > self._beat:
            if not self._lead() or remembered.beat <= self._beat:
                return  # another keeper has told Redis meanwhile
            log.warning(
                "Postgres is older than Redis (restored from a backup?): sending every ready step again"
            )
            epoch = self._maintenance.new_epoch()
        else:
            log.warning("Redis lost its memory (or is new): sending every ready step again")
        noticed = self._maintenance.now()  # what is sent from here on is not sent twice
        while lost := self._maintenance.take_forgotten(noticed, _BATCH):
            if not self._send("forgotten", lost):
                return  # Redis is away again: the next round finds the key missing
            if len(lost) < _BATCH:
                break
            if not self._lead():
                return  # the next keeper finds the key missing, and sends the rest
        self._remember(epoch)

    def _remember(self, epoch: str) -> None:
        self._redis.set(EPOCH_KEY, f"{epoch} {self._beat}")
        self._remembered = self._beat

    def publish_outbox(self) -> None:
        """Rule 2."""
        until = time.monotonic() + _TURN_S
        while owed := self._outbox.take(_BATCH, _AGAIN_S):
            log.info("publishing %d message(s) that were left behind", len(owed))
            signal("keeper.taken")
            is_sent = self._dispatch.send([item for item in owed if isinstance(item, StepMessage)])
            self._dispatch.continue_canvases([item for item in owed if not isinstance(item, StepMessage)])
            if not is_sent or not self._goes_on(len(owed), until):
                break

    def expire_leases(self) -> None:
        """Rule 3."""
        self._send("expired", self._maintenance.release_expired(_BATCH))
        for step in self._maintenance.exhausted(_BATCH):
            self._end_step(step, self._duties.fail_exhausted)

    def expire_waits(self) -> None:
        """Rule 5: steps that nobody answered in time."""
        for step in self._maintenance.expired_waits(_BATCH):
            self._end_step(step, self._duties.expire)

    def end_overdue(self) -> None:
        """Rule 5: runs whose deadline has come."""
        for run_id in self._maintenance.overdue_runs(_BATCH):
            self._end_run(run_id, self._end_overdue)

    def _end_overdue(self, run_id: str) -> None:
        if self._control.end_overdue(run_id):
            log.warning("the deadline of a run has come", extra={"run_id": run_id})
            self._dispatch.after_end(run_id)

    def end_orphans(self) -> None:
        """Runs that were delegated by one that is over, once a second."""
        if self._is_time_for("orphans"):
            for run_id in self._maintenance.orphans(_BATCH):
                self._end_run(run_id, self._control.cancel)

    def end_abandoned(self) -> None:
        """Runs in a batch that was cancelled by somebody who did not come to its end, once a second."""
        if self._is_time_for("abandoned"):
            self._duties.cancel_abandoned()

    def schedule_next(self) -> None:
        """Rule 6, once a second."""
        if self._is_time_for("stalled"):
            for run_id in self._duties.stalled(_BATCH):
                self._send("following", list(self._duties.schedule_next(run_id)))

    def send_due(self) -> None:
        """Rule 5: timers, and the runs of a batch, of which there may be many."""
        until = time.monotonic() + _TURN_S
        while due := self._maintenance.take_due(_BATCH):
            if not self._send("due", due) or not self._goes_on(len(due), until):
                break

    def resend_lost(self) -> None:
        """Rule 4, once a second. A queue that is never empty may hide a lost message: a step that waits for long is sent
        again whatever its queue holds, each time after twice the patience.
        """
        if not self._is_time_for("lost"):
            return
        silent = self._maintenance.silent_queues(self._resend_after_s)
        empty = [queue for queue in silent if queues.length(self._redis, queue) == 0]
        if empty:
            self._send("lost", self._maintenance.take_lost(empty, self._resend_after_s, _BATCH))
        self._send("long waiting", self._maintenance.take_overdue(_PATIENCE_S, _BATCH))

    def _goes_on(self, taken: int, until: float) -> bool:
        """Whether a rule takes a further batch; not for so long that the other rules come too late."""
        if taken < _BATCH:
            return False
        self.has_more = time.monotonic() > until
        return not self.has_more and self._lead()

    def _is_time_for(self, what: str) -> bool:
        """Once a second."""
        now = time.monotonic()
        if now < self._not_before.get(what, 0.0):
            return False
        self._not_before[what] = now + 1.0
        return True

    def _end_step(self, step: Ending, end: Callable[[Ending], CommitResult]) -> None:
        try:
            self._dispatch.publish(end(step))
        except Unavailable:
            raise
        except Exception:
            log.exception("a step can't be ended", extra={"run_id": step.run_id, "step_id": step.step_id})

    def _end_run(self, run_id: str, end: Callable[[str], object]) -> None:
        try:
            end(run_id)
        except Unavailable:
            raise
        except Exception:
            log.exception("a run can't be ended", extra={"run_id": run_id})

    def _lead(self) -> bool:
        beat = self._maintenance.lead(self._lease_s)
        if beat is None:
            self._remembered = 0  # from now on another keeper tells Redis
            return False
        self._beat = beat
        return True

    def _send(self, why: str, sends: list[StepMessage]) -> bool:
        """False: Redis is away."""
        if not sends:
            return True
        log.info("sending %d %s step(s)", len(sends), why)
        signal("keeper.taken")
        return self._dispatch.send(sends)


class KeeperThread(threading.Thread):
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
                pause_s = 0.0 if self._keeper.has_more else self._every_s if leads else self._standby_s
                for _ in listener.notifies(timeout=pause_s, stop_after=1):
                    pass
            except _ERRORS as error:
                log.warning("the keeper's round was cut short: %s", error)
                _close(listener)
                listener = None
                self._stopping.wait(self._every_s)
            except Exception:
                log.exception("the keeper's round failed; the next one follows")
                self._stopping.wait(self._standby_s)
        try:
            self._keeper.end()
        except _ERRORS as error:
            log.info("another keeper leads when this one's time is over: %s", error)
        _close(listener)

    def stop(self) -> None:
        self._stopping.set()


class LeaseRenewer(threading.Thread):
    """Renews the leases of all steps that this worker carries, in one statement each `every_s`."""

    def __init__(
        self,
        claims: Claims,
        carried: Callable[[], Iterable[str]],
        lose: Callable[[set[str]], None],
        *,
        every_s: float,
    ) -> None:
        super().__init__(name="agno-renewal", daemon=True)
        self._claims = claims
        self._carried = carried
        self._lose = lose
        self._every_s = every_s
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.wait(self._every_s):
            try:
                if carried := list(self._carried()):
                    self._lose(self._claims.renew(carried))
            except _ERRORS as error:
                log.warning("leases were not renewed: %s", error)
            except Exception:
                log.exception("leases were not renewed; the next try follows")

    def stop(self) -> None:
        self._stopping.set()


class _Remembered(NamedTuple):
    epoch: str
    beat: int


def _remembered(value: Any) -> _Remembered | None:
    """What Redis repeats; None: nothing, or nothing of ours."""
    epoch, _, beat = (value or b"").decode(errors="replace").partition(" ")
    return _Remembered(epoch, int(beat) if beat.isdecimal() else 0) if epoch else None


def _listening(pool: Pool) -> Connection:
    listener = pool.dedicated()
    listener.execute("LISTEN agno_outbox")
    return listener


def _close(listener: Connection | None) -> None:
    if listener is not None:
        listener.close()
