"""The keeper, a loop that repairs what a crash left behind, and the renewal of leases.

Each worker has both as threads of its main process, so that a busy or dead pool cannot delay them. One keeper leads; the others
stand by. The rules, as in runs/maintain.sql:

    1  Redis lost data (all, or the last seconds), or this database was restored (a key in Redis differs from a row here): send
       every ready step again
    2  an outbox row was not published in time (`publish_after_s`): publish it
    3  a lease expired: make the step ready again, or end it when no attempt is left
    4  a sent step was not claimed for 3 s while its queue is empty, so its message was lost: send it again; when the queue is
       never empty, send it after a minute, then after two, and so on
    5  send steps whose timer is due, or give them their place in their session; end waits that nobody answered in time, runs past
       their deadline, delegated runs whose parent has ended, and idle sessions
    6  an ingestion has no open step, since a crash came before the next one was scheduled: schedule it

Every rule may be executed twice or by two keepers at once. Each round logs its work. An outage of Postgres or Redis ends a
round, not the thread.
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
from agno_workers.broker.checks import owner_problem
from agno_workers.broker.dispatch import Dispatch
from agno_workers.broker.lease_guard import LeaseGuard
from agno_workers.broker.outage import Outage
from agno_workers.broker.queues import EPOCH_KEY
from agno_workers.broker.run_log import log_end
from agno_workers.core.step import CommitResult, ExhaustedStep, ExpiredWait, StepMessage
from agno_workers.database.pool import Connection, Pool
from agno_workers.errors import SettingsError, Unavailable, UnusableDatabase
from agno_workers.runs.claim import Claims
from agno_workers.runs.control import Control
from agno_workers.runs.maintain import Deployment, Lead, Maintenance
from agno_workers.runs.outbox import Outbox
from agno_workers.signals import signal

log = logging.getLogger(__name__)

_TIMERS = 500  # the timers of one transaction
_BATCH = 100  # sending a batch takes much less than the keeper's lease
_TURN_S = 0.5  # the time for one rule in one round
_UNUSABLE_PAUSE_S = 5.0
_LOOK_EVERY_S = 10.0
_AGAIN_S = 1.0  # after this, a keeper takes again an outbox row that was taken and not deleted
Ending = TypeVar("Ending", ExhaustedStep, ExpiredWait)
_ERRORS = (Unavailable, SettingsError, psycopg.Error, redis.RedisError, OSError)


@dataclass(frozen=True)
class Duties:
    """The functions of other modules that the keeper calls."""

    fail_exhausted: Callable[[ExhaustedStep], CommitResult]
    """End a step that has no attempt left."""
    expire: Callable[[ExpiredWait], CommitResult]
    """End a wait that nobody answered in time."""
    cancel_abandoned: Callable[[], object]
    """Finish interrupted cancels of batches."""
    stalled: Callable[[int], Iterable[str]] = lambda _: ()
    """Rule 6: return some runs of other kinds whose next steps were not scheduled."""
    schedule_next: Callable[[str], Iterable[StepMessage]] = lambda _: ()
    """Rule 6: write the next steps of such a run."""


class Keeper:
    """The rounds of the keeper; see the module."""

    def __init__(
        self, maintenance: Maintenance, outbox: Outbox, control: Control, dispatch: Dispatch, client: redis.Redis, duties: Duties, *,
        lease_s: float, resend_after_s: float, key_prefix: str = "", on_other_owner: Callable[[str], object] = log.error,
    ) -> None:  # fmt: skip
        """`on_other_owner` is called once, with the reason, when the queues belong to another deployment, or the database is a
        copy; the keeper stops then."""
        self._maintenance = maintenance
        self._outbox = outbox
        self._control = control
        self._dispatch = dispatch
        self._redis = client
        self._duties = duties
        self._led = Lead(0, None, frozenset())
        self._remembered = (0, 0)  # the beat that was last written to Redis, and how often it was
        self._lease_s = lease_s
        self._resend_after_s = resend_after_s
        self._key_prefix = key_prefix
        self._epoch_key = f"{key_prefix}{EPOCH_KEY}"
        self._on_other_owner = on_other_owner
        self._deployment: Deployment | None = None
        self._has_other_owner = False
        self._not_before: dict[str, float] = {}
        self._reported: set[str] = set()
        self._outage = Outage(log, "the keeper: Redis")
        self.has_more = False
        """True when the last round stopped a rule early, so that the other rules need not wait."""

    def round(self) -> bool:
        """Execute all rules that have something to do; False when another worker's keeper leads.

        A rule that fails is logged, and the next rule follows. An outage of Postgres is raised, since it affects all rules.
        """
        self.has_more = False
        if self._has_other_owner:
            return False
        if self._is_time_for("database", every_s=_LOOK_EVERY_S):
            self._maintenance.check_database()
        if not self._owns_queues() or not self._lead():
            return False
        for due, rule in (
            ("leases", self.expire_leases),
            ("waits", self.expire_waits),
            ("entries", self.enter_sessions),
            ("sessions", self.time_out_sessions),
            ("deadlines", self.end_overdue),
            ("delegated", self.end_orphans),
            ("cancelled", self.end_abandoned),
            ("ingestions", self.schedule_next),
            ("timers", self.send_due),
            ("delayed", self.send_delayed),
            ("outbox", self.publish_outbox),
            (None, self.check_epoch),
            ("sent", self.resend_lost),
            (None, self.report_leftovers),
        ):
            if due is not None and due not in self._led.due:
                continue
            try:
                rule()
            except Unavailable:
                raise
            except (redis.RedisError, OSError) as error:
                self._outage.failed("the keeper waits for Redis, in %s: %s", rule.__name__, error)
            except Exception:
                log.exception("%s failed; the next round retries it", rule.__name__)
        self._outage.worked()
        return True

    def end(self) -> None:
        """Stop leading, so that another worker's keeper leads at once."""
        self._maintenance.abdicate()

    def leave(self, reason: str) -> None:
        """Stop, since the database or the queues belong to others now."""
        self._has_other_owner = True
        self._on_other_owner(reason)

    def _owns_queues(self) -> bool:
        """Check, once a second, that Redis does not name another deployment: it may have been emptied, or another one."""
        if self._is_time_for("owner"):
            self._deployment = self._deployment or self._maintenance.deployment()
            try:
                problem = owner_problem(self._redis, self._key_prefix, self._deployment)
            except (redis.RedisError, OSError) as error:
                self._outage.failed("the keeper waits for Redis: %s", error)
                return True
            if problem is not None:
                self.leave(problem)
        return not self._has_other_owner

    def check_epoch(self) -> None:
        """Rule 1. Redis stores the epoch, the beat of the keeper's lease, and the number of rounds in that beat. A greater beat than
        ours means that this database was restored; less than what was last written means that Redis was.
        """
        remembered = _remembered(self._redis.get(self._epoch_key))
        is_first = remembered is None and self._led.epoch is None
        epoch = self._led.epoch or self._maintenance.epoch()
        if (
            remembered is not None
            and remembered.epoch == epoch
            and self._remembered <= remembered.at
            and remembered.at[0] <= self._led.beat
        ):
            self._remember(epoch)
            return
        if remembered is not None and remembered.epoch == epoch and remembered.at[0] > self._led.beat:
            if not self._lead() or remembered.at[0] <= self._led.beat:
                return  # another keeper has written to Redis meanwhile
            log.warning(
                "Postgres is older than Redis (restored from a backup?): sending every ready step again"
            )
            epoch = self._maintenance.new_epoch()
        elif not is_first:
            log.warning("Redis lost data: sending every ready step again")
        noticed = self._maintenance.now()  # steps that are sent after this are not sent twice
        for lost in self._maintenance.forgotten(noticed, _BATCH):
            if not self._send("forgotten", lost):
                return  # Redis is down again: the next round finds the key missing
            if not self._lead():
                return  # the next keeper finds the key missing, and sends the rest
        self._remember(epoch)

    def _remember(self, epoch: str) -> None:
        beat, rounds = self._remembered
        now = (self._led.beat, rounds + 1 if beat == self._led.beat else 0)
        self._redis.set(self._epoch_key, f"{epoch} {now[0]} {now[1]}")
        self._remembered = now

    def publish_outbox(self) -> None:
        """Rule 2."""
        until = time.monotonic() + _TURN_S
        while pending := self._outbox.take(_BATCH, _AGAIN_S):
            signal("keeper.taken")
            is_sent = self._dispatch.send([item for item in pending if isinstance(item, StepMessage)])
            self._dispatch.continue_canvases([item for item in pending if not isinstance(item, StepMessage)])
            if is_sent:
                log.debug("sent %d message(s) from the outbox", len(pending))
            if not is_sent or not self._takes_more(len(pending), until):
                break

    def expire_leases(self) -> None:
        """Rule 3."""
        self._send("expired", self._maintenance.release_expired(_BATCH))
        for step in self._maintenance.exhausted(_BATCH):
            self._end_step(step, self._duties.fail_exhausted)

    def expire_waits(self) -> None:
        """Rule 5: timers of programs, of which thousands may be due at once, and waits that nobody answered in time."""
        until = time.monotonic() + _TURN_S
        while self._maintenance.end_due_timers(_TIMERS) == _TIMERS and self._takes_more(_BATCH, until):
            pass
        for step in self._maintenance.expired_waits(_BATCH):
            self._end_step(step, self._duties.expire)

    def enter_sessions(self) -> None:
        """Rule 5: runs of sessions whose timer is due."""
        for run_id in self._maintenance.due_in_session(_BATCH):
            self._change_run(run_id, self._maintenance.take_place)

    def time_out_sessions(self) -> None:
        """Rule 5: sessions that were idle for too long."""
        until = time.monotonic() + _TURN_S
        while self._takes_more(self._maintenance.time_out_sessions(_BATCH), until):
            pass

    def end_overdue(self) -> None:
        """Rule 5: runs past their deadline."""
        for run_id in self._maintenance.overdue_runs(_BATCH):
            self._change_run(run_id, self._end_overdue)

    def _end_overdue(self, run_id: str) -> None:
        if self._control.end_overdue(run_id):
            self._dispatch.after_end(run_id)

    def end_orphans(self) -> None:
        """Rule 5, once a second: delegated runs whose parent has ended or needs them no more, with all runs below them."""
        if not self._is_time_for("orphans"):
            return
        until = time.monotonic() + _TURN_S
        while orphans := self._maintenance.orphans(_BATCH):
            for run_id in orphans:
                self._change_run(run_id, self._control.cancel)
            if not self._takes_more(len(orphans), until):
                break

    def end_abandoned(self) -> None:
        """Finish interrupted cancels of batches, once a second."""
        if self._is_time_for("abandoned"):
            self._duties.cancel_abandoned()

    def schedule_next(self) -> None:
        """Rule 6, once a second."""
        if self._is_time_for("stalled"):
            for run_id in self._duties.stalled(_BATCH):
                self._send("next", list(self._duties.schedule_next(run_id)))

    def send_due(self) -> None:
        """Rule 5: timers, and the first steps of batches, which may be many."""
        until = time.monotonic() + _TURN_S
        while due := self._maintenance.take_due(_BATCH):
            if not self._send("due", due) or not self._takes_more(len(due), until):
                break

    def send_delayed(self) -> None:
        """Rule 5: users' own tasks that workers received before they were due."""
        until = time.monotonic() + _TURN_S
        while self._takes_more(self._dispatch.delayed.send_due(_BATCH), until):
            pass

    def resend_lost(self) -> None:
        """Rule 4, once a second. A queue that is never empty may hide a lost message: a step that waits for long is sent again
        anyway, each time after twice the wait.
        """
        if not self._is_time_for("lost"):
            return
        sent = self._maintenance.sent_queues()
        empty = [queue for queue in sent if queues.length(self._redis, queue, self._key_prefix) == 0]
        if empty:
            self._send("lost", self._maintenance.take_lost(empty, self._resend_after_s, _BATCH))
        self._send("long waiting", self._maintenance.take_overdue(sent, _BATCH))

    def report_leftovers(self) -> None:
        """Log chords that wait in vain, each of them once, once a minute."""
        if self._is_time_for("leftovers", every_s=60.0):
            for chord in self._dispatch.results.leftovers():
                if chord.chord_id not in self._reported:
                    self._reported.add(chord.chord_id)
                    log.warning("%s", chord)

    def _takes_more(self, taken: int, until: float) -> bool:
        """Return True when the rule may take another batch: the last one was full, and the other rules need not wait yet."""
        if taken < _BATCH:
            return False
        self.has_more = time.monotonic() > until
        return not self.has_more and self._lead()

    def _is_time_for(self, what: str, every_s: float = 1.0) -> bool:
        """Return True once in `every_s`."""
        now = time.monotonic()
        if now < self._not_before.get(what, 0.0):
            return False
        self._not_before[what] = now + every_s
        return True

    def _end_step(self, step: Ending, end: Callable[[Ending], CommitResult]) -> None:
        try:
            result = end(step)
            self._dispatch.publish(result)
            if result.ended is not None:
                log_end(result.ended)
        except Unavailable:
            raise
        except Exception:
            log.exception("step could not be ended", extra={"run_id": step.run_id, "step_id": step.step_id})

    def _change_run(self, run_id: str, change: Callable[[str], object]) -> None:
        try:
            change(run_id)
        except Unavailable:
            raise
        except Exception:
            log.exception("run could not be changed", extra={"run_id": run_id})

    def _lead(self) -> bool:
        led = self._maintenance.lead(self._lease_s)
        if led is None:
            self._remembered = (0, 0)  # another keeper writes to Redis now
            return False
        self._led = led
        return True

    def _send(self, why: str, sends: list[StepMessage]) -> bool:
        """Send messages; False when Redis does not answer."""
        if not sends:
            return True
        signal("keeper.taken")
        is_sent = self._dispatch.send(sends)
        if is_sent:
            log.info("sent %d %s step(s)", len(sends), why)
        return is_sent


