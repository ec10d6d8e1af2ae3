"""AI agents as durable background work on Celery, Redis and Postgres.

The names below are what we promise; every module behind them may change. They are imported when first used, so
that a thin client pays for nothing it does not use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agno_workers import errors as errors
    from agno_workers.core.agent import (
        Context as Context,
    )
    from agno_workers.core.agent import (
        History as History,
    )
    from agno_workers.core.agent import (
        Limits as Limits,
    )
    from agno_workers.core.agent import (
        Prices as Prices,
    )
    from agno_workers.core.messages import (
        Audio as Audio,
    )
    from agno_workers.core.messages import (
        File as File,
    )
    from agno_workers.core.messages import (
        Image as Image,
    )
    from agno_workers.core.messages import (
        Message as Message,
    )
    from agno_workers.core.messages import (
        ModelSettings as ModelSettings,
    )
    from agno_workers.core.messages import (
        Text as Text,
    )
    from agno_workers.core.messages import (
        Usage as Usage,
    )
    from agno_workers.core.policy import Retry as Retry
    from agno_workers.core.run import Run as Run
    from agno_workers.core.run import RunOutput as RunOutput
    from agno_workers.core.run import RunStatus as RunStatus
    from agno_workers.core.tool import NOT_DONE as NOT_DONE
    from agno_workers.core.tool import Effect as Effect
    from agno_workers.core.tool import Tool as Tool
    from agno_workers.core.tool import ToolContext as ToolContext
    from agno_workers.errors import AgnoError as AgnoError
    from agno_workers.errors import NotWaiting as NotWaiting
    from agno_workers.errors import ToolError as ToolError
    from agno_workers.errors import TryAgain as TryAgain
    from agno_workers.knowledge.types import (
        Chunking as Chunking,
    )
    from agno_workers.knowledge.types import (
        FeedbackConfig as FeedbackConfig,
    )
    from agno_workers.knowledge.types import (
        Progress as Progress,
    )
    from agno_workers.knowledge.types import (
        Reference as Reference,
    )
    from agno_workers.knowledge.types import (
        SearchConfig as SearchConfig,
    )
    from agno_workers.knowledge.types import (
        SearchResult as SearchResult,
    )
    from agno_workers.knowledge.types import (
        Source as Source,
    )
    from agno_workers.sdk.agent import Agent as Agent
    from agno_workers.sdk.agent import RunResult as RunResult
    from agno_workers.sdk.approvals import Requirement as Requirement
    from agno_workers.sdk.batch import Batch as Batch
    from agno_workers.sdk.client import Client as Client
    from agno_workers.sdk.handles import RunHandle as RunHandle
    from agno_workers.sdk.ingestion import Ingestion as Ingestion
    from agno_workers.sdk.knowledge import Knowledge as Knowledge
    from agno_workers.tools import Toolkit as Toolkit
    from agno_workers.tools import tool as tool
    from agno_workers.wiring import attach as attach

__version__ = "0.1.0"

_HOMES = {
    "agno_workers.sdk.agent": ("Agent", "RunResult"),
    "agno_workers.sdk.batch": ("Batch",),
    "agno_workers.sdk.client": ("Client",),
    "agno_workers.sdk.handles": ("RunHandle",),
    "agno_workers.core.agent": ("Context", "History", "Limits", "Prices"),
    "agno_workers.knowledge.types": (
        "Chunking",
        "SearchResult",
        "FeedbackConfig",
        "Progress",
        "Reference",
        "SearchConfig",
        "Source",
    ),
    "agno_workers.core.messages": ("Audio", "File", "Image", "Message", "ModelSettings", "Text", "Usage"),
    "agno_workers.core.policy": ("Retry",),
    "agno_workers.core.run": ("Run", "RunOutput", "RunStatus"),
    "agno_workers.core.tool": ("NOT_DONE", "Effect", "Tool", "ToolContext"),
    "agno_workers.errors": ("AgnoError", "NotWaiting", "ToolError", "TryAgain"),
    "agno_workers.sdk.ingestion": ("Ingestion",),
    "agno_workers.sdk.knowledge": ("Knowledge",),
    "agno_workers.sdk.approvals": ("Requirement",),
    "agno_workers.tools": ("Toolkit", "tool"),
    "agno_workers.wiring": ("attach",),
    # `celery -A agno_workers worker` looks for `app`; importing it registers the tasks, which only workers want.
    "agno_workers.tasks.app": ("app",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605 - derived, so that it can't disagree


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
