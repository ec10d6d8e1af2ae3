"""Read runs, steps and events. Only `events` writes: it numbers new events."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal, TypedDict, Unpack, get_args
from uuid import UUID

import msgspec

from agno_workers.core.agent import Limits
from agno_workers.core.messages import Message, Role, Text, ToolCall, Usage, read_call, read_message
from agno_workers.core.run import Canvas, Run, RunKind, RunOutput, RunStatus, Step, StepKind, WaitsFor
from agno_workers.core.session import SessionStatus
from agno_workers.core.step import CompactionRecord
from agno_workers.core.tool import Policy
from agno_workers.core.words import as_uuid, did_you_mean
from agno_workers.database.pool import Pool, Row, statements, to_json
from agno_workers.errors import AgnoError, InvalidInput, RunNotFound
from agno_workers.runs.tree import RunTree

_SQL = statements("runs/queries")
QUIET = timedelta(minutes=2)
"""A run in which nothing happens for this long, without a reason, is stuck; the keeper would have acted in seconds."""
IdKind = Literal["run", "step", "batch"]


class Listed(msgspec.Struct, frozen=True):
    """A run in a list, with the first 200 characters of its input."""

    run: Run
    asked: str


class RunFilters(TypedDict, total=False):
    """Which runs a list has; None, or left out: all."""

    status: str | None
    """`queued`, `running`, `waiting`, `done`, `failed` or `cancelled`."""
    kind: str | None
    """`agent`, `team`, `workflow`, `ingestion` or `background`."""
    roots: bool
    """Only runs that no other run started."""
    agent: str | None
    """The name of the agent, the team or the workflow."""
    user_id: str | None
    """The user of the submit."""
    session_id: str | None
    """The session of the submit."""
    batch_id: str | None
    """The id of a batch."""
    metadata: Mapping[str, Any] | None
    """Runs whose metadata has these values, among others."""
    since: datetime | timedelta | None
    """Submitted at this time or later, or within this time."""
    open: bool
    """Only runs that have not ended."""
    stuck: bool
    """Only open runs in which nothing has begun or ended for two minutes, though nothing runs, they are not paused, and they wait
    for no person, no timer and no other run."""
    before: str | None
    """The id of a run: only older ones. With the last run of a page, the next page."""
    background: bool
    """Also runs of background work, which follow the runs of sessions. They are left out otherwise, but for `kind="background"`."""


class Waiting(msgspec.Struct, frozen=True):
    """A tool call, or an approval of a workflow, that waits for a person or an outside system."""

    step_id: str
    run_id: str
    generation: int
    key: str
    seq: int
    attempt: int
    agent: str
    name: str
    waits_for: WaitsFor
    call: ToolCall
    policy: Policy
    created_at: datetime
    expires_at: datetime | None = None
    error: dict[str, Any] | None = None
    """For a resolution: the error that interrupted the call."""
    kind: StepKind = StepKind.TOOL
    """`tool`; `wait` for the approval of a workflow, whose name is the question."""
    arrival: int | None = None
    """0 for a step of a workflow; None for a call of a model."""


class Lease(msgspec.Struct, frozen=True):
    """The lease of a running step."""

    until: datetime
    last: bool
    """True when no further attempt follows after it expires."""


class Child(msgspec.Struct, frozen=True):
    """A delegated run."""

    id: str
    agent: str
    status: RunStatus


class InSession(msgspec.Struct, frozen=True):
    """The place of a run in its session."""

    status: SessionStatus
    """The status of the session."""
    run_status: str | None = None
    """`live`, `waiting`, `parallel`, `scheduled` or `replaced`; see `core/session.py`."""
    live: str | None = None
    """The live run of the session."""
    before: int = 0
    """The waiting runs that begin earlier."""


class RunDiagnostics(msgspec.Struct, frozen=True):
    """The facts, beside its row and its steps, that explain why a run has not ended."""

    now: datetime
    leases: dict[str, Lease] = {}
    """Leases by step id."""
    children: tuple[Child, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    """Calls that wait for a person."""
    keeper_until: datetime | None = None
    """The end of the leading keeper's lease; in the past when no keeper is alive."""
    limits: Limits | None = None
    """The agent's limits, once one of its turns is recorded."""
    session: InSession | None = None


