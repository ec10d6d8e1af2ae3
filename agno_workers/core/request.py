"""A request for a run, validated once: every door (Python, Celery, the command line, batches) makes one.

Input values are joined into the first message: text, parts, and results of earlier tasks of a canvas. A list, which is what a
chord's body receives, becomes numbered sections; other values become JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, TypedDict, get_args, get_type_hints

import msgspec

from agno_workers.core.checks import brief
from agno_workers.core.messages import AnyPart, Message, Text
from agno_workers.core.run import Canvas, RunKind
from agno_workers.core.session import IfBusy
from agno_workers.core.words import as_uuid, did_you_mean
from agno_workers.errors import InvalidInput


class RunOptions(TypedDict, total=False):
    """Options of a run, beside its agent and its input."""

    session_id: str | None
    """The conversation that the run belongs to; `Agent(history=...)` reads its earlier runs."""
    if_busy: IfBusy | None
    """The fate of the run while another run of the session has not ended; None is `queue`. See [Sessions](sessions.md)."""
    user_id: str | None
    """The person whom the run is for. Sessions and idempotency keys belong to a user."""
    idempotency_key: str | None
    """When an earlier run of the agent and the user has this key, that run is returned."""
    metadata: dict[str, Any] | None
    """JSON of yours, at most 64 KiB: stored with the run, given to tools, and returned."""
    deadline_s: float | None
    """Seconds from the time when the run is due to its end."""
    allow_unknown: bool
    """Accept an agent that no worker has registered; the run waits for a worker that has it."""
    tenant: str
    """The tenant whose rows these are; leave it out."""


class SubmitOptions(RunOptions, total=False):
    """Options of a submit outside a canvas; in a canvas these are Celery's own."""

    run_id: str | None
    """A UUID of yours as the run's id; prefer an `idempotency_key`."""
    queue: str | None
    """The Celery queue; None: the one that the agent's workers registered."""
    priority: int | None
    """From 0 (first) to 9 (last)."""
    countdown: float | None
    """Seconds until the run is due, by the clock of Postgres."""
    eta: datetime | str | None
    """When the run is due; a naive time is in UTC."""


MAX_METADATA_BYTES = 64 * 1024
"""The most JSON that a run's metadata may take: each claim of a step reads it."""
MAX_NAME_CHARS = 1000
"""The most characters of an agent's name, a key, a session, a user, a queue and a tenant."""
OPTIONS = frozenset(get_type_hints(RunOptions))
SUBMIT_OPTIONS = frozenset(get_type_hints(SubmitOptions))


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A valid request for one run. Make it with `run_request`, which raises InvalidInput."""

    agent: str
    input: Message
    kind: RunKind = RunKind.AGENT
    tenant: str = "default"
    queue: str | None = None
    """None: the queue that the agent's workers registered."""
    default_queue: str | None = None
    """The queue of an agent that no worker registered."""
    allow_unknown: bool = False
    id: str | None = None
    session_id: str | None = None
    if_busy: IfBusy | None = None
    user_id: str | None = None
    idempotency_key: str | None = None
    metadata: dict[str, Any] | None = None
    priority: int | None = None
    not_before: datetime | None = None
    countdown_s: float | None = None
    """Seconds from the submit, which Postgres counts: callers' clocks differ."""
    deadline_s: float | None = None
    canvas: Canvas | None = None
    options: dict[str, Any] | None = None
    """Options of that kind of run, such as those of an ingestion."""


def run_request(
    agent: Any,
    input: Message | Sequence[Any],
    options: Mapping[str, Any],
    *,
    canvas: Canvas | None = None,
    kind: RunKind = RunKind.AGENT,
    kind_options: dict[str, Any] | None = None,
) -> RunRequest:
    """Return a valid request. `options` are SubmitOptions; None means not set.

    Raises InvalidInput, which names the option, its value and the expected one.
    """
    given = {name: value for name, value in options.items() if value is not None}
    for name in sorted(set(given) - SUBMIT_OPTIONS):
        hint = did_you_mean(name, SUBMIT_OPTIONS) or f" Known options: {', '.join(sorted(SUBMIT_OPTIONS))}."
        raise InvalidInput(f"unknown run option {name!r}.{hint}")
    check_name(agent, "agent", "the name of an agent")
    for name in ("session_id", "user_id", "idempotency_key", "queue", "tenant"):
        if name in given:
            may_be_blank = name == "session_id"
            check_name(
                given[name], name, "text" if may_be_blank else "text that is not blank", not may_be_blank
            )
    run_id = given.pop("run_id", None)
    if run_id is not None and as_uuid(run_id) != run_id:
        raise InvalidInput(f"run_id {run_id!r} is not a UUID: leave it out, or use an idempotency_key.")
    check_metadata(given.get("metadata", {}))
    priority = given.get("priority")
    if priority is not None and (
        isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= 9
    ):
        raise InvalidInput(f"priority must be a whole number from 0 (first) to 9 (last), got {priority!r}.")
    if not isinstance(given.get("allow_unknown", False), bool):
        raise InvalidInput(f"allow_unknown must be True or False, got {brief(given['allow_unknown'])}.")
    _check_if_busy(given)
    if "deadline_s" in given:
        given["deadline_s"] = _seconds(given["deadline_s"], "deadline_s")
    message = input if isinstance(input, Message) else first_message(input, agent)
    return RunRequest(
        agent=agent,
        input=message,
        kind=kind,
        id=run_id,
        **_due(given.pop("countdown", None), given.pop("eta", None)),
        canvas=canvas if canvas and canvas != Canvas() else None,
        options=kind_options,
        **given,
    )


