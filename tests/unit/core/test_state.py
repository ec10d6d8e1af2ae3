"""A tool's view of state, and the changes that it asks for, without a database."""

from __future__ import annotations

from typing import Any

import pytest

from agno_workers.core.state import Entry, Scratch, Snapshot, State
from agno_workers.core.tool import ToolContext
from agno_workers.errors import InvalidInput

STORED = {
    "n": Entry(4, True, 1),
    "list": Entry(1, True, ["a"]),
    "gone": Entry(7),
    "text": Entry(2, True, "x"),
}


def stored() -> State:
    return State("session", "s", lambda *_: Snapshot(STORED, True))


def changes(state: State) -> list[tuple[Any, ...]]:
    return [
        (each["key"], each["operation"], each.get("value"), each.get("version")) for each in state._changes()
    ]


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        (lambda s: s.set("n", 2), [("n", "set", 2, None)]),
        (lambda s: s.set("n", s["n"] + 1), [("n", "set", 2, 4)]),
        (lambda s: (s.get("none"), s.set("none", 1)), [("none", "set", 1, 0)]),
        (lambda s: ("gone" in s, s.set("gone", 1)), [("gone", "set", 1, 7)]),
        (lambda s: (list(s), s.set("new", 1)), [("new", "set", 1, 0)]),
        (lambda s: (s["text"], s.set("n", 2)), [("n", "set", 2, None)]),
        (lambda s: (s["n"], s.increment("n")), [("n", "increment", 1, None)]),
        (lambda s: s.pop("n"), [("n", "delete", None, 4)]),
        (lambda s: s.setdefault("n", 9), []),
        (lambda s: s.update({"a": 1, "b": 2}), [("a", "set", 1, None), ("b", "set", 2, None)]),
        (lambda s: [s.increment("n", 0.1) for _ in range(3)], [("n", "increment", 0.3, None)]),
        (lambda s: (s.append("list", 1), s.extend("list", [2])), [("list", "extend", [1, 2], None)]),
        (lambda s: (s.set("x", 1), s.increment("x")), [("x", "set", 2, None)]),
        (lambda s: (s.increment("x"), s.set("x", 5)), [("x", "set", 5, None)]),
        (lambda s: s["list"].append("b"), [("list", "set", ["a", "b"], 1)]),
        (lambda s: s["list"], []),
    ],
    ids=lambda value: "",
)
def test_changes_of_a_call(call: Any, wanted: list[Any]) -> None:
    """A `set` has the version of a key that was read, and none of another."""
    call(state := stored())
    assert changes(state) == wanted


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda s: (s["text"], s.increment("text")), "state 'text' is 'x', and increment does not fit it"),
        (lambda s: s.increment("n", "2"), "increment of state 'n' needs a number, got '2'"),
        (
            lambda s: (s.set("n", 1e308), s.increment("n", 1e308)),
            "1e+308 and 1e+308 add up to too large a number",
        ),
        (lambda s: s.update("n", 2), "needs a dict"),
        (lambda s: s.set("", 1), "must be text"),
        (lambda s: s.set("k" * 600, 1), "at most 512 bytes"),
        (lambda s: s.set("k", {"a": [object]}), "at .a[0] is not JSON"),
        (lambda s: s.set("k", s), "is not JSON"),
    ],
    ids=lambda value: "",
)
def test_change_that_cannot_be_written_is_refused_at_once(call: Any, says: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        call(stored())
    assert says in str(caught.value)


def test_value_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(InvalidInput, match="contains itself"):
        stored().set("k", value)


def test_context_of_a_test_has_a_state_of_its_own() -> None:
    ctx = ToolContext(run_id="r", step_id="s", call_id="c", agent="a", attempt=1)
    ctx.state["n"] = 1
    ctx.state.increment("n")
    assert (dict(ctx.state), ctx.state_of("run") is ctx.state, ctx.scratch) == ({"n": 2}, True, {})
    ctx.report("half way", 0.5)
    with pytest.raises(InvalidInput, match="has no team"):
        ctx.state_of("team")


@pytest.mark.parametrize(("session_id", "owner"), [("s", "s"), (None, "r"), ("", "r")])
def test_context_of_a_test_that_names_a_team_has_its_state(session_id: str | None, owner: str) -> None:
    ctx = ToolContext("r", "s", "c", "a", 1, team="crew", session_id=session_id)
    ctx.state_of("team").append("findings", "a lake")
    assert (ctx.state_of("team").owner, dict(ctx.state_of("team"))) == (owner, {"findings": ["a lake"]})


def test_scratch_of_the_run_that_was_used_longest_ago_is_dropped() -> None:
    scratch = Scratch(most=2)
    for run_id in ("a", "b", "a", "c"):
        scratch.of(run_id)["n"] = 1
    assert [scratch.of(run_id) for run_id in ("a", "c", "b")] == [{"n": 1}, {"n": 1}, {}]
