"""Execute one call of a tool within a time limit. Errors become an outcome that the model reads.

Every call runs on a daemon thread of its own (about 0.1 ms; recording its result takes milliseconds), because the time limit must
hold on any Celery pool and Python cannot stop a thread: a late one is abandoned.
"""

from __future__ import annotations

import asyncio
import contextvars
import difflib
import inspect
import logging
import threading
from collections.abc import Awaitable, Iterable
from typing import Any

import msgspec

from agno_workers.core.tool import NOT_DONE, Tool, ToolContext, ToolOutcome
from agno_workers.core.words import safe_text
from agno_workers.errors import ToolError, TryAgain, message_of
from agno_workers.tools.decorate import FunctionTool
from agno_workers.tools.refusal import InvalidArguments
from agno_workers.tools.result import Unserialisable, bounded, to_json_text, to_text

logger = logging.getLogger(__name__)

MAX_RESULT_BYTES = 10 * 1024 * 1024
"""10 MiB: a limit for the database, not for the model's context window."""

_CLEANUP_S = 1.0
"""The time for the `finally` blocks of a cancelled coroutine before its thread is abandoned."""

_MAX_NAMES = 50


def execute(
    tool: Tool | None,
    name: str,
    arguments: str,
    ctx: ToolContext,
    *,
    known: Iterable[str] = (),
    max_result_bytes: int = MAX_RESULT_BYTES,
    reconciling: bool = False,
    as_json: bool = False,
) -> ToolOutcome:
    """Call a tool with a model's JSON text, and return the outcome by `kind`:

    * `ok`: the result as text, see `to_text`.
    * `unknown_tool`: `tool` is None; the content lists the `known` ones.
    * `invalid_arguments`: the text is not JSON or does not fit the signature. The function was not called.
    * `raised`: the message of a ToolError; the type and message of any other exception, whose traceback is logged.
      `sys.exit()` in a tool counts as raised.
    * `again`: the tool raised TryAgain or one of its `retry_on`; the same call may work later.
    * `timeout`: `tool.timeout_s` is over. A coroutine was cancelled; a plain function may still be running, with
      `ctx.cancelled()` true, so **the caller must not commit on `ctx.connection`** but close it.
    * `unserialisable`: the tool ran, but its result cannot be converted to text.

    `reconciling` calls the tool's `reconcile` hook instead, with the same arguments (and `ctx`, if it takes it); then `ok` is
    the tool's result, `not_done` means that the tool did not take effect, `unknown` that the hook returned None. `as_json` returns the
    result as JSON, of at most `max_result_bytes`.

    Content over `max_result_bytes` (UTF-8) is cut and marked; NUL and lone surrogates become U+FFFD. Raises only what is raised
    in the waiting thread from outside (Ctrl-C, Celery's time limit); then the tool is cancelled as after a timeout.
    """
    attempt = _Attempt(tool, arguments, ctx, reconciling, as_json) if tool is not None else None
    outcome = attempt.outcome() if attempt else _unknown(name, known)
    if as_json and not outcome.is_error:
        if (size := len(outcome.content.encode())) <= max_result_bytes:
            return outcome
        text = f"the result takes {size:,} bytes as JSON, and the most is {max_result_bytes:,}: store it elsewhere, and return its key"
        outcome = _failure("unserialisable", text)
    return msgspec.structs.replace(outcome, content=bounded(safe_text(outcome.content), max_result_bytes))


def _unknown(name: str, known: Iterable[str]) -> ToolOutcome:
    names = sorted(known)
    close = difflib.get_close_matches(name[:100], names, n=1)
    shown = ", ".join(names[:_MAX_NAMES]) + (", …" if len(names) > _MAX_NAMES else "")
    hint = f" Did you mean {close[0]}?" if close else ""
    text = f"There is no tool named {name[:100]!r}.{hint} Known tools: {shown or 'none'}."
    return _failure("unknown_tool", text)


def _failure(kind: str, content: str) -> ToolOutcome:
    return ToolOutcome(content, is_error=True, kind=kind)