class KeeperThread(threading.Thread):
    """Run the keeper every `every_s`, and at once after a submit by SQL."""

    def __init__(self, keeper: Keeper, pool: Pool, *, every_s: float, standby_s: float) -> None:
        super().__init__(name="agno-keeper", daemon=True)
        self._keeper = keeper
        self._pool = pool
        self._every_s = every_s
        self._standby_s = standby_s
        self._stopping = threading.Event()
        self._outage = Outage(log, "the keeper: Postgres")

    def run(self) -> None:
        listener: Connection | None = None
        while not self._stopping.is_set():
            try:
                leads = self._keeper.round()
                self._outage.worked()
                if (
                    listener is None
                ):  # after the round, which goes without: there may be no session left to listen
                    listener = _listening(self._pool)
                    continue
                pause_s = 0.0 if self._keeper.has_more else self._every_s if leads else self._standby_s
                for _ in listener.notifies(timeout=pause_s, stop_after=1):
                    pass
            except _ERRORS as error:
                if isinstance(error, UnusableDatabase) and error.is_other:
                    self._keeper.leave(str(error))
                    break
                self._outage.failed("the keeper's rounds are interrupted: %s", error)
                _close(listener)
                listener = None
                is_unusable = isinstance(error, SettingsError)  # until somebody changes the database
                self._stopping.wait(_UNUSABLE_PAUSE_S if is_unusable else self._every_s)
            except Exception:
                log.exception("a keeper's round failed; the next one follows")
                self._stopping.wait(self._standby_s)
        try:
            self._keeper.end()
        except _ERRORS as error:
            log.info("the keeper could not hand over; another one leads when its lease expires: %s", error)
        _close(listener)

    def stop(self) -> None:
        self._stopping.set()


