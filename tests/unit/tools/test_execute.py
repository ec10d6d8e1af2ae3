"""Whatever a tool does, there is an outcome that the model can read, and the worker lives."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
import threading
from typing import Any

import pytest
from msgspec.structs import replace
from pydantic import BaseModel, model_serializer, model_validator

from agno_workers.core.tool import Tool, ToolContext, ToolOutcome
from agno_workers.errors import ToolError
from agno_workers.tools import execute, tool

WAIT_S = 10.0
"""How long a test waits for a signal that is on its way."""


def call(each: Tool, ctx: ToolContext, arguments: str = "{}", **options: Any) -> ToolOutcome:
    return execute(each, each.name, arguments, ctx, **options)


def returning(value: Any) -> Tool:
    def give() -> Any:
        return value

    return tool(description="Give.")(give)


def raising(error: BaseException) -> Tool:
    def fail() -> None:
        raise error

    return tool(description="Fail.")(fail)


def logged(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The records that `execute` has written so far. A thread that an earlier test left behind writes others."""
    of_now = [record for record in caplog.records if record.name == "agno_workers.tools.execute"]
    return [vars(record) for record in of_now if record.getMessage() != "tool ended after its timeout"]


class SilentError(Exception):
    pass


class BrokenError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("even I fail")


def test_a_result_is_an_outcome_of_kind_ok(ctx: ToolContext) -> None:
    assert call(returning("sunny"), ctx) == ToolOutcome("sunny", is_error=False, kind="ok")


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (
            ["weather", "news"],
            "There is no tool named 'wether'. Did you mean weather? Known tools: news, weather.",
        ),
        (["news"], "There is no tool named 'wether'. Known tools: news."),
        ([], "There is no tool named 'wether'. Known tools: none."),
    ],
)
def test_an_unknown_tool_is_answered_with_the_known_ones(
    known: list[str], said: str, ctx: ToolContext
) -> None:
    assert execute(None, "wether", "{}", ctx, known=known) == ToolOutcome(said, True, "unknown_tool")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ToolError("The shop is closed: try on Monday."), "The shop is closed: try on Monday."),
        (ToolError(""), "ToolError"),
        (ValueError("no such town"), "ValueError: no such town"),
        (KeyError("town"), "KeyError: 'town'"),
        (SilentError(), "SilentError"),
        (BrokenError(), "BrokenError"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
        (asyncio.CancelledError(), "CancelledError"),
        (StopIteration(1), "StopIteration: 1"),
        (RecursionError("deep"), "RecursionError: deep"),
        (ExceptionGroup("both", [ValueError("a")]), "ExceptionGroup: both (1 sub-exception)"),
        (ToolError("nul \0 and \ud800"), "nul \ufffd and \ufffd"),
    ],
)
def test_any_error_of_a_tool_becomes_text_for_the_model(
    error: BaseException, said: str, ctx: ToolContext
) -> None:
    assert call(raising(error), ctx) == ToolOutcome(said, True, "raised")


def test_sys_exit_in_a_tool_leaves_the_worker_alive(ctx: ToolContext) -> None:
    @tool
    def leave() -> None:
        """Leave."""
        sys.exit("bye")

    @tool
    async def leave_async() -> None:
        """Leave."""
        sys.exit("bye")

    assert call(leave, ctx) == ToolOutcome("SystemExit: bye", True, "raised")
    assert call(leave_async, ctx) == ToolOutcome("SystemExit: bye", True, "raised")


