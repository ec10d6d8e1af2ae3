"""The callers' submissions, the final state, and the verdict: no accepted submission is lost or executed twice.

The verdict is a function of values, so that tests can prove with invented histories that it fails.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any

import msgspec
import psycopg
from psycopg.rows import namedtuple_row

TERMINAL = frozenset({"done", "failed", "cancelled"})
_CELERY_TERMINAL = frozenset({"SUCCESS", "FAILURE", "REVOKED"})


class Submission(msgspec.Struct):
    """One submission of a caller, with all its attempts."""

    key: str
    door: str
    attempts: int = 0
    run_ids: list[str] = []
    """The ids that each acknowledged attempt returned; for a canvas, those of all its parts; for a message that joined a live run, its own."""
    acknowledged: int = 0
    errors: list[str] = []

    @property
    def accepted(self) -> bool:
        return self.acknowledged > 0


class History:
    """The submissions of all callers, in the order of their begin. Threads may share it."""

    def __init__(self) -> None:
        self.submissions: list[Submission] = []
        self.surprises: list[str] = []
        """Errors that a door does not document."""
        self._lock = threading.Lock()

    def begin(self, key: str, door: str) -> Submission:
        submission = Submission(key, door)
        with self._lock:
            self.submissions.append(submission)
        return submission

    def surprise(self, submission: Submission, error: BaseException) -> None:
        with self._lock:
            self.surprises.append(f"{submission.door} of {submission.key}: {type(error).__name__}: {error}")


class RunRow(msgspec.Struct, frozen=True):
    id: str
    submission: str
    part: str
    status: str
    reason: str | None = None


class StepRow(msgspec.Struct, frozen=True):
    run_id: str
    generation: int
    key: str
    status: str
    attempt: int
    effect: str | None = None
    call_id: str | None = None
    ended_at: float | None = None
    winners: int = 1
    """The number of its results in the transcript."""
    is_error: bool = False
    """The model got an error."""


class MessageRow(msgspec.Struct, frozen=True):
    """A message that was said in a session."""

    submission: str
    session: str
    run_id: str
    position: int
    """The place of its run in the session."""
    steer_status: str | None = None
    """The fate of one that was to join a live run."""
    steer_id: str | None = None


class Execution(msgspec.Struct, frozen=True):
    """A line of the ledger."""

    effect: str
    run: str
    call: str
    key: str
    attempt: int


class FinalState(msgspec.Struct, frozen=True):
    """The contents of the database and the ledger at the end."""

    runs: list[RunRow] = []
    steps: list[StepRow] = []
    results: dict[str, str] = {}
    """The states, by id, of those parts of a canvas that never became a run."""
    ledger: list[Execution] = []
    bookings: list[tuple[str, str]] = []
    """Run and call of each row that a transactional tool wrote."""
    ordered: set[str] = set()
    """Submissions whose own row was committed with the submit in SQL."""
    talk: list[MessageRow] = []
    """The messages of sessions, in the order in which the model reads them."""
    postgres_kills: int = 0
    """Each may lose the claims of its last moments, which need not reach the disk: these attempts are not counted."""


class Verdict(msgspec.Struct, frozen=True):
    counters: dict[str, Any]
    broken: list[str]
    """A line for each broken promise."""


def verdict(history: History, state: FinalState) -> Verdict:
    """Compare a history with the final state."""
    lost = _lost(history.submissions, state)
    doubled = [
        *_runs_doubled(history.submissions, state),
        *_effects_doubled(state),
        *_messages_doubled(state),
    ]
    others = [
        *_winners(state), *_effects_apart(state), *_transactions_torn(history.submissions, state), *_out_of_order(history.submissions, state),
    ]  # fmt: skip
    stored = {run.submission for run in state.runs}
    well = {run.id for run in state.runs if run.status in ("done", "cancelled")}
    well |= {message.steer_id for message in state.talk if message.steer_id and message.run_id in well}
    accepted = [submission for submission in history.submissions if submission.accepted]
    tools = [step for step in state.steps if step.effect is not None]
    repeated = [step for step in state.steps if step.attempt > 1]
    counters = {
        "submissions": len(history.submissions),
        "attempts to submit": sum(submission.attempts for submission in history.submissions),
        "acknowledged": len(accepted),
        "acknowledged by door": dict(sorted(Counter(submission.door for submission in accepted).items())),
        "ended well": sum(_ended_well(submission, well) for submission in accepted),
        "lost": len(lost),
        "duplicated": len(doubled),
        "unacknowledged but stored": sum(not s.accepted and s.key in stored for s in history.submissions),
        "runs": len(state.runs),
        "runs by end": dict(sorted(Counter(run.status for run in state.runs).items())),
        "failed because of": dict(sorted(Counter(r.reason or "" for r in state.runs if r.status == "failed").items())),
        "messages that joined a run, or became the next": dict(sorted(Counter(m.steer_status for m in state.talk if m.steer_status).items())),
        "steps": len(state.steps),
        "executions beyond the first": sum(step.attempt - 1 for step in repeated),
        "tool executions in the ledger": len(state.ledger),
        "tool steps": len(tools),
        "recovered": sum(step.status == "done" for step in repeated),
        "unknown": sum(step.status == "unknown" for step in tools),
        "dead": sum(step.status == "dead" for step in state.steps),
        "the model was told of an error": sum(step.status == "done" and step.is_error for step in tools),
    }  # fmt: skip
    surprises = [f"a door raised what it does not promise: {surprise}" for surprise in history.surprises]
    return Verdict(counters, [*lost, *doubled, *others, *surprises])


def _ended_well(submission: Submission, well: set[str]) -> bool:
    """Return True when all its runs are done, or it cancelled them."""
    return well.issuperset(submission.run_ids)


def _lost(submissions: Sequence[Submission], state: FinalState) -> list[str]:
    """Find runs that were acknowledged and have not ended, and messages of sessions that no run has."""
    status = {run.id: run.status for run in state.runs}
    status |= {message.steer_id: status[message.run_id] for message in state.talk if message.steer_id}
    said = {message.submission for message in state.talk}
    found = []
    for submission in submissions:
        if submission.door.startswith("session") and submission.accepted and submission.key not in said:
            found.append(f"lost: {submission.door} {submission.key} is in no transcript")
        for run_id in submission.run_ids:
            if run_id not in status and state.results.get(run_id) not in _CELERY_TERMINAL:
                found.append(
                    f"lost: {submission.door} {submission.key} was told {run_id}, which is not in Postgres"
                )
            elif run_id in status and status[run_id] not in TERMINAL:
                found.append(
                    f"lost: {submission.door} {submission.key}: run {run_id} is still {status[run_id]}"
                )
    return found


def _runs_doubled(submissions: Sequence[Submission], state: FinalState) -> list[str]:
    """Find keys with more than one run."""
    found = []
    parts: dict[tuple[str, str], list[str]] = defaultdict(list)
    for run in state.runs:
        parts[run.submission, run.part].append(run.id)
    for (key, part), ids in parts.items():
        if len(ids) > 1:
            found.append(
                f"duplicated: {key}{part and f', part {part},'} has {len(ids)} runs: {', '.join(ids)}"
            )
    for submission in submissions:
        told = set(submission.run_ids)
        if submission.acknowledged and len(submission.run_ids) != len(told) * submission.acknowledged:
            found.append(
                f"duplicated: {submission.door} {submission.key} was told different runs: {sorted(told)}"
            )
    return found


def _messages_doubled(state: FinalState) -> list[str]:
    said = Counter(message.submission for message in state.talk)
    return [f"duplicated: {key} is {n} times in its session" for key, n in said.items() if n > 1]


def _out_of_order(submissions: Sequence[Submission], state: FinalState) -> list[str]:
    """Find queued messages of a caller that were answered in another order than they were accepted in."""
    found = []
    place = {message.submission: (message.session, message.position) for message in state.talk}
    last: dict[tuple[str, str], tuple[int, str]] = {}
    for submission in submissions:
        if submission.door == "session, queued" and submission.accepted and submission.key in place:
            session, position = place[submission.key]
            caller = submission.key.partition("-")[0], session
            before, key = last.get(caller, (0, ""))
            if position <= before:
                found.append(
                    f"out of order: {submission.key} at place {position} of session {session}, after {key} at place {before}"
                )
            last[caller] = position, submission.key
    return found


def _effects_doubled(state: FinalState) -> list[str]:
    """Find `once` calls that were executed twice, transactions that committed twice, other calls that were executed without an attempt
    of their own, such as after they were done, and calls with two idempotency keys.
    """
    paid = Counter((line.run, line.call) for line in state.ledger if line.effect == "once")
    found = [f"duplicated: once, {n} times: run {run}, {call}" for (run, call), n in paid.items() if n > 1]
    for (run, call), n in Counter(state.bookings).items():
        if n > 1:
            found.append(f"duplicated: transactional, {n} rows: run {run}, {call}")
    keys: dict[tuple[str, str], set[str]] = defaultdict(set)
    for line in state.ledger:
        keys[line.run, line.call].add(line.key)
    attempts: Counter[tuple[str, str]] = Counter()
    for step in state.steps:
        attempts[step.run_id, step.call_id or ""] += step.attempt
    for (run, call), n in Counter(
        (line.run, line.call) for line in state.ledger if line.effect != "transactional"
    ).items():
        if attempts[run, call] + state.postgres_kills < n:
            found.append(f"duplicated: {n} executions in {attempts[run, call]} attempts: run {run}, {call}")
    for (run, call), seen in keys.items():
        if len(seen) > 1:
            found.append(f"duplicated: one call with {len(seen)} idempotency keys: run {run}, {call}")
    return found


def _winners(state: FinalState) -> list[str]:
    """Find steps with several results, and done steps without one."""
    found = []
    for (run, generation, key), n in Counter((s.run_id, s.generation, s.key) for s in state.steps).items():
        if n > 1:
            found.append(f"two steps with one key: run {run}, generation {generation}, {key}")
    found += [
        f"{step.winners} recorded results: run {step.run_id}, {step.key}, {step.status}"
        for step in state.steps
        if step.winners > 1 or (step.status == "done" and step.winners != 1)
    ]
    return found


def _effects_apart(state: FinalState) -> list[str]:
    """Find done calls that were never executed, and transactions whose row and status differ."""
    executed = {(line.run, line.call) for line in state.ledger}
    booked = set(state.bookings)
    found = []
    for step in state.steps:
        call = step.run_id, step.call_id or ""
        if step.effect is None:
            continue
        done = step.status == "done" and not step.is_error
        if done and call not in executed:
            found.append(f"{step.effect} is done and was never executed: run {call[0]}, {call[1]}")
        if step.effect == "transactional" and done != (call in booked):
            rows = "a row" if call in booked else "no row"
            found.append(f"transactional is {step.status} with {rows}: run {call[0]}, {call[1]}")
    return found


def _transactions_torn(submissions: Sequence[Submission], state: FinalState) -> list[str]:
    """Find submits in SQL of which only the run or only the caller's own row was committed."""
    stored = {run.submission for run in state.runs}
    return [
        f"torn: {submission.key}: its row and its run are not both there, or both absent"
        for submission in submissions
        if submission.door == "sql" and (submission.key in stored) != (submission.key in state.ordered)
    ]