class LeaseRenewer(threading.Thread):
    """Renew the leases of all active steps of this worker in one statement, every `every_s`, and tell the guard."""

    def __init__(
        self,
        claims: Claims,
        active: Callable[[], Iterable[str]],
        lose: Callable[[set[str]], None],
        *,
        every_s: float,
        guard: LeaseGuard | None = None,
    ) -> None:
        super().__init__(name="agno-renewal", daemon=True)
        self._guard = guard
        self._claims = claims
        self._active = active
        self._lose = lose
        self._every_s = every_s
        self._stopping = threading.Event()
        self._outage = Outage(log, "the renewal of leases: Postgres")

    def run(self) -> None:
        self._tell_guard()
        while not self._stopping.wait(self._every_s):
            try:
                if active := list(self._active()):
                    self._lose(self._claims.renew(active))
                    self._outage.worked()
            except _ERRORS as error:
                self._outage.failed("leases were not renewed: %s", error)
            except Exception:
                log.exception("leases were not renewed; the next try follows")
            self._tell_guard()

    def stop(self) -> None:
        self._stopping.set()

    def _tell_guard(self) -> None:
        if self._guard is not None:
            self._guard.beat()


class _Remembered(NamedTuple):
    epoch: str
    at: tuple[int, int]
    """The beat, and the number of rounds in it."""


def _remembered(value: Any) -> _Remembered | None:
    """Return the epoch, the beat and the rounds that Redis stores, or None. Keepers of earlier code count no rounds."""
    epoch, *counted = (value or b"").decode(errors="replace").split()[:3] or [""]
    beat, rounds = [int(count) if count.isdecimal() else 0 for count in [*counted, "0", "0"][:2]]
    return _Remembered(epoch, (beat, rounds)) if epoch else None


def _listening(pool: Pool) -> Connection:
    listener = pool.dedicated()
    listener.execute("LISTEN agno_outbox")
    return listener


def _close(listener: Connection | None) -> None:
    if listener is not None:
        listener.close()
