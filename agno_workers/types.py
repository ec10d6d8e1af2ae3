"""Values and types beside the names at the top level: what calls return, accept, and need for annotations."""

from __future__ import annotations

from agno_workers.core.budget import TreeUsage
from agno_workers.core.flow import Pending, StepResult
from agno_workers.core.mapping import MapResult
from agno_workers.core.messages import Audio, File, Image, Message, ModelSettings, Text, Usage
from agno_workers.core.ports import Model
from agno_workers.core.request import RunOptions, SubmitOptions
from agno_workers.core.run import Run, RunKind, Step, StepKind, StepStatus, WaitsFor
from agno_workers.core.session import IfBusy, SessionStatus
from agno_workers.core.state import Scope, State
from agno_workers.core.tool import Tool
from agno_workers.knowledge.retriever import FilterWarning
from agno_workers.knowledge.store.bases import ChunkRow, DocumentRow
from agno_workers.knowledge.types import (
    Chunking,
    FeedbackConfig,
    Place,
    Progress,
    Reference,
    Rows,
    SearchConfig,
    SearchResult,
    SearchType,
    Skipped,
    Source,
)
from agno_workers.runs.queries import Event, RunFilters
from agno_workers.runs.tree import RunTree
from agno_workers.sdk.approvals import Requirement
from agno_workers.sdk.batch import BatchOptions
from agno_workers.sdk.handles import Steer
from agno_workers.sdk.ingestion import Ingestion, IngestOptions
from agno_workers.sdk.sessions import InOrder
from agno_workers.sdk.states import StateHandle
from agno_workers.sessions.consent import ContextAccess
from agno_workers.sessions.memory_proposal import Proposal, ProposedChange
from agno_workers.sessions.memory_store import MemoryKind, MemoryVersion, RecalledMemory, StoredMemory
from agno_workers.sessions.state import StateChange, Versioned
from agno_workers.sessions.steering import SteerReceipt
from agno_workers.sessions.store import RolledBack, SessionFilters, SessionRow
from agno_workers.streams import Streamed

__all__ = [
    "Audio", "BatchOptions", "ChunkRow", "Chunking", "ContextAccess", "DocumentRow", "Event", "FeedbackConfig", "File",
    "FilterWarning", "IfBusy", "Image", "InOrder", "IngestOptions", "Ingestion", "MapResult", "MemoryKind", "MemoryVersion", "Message",
    "Model", "ModelSettings", "Pending", "Place", "Progress", "Proposal", "ProposedChange", "RecalledMemory", "Reference", "Requirement",
    "RolledBack", "Rows", "Run", "RunFilters", "RunKind", "RunOptions", "RunTree", "Scope", "SearchConfig", "SearchResult", "SearchType",
    "SessionFilters", "SessionRow", "SessionStatus", "Skipped", "Source", "State", "StateChange", "StateHandle", "Steer",
    "SteerReceipt", "Step", "StepKind", "StepResult", "StepStatus", "StoredMemory", "Streamed", "SubmitOptions", "Text", "Tool", "TreeUsage", "Usage",
    "Versioned", "WaitsFor",
]  # fmt: skip
