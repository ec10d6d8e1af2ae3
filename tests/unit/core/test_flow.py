"""The flow of a written program: each turn runs the function from the top, and decides the same from the same ends."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial, wraps
from types import FrameType
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agno_workers.core.flow import (
    BEST_EFFORT,
    FIRST,
    Ended,
    Flow,
    Join,
    StepResult,
    Verdict,
    decide_join,
    quorum,
)
from agno_workers.core.messages import user
from agno_workers.core.moves import End
from agno_workers.core.program import Call, CallKind, Do, MadeCall, Outcome, Progress
from agno_workers.errors import InvalidInput, RunFailed, StepFailed
from agno_workers.tools.result import to_json_text


class FakeCalls:
    """Steps call names; their input is JSON."""

    def identify(self, what: Any) -> tuple[CallKind, str]:
        if not isinstance(what, str):
            raise InvalidInput(f"no step calls {what!r}")
        return CallKind.FUNCTION, what

    def call(self, id: str, what: Any, input: Sequence[Any], options: Any) -> Call:
        arguments = to_json_text({"input": list(input), **options})
        return Call(key=id, kind=CallKind.FUNCTION, name=what, arguments=arguments)

    def read(self, what: Any, value: Any) -> Any:
        return value


class World:
    """The run of a program: the calls that it made, and their ends in the order in which the test lets them happen."""

    def __init__(self, function: Callable[[Flow], Any]) -> None:
        self.function = function
        self.calls: dict[str, MadeCall] = {}
        self.arguments: dict[str, str] = {}
        self.arrived = 0
        self.needed = 0

    def turn(self) -> Do | End:
        """Run the program once, and record its move."""
        progress = Progress("r", user("x"), datetime(2026, 1, 1, tzinfo=UTC), dict(self.calls), self.arrived)
        flow = Flow(progress, FakeCalls())
        move = flow.move(lambda: self.function(flow))
        if isinstance(move, Do):
            for call in move.calls:
                assert call.key not in self.calls, f"{call.key} is made twice"
                self.calls[call.key] = MadeCall(call.kind, call.name)
                self.arguments[call.key] = call.arguments
            for key in move.cancel:
                assert self.calls[key].outcome is None
                self.end(key, status="cancelled")
            assert self.open, "it waits for nothing"
            self.needed = self.arrived + min(max(move.wake_after, 1), len(self.open))
        assert isinstance(move, Do | End)
        return move

    @property
    def open(self) -> list[str]:
        return [key for key, made in self.calls.items() if made.outcome is None]

    def end(self, key: str, value: Any = None, status: Any = "done") -> None:
        self.arrived += 1
        made = self.calls[key]
        error = {"message": f"no {key}"} if status == "failed" else None
        self.calls[key] = MadeCall(made.kind, made.name, Outcome(self.arrived, status, value, error))

    def turns(self, *ends: str, **values: Any) -> list[str]:
        """Let steps end one after another with their ids as values, and return the keys of what the following turn made and cancelled."""
        for each in ends:
            key, _, status = each.partition("=")
            self.end(key, values.get(key, key), status or "done")
        move = self.turn()
        if isinstance(move, End):
            return ["end", move.content]
        return [*(call.key for call in move.calls), *(f"-{key}" for key in move.cancel)]


def test_steps_follow_each_other_and_a_gather_is_one_move() -> None:
    def body(flow: Flow) -> Any:
        profile = flow.step("profile", "f", "x")
        b, c = flow.gather(flow.step("risk", "f", profile), flow.step("docs", "f", profile))
        return [profile, b, c]

    run = World(body)
    assert run.turns() == ["profile"]
    assert run.turns("profile") == ["risk", "docs"]
    assert run.needed == run.arrived + 2
    assert run.turns("docs") == []
    assert run.turns("risk") == ["end", ["profile", "risk", "docs"]]
    assert run.arguments["risk"] == '{"input":["profile"]}'


def _helper(flow: Flow, id: str) -> Any:
    step = flow.step(id, "f")
    return step  # noqa: RET504


def _decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def decorated(*args: Any, **options: Any) -> Any:
        return function(*args, **options)

    return decorated


@pytest.mark.parametrize(
    "gathered",
    [
        lambda flow: flow.gather(flow.step("a", "f"), flow.step("b", "f")),
        lambda flow: flow.gather(*[flow.step(each, "f") for each in "ab"]),
        lambda flow: flow.gather(*(flow.step(each, "f") for each in "ab")),
        lambda flow: flow.gather(*map(lambda each: flow.step(each, "f"), "ab")),  # noqa: C417
        lambda flow: flow.gather(flow.step("a", "f"), *[flow.step("b", "f")], join="all"),
        lambda flow: flow.gather(_helper(flow, "a"), _decorated(_helper)(flow, id="b")),
        lambda flow: flow.gather(_ := flow.step("a", "f"), flow.step("b", "f") if flow else None),
        lambda flow: flow.gather(flow and flow.step("a", "f"), flow.step("b", "f")),
        lambda flow: getattr(flow, "gather")(flow.step("a", "f"), flow.step("b", "f")),  # noqa: B009
        lambda flow: [*flow.gather(flow.step("a", "f"), flow.step("b", "f"))][:2],
        lambda flow: flow.gather(flow.start("a", "f"), flow.start("b", "f")),
        lambda flow: flow.gather(flow.start("a", "f"), flow.step("b", "f")),
        lambda flow: flow.gather(flow.start("a", "f").result(), flow.step("b", "f")),
        lambda flow: flow.gather(flow.wait_for_signal("a"), flow.wait_for_signal("b")),
        lambda flow: flow.parallel(lambda: flow.step("a", "f"), lambda: flow.step("b", "f")),
        lambda flow: [each.result() for each in [flow.start("a", "f"), flow.start("b", "f")]],
    ],
)
def test_steps_are_made_side_by_side(gathered: Callable[[Flow], Any]) -> None:
    run = World(gathered)
    assert run.turns() == ["a", "b"]
    run.end("b", 2)
    run.turn()
    assert run.turns("a") == ["end", ["a", 2]]


def test_steps_are_made_side_by_side_under_a_debugger() -> None:
    """It looks at each value and all attributes."""

    def trace(frame: FrameType, _event: str, _argument: Any) -> Any:
        for value in list(frame.f_locals.values()):
            repr(value)
            if isinstance(value, Flow):
                [getattr(value, name, None) for name in dir(value) if name != "gather"]
        return trace

    def body(flow: Flow) -> Any:
        a, b = flow.gather(
            flow.step("a", "f"),
            flow.step("b", "f"),
        )
        return [a, b]

    run = World(body)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        assert run.turns() == ["a", "b"]
        run.end("b", 2)
        assert run.turns("a") == ["end", ["a", 2]]
    finally:
        sys.settrace(before)


def test_approvals_and_times_are_steps_of_a_gather() -> None:
    def body(flow: Flow) -> Any:
        law, money, _ = flow.gather(flow.approve("Law?"), flow.approve("Money?"), flow.sleep(hours=1))
        return [law["by"], money["by"]]

    run = World(body)
    assert run.turns() == ["Law?", "Money?", "sleep"]
    run.end("Law?", {"verdict": "approved", "by": "ann"})
    run.end("sleep")
    run.end("Money?", {"verdict": "approved", "by": "bob"})
    assert run.turns() == ["end", ["ann", "bob"]]


def _taken_apart(flow: Flow) -> Any:
    gather = flow.gather
    flow.step("a", "f")
    return gather(flow.step("b", "f"))


def _never_called(flow: Flow) -> Any:
    _ = flow.gather
    flow.step("a", "f")


def _called_twice(flow: Flow) -> Any:
    gather = flow.gather
    gather(flow.start("a", "f"))
    return gather(flow.step("b", "f"))


@pytest.mark.parametrize(
    "body",
    [
        lambda flow: flow.gather(flow.step("b", "f", flow.step("a", "f"))),
        lambda flow: flow.gather(flow.step("b", "f", word=flow.step("a", "f"))),
        lambda flow: flow.gather(flow.step("b", "f", f"{flow.step('a', 'f')}")),
        lambda flow: flow.gather(flow.step("a", "f") == "a", flow.step("b", "f")),
        lambda flow: flow.gather(flow.step("a", "f") or 1, flow.step("b", "f")),
        lambda flow: flow.gather([flow.step("a", "f")], flow.step("b", "f")),
        lambda flow: flow.gather(str(flow.step("a", "f"))),
        lambda flow: flow.gather(flow.step("a", "f"), 5),
        lambda flow: flow.gather(flow.step("a", "f"), *flow.gather(flow.step("b", "f"))),
        lambda flow: flow.gather(*flow.parallel(lambda: flow.step("a", "f")), flow.step("b", "f")),
        lambda flow: flow.gather(len([flow.step("a", "f")]) and flow.step("b", "f")),
        lambda flow: flow.step("b", "f", flow.start("a", "f")),
        _taken_apart,
        _never_called,
    ],
)
def test_step_of_a_gather_that_is_used_for_something_else_is_refused(body: Callable[[Flow], Any]) -> None:
    run = World(body)
    run.calls = {key: MadeCall(CallKind.FUNCTION, "f", Outcome(1, "done", key)) for key in "ab"}
    with pytest.raises(InvalidInput, match=r"flow\.(gather|parallel)"):
        run.turn()
    with pytest.raises(InvalidInput, match=r"flow\.(gather|parallel)"):
        World(body).turn()


def test_gather_under_another_name_is_refused_at_its_second_call() -> None:
    run = World(_called_twice)
    assert run.turns() == ["a"]
    run.end("a")
    run.calls["b"] = MadeCall(CallKind.FUNCTION, "f", Outcome(2, "done", "b"))
    with pytest.raises(InvalidInput, match=r"flow\.gather takes steps, got 'b'"):
        run.turn()


def test_error_in_the_arguments_of_a_gather_ends_it() -> None:
    def body(flow: Flow) -> Any:
        try:
            flow.gather(int("no"), flow.step("never", "f"))
        except ValueError:
            hasattr(flow, "gather")
            return flow.step("a", "f") + flow.step("b", "f")

    run = World(body)
    assert run.turns() == ["a"]
    assert run.turns("a") == ["b"]
    assert run.turns("b") == ["end", "ab"]


def test_step_of_a_gather_that_an_error_in_its_arguments_dropped_is_reported() -> None:
    def body(flow: Flow) -> Any:
        try:
            flow.gather(flow.step("a", "f"), int("no"))
        except ValueError:
            return "done"

    with pytest.raises(InvalidInput, match=r"step 'a' is in the arguments of flow\.gather, and was not"):
        World(body).turn()


class Data(NamedTuple):
    value: Any


@dataclass
class Holder:
    value: Any


def _statements(flow: Flow) -> Any:
    flow.step("a", "f")
    flow.step("b", "f")


def _variables(flow: Flow) -> Any:
    a = flow.step("a", "f")
    b = flow.step("b", "f")
    return [a, b]


def _raises(flow: Flow) -> Any:
    _ = [flow.step("a", "f")]
    flow.gather(flow.step("b", "f"))
    return None


@pytest.mark.parametrize(
    "body",
    [
        _statements,
        _variables,
        _raises,
        lambda flow: [flow.step("a", "f"), flow.step("b", "f")],
        lambda flow: flow.step("b", "f", flow.step("a", "f")),
        lambda flow: flow.step("b", "f", [{"deep": (flow.step("a", "f"),)}]),
        lambda flow: flow.step("b", "f", Data(flow.step("a", "f"))),
        lambda flow: flow.step("b", "f", Holder(flow.step("a", "f"))),
        lambda flow: flow.step("b", "f", word=flow.step("a", "f")),
        lambda flow: flow.step("b", "f", f"{flow.step('a', 'f')}"),
        lambda flow: flow.step(flow.step("a", "f"), "f"),
        lambda flow: flow.step("a", "f") == "a" and flow.step("b", "f"),
        lambda flow: flow.step("a", "f") is None and flow.step("b", "f"),
        lambda flow: flow.step("a", "f") + flow.step("b", "f"),
        lambda flow: [*flow.step("a", "f"), flow.step("b", "f")],
        lambda flow: (flow.step("a", "f") is None) or flow.step("b", "f"),
        lambda flow: [flow.step("a", "f"), flow.sleep(hours=1)],
        lambda flow: [flow.step("a", "f"), flow.parallel(lambda: flow.step("b", "f"))],
        lambda flow: [flow.step("a", "f"), flow.start("b", "f")],
        lambda flow: [flow.step("a", "f"), flow.step("a", "f")],
        lambda flow: [flow.step("a", "f"), int("no")],
    ],
)
def test_any_other_use_of_a_value_waits_for_the_first_step(body: Callable[[Flow], Any]) -> None:
    run = World(body)
    assert run.turns() == ["a"]


def test_code_after_a_step_that_has_not_ended_is_not_executed() -> None:
    done: list[str] = []

    def body(flow: Flow) -> None:
        flow.step("charge", "f")
        done.append("statement")
        paid = flow.step("paid", "f")
        done.append(f"assignment {paid}")
        found = []
        found.append(flow.step("item", "f"))
        done.append(f"argument {found}")

    run = World(body)
    assert run.turns() == ["charge"]
    assert done == []
    assert run.turns("charge") == ["paid"]
    assert done == ["statement"]
    assert run.turns("paid") == ["item"]
    assert done == ["statement", "statement", "assignment paid"]


def test_step_failed_is_caught_and_the_run_takes_the_other_way() -> None:
    def body(flow: Flow) -> Any:
        try:
            return flow.step("charge", "f")
        except StepFailed as error:
            return flow.step("refund", "f", str(error), error.step, error.reason)
        finally:
            flow.step("close", "f")

    run = World(body)
    assert run.turns() == ["charge"]
    assert run.turns("charge=failed") == ["refund"]
    assert run.turns("refund") == ["close"]
    assert run.turns("close") == ["end", "refund"]
    assert run.arguments["refund"] == '{"input":["step \'charge\' failed: no charge","charge","step_failed"]}'


def test_step_failed_that_is_not_caught_is_raised_after_the_finally_block() -> None:
    def body(flow: Flow) -> Any:
        try:
            flow.gather(flow.step("a", "f"), flow.step("b", "f"))
        finally:
            flow.step("close", "f")

    run = World(body)
    run.turn()
    assert run.turns("b", "a=failed") == ["close"]
    run.end("close")
    with pytest.raises(StepFailed, match="step 'a' failed: no a"):
        run.turn()


@pytest.mark.parametrize("ask", [Flow.start, Flow.step])
def test_failure_in_a_group_is_raised_once_all_have_ended(ask: Any) -> None:
    run = World(lambda flow: flow.gather(ask(flow, "a", "f"), ask(flow, "b", "f")))
    run.turn()
    assert run.turns("a=failed") == []
    run.end("b")
    with pytest.raises(StepFailed, match="'a'"):
        run.turn()


def _three(join: Any, deadline_s: float | None = None) -> Callable[[Flow], Any]:
    return lambda flow: flow.gather(
        *(flow.step(each, "f") for each in "abc"), join=join, deadline_s=deadline_s
    )


def _used(results: list[StepResult]) -> list[str]:
    return [each.id for each in results if each.is_used]


@pytest.mark.parametrize("join", [quorum(2)])
def test_quorum_uses_the_first_that_succeed_and_cancels_the_others(join: Any) -> None:
    def body(flow: Flow) -> Any:
        found = _used(_three(join)(flow))
        return [found, flow.step("after", "f")]

    run = World(body)
    assert run.turns() == ["a", "b", "c"]
    assert run.needed == 2  # two must end before anything can be decided
    assert run.turns("c", "a") == ["after", "-b"]
    assert run.turns("after") == ["end", [["a", "c"], "after"]]


def test_late_result_is_not_seen() -> None:
    seen: list[Any] = []

    def body(flow: Flow) -> Any:
        seen.append(_three("first")(flow))
        return flow.step("after", "f")

    run = World(body)
    run.turn()
    run.end("b", "B")
    run.turn()
    run.calls["a"] = MadeCall(CallKind.FUNCTION, "f", Outcome(9, "done", "late"))
    run.turn()
    assert (
        seen[0]
        == seen[1]
        == [
            StepResult("a", None, None, False),
            StepResult("b", "B", None, True),
            StepResult("c", None, None, False),
        ]
    )


def test_quorum_that_fails_cancels_its_open_steps_too() -> None:
    def body(flow: Flow) -> Any:
        try:
            return _three(quorum(2))(flow)
        except StepFailed as error:
            return flow.step("instead", "f", error.reason)

    run = World(body)
    run.turn()
    assert run.turns("a=failed", "c=failed") == ["instead", "-b"]
    assert run.arguments["instead"] == '{"input":["quorum"]}'
    assert run.turns("instead") == ["end", "instead"]


def test_best_effort_uses_what_came_before_the_deadline() -> None:
    def body(flow: Flow) -> Any:
        found = _three("best_effort", 60)(flow)
        return [_used(found), flow.step("after", "f")]

    run = World(body)
    assert run.turns() == ["a", "b", "c", "a:deadline"]
    assert run.needed == 1
    run.end("b", status="failed")
    assert run.turn() == Do()
    assert run.turns("a:deadline") == ["after", "-a", "-c"]
    assert run.turns("after") == ["end", [["b"], "after"]]


def test_timer_that_is_needed_no_more_is_cancelled() -> None:
    def body(flow: Flow) -> Any:
        return [*flow.gather(flow.start("a", "f"), deadline_s=60), flow.step("after", "f")]

    run = World(body)
    assert run.turns() == ["a", "a:deadline"]
    assert run.turns("a") == ["after", "-a:deadline"]
    assert run.turns("after") == ["end", ["a", "after"]]


def test_timer_is_not_made_for_steps_that_have_ended() -> None:
    run = World(lambda flow: [*flow.gather(flow.start("a", "f"), deadline_s=60), flow.step("after", "f")])
    run.calls["a"] = MadeCall(CallKind.FUNCTION, "f", Outcome(1, "done", "a"))
    assert run.turns() == ["after"]


def test_all_with_a_deadline_fails_when_one_is_late() -> None:
    run = World(lambda flow: flow.gather(flow.start("a", "f"), flow.start("b", "f"), deadline_s=60))
    run.turn()
    run.end("a")
    run.end("a:deadline")
    with pytest.raises(StepFailed, match="1 of 2 branches of 'a' did not end within 60 s") as failed:
        run.turn()
    assert failed.value.reason == "deadline"


def test_branches_of_several_steps_run_side_by_side() -> None:
    def branch(flow: Flow, name: str) -> Any:
        first = flow.step(f"{name}1", "f")
        return flow.step(f"{name}2", "f", first)

    def body(flow: Flow) -> Any:
        return flow.parallel(lambda: branch(flow, "a"), lambda: branch(flow, "b"))

    run = World(body)
    assert run.turns() == ["a1", "b1"]
    assert run.turns("b1") == ["b2"]
    assert run.turns("a1", "b2") == ["a2"]
    assert run.turns("a2") == ["end", ["a2", "b2"]]


def test_branch_that_lost_does_nothing_more() -> None:
    def slow(flow: Flow) -> Any:
        try:
            flow.step("slow", "f")
        except StepFailed:
            return flow.step("never", "f")

    def body(flow: Flow) -> Any:
        flow.parallel(lambda: slow(flow), lambda: flow.step("quick", "f"), join="first")
        return flow.step("after", "f")

    run = World(body)
    assert run.turns() == ["slow", "quick"]
    assert run.turns("quick") == ["after", "-slow"]
    assert run.turns("after") == ["end", "after"]


def test_steps_of_nested_branches_that_lost_are_cancelled() -> None:
    def inner(flow: Flow) -> Any:
        return flow.gather(flow.start("x", "f"), flow.start("y", "f"), join="best_effort", deadline_s=9)

    def body(flow: Flow) -> Any:
        flow.parallel(
            lambda: flow.parallel(lambda: inner(flow), lambda: flow.step("z", "f")),
            lambda: flow.step("quick", "f"),
            join=FIRST,
        )
        return flow.step("after", "f")

    run = World(body)
    run.turn()
    assert sorted(run.turns("quick")) == ["-x", "-x:deadline", "-y", "-z", "after"]


def test_inner_join_that_is_decided_does_not_move_when_a_loser_ends_late() -> None:
    """The outer join counts a branch from the end that decided it, and not from a later one."""

    def inner(flow: Flow) -> Any:
        flow.gather(flow.start("x", "f"), flow.start("y", "f"), join="first")
        return "inner"

    def body(flow: Flow) -> Any:
        found = flow.parallel(lambda: inner(flow), lambda: flow.step("other", "f"), join="first")
        return [[each.value for each in found if each.is_used], flow.step("after", "f")]

    run = World(body)
    run.turn()
    run.end("x")
    run.end("other", "other")
    run.end("y")
    run.turn()
    assert run.turns("after") == ["end", [["inner"], "after"]]


def test_step_that_was_started_goes_on_while_others_follow() -> None:
    def body(flow: Flow) -> Any:
        slow = flow.start("slow", "f")
        quick = flow.step("quick", "f")
        return [quick, slow.result()]

    run = World(body)
    assert run.turns() == ["slow", "quick"]
    assert run.turns("quick") == []
    assert run.turns("slow") == ["end", ["quick", "slow"]]


def test_approval_that_is_rejected_fails_and_its_question_may_change() -> None:
    question = ["Pay 5?"]
    run = World(lambda flow: flow.approve(question[0], id="pay")["by"])
    assert run.turns() == ["pay"]
    question[0] = "Pay 6?"
    assert run.turns() == []
    run.end("pay", {"verdict": "rejected", "by": "ann"})
    with pytest.raises(StepFailed, match="ann rejected 'Pay 6\\?': no note") as failed:
        run.turn()
    assert failed.value.step == "pay"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (lambda flow: flow.step("turn:1", "f"), "does not begin with 'turn:'"),
        (lambda flow: flow.step(" ", "f"), "1 to 200 characters"),
        (lambda flow: flow.step("x" * 201, "f"), "1 to 200 characters"),
        (lambda flow: flow.step(7, "f"), "got 7"),
        (lambda flow: flow.step("a", 7), "step 'a': no step calls 7"),
        (lambda flow: flow.sleep(), "flow.sleep takes a time"),
        (lambda flow: flow.sleep(hour=1), "step 'sleep': flow.sleep takes a time, .*'hour'"),
        (lambda flow: flow.sleep(until=datetime(2026, 1, 1)), "time zone"),  # noqa: DTZ001
        (lambda flow: flow.gather(flow.start("a", "f"), join=quorum(2)), "2 of 1 branches can't succeed"),
        (lambda flow: flow.gather(flow.start("a", "f"), join="some"), "join must be one of"),
        (lambda flow: flow.gather("value", join="first"), "takes steps, got 'value'"),
        (lambda flow: flow.gather(flow.start("a", "f"), deadline_s=-1), "deadline_s must be seconds above 0"),
        (lambda flow: flow.state.increment("n"), "flow.state can only be read"),
        (
            lambda flow: [flow.start(f"{n}", "f") for n in range(10_001)] + [flow.step("a", "f")],
            "10,002 steps at once, and the most is 10,000: use flow.map",
        ),
        (lambda _flow: quorum(0), "whole number from 1"),
    ],
)
def test_mistakes_are_refused(body: Callable[[Flow], Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        World(body).turn()


def test_id_that_is_used_twice_is_refused() -> None:
    run = World(lambda flow: [flow.step("a", "f"), flow.step("a", "f")])
    run.turn()
    run.end("a")
    with pytest.raises(InvalidInput, match="two steps have the id 'a'"):
        run.turn()


@pytest.mark.parametrize(
    "body", [lambda flow: flow.step("a", "g"), lambda flow: flow.wait_for_signal("f", id="a")]
)
def test_step_that_is_another_one_now_is_refused(body: Callable[[Flow], Any]) -> None:
    run = World(body)
    run.calls["a"] = MadeCall(CallKind.FUNCTION, "f", Outcome(1, "done", "a"))
    with pytest.raises(RunFailed, match=r"step 'a' was the function 'f' and is the .* now: give new work a new id") as failed:  # fmt: skip
        run.turn()
    assert failed.value.reason == "step_changed"


def test_program_without_steps_ends_at_once() -> None:
    assert World(lambda flow: flow.input.text).turns() == ["end", "x"]
    assert World(lambda flow: flow.gather() + flow.parallel()).turns() == ["end", []]


def test_swallowed_suspension_is_one_all_the_same() -> None:
    def body(flow: Flow) -> Any:
        try:
            flow.step("a", "f")
        except BaseException:
            pass
        return "done"

    run = World(body)
    assert run.turns() == ["a"]
    assert run.turns("a") == ["end", "done"]


def test_thousands_of_steps_side_by_side_are_one_move() -> None:
    run = World(lambda flow: sum(flow.gather(*[flow.step(f"s{n}", "f", n) for n in range(3000)])))
    assert len(run.turns()) == 3000
    for key in run.open:
        run.end(key, 1)
    assert run.turns() == ["end", 3000]


# Joins, as a table.

E = Ended


@pytest.mark.parametrize(
    ("join", "ended", "pending", "deadline", "expected"),
    [
        (quorum(2), [], 3, None, 2),
        (quorum(2), [E(1, True, 1)], 2, None, 1),
        (quorum(2), [E(1, False, 1)], 2, None, 1),
        (quorum(1), [], 3, None, 1),
        (quorum(3), [], 3, None, 1),
        (quorum(2), [E(1, True, 4), E(0, True, 2)], 1, None, Verdict((0, 1), 4)),
        (quorum(2), [E(0, True, 1), E(1, True, 5), E(2, True, 3)], 0, None, Verdict((0, 2), 3)),
        (quorum(2), [E(0, False, 1), E(1, False, 3)], 1, None, Verdict((), 3, False)),
        (quorum(2), [E(0, True, 1), E(1, True, 5)], 1, 4, Verdict((), 4, False)),
        (quorum(2), [E(0, True, 1), E(1, True, 3)], 1, 4, Verdict((0, 1), 3)),
        (BEST_EFFORT, [E(0, True, 1)], 2, None, 2),
        (BEST_EFFORT, [E(0, True, 1), E(1, False, 2)], 0, None, Verdict((0, 1), 2)),
        (BEST_EFFORT, [E(0, True, 1), E(1, True, 5)], 1, 4, Verdict((0,), 4)),
        (BEST_EFFORT, [E(0, True, 1), E(1, True, 3)], 0, 4, Verdict((0, 1), 3)),
        (Join("all"), [E(0, True, 1), E(1, True, 5)], 0, 4, Verdict((0,), 4, False)),
        (Join("all"), [], 0, None, Verdict((), 0)),
    ],
)
def test_joins(join: Join, ended: list[Ended], pending: int, deadline: int | None, expected: Any) -> None:
    assert decide_join(join, ended, pending, deadline) == expected


# Random programs, in random orders of arrival.


@dataclass
class Node:
    kind: str
    id: str
    parts: list[Node] = field(default_factory=list)
    n: int = 1


@st.composite
def programs(draw: st.DrawFn, depth: int = 3, prefix: str = "p") -> Node:
    kinds = ["step"] if depth == 0 else ["step", "seq", "gather", "parallel", "try", "quorum", "best_effort"]
    kind = draw(st.sampled_from(kinds))
    count = 0 if kind == "step" else 2 if kind == "try" else draw(st.integers(1, 3))
    parts = [draw(programs(depth - 1, f"{prefix}.{place}")) for place in range(count)]
    return Node(kind, prefix, parts, draw(st.integers(1, max(count, 1))))


def run_program(flow: Any, node: Node, told: dict[str, Any]) -> Any:
    """Run a program on a flow; `told` gets the result of each join."""
    each = [partial(run_program, flow, part, told) for part in node.parts]
    match node.kind:
        case "step":
            return flow.step(node.id, "f")
        case "seq":
            return [part() for part in each]
        case "gather":
            return flow.gather(*[flow.step(f"{node.id}.g{n}", "f") for n in range(len(node.parts))])
        case "parallel":
            return flow.parallel(*each)
        case "try":
            try:
                return each[0]()
            except StepFailed:
                return each[1]()
        case kind:
            join = quorum(node.n) if kind == "quorum" else BEST_EFFORT
            found = flow.parallel(
                *each, join=join, deadline_s=9 if node.n == 1 and kind == "best_effort" else None, id=node.id
            )
            told[node.id] = [(one.id, one.value, one.error and str(one.error), one.is_used) for one in found]
            return [one.value for one in found if one.is_used]


class Plain:
    """The same program, executed as it is written."""

    def __init__(self, failing: set[str]) -> None:
        self.failing = failing

    def step(self, id: str, _what: str) -> str:
        if hash_of(id, self.failing):
            raise StepFailed(id)
        return id

    def gather(self, *values: Any) -> list[Any]:
        return list(values)

    def parallel(self, *branches: Callable[[], Any], **_: Any) -> list[Any]:
        return [branch() for branch in branches]


def hash_of(id: str, failing: set[str]) -> bool:
    return any(id.endswith(each) for each in failing)


def has_choice(node: Node) -> bool:
    return node.kind in ("quorum", "best_effort") or any(map(has_choice, node.parts))


@settings(max_examples=300, deadline=None)
@given(programs(), st.sets(st.sampled_from([".0", ".1", "g1"]), max_size=2), st.integers(0, 2**32))
def test_every_turn_of_a_random_program_decides_the_same(node: Node, failing: set[str], seed: int) -> None:
    chance = random.Random(seed)
    decided: dict[str, Any] = {}

    def body(flow: Flow) -> Any:
        told: dict[str, Any] = {}
        try:
            return run_program(flow, node, told)
        finally:
            for name, result in told.items():
                assert decided.setdefault(name, result) == result, "a join was decided twice"

    run = World(body)
    try:
        for _ in range(500):
            move = run.turn()
            if isinstance(move, End):
                break
            while run.arrived < run.needed or (run.open and chance.random() < 0.3):
                key = chance.choice(run.open)
                run.end(key, key, "failed" if hash_of(key, failing) else "done")
        else:
            raise AssertionError("it does not end")
        result: Any = move.content
    except StepFailed:
        result = StepFailed
    if not has_choice(node):
        try:
            expected = run_program(Plain(failing), node, {})
        except StepFailed:
            expected = StepFailed
        assert result == expected
    elif result is not StepFailed:
        assert run.turn() == End(result)
