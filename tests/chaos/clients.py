"""Callers that submit through every door while servers and workers die, and record the answers."""

from __future__ import annotations

import json
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import psycopg
from celery import chain, chord

from agno_workers import Client
from agno_workers.core.session import IfBusy
from agno_workers.errors import Unavailable
from tests.chaos.agents import crew, errand, teller
from tests.chaos.history import History, Submission

_TOOLS = ("look", "note", "pay", "book")
_SESSIONS = 3
_PATIENT = 0.8
"""The share of callers that retry until they are acknowledged. The others stop at the first failure."""
_PAUSE_S = (0.02, 0.25)
_AGAIN_S = (0.05, 0.5)

Door = Callable[[str, str, random.Random], list[str]]
"""Submit an input under a key, and return the ids of the runs, or of the messages that joined live ones."""


class Callers:
    """Threads that submit until `stop`; they finish their current submission."""

    def __init__(
        self, history: History, database_url: str, redis_url: str, *, seed: int, threads: int
    ) -> None:
        self._history = history
        self._database_url = database_url
        self._seed = seed
        self._client = Client(database_url, redis_url, pool_size=threads, timeout_s=5.0)
        self._doors: dict[str, Door] = {
            "delay": self._delay,
            "client": self._submit,
            "client, cancelled": self._cancel,
            "sql": self._sql,
            "chain": self._chain,
            "chord": self._chord,
            "team": self._team,
            "workflow": self._workflow,
            "workflow, signalled": self._signal,
            "workflow, declared": self._declared,
            "session, queued": partial(self._talk, "queue"),
            "session, steered": partial(self._talk, "steer"),
        }
        self._stopping = threading.Event()
        self._crowded = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, args=(number,), name=f"chaos-caller-{number}", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def hold(self, crowded: bool) -> None:
        """Stop submitting while many runs are open, so that the test ends in time."""
        if crowded:
            self._crowded.set()
        else:
            self._crowded.clear()

    def stop(self) -> None:
        self._stopping.set()

    def join(self, timeout_s: float) -> list[str]:
        """Return the names of the threads that have not ended in time."""
        for thread in self._threads:
            thread.join(timeout_s / len(self._threads))
        return [thread.name for thread in self._threads if thread.is_alive()]

    def close(self) -> None:
        self._client.close()

    def _work(self, number: int) -> None:
        dice = random.Random(f"{self._seed} caller {number}")
        count = 0
        while not self._stopping.wait(dice.uniform(*_PAUSE_S)):
            if self._crowded.is_set():
                continue
            count += 1
            door = dice.choice(sorted(self._doors))
            self._until_acknowledged(self._history.begin(f"{number}-{count}", door), dice)

    def _until_acknowledged(self, submission: Submission, dice: random.Random) -> None:
        """Attempt until acknowledged, with the same key; impatient callers attempt once."""
        knock = partial(self._doors[submission.door], submission.key, _errand(dice))
        patient = (
            dice.random() < _PATIENT or submission.door == "chord"
        )  # half a chord is nobody's fault but its caller's
        seed = dice.random()
        give_up = threading.Event()
        while not give_up.wait(dice.uniform(*_AGAIN_S) if submission.attempts else 0):
            submission.attempts += 1
            try:
                told = knock(random.Random(seed))
            except Unavailable as error:
                submission.errors.append(f"{type(error).__name__}: {error}"[:200])
                if not patient:
                    return
            except Exception as error:
                self._history.surprise(submission, error)
                return
            else:
                submission.run_ids += told
                submission.acknowledged += bool(told)
                if not told or dice.random() > 0.05:  # now and then somebody who was heard says it again
                    return

    def _delay(self, key: str, said: str, dice: random.Random) -> list[str]:
        return [errand.delay(said, idempotency_key=key, metadata=_mark(key)).id]

    def _submit(self, key: str, said: str, dice: random.Random) -> list[str]:
        return [self._client.runs.submit("errand", said, idempotency_key=key, metadata=_mark(key)).id]

    def _cancel(self, key: str, said: str, dice: random.Random) -> list[str]:
        run = self._client.runs.submit("errand", said, idempotency_key=key, metadata=_mark(key))
        self._stopping.wait(dice.uniform(0, 0.5))
        run.cancel()
        return [run.id]

    def _team(self, key: str, said: str, dice: random.Random) -> list[str]:
        return [crew.delay(said, idempotency_key=key, metadata=_mark(key)).id]

    def _workflow(self, key: str, said: str, dice: random.Random) -> list[str]:
        return [self._client.runs.submit("tour", said, idempotency_key=key, metadata=_mark(key)).id]

    def _declared(self, key: str, said: str, dice: random.Random) -> list[str]:
        return [self._client.runs.submit("circuit", said, idempotency_key=key, metadata=_mark(key)).id]

    def _signal(self, key: str, said: str, dice: random.Random) -> list[str]:
        """Send a signal to a workflow that may wait for it by now; each attempt sends the same one."""
        (run_id,) = self._workflow(key, said, dice)
        with _connected(self._database_url) as connection:
            connection.execute("SELECT agno.send_signal(%s, 'go', %s, %s)", [run_id, json.dumps(key), key])
            connection.commit()
        return [run_id]

    def _talk(self, if_busy: IfBusy, key: str, said: str, dice: random.Random) -> list[str]:
        """Say the key in one of a few sessions, which all callers share."""
        session_id = f"chaos-{dice.randrange(_SESSIONS)}"
        run = self._client.runs.submit(
            "talker", key, session_id=session_id, if_busy=if_busy, idempotency_key=key, metadata=_mark(key)
        )
        return [run.steered.id if run.steered else run.id]

    def _sql(self, key: str, said: str, dice: random.Random) -> list[str]:
        """Commit a row of the caller and the run in one transaction, or sometimes roll it back."""
        with _connected(self._database_url) as connection:
            connection.execute(
                "INSERT INTO chaos.ordered (submission) VALUES (%s) ON CONFLICT DO NOTHING", [key]
            )
            (run_id,) = connection.execute(
                "SELECT agno.submit('errand', %s, idempotency_key => %s, metadata => %s)::text",
                [said, key, json.dumps(_mark(key))],
            ).fetchone() or ("",)
            if dice.random() < 0.1:
                connection.rollback()
                return []
            connection.commit()
            return [run_id]

    def _chain(self, key: str, said: str, dice: random.Random) -> list[str]:
        ids = _ids(dice, 2)
        first = errand.s(said, metadata=_mark(key, "0")).set(task_id=ids[0])
        then = teller.s(metadata=_mark(key, "1")).set(task_id=ids[1])
        chain(first, then).apply_async()
        return ids

    def _chord(self, key: str, said: str, dice: random.Random) -> list[str]:
        """Submit a chord whose ids are the same in every attempt."""
        *header_ids, body_id, group_id = _ids(dice, 5)
        header = [
            errand.s(said, metadata=_mark(key, str(n))).set(task_id=task_id)
            for n, task_id in enumerate(header_ids)
        ]
        body = teller.s(metadata=_mark(key, "body"))
        chord(header, body).set(task_id=group_id).apply_async(task_id=body_id)
        return [*header_ids, body_id]


def _errand(dice: random.Random) -> str:
    turns = [dice.choices(_TOOLS, k=dice.randint(1, 3)) for _ in range(dice.randint(1, 2))]
    return json.dumps({"turns": turns})


def _mark(key: str, part: str = "") -> dict[str, str]:
    return {"submission": key, "part": part}


def _ids(dice: random.Random, count: int) -> list[str]:
    """Return ids that are the same in every attempt."""
    return [str(uuid.UUID(int=dice.getrandbits(128), version=4)) for _ in range(count)]


@contextmanager
def _connected(url: str) -> Iterator[psycopg.Connection]:
    """Yield a connection that is closed, not committed, at the end."""
    try:
        connection = psycopg.connect(url, connect_timeout=5, options="-c statement_timeout=10000")
        try:
            yield connection
        finally:
            connection.close()
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise Unavailable(str(error)) from error