class Stuck(msgspec.Struct, frozen=True):
    """Work that makes no progress."""

    what: Literal["no_step", "unclaimed", "lease", "outbox", "person", "signal", "background"]
    queue: str
    count: int
    since: datetime
    sample: str | None
    """A run id; for `person`, a step id."""


class Returned(msgspec.Struct, frozen=True):
    """Steps of an agent that workers returned, and that wait for another try."""

    type: str
    """The type of the error; `UnknownAgent` where the worker does not know the agent."""
    message: str
    agent: str
    queue: str
    count: int
    since: datetime
    sample: str
    """A run id."""


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One structural event of a run. `subject` is the id of the run, of the step or of the message that it is about."""

    number: int
    """The number in its run, from 1 without a gap; it never changes."""
    event: str
    """Its kind, such as `RunStarted` or `ToolCallCompleted`."""
    subject: str
    """The id of a run, of a step, of a message to a live run, or of a report."""
    at: datetime
    """UTC."""
    name: str = ""
    """The tool's or the delegated agent's name; for a message its turn, or the run that it became."""
    attempt: int = 0
    """The execution of the step that it is about."""
    error: dict[str, Any] | None = None
    """`{"type", "message", "ids"}`."""
    data: dict[str, Any] | None = None
    """For a `Report`: its `text`, its `fraction` if it has one, and the `run_id`, `agent` and `step_id` that report."""


class RunQueries:
    """See the module. Every call raises Unavailable when Postgres does not answer."""

    def __init__(self, pool: Pool, tenant: str = "default") -> None:
        self._pool = pool
        self._tenant = tenant

    def run(self, run_id: str) -> Run:
        """Return a run. Raises RunNotFound, also for an invalid id."""
        return run_of(self._row(run_id))

    def run_and_canvas(self, run_id: str) -> tuple[Run, Canvas]:
        """Return a run, and the Celery options of the task that started it. Raises RunNotFound."""
        row = self._row(run_id)
        return run_of(row), msgspec.convert(row["canvas"] or {}, Canvas)

    def _row(self, run_id: str) -> Row:
        rows = self._pool.run(_SQL["run"], {"run_id": known_id(run_id)})
        if not rows:
            raise RunNotFound(
                f"no run {run_id!r} in this database. `agno-workers runs ls` lists the newest runs.",
                run_id=run_id,
            )
        return rows[0]

    def runs(self, limit: int = 50, **filters: Unpack[RunFilters]) -> list[Listed]:
        """Return runs, the newest first. Raises InvalidInput for a filter that can't be used, RunNotFound for `before`."""
        if limit < 1:
            raise InvalidInput(f"limit is at least 1, not {limit!r}.")
        wanted = self._wanted(filters, limit)
        rows = self._pool.run(narrowed(_SQL["runs"], wanted), wanted)
        return [Listed(run_of(row), row["asked"] or "") for row in rows]

    def hidden(self, limit: int, after: Run | None = None, **filters: Unpack[RunFilters]) -> int:
        """Count the runs of background work, at most `limit`, that a list with these filters leaves out, down to the run `after`."""
        if filters.get("background") or filters.get("kind"):
            return 0
        wanted = self._wanted(filters, limit) | {"is_background": True}
        if after is not None:
            wanted |= {"after": after.id, "after_at": after.created_at}
        found = narrowed(_SQL["runs"], wanted).rpartition(";")[0]
        (row,) = self._pool.run(f"SELECT count(*) AS hidden FROM ({found}) AS found", wanted)  # noqa: S608 - our own statement
        hidden: int = row["hidden"]
        return hidden

    def _wanted(self, filters: RunFilters, limit: int) -> dict[str, Any]:
        """Return the parameters of a list."""
        wanted = _checked({**filters}) | {"tenant": self._tenant, "limit": limit}
        if (before := filters.get("before")) is not None:
            last = self._row(before)
            wanted |= {"before": last["id"], "before_at": last["created_at"]}
        return wanted

    def find_ids(self, digits: str, kinds: Sequence[IdKind], newest: int = 100_000) -> list[str]:
        """Return the ids, at most six, that begin or end with these hex digits (at most 32); an end is looked for among the newest
        rows of each kind.
        """
        bounds = {"first": str(UUID(digits.ljust(32, "0"))), "last": str(UUID(digits.ljust(32, "f")))}
        wanted = {"digits": digits, "kinds": list(kinds), "newest": newest, "tenant": self._tenant}
        return [row["id"] for row in self._pool.run(_SQL["find_ids"], bounds | wanted)]

    def steps(self, run_id: str) -> list[Step]:
        """Return the steps of a run in the order of their creation."""
        return [
            msgspec.convert(_objects(row, "error", "answer"), Step)
            for row in self._pool.run(_SQL["steps"], {"run_ids": [known_id(run_id)]})
        ]

    def tree(self, run_id: str, limit: int = 1000) -> RunTree:
        """Return a run, its steps, and the runs that they started, at most `limit`. Raises RunNotFound."""
        rows = self._pool.run(_SQL["tree"], {"run_id": known_id(run_id), "limit": limit + 1})
        if not rows:
            self._row(run_id)  # raises
        runs = [run_of(row) for row in rows[:limit]]
        steps: dict[str, list[Step]] = defaultdict(list)
        for row in self._pool.run(_SQL["steps"], {"run_ids": [run.id for run in runs]}):
            steps[row["run_id"]].append(msgspec.convert(_objects(row, "error", "answer"), Step))
        below: dict[str | None, list[RunTree]] = defaultdict(list)
        for run in reversed(runs):
            tree = RunTree(run, tuple(steps[run.id]), tuple(reversed(below[run.id])), len(rows) <= limit)
            below[run.parent_run_id].append(tree)
        return tree

    def waiting(
        self, run_id: str | None = None, step_id: str | None = None, limit: int = 1000
    ) -> list[Waiting]:
        """Return the calls that wait for a person, of one run or of all, the oldest first."""
        rows = self._pool.run(
            _SQL["waiting"],
            {"run_id": run_id and known_id(run_id), "step_id": step_id and known_id(step_id), "limit": limit},
        )
        return [
            msgspec.convert(_objects(row, "error") | {"call": _call(row["call"])}, Waiting) for row in rows
        ]

    def call(self, step_id: str) -> ToolCall:
        """Return the call of a tool step."""
        (row,) = self._pool.run(_SQL["call"], {"step_id": step_id})
        return _call(row["call"])

    def transcript(self, run_id: str) -> list[Message]:
        """Return the messages of a run. One that can't be read is a message with its JSON as text."""
        return [
            shown_message(row["content"])
            for row in self._pool.run(_SQL["transcript"], {"run_id": known_id(run_id)})
        ]

    def compactions(self, run_id: str) -> list[CompactionRecord]:
        """Return the summaries that took the place of the oldest messages of a run; each stands for those of the one before, too."""
        rows = self._pool.run(_SQL["compactions"], {"run_id": known_id(run_id)})
        return [msgspec.convert(row, CompactionRecord) for row in rows]

    def stored_result(self, run_id: str, result_id: str) -> str | None:
        """Return the whole text of a tool result, by the id in its preview; None if the run may read no such result."""
        (row,) = self._pool.run(_SQL["stored_result"], {"run_id": known_id(run_id), "id": result_id})
        content: str | None = row["content"]
        return content

    def record(self, run_id: str) -> Any:
        """Return the JSON that a program kept beside its answer; None: it kept none, or has not ended."""
        rows = self._pool.run(_SQL["record"], {"run_id": known_id(run_id)})
        return rows[0]["record"] if rows else None

    def events(self, run_id: str, after: int = 0) -> list[Event]:
        """Return the events of a run with numbers above `after`, in order. An event gets its number when it is first read."""
        rows = self._pool.run(_SQL["events"], {"run_id": known_id(run_id), "after": after})
        return [msgspec.convert(row, Event) for row in rows]

    def follow(self, asked: Sequence[tuple[str, int]]) -> list[tuple[RunStatus | None, list[Event]]]:
        """Return the status and the events after a number for each of at most some hundred runs (id, number; -1 for no events).
        The status is older than the events, and None for an unknown run.
        """
        found: list[tuple[RunStatus | None, list[Event]]] = [(None, []) for _ in asked]
        params = {"ids": [run_id for run_id, _ in asked], "after": [after for _, after in asked]}
        for row in self._pool.run(_SQL["follow"], params):
            place = row["place"] - 1
            found[place] = RunStatus(row["status"]), found[place][1]
            if row["number"] is not None:
                found[place][1].append(msgspec.convert(row, Event))
        for _, events in found:
            events.sort(key=lambda event: event.number)
        return found

    def queues(self) -> dict[str, tuple[int, datetime]]:
        """Return, for each queue with ready steps, their number and the time when the oldest was sent."""
        return {row["queue"]: (row["ready"], row["oldest"]) for row in self._pool.run(_SQL["queues"])}

    def returned(self) -> list[Returned]:
        """Return the steps that workers returned, by agent and error."""
        return [msgspec.convert(row, Returned) for row in self._pool.run(_SQL["returned"])]

    def now(self) -> datetime:
        """Return the time of the database, which leases and timers use."""
        when: datetime = self._pool.run(_SQL["clock"])[0]["now"]
        return when

    def diagnostics(self, run_id: str) -> RunDiagnostics:
        """Return the leases, delegated runs, waiting calls and limits of a run, and the state of the keeper."""
        (row,) = self._pool.run(_SQL["diagnostics"], {"run_id": known_id(run_id)})
        return msgspec.convert({**row, "waiting": self.waiting(run_id)}, RunDiagnostics)

    def keeper_silent_s(self) -> float | None:
        """Return the seconds since the last keeper was alive: 0 when one is alive, None when there never was one."""
        (row,) = self._pool.run(_SQL["keeper"])
        return None if row["until"] is None else max(0.0, (row["now"] - row["until"]).total_seconds())

    def stuck(self, *, unclaimed: timedelta, overdue: timedelta, person: timedelta) -> list[Stuck]:
        """Return work that makes no progress: not claimed, past its lease or due time, or waiting for a person, for so long."""
        params = {
            "unclaimed_s": unclaimed.total_seconds(), "overdue_s": overdue.total_seconds(), "person_s": person.total_seconds(),
        }  # fmt: skip
        return [msgspec.convert(row, Stuck) for row in self._pool.run(_SQL["stuck"], params)]


