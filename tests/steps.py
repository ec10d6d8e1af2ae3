"""Carrying the steps of a run by hand, where no worker is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agno_workers.core.knowledge import Hit, Knowledge, Source
from agno_workers.engine.library import Library
from agno_workers.engine.loop import Engine, take_turn
from agno_workers.engine.tool_calls import take_tool
from agno_workers.storage.journal import Recorded, Send
from agno_workers.storage.look import Look
from agno_workers.storage.pool import Connection, Pool


def first_step(look: Look, run_id: str) -> Send:
    (step,) = look.steps(run_id)
    return Send(None, run_id, step.id, 0, step.kind, step.queue)


def take(engine: Engine, step: Send) -> Recorded:
    """Carry one step."""
    carrying = take_turn if step.kind == "turn" else take_tool
    return carrying(engine, step.run_id, step.step_id, step.generation)


def carry(engine: Engine, step: Send) -> None:
    """Carry a step and all that follows from it, one after another."""
    todo = [step]
    while todo:
        todo += take(engine, todo.pop(0)).sends


class Shelf:
    """Knowledge without an embedder: a search gives `hits`, and what is added lies in `added`."""

    def __init__(self, pool: Pool, hits: Sequence[Hit] = ()) -> None:
        self.hits = list(hits)
        self.asked: list[str] = []
        self.added: list[Source] = []
        self.library = Library(pool, self, self._add)

    def ask(self, knowledge: str, question: str, **_: Any) -> list[Hit]:
        self.asked.append(question)
        return list(self.hits)

    def similar(self, knowledge: str, uri: str, **_: Any) -> list[Hit]:
        return [hit for hit in self.hits if hit.uri != uri]

    def _add(self, knowledge: Knowledge, source: Source, connection: Connection) -> None:
        self.added.append(source)