def _check_if_busy(given: Mapping[str, Any]) -> None:
    if_busy = given.get("if_busy", "queue")
    known = get_args(IfBusy)
    if if_busy not in known:
        raise InvalidInput(
            f"if_busy must be one of {', '.join(known)}, got {if_busy!r}.{did_you_mean(str(if_busy), known)}"
        )
    if if_busy != "queue" and not given.get("session_id"):
        raise InvalidInput(f"if_busy={if_busy!r} is about the runs of a session: pass a session_id too.")
    if if_busy not in ("queue", "parallel") and (given.get("countdown") or given.get("eta")):
        raise InvalidInput(
            f"if_busy={if_busy!r} is decided at the submit, and this run has a time of its own: use 'queue' or 'parallel', "
            "or submit it at that time."
        )


def check_metadata(metadata: Any) -> None:
    """Raise InvalidInput for metadata that is not a JSON object of at most MAX_METADATA_BYTES."""
    if not isinstance(metadata, dict):
        raise InvalidInput(f"metadata must be a JSON object, got {brief(metadata)}.")
    try:
        text = json.dumps(msgspec.to_builtins(metadata, str_keys=True), ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"metadata can't be sent as JSON: {error}. Pass JSON values.") from error
    if (size := len(text.encode(errors="surrogatepass"))) > MAX_METADATA_BYTES:
        raise InvalidInput(
            f"metadata takes {size:,} bytes as JSON, and the most is {MAX_METADATA_BYTES:,}, because each step of the run "
            "reads it: store large values elsewhere, and pass their keys."
        )


def first_message(inputs: Sequence[Any], agent: str) -> Message:
    """Return the user's message of a run. Raises InvalidInput when it is empty."""
    parts: list[AnyPart] = []
    for value in inputs:
        try:
            parts.extend(_parts(value))
        except msgspec.ValidationError as error:
            raise InvalidInput(
                f"a part of the input of agent {agent!r} is malformed: {error}.", agent=agent
            ) from error
    if not any(not isinstance(part, Text) or part.text.strip() for part in parts):
        raise InvalidInput(f"the input of agent {agent!r} is empty: pass the task as text.", agent=agent)
    merged: list[AnyPart] = []
    for part in parts:
        match merged[-1:], part:
            case [Text(before)], Text(text):
                merged[-1] = Text(f"{before}\n\n{text}")
            case _:
                merged.append(part)
    return Message("user", tuple(merged))


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
    except UnicodeEncodeError:  # lone surrogates, which are replaced when it is stored
        return json.dumps(msgspec.to_builtins(value, str_keys=True), ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"an input of type {type(value).__name__} can't be sent as JSON: {error}. Send text or JSON values."
        ) from error


def check_name(value: Any, name: str, expected: str, not_blank: bool = True) -> None:
    """Raise InvalidInput for what is not text, blank, or longer than MAX_NAME_CHARS."""
    if not isinstance(value, str) or (not_blank and not value.strip()):
        raise InvalidInput(f"{name} must be {expected}, got {brief(value)}.")
    if len(value) > MAX_NAME_CHARS:
        raise InvalidInput(
            f"{name} has {len(value):,} characters, and the most is {MAX_NAME_CHARS:,}: shorten it, or pass a hash of it."
        )


def _seconds(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise InvalidInput(f"{name} must be seconds above 0, got {value!r}.")
    return float(value)


def _due(countdown: Any, eta: Any) -> dict[str, Any]:
    if countdown is not None:
        if isinstance(countdown, bool) or not isinstance(countdown, int | float) or not abs(countdown) < 1e9:
            raise InvalidInput(f"countdown must be seconds, got {countdown!r}.")
        return {"countdown_s": float(countdown)} if countdown > 0 else {}
    if isinstance(eta, str):
        try:
            eta = datetime.fromisoformat(eta)
        except ValueError as error:
            raise InvalidInput(f"eta must be a time in ISO 8601, got {eta!r}.") from error
    if eta is not None and not isinstance(eta, datetime):
        raise InvalidInput(f"eta must be a datetime, got {eta!r}.")
    return {"not_before": eta}
