"""Execute the steps of a run without a worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agno_workers.core.step import CommitResult, StepMessage
from agno_workers.database.pool import Connection, Pool
from agno_workers.engine.run_turn import run_turn
from agno_workers.engine.tool import run_tool
from agno_workers.engine.turn import Engine
from agno_workers.knowledge.service import KnowledgeService
from agno_workers.knowledge.types import Knowledge, SearchResult, Source
from agno_workers.runs.queries import RunQueries
from agno_workers.sessions.compaction import run_compaction


def first_step(look: RunQueries, run_id: str) -> StepMessage:
    (step,) = look.steps(run_id)
    return StepMessage(None, run_id, step.id, 0, step.kind, step.queue)


def execute_step(engine: Engine, step: StepMessage) -> CommitResult:
    """Execute one step."""
    execute = {"turn": run_turn, "compact": run_compaction}.get(step.kind, run_tool)
    return execute(engine, step.run_id, step.step_id, step.generation)


def execute_run(engine: Engine, step: StepMessage) -> None:
    """Execute a step and all that follow from it, one after another."""
    todo = [step]
    while todo:
        todo += execute_step(engine, todo.pop(0)).sends


class FakeKnowledge:
    """Knowledge without an embedder: a search gives `hits`, and what is added lies in `added`."""

    def __init__(self, pool: Pool, hits: Sequence[SearchResult] = ()) -> None:
        self.hits = list(hits)
        self.asked: list[str] = []
        self.added: list[Source] = []
        self.service = KnowledgeService(pool, self, self._add)

    def search(self, knowledge: str, query: str, **_: Any) -> list[SearchResult]:
        self.asked.append(query)
        return list(self.hits)

    def similar(self, knowledge: str, uri: str, **_: Any) -> list[SearchResult]:
        return [hit for hit in self.hits if hit.uri != uri]

    def _add(self, knowledge: Knowledge, source: Source, connection: Connection) -> None:
        self.added.append(source)