def _checked(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of the filters. Raises InvalidInput."""
    texts = ("status", "kind", "agent", "user_id", "session_id")
    checked = checked_filters("run", filters, RunFilters.__annotations__, texts, RunStatus)
    status, metadata = filters.get("status"), filters.get("metadata")
    if (kind := filters.get("kind")) is not None and kind not in list(RunKind):
        raise InvalidInput(f"kind is one of {', '.join(RunKind)}, not {kind!r}.")
    if not isinstance(metadata, Mapping | None):
        raise InvalidInput(f"metadata is a mapping such as {{'order': 17}}, not {metadata!r}.")
    batch_id, stuck = filters.get("batch_id"), filters.get("stuck")
    is_open = bool(filters.get("open") or stuck) or (status is not None and not RunStatus(status).is_terminal)
    return checked | {
        "ended_as": status if status in (RunStatus.FAILED, RunStatus.CANCELLED) else None,
        "batch_id": batch_id and known_id(batch_id, "batch"),
        "metadata": to_json(metadata).decode() if metadata else None,
        "open": is_open or None,
        "is_background": None if filters.get("background") or kind == RunKind.BACKGROUND else False,
        "roots": filters.get("roots") or None,
        "quiet_s": QUIET.total_seconds() if stuck else None,
    }


def checked_filters(
    noun: str, filters: Mapping[str, Any], known: Collection[str], texts: Sequence[str], statuses: type[StrEnum]
) -> dict[str, Any]:  # fmt: skip
    """Return the parameters of the filters that lists share: texts and `since`. Raises InvalidInput for a filter that is unknown or of the
    wrong type.
    """
    for name, value in filters.items():
        if name not in known:
            raise InvalidInput(f"{noun}s have no filter {name!r}: use {', '.join(known)}.{did_you_mean(name, known)}")  # fmt: skip
        if name in texts and not isinstance(value, str | None):
            raise InvalidInput(f"{name} is a text, not {value!r}.")
    status, since = filters.get("status"), filters.get("since")
    if status not in (None, *statuses):
        hint = did_you_mean(str(status), statuses)
        raise InvalidInput(f"unknown {noun} status {status!r}; it is one of {', '.join(statuses)}.{hint}")
    if not isinstance(since, datetime | timedelta | None) or (isinstance(since, datetime) and since.tzinfo is None):  # fmt: skip
        raise InvalidInput(f"since is a datetime with a time zone, or a timedelta, not {since!r}.")
    given = {name: filters.get(name) for name in texts}
    return given | {"since" if isinstance(since, datetime) else "within": since}


def failure(run: Run) -> AgnoError | None:
    """Return the error of a run that did not succeed; None for a run that did."""
    if run.error is None:
        return None
    ids = {"run_id": run.id, "reason": run.reason} | ({} if run.content is None else {"content": run.content})
    return AgnoError.from_json(run.error, **ids)


def output(run: Run) -> RunOutput:
    """Return the output of a run that has ended."""
    return RunOutput(
        run.id,
        run.agent,
        run.status,
        run.content,
        run.reason,
        run.usage,
        run.turns,
        run.tool_calls,
        run.error,
    )


def known_id(id: str, kind: IdKind = "run") -> str:
    """Return the id as Postgres prints it. Raises RunNotFound for text that cannot be an id."""
    if (known := as_uuid(id)) is None:
        raise RunNotFound(
            f"{id!r} is not a {kind} id: a {kind} id looks like 0198c0de-0000-7000-8000-000000000000.",
            **{f"{kind}_id": id},
        )
    return known


def run_of(row: Row) -> Run:
    """Return the run of a row with its inflated answer."""
    usage = msgspec.convert(row, Usage)
    return msgspec.convert(
        {
            **_objects(row, "error", "metadata"),
            "content": row["answer"],
            "usage": usage,
            "cost_usd": float(row["cost_usd"]),
        },
        Run,
    )


def narrowed(statement: str, params: Mapping[str, Any]) -> str:
    """Return a statement without the conditions whose parameters are None. A condition is a line, and the deeper lines below it."""
    return "\n".join(
        each
        for each in re.split(r"\n(?=  AND |ORDER )", statement)
        if all(params.get(name) is not None for name in re.findall(r"%\((\w+)\)s", each))
    )


def shown_message(content: object) -> Message:
    """Return a stored message; one that can't be read is a message with its JSON as text."""
    try:
        return read_message(content)
    except msgspec.ValidationError as error:
        found = content.get("role") if isinstance(content, dict) else None
        role: Role = next((role for role in get_args(Role) if role == found), "system")
        text = f"(a message that can't be read, {error}: {msgspec.json.encode(content).decode()})"
        return Message(role, (Text(text),))


def _call(content: object) -> ToolCall:
    if (
        isinstance(content, dict) and "shown" in content
    ):  # an approval: what it shows stands for the arguments
        content = {**content, "arguments": to_json(content["shown"]).decode()}
    try:
        return read_call(content)
    except msgspec.ValidationError:
        return ToolCall("", "", msgspec.json.encode(content).decode())


def _objects(row: Row, *names: str) -> Row:
    """Return the row with objects in these columns, whatever a hand wrote into them."""
    odd = {name: {"message": row[name]} for name in names if not isinstance(row[name], dict | None)}
    return row | odd
