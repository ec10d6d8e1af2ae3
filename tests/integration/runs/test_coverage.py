"""The invariants and the state machine are complete: a new table, status or statement needs an entry in them."""

from __future__ import annotations

import re
from typing import get_args, get_type_hints

import pytest
import sqlalchemy as sa
from hypothesis.stateful import INITIALIZE_RULE_MARKER, RULE_MARKER

from agno_workers.core.run import RunKind, RunStatus, StepKind, StepStatus, WaitsFor
from agno_workers.core.session import SessionStatus
from agno_workers.database.tables import metadata
from agno_workers.knowledge.types import EmbeddingSpaceStatus, SourceStatus
from agno_workers.sessions.steering import SteerReceipt
from tests import invariants
from tests.database import PACKAGE, STATEMENTS
from tests.integration.knowledge.store.test_ingest_machine import Library
from tests.integration.runs.test_state_machine import RunMachine
from tests.integration.sessions.test_session_machine import SessionMachine

MOVING = [
    *(
        "run",
        "step",
        "barrier",
        "message",
        "chord_part",
        "outbox",
        "compaction",
        "stored_result",
        "session",
        "signal",
        "steer",
    ),
    *("background", "background_item"),
    *(
        "ingestion",
        "source",
        "ingest_count",
        "document",
        "chunk",
        "chunk_embedding",
        "knowledge",
        "embedding_space",
    ),
]
WRITES = re.compile(rf"(?:UPDATE|INSERT INTO|DELETE FROM)\s+agno\.(?:{'|'.join(MOVING)})\b", re.IGNORECASE)
FUNCTION = re.compile(
    r"^CREATE OR REPLACE FUNCTION agno\.(\w+)(.*?)(?=^CREATE OR REPLACE|\Z)", re.MULTILINE | re.DOTALL
)
ENUMS = {
    "run.kind": RunKind,
    "run.status": RunStatus,
    "step.status": StepStatus,
    "step.kind": StepKind,
    "step.waits_for": WaitsFor,
    "source.status": SourceStatus,
    "session.status": SessionStatus,
    "steer.status": get_args(get_type_hints(SteerReceipt)["status"]),
    "embedding_space.status": EmbeddingSpaceStatus,
}


def writing() -> set[str]:
    """Return statements by file and name, and functions by name."""
    functions = "\n".join(
        path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("functions/*.sql"))
    )
    return {name for name, text in STATEMENTS.items() if WRITES.search(text)} | {
        name for name, text in FUNCTION.findall(functions) if WRITES.search(text)
    }


def test_each_table_has_an_invariant_or_a_reason() -> None:
    assert {table.name for table in metadata.sorted_tables} == {
        *invariants.TABLES,
        *invariants.REFERENCE_ONLY,
    }


def test_checked_tables_are_those_of_the_state_machine() -> None:
    assert set(MOVING) == set(invariants.TABLES)


@pytest.mark.parametrize("column", invariants.WORDS)
def test_each_status_of_runs_and_steps_has_an_invariant(column: str) -> None:
    assert set(invariants.WORDS[column]) == set(ENUMS[column])


def test_all_enums_of_the_tables_are_covered() -> None:
    listed = {
        f"{table.name}.{constraint.name.removeprefix(f'{table.name}_')}"
        for table in metadata.sorted_tables
        for constraint in table.constraints
        if table.name in invariants.TABLES and isinstance(constraint, sa.CheckConstraint) and isinstance(constraint.name, str)
        and " IN ('" in str(constraint.sqltext) and " = (" not in str(constraint.sqltext)
    }  # fmt: skip
    assert listed == set(invariants.WORDS)


def test_named_invariants_exist() -> None:
    named = {*invariants.TABLES.values()} | {
        name for words in invariants.WORDS.values() for name in words.values()
    }
    constraints = {
        str(constraint.name) for table in metadata.sorted_tables for constraint in table.constraints
    }
    assert named <= {*invariants.ALWAYS, *invariants.AT_REST, *constraints}


def test_each_writing_statement_and_function_has_a_rule_in_the_state_machine() -> None:
    known = [invariants.MOVES, invariants.INGEST_MOVES, invariants.SESSION_MOVES, invariants.MOVED_ELSEWHERE]
    assert writing() == {name for moves in known for name in moves}


@pytest.mark.parametrize(
    ("machine", "name"),
    [(RunMachine, name) for name in sorted(set(invariants.MOVES.values()))]
    + [(Library, name) for name in sorted(set(invariants.INGEST_MOVES.values()))]
    + [(SessionMachine, name) for name in sorted(set(invariants.SESSION_MOVES.values()))],
)
def test_named_rules_exist(machine: type, name: str) -> None:
    rule = getattr(machine, name)
    assert hasattr(rule, RULE_MARKER) or hasattr(rule, INITIALIZE_RULE_MARKER)