class _Attempt:
    """One execution on its thread. The author's code (validators, function, serializers) runs on that thread only."""

    def __init__(
        self, tool: Tool, arguments: str, ctx: ToolContext, reconciling: bool, as_json: bool
    ) -> None:
        self._tool = tool
        self._reconciling = reconciling
        self._to_text = to_json_text if as_json else to_text
        self._arguments = safe_text(arguments)
        self._cancelled_before = ctx.cancelled
        self._ctx = msgspec.structs.replace(ctx, cancelled=self._is_cancelled)
        self._ended = threading.Event()
        self._abandoned = threading.Event()
        self._result: ToolOutcome | None = None
        self._loop_and_task: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None

    def outcome(self) -> ToolOutcome:
        try:
            self._start()
        except RuntimeError as error:  # the machine has no more threads
            return self._raised(error)
        try:
            in_time = self._ended.wait(max(0.0, min(threading.TIMEOUT_MAX, self._tool.timeout_s)))
        except BaseException:
            self._abandon()
            raise
        return self._result if in_time and self._result is not None else self._timeout()

    def _start(self) -> None:
        context = contextvars.copy_context()
        name = f"tool {self._tool.name} {self._ctx.call_id}"
        threading.Thread(target=context.run, args=(self._run,), name=name, daemon=True).start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except BaseException as error:
            # SystemExit too: a tool must not end a worker, and this thread is its own.
            self._result = self._raised(error)
        finally:
            self._ended.set()
            if self._abandoned.is_set():
                logger.info("tool ended after its timeout", extra=self._ids())

    def _call(self) -> ToolOutcome:
        try:
            arguments = _with_answer(_written(self._arguments, self._tool), self._tool, self._ctx)
            args, kwargs = _bind(self._tool, arguments, self._ctx)
        except InvalidArguments as error:
            return _failure("invalid_arguments", str(error))
        value = self._hook(args, kwargs) if self._reconciling else self._tool.function(*args, **kwargs)
        if inspect.isawaitable(value):
            value = asyncio.run(self._awaited(value))
        if self._reconciling and value is None:
            return _failure("unknown", f"the reconcile hook of {self._tool.name} does not know")
        if self._reconciling and value is NOT_DONE:
            return _failure("not_done", f"{self._tool.name} did not take effect")
        try:
            return ToolOutcome(self._to_text(value))
        except Unserialisable as error:
            return _failure("unserialisable", str(error))

    def _hook(self, args: list[Any], kwargs: dict[str, Any]) -> Any:
        hook = self._tool.reconcile
        if hook is None:
            return None
        kwargs.pop("ctx", None)
        if "ctx" in inspect.signature(hook).parameters:
            kwargs["ctx"] = self._ctx
        return hook(*args, **kwargs)

    async def _awaited(self, awaitable: Awaitable[Any]) -> Any:
        task = asyncio.current_task()
        assert task is not None
        self._loop_and_task = asyncio.get_running_loop(), task
        if self._abandoned.is_set():  # the deadline passed before there was a task to cancel
            task.cancel()
        return await awaitable

    def _raised(self, error: BaseException) -> ToolOutcome:
        if isinstance(error, (TryAgain, *self._tool.retry_on)):
            text = message_of(error) or type(error).__name__
            return ToolOutcome(text, True, "again", error.after_s if isinstance(error, TryAgain) else None)
        if isinstance(error, ToolError):
            return _failure("raised", message_of(error) or "ToolError")
        if not self._abandoned.is_set():
            logger.warning("tool raised", exc_info=error, extra=self._ids())
        return _failure("raised", ": ".join(filter(None, (type(error).__name__, message_of(error)))))

    def _timeout(self) -> ToolOutcome:
        self._abandon()
        stopped = self._loop_and_task is not None and self._ended.wait(_CLEANUP_S)
        logger.warning("tool timed out", extra=self._ids() | {"still_running": not stopped})
        return _failure(
            "timeout",
            f"{self._tool.name} did not end within {self._tool.timeout_s:g} s and was abandoned. It may have taken effect."
            " Ask for less, or continue without it.",
        )

    def _abandon(self) -> None:
        self._abandoned.set()
        if self._loop_and_task is not None:
            loop, task = self._loop_and_task
            try:
                loop.call_soon_threadsafe(task.cancel)
            except RuntimeError:
                pass  # the loop has just closed: the coroutine has ended

    def _is_cancelled(self) -> bool:
        return self._abandoned.is_set() or self._cancelled_before()

    def _ids(self) -> dict[str, Any]:
        """Return the fields of every log record of this module."""
        ctx = self._ctx
        return {
            "tool": self._tool.name,
            "run_id": ctx.run_id,
            "step_id": ctx.step_id,
            "call_id": ctx.call_id,
            "agent": ctx.agent,
            "attempt": ctx.attempt,
        }


def _written(arguments: str, tool: Tool) -> str:
    """Return a model's arguments. Some providers send none as an empty text or null; with parameters that all have defaults, they may
    as well have been lost on the way.
    """
    if arguments.strip() not in ("", "null"):
        return arguments
    parameters = tool.spec.parameters
    if parameters.get("properties") and not parameters.get("required"):
        raise InvalidArguments(
            "The arguments did not arrive, the tool was not called: call it again, with {} for the defaults."
        )
    return "{}"


def _with_answer(arguments: str, tool: Tool, ctx: ToolContext) -> str:
    """Return the model's arguments with a person's values, which replace the model's."""
    if not tool.policy.fields:
        return arguments
    try:
        given = msgspec.json.decode(arguments, type=dict[str, Any])
    except msgspec.MsgspecError:
        return arguments  # `_bind` refuses it
    own = {name: value for name, value in given.items() if name not in tool.policy.fields}
    return msgspec.json.encode(own | ctx.answer.get("values", {})).decode()


def _bind(tool: Tool, arguments: str, ctx: ToolContext) -> tuple[list[Any], dict[str, Any]]:
    """Return positional and keyword arguments for the function. A plain `Tool` has no signature to check: its function gets
    every key of the JSON object as a keyword argument, and `ctx` if it has that parameter.
    """
    if isinstance(tool, FunctionTool):
        if tool.unbound:
            raise TypeError(
                f"{tool.name} is a method without its object: collect it from an instance of its toolkit"
            )
        return tool.signature.bind(arguments, ctx)
    try:
        kwargs = msgspec.json.decode(arguments, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        text = f"Invalid arguments, the tool was not called: expected one JSON object ({error})."
        raise InvalidArguments(text) from error
    if "ctx" in inspect.signature(tool.function).parameters:
        kwargs["ctx"] = ctx
    return [], kwargs
