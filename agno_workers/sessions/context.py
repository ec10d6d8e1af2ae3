"""Resolve the context of a run: call its functions side by side, once a run, within their time limits, and keep what they returned.

Values of `External` are kept in Postgres for all runs of their scope. One worker fetches a value that has become old; others take the old
one, or wait for the first one. A value that a user denied is not asked for. The run keeps the values and a row for each use.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from agno_workers.core.context import Computed, Context, External, Fact, RunContext, parameters_of
from agno_workers.core.scopes import owner_in
from agno_workers.core.state import Scope
from agno_workers.core.step import ClaimedStep
from agno_workers.core.tokens import estimate
from agno_workers.core.words import safe_text
from agno_workers.database.pool import Pool, jsonb, statements
from agno_workers.engine.turn import Extension, Turn
from agno_workers.errors import ContextFailed, message_of
from agno_workers.sessions.state import read_state
from agno_workers.tools.result import to_text

log = logging.getLogger(__name__)

_SQL = statements("sessions/context")
_FETCH_MARGIN_S = 5.0
"""Seconds after its time limit until another worker may take over a fetch: its worker has died."""
_PAUSE_S = 5.0
"""Seconds after a failed fetch in which nobody fetches the value again."""
_POLL_S = 0.05
_RUNS_KEPT = 500
"""Runs whose context this process remembers."""
MAX_VALUE_BYTES = 1024 * 1024
"""The most JSON of one value: it goes to a model."""


@dataclass(frozen=True)
class _Value:
    """The outcome of one source."""

    outcome: str
    json: str = ""
    from_cache: bool = False


class ContextResolver:
    """Adds the context to turns; see the module."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._known: OrderedDict[tuple[str, str], tuple[str, ...]] = OrderedDict()

    def prepare(self, turn: Turn) -> Turn:
        """Add the parts of the system text. Raises ContextFailed; the turn is then tried again."""
        context = turn.agent.context
        if not (context.facts or context.state):
            return turn
        known = turn.claim.run_id, turn.claim.acting
        parts = self._known.get(known)
        if parts is None:
            parts = _plain(context) or self._resolved(turn, context)
            self._known[known] = parts
            while len(self._known) > _RUNS_KEPT:
                with suppress(KeyError):  # other threads remove them too
                    self._known.popitem(last=False)
        return replace(turn, context=(*turn.context, *parts))

    def forget(self, turn: Turn, _: str) -> None:
        self._known.pop((turn.claim.run_id, turn.claim.acting), None)

    def _resolved(self, turn: Turn, context: Context) -> tuple[str, ...]:
        claim, sources = turn.claim, context.sources
        key = "context" if claim.acting == claim.agent else f"context:{claim.acting}"
        ids = {"run_id": claim.run_id, "tenant": claim.tenant, "user_id": claim.user_id, "context": key}
        (begun,) = self._pool.run(_SQL["begin"], ids)
        if begun["kept"] is not None:
            return _parts(begun["kept"])
        state = self._state(claim, context.state)
        denied = {name for name, each in sources.items() if each.category in begun["denied"]}
        values = {name: _Value("denied") for name in denied}
        if not context.resolve:
            values |= {
                name: _Value("omitted")
                for name, each in sources.items()
                if each.is_called and name not in denied
            }
        given = {"history": turn.history, "input": claim.input, "state": state or {}}
        for names in _rounds(sources, values):
            values |= self._round(claim, {name: sources[name] for name in names}, values, given)
        values = _within(context, sources, values, turn.agent.name)
        kept = {"facts": _facts(values)} | (
            {} if state is None else {"state": state, "state_of": context.state}
        )
        uses = [
            {"key": name, "source": sources[name].source, "category": sources[name].category, "outcome": value.outcome,
             "bytes": len(value.json.encode()), "from_cache": value.from_cache}
            for name, value in values.items()
        ]  # fmt: skip
        rows = self._pool.run(_SQL["keep"], ids | {"value": jsonb(kept), "uses": jsonb(uses)})
        if not rows:  # this turn is executed twice at once, and the other one was first
            rows = self._pool.run(_SQL["of_run"], ids)
        return _parts(rows[0]["value"]) if rows else ()  # no row: the run was deleted

    def _state(self, claim: ClaimedStep, shown: bool | Scope) -> Mapping[str, Any] | None:
        """Return the state that is shown; None where none is, or the run has no owner in that scope."""
        scope = ("session" if claim.session_id else "run") if shown is True else shown
        if not scope:
            return None
        owner = owner_in(
            scope, session_id=claim.session_id, user_id=claim.user_id, agent=claim.acting, run_id=claim.run_id,
            team=claim.team.state_owner if claim.team else None,
        )  # fmt: skip
        return None if owner is None else read_state(self._pool, claim.tenant, scope, owner)

    def _round(
        self,
        claim: ClaimedStep,
        sources: Mapping[str, Fact],
        before: Mapping[str, _Value],
        given: Mapping[str, Any],
    ) -> dict[str, _Value]:
        """Return the values of sources that do not need each other."""
        run = RunContext(
            claim.run_id, claim.agent, claim.session_id, claim.user_id, claim.metadata, given["input"]
        )
        shared = {
            name: place
            for name, each in sources.items()
            if isinstance(each, External) and (place := _place(each, name, claim))
        }
        old, mine, fresh = self._take(claim, shared, sources)
        values: dict[str, _Value] = {name: _Value("used", text, True) for name, text in fresh.items()}
        waited = [name for name in shared if name not in fresh and name not in mine and old.get(name) is None]
        calls = {
            name: _Call(each, _arguments(each, run, before, given)) for name, each in sources.items()
            if each.is_called and (name not in shared or name in mine)
        }  # fmt: skip
        results = {name: call.result() for name, call in calls.items()}
        self._put(claim, {name: shared[name] for name in mine}, sources, results)
        for name in waited:  # another worker fetches the first value
            values[name] = self._wait(claim, name, sources[name], shared[name], run)
        for name, each in sources.items():
            if name in values:
                continue
            if not each.is_called:
                values[name] = _Value("used", _json(each.value))
            elif name not in results:
                values[name] = _Value("stale", old[name], True)
            else:
                values[name] = self._called(claim, name, each, results[name], old.get(name))
        return values

    def _called(
        self, claim: ClaimedStep, name: str, source: Fact, result: _Result, old: str | None = None
    ) -> _Value:
        """Return the value of a call, or where it failed, the value that `on_error` asks for."""
        json, failure = result
        if failure is None:
            return _Value("used", json)
        text = f"context {name!r} of agent {claim.agent!r} {failure}"
        if source.on_error == "fail":
            raise ContextFailed(
                f"{text}: correct its function, or give it on_error='omit'.", agent=claim.agent, key=name
            )
        log.warning("%s", text, extra={"run_id": claim.run_id, "agent": claim.agent})
        return (
            _Value("stale", old, True)
            if source.on_error == "stale" and old is not None
            else _Value("omitted")
        )

    def _take(
        self, claim: ClaimedStep, shared: Mapping[str, dict[str, Any]], sources: Mapping[str, Fact]
    ) -> tuple[dict[str, str], set[str], dict[str, str]]:
        """Return the old values, the names of the values that are this worker's to fetch, and the fresh values."""
        if not shared:
            return {}, set(), {}
        asked = [
            place | {"fetch_s": sources[name].timeout_s + _FETCH_MARGIN_S} for name, place in shared.items()
        ]
        rows = self._pool.run(_SQL["take"], {"tenant": claim.tenant, "asked": jsonb(asked)})
        texts = {row["key"]: None if row["value"] is None else _json(row["value"]) for row in rows}
        fresh = {
            row["key"]: text for row in rows if row["is_fresh"] and (text := texts[row["key"]]) is not None
        }
        old = {name: text for name, text in texts.items() if text is not None and name not in fresh}
        return old, {row["key"] for row in rows if row["is_mine"]}, fresh

    def _put(
        self,
        claim: ClaimedStep,
        places: Mapping[str, dict[str, Any]],
        sources: Mapping[str, Fact],
        results: Mapping[str, _Result],
    ) -> None:
        fetched = []
        for name, place in places.items():
            source, (json, failure) = sources[name], results[name]
            assert isinstance(source, External)
            value = msgspec.Raw(json.encode()) if failure is None else None
            fetched.append(place | {"value": value, "ttl_s": source.ttl_s, "has_failed": failure is not None})
        if fetched:
            self._pool.run(
                _SQL["put"], {"tenant": claim.tenant, "fetched": jsonb(fetched), "pause_s": _PAUSE_S}
            )

    def _wait(
        self, claim: ClaimedStep, name: str, source: Fact, place: dict[str, Any], run: RunContext
    ) -> _Value:
        """Wait for the first value, which another worker fetches; fetch it here when that takes longer than it may."""
        until = time.monotonic() + source.timeout_s
        while time.monotonic() < until:
            time.sleep(_POLL_S)
            _, mine, fresh = self._take(claim, {name: place}, {name: source})
            if name in fresh:
                return _Value("used", fresh[name], True)
            if name in mine:
                break
        result = _Call(source, _arguments(source, run, {}, {})).result()
        self._put(claim, {name: place}, {name: source}, {name: result})
        return self._called(claim, name, source, result)