def recovery(faults: Sequence[float], ended: Sequence[float]) -> dict[str, float]:
    """Return the seconds from the end of each fault to the next recorded step."""
    later = sorted(ended)
    took = []
    for fault in faults:
        after = next((at for at in later if at > fault), None)
        if after is not None:
            took.append(after - fault)
    if len(took) < 2:
        return {}
    cuts = quantiles(took, n=20, method="inclusive")
    return {"p50": round(cuts[9], 3), "p95": round(cuts[18], 3), "max": round(max(took), 3)}


_RUNS = """
    SELECT id::text, coalesce(metadata->>'submission', '') AS submission, coalesce(metadata->>'part', '') AS part, status, reason
    FROM agno.run WHERE parent_run_id IS NULL"""
# The result of a turn is the assistant's message at its position, after messages that joined it; that of a tool is the message that answers its call.
# A program has no messages but the last: its calls have their results, and no two turns the same key.
_STEPS = """
    WITH said AS MATERIALIZED (
        SELECT m.run_id, m.seq, m.content->>'role' AS role, part->>'call_id' AS call_id, part->>'is_error' AS is_error
        FROM agno.message m LEFT JOIN LATERAL jsonb_array_elements(m.content->'parts') part ON part->>'type' = 'tool_result')
    SELECT s.run_id::text, s.generation, s.key, s.status, s.attempt, CASE s.kind WHEN 'tool' THEN s.effect END AS effect,
           s.call->>'id' AS call_id, extract(epoch FROM s.ended_at)::float8 AS ended_at,
           CASE WHEN by_program THEN (s.status = 'done')::int ELSE told.winners END, told.is_error OR s.arrival IS NOT NULL AND s.result IS NULL
    FROM agno.step s, LATERAL (
        SELECT EXISTS (SELECT FROM agno.step p WHERE p.run_id = s.run_id AND p.arrival IS NOT NULL) AS by_program) kind, LATERAL (
        SELECT count(*)::int AS winners, coalesce(bool_or(is_error::boolean), false) AS is_error
        FROM said WHERE said.run_id = s.run_id AND CASE
            WHEN s.kind IN ('tool', 'delegate') THEN said.call_id = s.call->>'id' ELSE said.role = 'assistant'
                AND said.seq = s.seq + (SELECT count(*) FROM agno.steer t WHERE t.step_id = s.id) END) told"""


