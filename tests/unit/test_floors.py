"""An import points down: doors, wiring, gallery, engine, rooms, walls, ground. Never up, never to a neighbour.

Every import counts: inside functions, under TYPE_CHECKING, and modules named in text for a later import. A new
file belongs into FLOORS; an arrow that must point elsewhere goes into EXCEPT, with its reason in one line.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLOORS = [
    {"core", "errors", "settings", "failpoints"},
    {
        "models",
        "embedders",
        "sources",
        "storage",
        "streams",
        "broker",
        "limits",
        "security",
        "telemetry",
        "embedded",
    },
    {"tools", "context", "memory", "knowledge", "reasoning", "registry"},
    {"engine"},
    {"teams", "workflows"},
    {"wiring"},
    {
        "tasks",
        "api",
        "dashboard",
        "cli",
        "demo",
        "client",
        "people",
        "batch",
        "agent",
        "knowledge_base",
        "ingestion",
        "__init__",
    },
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
GROUND_MAY_USE = {"pydantic", "pydantic_settings", "msgspec"} | set(sys.stdlib_module_names)
EXCEPT = {
    ("settings", "errors"): "a wrong setting is one of the errors of the one tree",
    ("broker", "storage"): "the result backend, the outbox and the keeper are where rows become messages",
    ("agent", "client"): "both are the Python door: what `agent.delay` returns holds the Client's RunHandle",
    (
        "embedders",
        "models",
    ): "an embedding is asked for over the same wires as a reply, and fails in the same ways",
    (
        "agent",
        "batch",
    ): "both are the Python door: `agent.map` gives the batch that `Client.submit_many` gives",
    ("client", "batch"): "the same",
    ("client", "ingestion"): "the same: what it ingests it hands back to be watched",
    ("knowledge_base", "ingestion"): "the same",
    ("knowledge_base", "agent"): "a signature of an ingestion gives what `agent.s` gives",
    ("__init__", "ingestion"): "re-exports what we promise",
    ("__init__", "knowledge_base"): "re-exports what we promise",
    ("client", "people"): "the same: a RunHandle gives what waits for a person in its run",
    ("__init__", "batch"): "re-exports what we promise",
    ("__init__", "agent"): "re-exports what we promise",
    ("__init__", "people"): "re-exports what we promise",
    ("__init__", "client"): "re-exports what we promise",
    ("cli", "ingestion"): "the same: it ingests and watches as callers do",
    ("cli", "client"): "the command line is a caller like any other, and submits and waits as callers do",
    ("cli", "people"): "the same: it answers what waits for a person as callers do",
    ("cli", "demo"): "`agno-workers demo` gives the demo a stage and draws what it tells",
    ("demo", "ingestion"): "the demo brings its documents in as a user does",
    ("demo", "__init__"): "the demo's agents are written as a user writes them",
    ("__init__", "tasks"): "`celery -A agno_workers` looks for `app` here; only a worker asks for it",
}


def test_every_arrow_points_down() -> None:
    wrong = [
        f"{place}: {source} -> {target}"
        for source, target, place in arrows()
        if source != target and (source, target) not in EXCEPT and not _points_down(source, target)
    ]
    assert not wrong, "these imports point up or sideways:\n" + "\n".join(wrong)


def test_exceptions_are_in_use() -> None:
    assert set(EXCEPT) <= {(source, target) for source, target, _ in arrows()}, (
        "an exception that nobody needs"
    )


def arrows() -> Iterator[tuple[str, str, str]]:
    """Every import of our own code as (room, room, file:line); of the ground, of anything else as well."""
    for path in sorted([*(ROOT / "agno_workers").rglob("*.py"), *(ROOT / "tasks").rglob("*.py")]):
        place = path.relative_to(ROOT)
        room = "tasks" if place.parts[0] == "tasks" else place.parts[1].removesuffix(".py")
        assert room in FLOOR_OF, f"{place} is new here: say in FLOORS where {room!r} belongs"
        for line, module in _imported(ast.parse(path.read_text(encoding="utf-8"))):
            top, _, rest = module.partition(".")
            target = re.split(r"[.:]", rest)[0]
            if top == "agno_workers":
                yield room, target if target in FLOOR_OF else "__init__", f"{place}:{line}"
            elif FLOOR_OF[room] == 0 and top not in GROUND_MAY_USE:
                yield room, module, f"{place}:{line}"


def _imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, name.name) for name in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield from ((node.lineno, f"{module}.{name.name}") for name in names)
            case ast.Constant(value=str(text)) if re.fullmatch(r"agno_workers(\.\w+)+(:\w+)?", text):
                yield node.lineno, text


def _points_down(source: str, target: str) -> bool:
    if target == "settings":  # only wiring and the doors read settings
        return FLOOR_OF[source] >= FLOOR_OF["wiring"]
    if FLOOR_OF[source] == FLOOR_OF["tools"] and FLOOR_OF.get(target) == FLOOR_OF["models"]:
        return False  # rooms get what they need of the walls handed in
    return FLOOR_OF[source] > FLOOR_OF.get(target, len(FLOORS))