_Result = tuple[str, str | None]
"""The value of a call as JSON, and the reason why there is none, or None."""


class _Call:
    """One call of a function on a daemon thread of its own, since Python can't stop a thread: a late one is abandoned."""

    def __init__(self, source: Fact, arguments: Mapping[str, Any]) -> None:
        self._source = source
        self._arguments = arguments
        self._ended = threading.Event()
        self._late_at = time.monotonic() + source.timeout_s
        self._result: _Result = ("", None)
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._run,), name="context", daemon=True).start()

    def result(self) -> _Result:
        """Wait for the end, at most until the time limit."""
        if self._ended.wait(max(0.0, self._late_at - time.monotonic())):
            return self._result
        return "", f"did not come within {self._source.timeout_s:g} s"

    def _run(self) -> None:
        try:
            value = self._source.value(**self._arguments)
            if inspect.isawaitable(value):
                value = asyncio.run(asyncio.wait_for(value, self._source.timeout_s))
            text = _json(value)
            if (size := len(text.encode())) > MAX_VALUE_BYTES:
                self._result = "", f"returned {size:,} bytes of JSON, and the most is {MAX_VALUE_BYTES:,}"
            else:
                self._result = text, None
        except BaseException as error:  # SystemExit too: it is the author's code, and this thread is its own
            self._result = "", f"raised {type(error).__name__}: {message_of(error)}"
        finally:
            self._ended.set()