_TALK = """
    SELECT m.content->'parts'->0->>'text' AS submission, r.session_id, r.id::text AS run_id, r.session_position,
           t.status AS steer_status, t.id::text AS steer_id
    FROM agno.run r JOIN agno.message m ON m.run_id = r.id
    LEFT JOIN agno.steer t ON coalesce(t.next_run_id, t.run_id) = r.id AND t.content = m.content
    WHERE r.session_id IS NOT NULL AND m.content->>'role' = 'user' ORDER BY r.session_id, r.session_position, m.seq"""


def read(database_url: str, ledger: Path) -> FinalState:
    """Read the final state."""
    with psycopg.connect(database_url, row_factory=namedtuple_row) as connection:

        def rows(statement: str) -> list[Any]:
            return connection.execute(statement.encode()).fetchall()

        return FinalState(
            runs=[RunRow(*row) for row in rows(_RUNS)],
            steps=[StepRow(*row) for row in rows(_STEPS)],
            results={row.task_id: row.status for row in rows("SELECT task_id, status FROM agno.task_result")},
            talk=[MessageRow(*row) for row in rows(_TALK)],
            ledger=read_ledger(ledger),
            bookings=[(row.run_id, row.call_id) for row in rows("SELECT run_id, call_id FROM chaos.booking")],
            ordered={row.submission for row in rows("SELECT submission FROM chaos.ordered")},
        )


