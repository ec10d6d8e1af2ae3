"""An import points down, never up and never to a neighbour: see FLOORS, the lowest first.

Every import counts: inside functions, under TYPE_CHECKING, and modules named in text for a later import. A new
file belongs into FLOORS; an arrow that must point elsewhere goes into EXCEPT, with its reason in one line.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
FLOORS = [
    {"addresses", "errors", "failpoints", "forks"},
    {"core", "settings", "signals"},
    {"database", "extras", "net", "streams"},
    {"models"},
    {"runs"},
    {"broker"},
    {"tools"},
    {"engine"},
    {"knowledge", "sessions", "teams", "workflows"},  # features: none of them knows another
    {"repositories"},
    {"registry"},
    {"discovery"},
    {"wiring"},
    {"sdk"},
    {"local", "types"},
    {"tasks", "cli", "__init__"},
    {"testing"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
GROUND_MAY_USE = {"pydantic", "msgspec", "typing_extensions"} | set(sys.stdlib_module_names)
EXCEPT = {
    ("__init__", "tasks"): "`celery -A agno_workers` looks for `app` here; only a worker asks for it",
    ("discovery", "local"): "a program finds the servers of a running `up` as the commands do",
    ("local", "__init__"): "the demo's agents are written as a user writes them",
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
            elif FLOOR_OF[room] <= FLOOR_OF["core"] and top not in GROUND_MAY_USE:
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
    if target == "settings":  # only discovery, wiring and the doors read settings
        return FLOOR_OF[source] >= FLOOR_OF["discovery"]
    return FLOOR_OF[source] > FLOOR_OF.get(target, len(FLOORS))


def test_no_modules_import_each_other() -> None:
    """Imports inside functions and under TYPE_CHECKING count; modules that Celery loads by name do not."""
    try:
        TopologicalSorter(module_graph()).prepare()
    except CycleError as error:
        raise AssertionError(f"an import cycle: {' -> '.join(reversed(error.args[1]))}") from None


def module_graph() -> dict[str, set[str]]:
    """The modules that each module of our own imports."""
    trees = {
        _module(path): ast.parse(path.read_text(encoding="utf-8"))
        for path in [*(ROOT / "agno_workers").rglob("*.py"), *(ROOT / "tasks").rglob("*.py")]
    }
    return {
        module: {name if name in trees else name.rpartition(".")[0] for name in _imported_names(tree)}
        - {module}
        for module, tree in trees.items()
    }


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("agno_workers", *parts) if parts[0] == "tasks" else parts).removesuffix(".__init__")


def _imported_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield from (f"{module}.{name.name}" for name in names)
