"""AI agents as durable background work on Celery, Redis and Postgres.

The names in `__all__` are promised, with those of `agno_workers.types` and `agno_workers.errors`; every module behind them may
change. They are imported when first used, so that a thin client pays for nothing it does not use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from agno_workers.errors import (
    AgnoError,
    ContextFailed,
    IdempotencyConflict,
    InvalidInput,
    LimitReached,
    MemoryChanged,
    MemoryNotFound,
    ModelRejected,
    ModelUnavailable,
    NotWaiting,
    RunCancelled,
    RunFailed,
    SessionBusy,
    SessionEnded,
    SessionForbidden,
    SessionNotFound,
    StateConflict,
    StepFailed,
    ToolError,
    TryAgain,
    Unavailable,
    UnknownAgent,
    WaitTimeout,
)

if TYPE_CHECKING:
    from agno_workers.core.agent import Compaction, History, Limits, Memory, Prices
    from agno_workers.core.context import Computed, Context, External, Fact, Private, RunContext
    from agno_workers.core.flow import Flow, quorum
    from agno_workers.core.policy import Retry
    from agno_workers.core.run import RunOutput, RunStatus
    from agno_workers.core.tool import NOT_DONE, Effect, ToolContext
    from agno_workers.sdk.agent import Agent, Session
    from agno_workers.sdk.aio import AsyncClient, AsyncRun, AsyncSession
    from agno_workers.sdk.batch import Batch
    from agno_workers.sdk.client import Client
    from agno_workers.sdk.handles import RunHandle
    from agno_workers.sdk.knowledge import Knowledge
    from agno_workers.sdk.sessions import SessionHandle
    from agno_workers.sdk.team import Team
    from agno_workers.sdk.verbs import RunResult
    from agno_workers.sdk.workflow import Workflow, workflow
    from agno_workers.tools import Toolkit, tool
    from agno_workers.wiring import attach

__version__ = "0.1.0"

__all__ = [
    "NOT_DONE", "Agent", "AgnoError", "AsyncClient", "AsyncRun", "AsyncSession", "Batch", "Client", "Compaction", "Computed",
    "Context", "ContextFailed", "Effect", "External", "Fact", "Flow", "History", "IdempotencyConflict", "InvalidInput", "Knowledge",
    "LimitReached", "Limits", "Memory", "MemoryChanged", "MemoryNotFound", "ModelRejected", "ModelUnavailable", "NotWaiting",
    "Prices", "Private", "Retry", "RunCancelled", "RunContext", "RunFailed", "RunHandle", "RunOutput", "RunResult", "RunStatus",
    "Session", "SessionBusy", "SessionEnded", "SessionForbidden", "SessionHandle", "SessionNotFound", "StateConflict",
    "StepFailed", "Team", "ToolContext", "ToolError", "Toolkit", "TryAgain", "Unavailable", "UnknownAgent", "WaitTimeout", "Workflow",
    "attach", "quorum", "tool", "workflow",
]  # fmt: skip

_HOMES = {
    "agno_workers.core.agent": "Compaction History Limits Memory Prices",
    "agno_workers.core.context": "Computed Context External Fact Private RunContext",
    "agno_workers.core.flow": "Flow quorum",
    "agno_workers.core.policy": "Retry",
    "agno_workers.core.run": "RunOutput RunStatus",
    "agno_workers.core.tool": "NOT_DONE Effect ToolContext",
    "agno_workers.sdk.agent": "Agent Session",
    "agno_workers.sdk.team": "Team",
    "agno_workers.sdk.verbs": "RunResult",
    "agno_workers.sdk.workflow": "Workflow workflow",
    "agno_workers.sdk.aio": "AsyncClient AsyncRun AsyncSession",
    "agno_workers.sdk.batch": "Batch",
    "agno_workers.sdk.client": "Client",
    "agno_workers.sdk.handles": "RunHandle",
    "agno_workers.sdk.knowledge": "Knowledge",
    "agno_workers.sdk.sessions": "SessionHandle",
    "agno_workers.tools": "Toolkit tool",
    "agno_workers.wiring": "attach",
    # `celery -A agno_workers worker` looks for `app`; importing it registers the tasks, which only workers want.
    "agno_workers.tasks.app": "app",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


if not TYPE_CHECKING:  # or a type checker would accept every name

    def __getattr__(name: str) -> Any:
        if home := _HOME_OF.get(name):
            return getattr(importlib.import_module(home), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