def read_ledger(path: Path) -> list[Execution]:
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [Execution(**json.loads(line)) for line in lines]


_STUCK = """
    SELECT 'run ' || id || ' of ' || agent || ' is ' || status || ', since ' || created_at::time(0) FROM agno.run WHERE ended_at IS NULL
    UNION ALL
    SELECT 'step ' || key || ' of run ' || run_id || ' is ' || status || ' on ' || queue || ', attempt ' || attempt
        || coalesce(', worker ' || worker, '') || coalesce(', lease until ' || lease_until::time(1), '')
        || coalesce(', not before ' || not_before::time(1), '') || coalesce(', sent ' || sent_at::time(1), '')
        || coalesce(', error ' || error::text, '')
    FROM agno.step WHERE status NOT IN ('done', 'unknown', 'dead', 'cancelled')
    UNION ALL
    SELECT 'message ' || id || ' to run ' || run_id || ' is pending, since ' || created_at::time(0) FROM agno.steer WHERE status = 'pending'
    UNION ALL
    SELECT 'outbox row ' || id || ' is due since ' || due_at::time(1) || ': step ' || coalesce(step_id::text, '-')
        || ', ended run ' || coalesce(ended_run_id::text, '-') || ', chord ' || coalesce(chord_id::text, '-') FROM agno.outbox
    UNION ALL
    SELECT 'a chord ' || id || ' has ' || arrived || ' of ' || coalesce(size::text, 'unknown') || ' parts'
    FROM agno.barrier WHERE run_id IS NULL AND fired_at IS NULL"""


def stuck(database_url: str) -> list[str]:
    """Return a line for each run, step, message and chord that has not ended."""
    with psycopg.connect(database_url, connect_timeout=5, options="-c statement_timeout=10000") as connection:
        return [row[0] for row in connection.execute(_STUCK).fetchall()]