def _arguments(
    source: Fact, run: RunContext, before: Mapping[str, _Value], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments that a function asks for by the names of its parameters."""
    parameters = parameters_of(source.value)
    passed: dict[str, Any] = {"ctx": run}
    for name in source.needs if isinstance(source, Computed) else ():
        value = before.get(name)
        passed[name] = (
            given[name] if value is None else msgspec.json.decode(value.json) if value.json else None
        )
    takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    return {
        name: value for name, value in passed.items() if name in parameters or (takes_all and name != "ctx")
    }


def _place(source: External, name: str, claim: ClaimedStep) -> dict[str, Any] | None:
    """Return the place of a shared value; None for a run without such an owner, whose value is not shared."""
    owner = owner_in(source.scope, session_id=claim.session_id, user_id=claim.user_id, agent=claim.acting)
    if owner is None:
        return None
    return {
        "scope": source.scope,
        "owner": owner,
        "agent": "" if source.scope == "global" else claim.acting,
        "key": name,
    }


def _rounds(sources: Mapping[str, Fact], known: Mapping[str, _Value]) -> Iterable[list[str]]:
    """Yield the names of sources that can be resolved together: first those that need no other."""
    done = set(known)
    while left := [name for name in sources if name not in done]:
        ready = [
            name for name in left
            if not isinstance(each := sources[name], Computed) or all(need in done or need not in sources for need in each.needs)
        ]  # fmt: skip
        yield ready
        done |= set(ready)


def _within(
    context: Context, sources: Mapping[str, Fact], values: Mapping[str, _Value], agent: str
) -> dict[str, _Value]:
    """Return the values in the order of their sources. What does not fit the budget is left out: the lowest priority first, and of equal
    ones the later.
    """
    room = float("inf") if context.tokens is None else context.tokens
    fitting = {name: values[name] for name in sources}
    for name in sorted(sources, key=lambda name: -sources[name].priority):
        size = _size(name, values[name])
        if size > room:
            fitting[name] = _Value("left_out")
            log.warning(
                "context %r of agent %r was left out: it needs about %d tokens of Context(tokens=%s), of which %d are left",
                name, agent, size, context.tokens, room,
            )  # fmt: skip
        else:
            room -= size
    return fitting


def _plain(context: Context) -> tuple[str, ...]:
    """Return the text of a context whose values all stand in the definition, and fit: it needs no record. Empty for others."""
    sources = context.sources
    if context.state or any(each.source != "static" or each.category for each in sources.values()):
        return ()
    values = {name: _Value("used", _json(each.value)) for name, each in sources.items()}
    if context.tokens is not None and sum(_size(*each) for each in values.items()) > context.tokens:
        return ()
    return _parts({"facts": _facts(values)})


def _size(name: str, value: _Value) -> int:
    """Return the tokens of a value in the system text."""
    return estimate(name) + estimate(value.json) if value.json else 0


def _facts(values: Mapping[str, _Value]) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(value.json.encode()) for name, value in values.items() if value.json}


def _parts(kept: Mapping[str, Any]) -> tuple[str, ...]:
    parts = [_text("Facts", kept["facts"])] if kept.get("facts") else []
    if "state" in kept:
        shown = kept.get("state_of", True)
        heading = {True: "State of the session", "global": "State of all runs"}.get(
            shown, f"State of the {shown}"
        )
        parts.append(_text(f"{heading}, when this run began", kept["state"]))
    return tuple(parts)


def _text(heading: str, values: Any) -> str:
    return f"{heading}:\n{msgspec.json.encode(values).decode()}"


def _json(value: Any) -> str:
    """Return a value as JSON. Raises Unserialisable."""
    try:
        return safe_text(msgspec.json.encode(value).decode())
    except (TypeError, ValueError, RecursionError):
        text = to_text(value)  # pydantic models, and what else a tool may return
    try:
        msgspec.json.decode(text)
        return text
    except msgspec.DecodeError:
        return msgspec.json.encode(text).decode()


def extension(resolver: ContextResolver) -> Extension:
    """Return what context adds to agents. It follows the other preparations, whose history it may need."""
    return Extension(prepare=resolver.prepare, ended=resolver.forget)
