"""Submitting a run: from what callers say, in Celery's words and ours, to one transaction of the journal."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg

from agno_workers.core.messages import AnyPart, Message, Text
from agno_workers.core.run import Canvas
from agno_workers.errors import InvalidInput, UnknownKnowledge
from agno_workers.failpoints import reach
from agno_workers.knowledge.store.bases import AGENT as KNOWLEDGE
from agno_workers.knowledge.store.bases import ingest_request
from agno_workers.runs.journal import Journal, Submitted, utc
from agno_workers.runs.results import as_uuid

ASKED = frozenset(
    {"agent", "input", "session_id", "user_id", "idempotency_key", "metadata", "deadline_s", "options"}
)
"""What a caller may say of a run, as keyword arguments of `agno.run`."""


def submit(
    journal: Journal,
    inputs: Sequence[Any],
    asked: Mapping[str, Any],
    *,
    queue: str,
    task_id: str | None = None,
    countdown: float | None = None,
    eta: datetime | str | None = None,
    priority: int | None = None,
    canvas: Canvas | None = None,
) -> Submitted:
    """Put a run on the road.

    `inputs` are joined into the first message: text, parts, and results of earlier tasks of a canvas (a list, as
    a chord's body gets it, becomes numbered sections; other JSON is shown as JSON). `asked` are the keyword
    arguments, see ASKED. The agent `knowledge:NAME` ingests: its inputs are sources (see `Knowledges.submit`), and
    `options` say more of them. `countdown` in seconds; `eta` (text: ISO 8601) in UTC if naive.

    Raises InvalidInput, which names what is wrong; then nothing was stored.
    """
    unknown = sorted(set(asked) - ASKED)
    if unknown:
        near = difflib.get_close_matches(unknown[0], ASKED, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(ASKED))}."
        raise InvalidInput(f"{unknown[0]!r} is not something to say of a run: {hint}")
    if task_id is not None and as_uuid(task_id) != task_id:
        raise InvalidInput(
            f"task_id {task_id!r} is no UUID, and it is to be the run's id: leave it out, or give an idempotency_key."
        )
    agent = asked.get("agent")
    if not isinstance(agent, str) or not agent.strip():
        raise InvalidInput(f"agent must be the name of an agent, got {agent!r}.")
    if priority is not None and not 0 <= priority <= 9:
        raise InvalidInput(f"priority must be from 0 (first) to 9 (last), got {priority!r}.")
    if not queue.strip():
        raise InvalidInput(f"queue must be the name of a Celery queue, got {queue!r}.")
    if isinstance(eta, str):
        eta = datetime.fromisoformat(eta)
    if countdown is not None:
        eta = datetime.now(UTC) + timedelta(seconds=countdown)
    given = [*inputs, asked["input"]] if asked.get("input") is not None else list(inputs)
    options, ingestion = _object(asked, "options"), None
    if agent.startswith(KNOWLEDGE):
        message, ingestion = ingest_request(agent.removeprefix(KNOWLEDGE), _sources(given, agent), options)
    elif options is None:
        message = first_message(given, agent)
    else:
        raise InvalidInput(
            f"options are for an ingestion, by an agent {KNOWLEDGE}NAME, and {agent!r} is none."
        )
    reach("submit.asked")
    try:
        submitted = journal.submit(
            message,
            agent=agent,
            queue=queue,
            ingestion=ingestion,
            id=task_id,
            session_id=_text(asked, "session_id"),
            user_id=_text(asked, "user_id"),
            idempotency_key=_text(asked, "idempotency_key"),
            metadata=_object(asked, "metadata"),
            deadline_s=_seconds(asked, "deadline_s"),
            canvas=canvas if canvas and canvas != Canvas() else None,
            priority=priority,
            not_before=utc(eta),
        )
    except psycopg.errors.NoDataFound as error:
        name = agent.removeprefix(KNOWLEDGE)
        raise UnknownKnowledge(
            f"there is no knowledge base {name!r}: `agno-workers ingest ... --knowledge {name}` makes one.",
            knowledge=name,
        ) from error
    reach("submit.committed")
    return submitted


def first_message(inputs: Sequence[Any], agent: str) -> Message:
    """The user's message of a run. Raises InvalidInput when there is nothing in it."""
    parts: list[AnyPart] = []
    for value in inputs:
        try:
            parts.extend(_parts(value))
        except msgspec.ValidationError as error:
            raise InvalidInput(
                f"a part of the input of agent {agent!r} is malformed: {error}.", agent=agent
            ) from error
    if not any(not isinstance(part, Text) or part.text.strip() for part in parts):
        raise InvalidInput(f"the input of agent {agent!r} is empty. Say what it is to do.", agent=agent)
    merged: list[AnyPart] = []
    for part in parts:
        match merged[-1:], part:
            case [Text(before)], Text(text):
                merged[-1] = Text(f"{before}\n\n{text}")
            case _:
                merged.append(part)
    return Message("user", tuple(merged))


def _sources(inputs: Sequence[Any], agent: str) -> list[Any]:
    """What an ingestion is to bring in; what an earlier task of a canvas gave may be a list of it."""
    found: list[Any] = []
    for given in inputs:
        found += given if isinstance(given, list | tuple) else [given]
    wrong = [given for given in found if not isinstance(given, str | dict) or not given]
    if wrong or not found:
        got = repr(wrong[0]) if wrong else "nothing"
        raise InvalidInput(
            f"{agent} takes paths, addresses and descriptions of sources, got {got}.", agent=agent
        )
    return found


def _parts(value: Any) -> list[AnyPart]:
    match value:
        case None:
            return []
        case str():
            return [Text(value)]
        case msgspec.Struct():
            return [msgspec.convert(msgspec.to_builtins(value), AnyPart)]
        case {"type": "text" | "image" | "audio" | "file", **_rest}:
            return [msgspec.convert(value, AnyPart)]
        case [*items] if items and all(
            (isinstance(item, dict) and "type" in item) or isinstance(item, msgspec.Struct) for item in items
        ):
            return [part for item in items for part in _parts(item)]
        case [*items]:
            return [Text(f"[{number}]\n{_shown(item)}") for number, item in enumerate(items, 1)]
        case _:
            return [Text(_shown(value))]


def _shown(value: Any) -> str:
    try:
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"an input of type {type(value).__name__} can't be sent as JSON: {error}. Send text or JSON values."
        ) from error


def _text(asked: Mapping[str, Any], key: str) -> str | None:
    value = asked.get(key)
    if value is not None and not isinstance(value, str):
        raise InvalidInput(f"{key} must be text, got {value!r}.")
    return value


def _seconds(asked: Mapping[str, Any], key: str) -> float | None:
    value = asked.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise InvalidInput(f"{key} must be seconds above 0, got {value!r}.")
    return float(value)


def _object(asked: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    value = asked.get(key)
    if value is not None and not isinstance(value, dict):
        raise InvalidInput(f"{key} must be a JSON object, got {value!r}.")
    return value