def test_traceback_is_logged_with_the_ids_as_fields(
    ctx: ToolContext, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = call(raising(ValueError("secret path")), ctx)

    (record,) = logged(caplog)
    assert "Traceback" not in outcome.content
    assert record["exc_info"] is not None
    assert isinstance(record["exc_info"][1], ValueError)
    fields = {name: record[name] for name in ("tool", "run_id", "step_id", "call_id", "agent", "attempt")}
    assert fields == {
        "tool": "fail", "run_id": "run-1", "step_id": "step-1", "call_id": "call-1", "agent": "clerk", "attempt": 1,
    }  # fmt: skip


def test_tool_error_is_not_logged(ctx: ToolContext, caplog: pytest.LogCaptureFixture) -> None:
    call(raising(ToolError("closed")), ctx)

    assert logged(caplog) == []


class Picky(BaseModel):
    @model_validator(mode="before")
    @classmethod
    def fail(cls, value: Any) -> Any:
        raise KeyError("the author's own mistake")


class Broken(BaseModel):
    @model_serializer
    def fail(self) -> str:
        raise KeyError("the author's own mistake")


def test_error_in_a_validator_is_not_an_invalid_argument(ctx: ToolContext) -> None:
    @tool
    def f(x: Picky) -> None:
        """Do."""

    assert call(f, ctx, '{"x": {}}').kind == "raised"


def test_error_in_a_serializer_is_an_unserialisable_result(ctx: ToolContext) -> None:
    outcome = call(returning(Broken()), ctx)

    assert outcome.kind == "unserialisable"
    assert "Broken" in outcome.content
    assert "the author's own mistake" in outcome.content


def test_an_async_tool_is_awaited(ctx: ToolContext) -> None:
    @tool
    async def f(a: int) -> int:
        """Do."""
        await asyncio.sleep(0)
        return a + 1

    assert call(f, ctx, '{"a": 1}').content == "2"


def test_plain_function_may_return_a_coroutine(ctx: ToolContext) -> None:
    async def inner() -> str:
        return "inner"

    @tool
    def f() -> Any:
        """Do."""
        return inner()

    assert call(f, ctx).content == "inner"


def test_async_tool_runs_beside_a_running_loop(ctx: ToolContext) -> None:
    @tool
    async def f() -> str:
        """Do."""
        return "ok"

    async def caller() -> ToolOutcome:
        return call(f, ctx)

    assert asyncio.run(caller()).content == "ok"


def test_a_late_function_is_abandoned_and_cancelled(
    ctx: ToolContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agno_workers.tools")
    release, ended = threading.Event(), threading.Event()
    seen: list[bool] = []

    @tool(timeout_s=0.05)
    def slow(ctx: ToolContext) -> str:
        """Take long."""
        seen.append(ctx.cancelled())
        release.wait(WAIT_S)
        seen.append(ctx.cancelled())
        ended.set()
        return "too late"

    outcome = call(slow, ctx)
    release.set()

    assert (outcome.kind, outcome.is_error) == ("timeout", True)
    assert "slow did not end within 0.05 s" in outcome.content
    (record,) = logged(caplog)
    assert (record["message"], record["still_running"]) == ("tool timed out", True)
    assert ended.wait(WAIT_S)
    assert seen == [False, True]


def test_a_late_coroutine_is_cancelled_and_cleans_up(
    ctx: ToolContext, caplog: pytest.LogCaptureFixture
) -> None:
    cleaned = threading.Event()

    @tool(timeout_s=0.05)
    async def slow() -> None:
        """Take long."""
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    outcome = call(slow, ctx)

    assert outcome.kind == "timeout"
    assert cleaned.is_set()
    assert [record["still_running"] for record in logged(caplog)] == [False]


def test_a_coroutine_that_ignores_its_cancel_is_abandoned(
    ctx: ToolContext, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()

    @tool(timeout_s=0.05)
    async def clinging() -> None:
        """Block the loop."""
        release.wait(WAIT_S)

    outcome = call(clinging, ctx)
    release.set()

    assert outcome.kind == "timeout"
    assert [record["still_running"] for record in logged(caplog)] == [True]


def test_hanging_validator_times_out(ctx: ToolContext) -> None:
    release = threading.Event()

    class Hanging(str):
        __slots__ = ()

    def hang() -> Any:
        class Slow:
            def __iter__(self) -> Any:
                release.wait(WAIT_S)
                return iter([])

        return dict.fromkeys(Slow())

    outcome = call(tool(description="Hang.", timeout_s=0.05)(hang), ctx)
    release.set()

    assert outcome.kind == "timeout"


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
def test_tool_with_a_timeout_of_zero_times_out_at_once(timeout_s: float, ctx: ToolContext) -> None:
    release = threading.Event()

    @tool
    def slow() -> None:
        """Wait."""
        release.wait(WAIT_S)

    outcome = call(replace(slow, timeout_s=timeout_s), ctx)
    release.set()

    assert outcome.kind == "timeout"


@pytest.mark.parametrize("timeout_s", [float("inf"), float("nan"), 1e300])
def test_a_tool_built_with_an_absurd_timeout_still_runs(timeout_s: float, ctx: ToolContext) -> None:
    @tool
    def busy() -> str:
        """Still run when the wait for it begins."""
        threading.Event().wait(0.05)
        return "ok"

    assert call(replace(busy, timeout_s=timeout_s), ctx).content == "ok"


def test_the_runs_own_cancellation_still_reaches_the_tool(ctx: ToolContext) -> None:
    @tool
    def ask(ctx: ToolContext) -> bool:
        """Ask."""
        return ctx.cancelled()

    assert call(ask, ctx).content == "false"
    assert call(ask, replace(ctx, cancelled=lambda: True)).content == "true"


def test_context_variables_reach_the_tool_and_its_changes_stay_with_it(ctx: ToolContext) -> None:
    tenant = contextvars.ContextVar("tenant", default="nobody")

    @tool
    def who() -> str:
        """Tell."""
        before = tenant.get()
        tenant.set("changed")
        return before

    @tool
    async def who_async() -> str:
        """Tell."""
        return tenant.get()

    tenant.set("acme")
    assert (call(who, ctx).content, call(who_async, ctx).content, tenant.get()) == ("acme", "acme", "acme")


def test_interrupt_of_the_waiting_thread_is_raised_and_stops_the_tool(
    ctx: ToolContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, stopped = threading.Event(), threading.Event()

    @tool
    async def endless() -> None:
        """Never end."""
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    class Interrupted(BaseException):
        pass

    wait = threading.Event.wait

    def interrupted_wait(self: threading.Event, timeout: float | None = None) -> bool:
        if timeout == 60.0:
            assert wait(started, WAIT_S)
            raise Interrupted
        return wait(self, timeout)

    monkeypatch.setattr(threading.Event, "wait", interrupted_wait)
    with pytest.raises(Interrupted):
        call(endless, ctx)

    assert wait(stopped, WAIT_S)


def test_no_more_threads_is_an_outcome_too(ctx: ToolContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert call(returning("ok"), ctx) == ToolOutcome("RuntimeError: can't start new thread", True, "raised")


def test_a_method_without_its_object_is_an_outcome_too(ctx: ToolContext) -> None:
    class Kit:
        @tool
        def f(self) -> None:
            """Do."""

    outcome = call(Kit.f, ctx)
    assert outcome.kind == "raised"
    assert "an instance of its toolkit" in outcome.content


def test_result_that_cannot_be_text_is_unserialisable(ctx: ToolContext) -> None:
    outcome = call(returning(object()), ctx)

    assert (outcome.kind, outcome.is_error) == ("unserialisable", True)
    assert "The tool ran" in outcome.content


def test_a_large_result_is_cut_with_a_marker(ctx: ToolContext) -> None:
    outcome = call(returning("ü" * 1000), ctx, max_result_bytes=200)

    assert outcome.kind == "ok"
    assert outcome.content.startswith("ü" * 50)
    assert outcome.content.endswith(
        "[truncated: this is the beginning of a text of 1000 characters; ask for less]"
    )
    assert len(outcome.content.encode()) <= 200


def test_ten_mebibytes_pass_uncut(ctx: ToolContext) -> None:
    text = "x" * (10 * 1024 * 1024)

    assert call(returning(text), ctx).content == text
    assert "truncated" in call(returning(text + "x"), ctx).content


def test_a_long_error_is_cut_as_well(ctx: ToolContext) -> None:
    assert len(call(raising(ToolError("x" * 1000)), ctx, max_result_bytes=200).content) <= 200
