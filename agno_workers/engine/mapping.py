"""Take the turns of a map: start calls for the next items as others end, so that at most `window` are open."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import msgspec

from agno_workers.core.delegate import MAX_DEPTH
from agno_workers.core.mapping import (
    MAP_RUN,
    MOST_LISTED,
    MOST_LISTED_BYTES,
    MapOrder,
    MapPage,
    Mapped,
)
from agno_workers.core.messages import Message, Text
from agno_workers.core.program import CallKind
from agno_workers.core.request import first_message
from agno_workers.core.run import RunKind, RunStatus, StepKind, WaitsFor
from agno_workers.core.runnable import Runnable
from agno_workers.core.step import CallStep, ChildRun, ClaimedStep, CommitResult, TurnRecord
from agno_workers.engine.turn import Engine
from agno_workers.errors import AgnoError, InvalidInput, RunFailed, Unavailable, error_to_json
from agno_workers.signals import signal
from agno_workers.tools.result import to_json_text


def map_child(engine: Engine, claim: ClaimedStep, key: str, mapped: Mapped) -> ChildRun:
    """Store the items of a map, and return the run that it is."""
    what, items = mapped.what, mapped.items
    if isinstance(what, Runnable) and claim.depth + 1 >= MAX_DEPTH:
        raise RunFailed(f"step {key!r}: runs start others at most {MAX_DEPTH} deep.", run_id=claim.run_id, reason="depth")  # fmt: skip
    found = _order_of(engine, key, what)
    stored = [msgspec.Raw(_as_json(key, place, item)) for place, item in enumerate(items)]
    if isinstance(what, Runnable):
        _check_inputs(key, what.name, stored)
    list_id = engine.journal.store_items(claim.run_id, stored)
    order = MapOrder(
        list_id, len(items), mapped.window, mapped.on_error,
        turn_queue=engine.queue_of(engine.compiled(claim.agent)), is_retry=claim.generation > 0, **found,
    )  # fmt: skip
    told = f"{len(items):,} items for {found['name']}, at most {mapped.window} at once"
    asked = Message("user", (Text(told), Text(msgspec.json.encode(order).decode())))
    return ChildRun(MAP_RUN.name, order.turn_queue, asked, RunKind.WORKFLOW, engine.below(claim))


def _order_of(engine: Engine, key: str, what: Any) -> dict[str, Any]:
    """Return how the calls of a map are made; its run needs no code for it."""
    if isinstance(what, Runnable):
        engine.runnable(what.name)  # a worker finds it by its name
        return {"name": what.name, "queue": engine.queue_of(what), "run_kind": what.kind}
    name = engine.calls.name_of(what)
    tool = engine.calls.tool(name)
    return {
        "name": name, "queue": tool.queue or engine.tool_queue, "parameter": engine.calls.only_parameter(key, what), "effect": tool.effect,
        "max_attempts": tool.max_attempts, "policy": tool.policy,
    }  # fmt: skip


def _check_inputs(key: str, name: str, stored: Sequence[msgspec.Raw]) -> None:
    for place, item in enumerate(stored):
        try:
            first_message((msgspec.json.decode(item),), name)
        except InvalidInput as error:
            raise InvalidInput(f"flow.map({key!r}): item {place}: {error}", step=key) from error


def _as_json(key: str, place: int, item: Any) -> bytes:
    try:
        return to_json_text(item).encode()
    except TypeError as error:
        text = f"flow.map({key!r}): item {place}, a {type(item).__qualname__}, can't be stored as JSON: map over values, such as ids."
        raise InvalidInput(text, step=key) from error


def run_map_turn(engine: Engine, claim: ClaimedStep) -> CommitResult:
    """Execute one turn of a map. It reads and writes about `window` rows, whatever the number of items."""
    try:
        order = msgspec.json.decode(_text(claim.messages[0], 1), type=MapOrder)
        with engine.active.step(claim.step_id):  # a retry of many items takes longer than a lease
            page = engine.journal.map_page(claim, order, (claim.call or {}).get("next"))
            signal("turn.replied", claim=claim)
            committed = _commit(engine, claim, order, page)
        signal("turn.recorded", claim=claim)
    except Unavailable:
        raise
    except Exception as error:
        reason = getattr(error, "reason", None) or "error"
        failed = engine.journal.fail(claim, error_to_json(error), reason, TurnRecord(is_program=True))
        committed = msgspec.structs.replace(failed, cause=error)
    if committed.ended and committed.ended.status is RunStatus.FAILED:
        with suppress(Unavailable):  # the keeper does it within seconds
            engine.journal.cancel_abandoned(claim.run_id)
    return committed


def _commit(engine: Engine, claim: ClaimedStep, order: MapOrder, page: MapPage) -> CommitResult:
    record = TurnRecord(is_program=True)
    if page.failed and order.on_error == "fail":
        position = int(page.failed[0].partition(":")[2])
        error = RunFailed(f"item {position} failed: {page.failed[1]}", run_id=claim.run_id, reason="item_failed", position=position)  # fmt: skip
        return engine.journal.fail(claim, error.to_json(), "item_failed", record)
    if not page.items and not page.open:
        return _end(engine, claim, order, record)
    calls = [_call(engine, claim, order, position, item) for position, item in page.items]
    next_item = page.items[-1][0] + 1 if page.items else order.count
    waiting = page.open + len(calls)
    last = 1 if order.on_error == "fail" else waiting
    wake_after = min(waiting, max(1, order.window // 4)) if next_item < order.count else last
    return engine.journal.make_calls(
        claim, record, calls, order.turn_queue, barrier_id=page.barrier_id, wake_at=page.arrived + wake_after, next_call={"next": next_item},
    )  # fmt: skip


def _call(engine: Engine, claim: ClaimedStep, order: MapOrder, position: int, item: Any) -> CallStep:
    """Return the step of an item."""
    key = f"item:{position}"
    stored: dict[str, Any] = {"id": key, "name": order.name, "kind": CallKind.RUN if order.run_kind else CallKind.FUNCTION}  # fmt: skip
    if order.run_kind is None:
        stored["arguments"] = msgspec.json.encode({order.parameter: item}).decode()
        return CallStep(key, StepKind.TOOL, order.queue, order.name, stored, order.effect, order.max_attempts, order.policy, order.policy.needs)  # fmt: skip
    lineage = claim.below(False, claim.lineage.limits)
    child = ChildRun(order.name, order.queue, first_message((item,), order.name), order.run_kind, lineage)
    return CallStep(key, StepKind.DELEGATE, engine.agent_queue, order.name, stored, waits_for=WaitsFor.RUN, child=child)  # fmt: skip


def _end(engine: Engine, claim: ClaimedStep, order: MapOrder, record: TurnRecord) -> CommitResult:
    failed, is_small = engine.journal.map_summary(claim, MOST_LISTED_BYTES)
    content: dict[str, Any] = {"run_id": claim.run_id, "count": order.count, "failed": failed}
    if order.count <= MOST_LISTED and (is_small or not order.count):
        results = engine.journal.map_results(claim.run_id, 0, order.count)
        if len(msgspec.json.encode(results)) <= MOST_LISTED_BYTES:
            content["results"] = results
    said = Message("assistant", (Text(f"{order.count - failed:,} of {order.count:,} items are done"),))
    return engine.journal.end(claim, msgspec.structs.replace(record, messages=(said,)), content, "end")


def _text(message: Message, place: int) -> str:
    part = message.parts[place]
    if not isinstance(part, Text):
        raise AgnoError("the first message of a map is not one that this code wrote")
    return part.text
