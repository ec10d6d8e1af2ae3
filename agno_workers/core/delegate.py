"""Delegations: tools by which a model starts the run of an agent, a team or a workflow, and reads its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from agno_workers.core.messages import ToolSpec
from agno_workers.core.run import RunKind
from agno_workers.core.runnable import Runnable

MAX_DEPTH = 8
"""The most levels of delegation, so that agents which call each other in a circle end."""
PEERS_DEEP, PEERS_AT_ONCE = 3, 4
"""The most consultations of members that wait for each other, and the most of one answer of a member."""
Arguments = dict[str, str | None]


class Delegate(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that starts a run."""

    spec: ToolSpec
    """Its name, description and parameters, which are texts; one of them is `task`."""
    runs: str
    """The name of the agent, the team or the workflow."""
    kind: RunKind = RunKind.AGENT
    what: Runnable | None = None
    """It, where workers find it by this tool; None: they find it elsewhere, by its name."""
    queue: str | None = None
    message: Callable[[Arguments], str] = lambda given: given["task"] or ""
    """Return the first message of the run."""
    shares_interactions: bool = False
    """The caller gets the tool calls of the run with its answer."""
    peers: str = ""
    """The beginning of the members' names, as runs have them, where members consult each other."""

    @property
    def name(self) -> str:
        """The name that the model calls."""
        return self.spec.name

    def task(self, arguments: str) -> str | None:
        """Return the first message for these arguments; None: they do not fit."""
        try:
            given = msgspec.json.decode(arguments, type=Arguments)
        except (msgspec.MsgspecError, RecursionError):
            return None
        known = self.spec.parameters["properties"]
        if set(given) - set(known) or not (given.get("task") or "").strip():
            return None
        return self.message(given)

    @property
    def misfit(self) -> str:
        """The result of a call whose arguments do not fit."""
        others = ", ".join(name for name in self.spec.parameters["properties"] if name != "task")
        more = f", and texts for {others}" if others else ""
        return f'{self.name} takes {{"task": "..."}}{more}: nothing was delegated.'

    def refusal(self, depth: int, path: Sequence[str], at_once: int) -> str | None:
        """Return why a run must not start another one, None: it may. `path` are the names from the root to the caller, and `at_once` counts
        the consultations of the same answer before this one. The leader may consult any number at once.
        """
        if depth >= MAX_DEPTH:
            return f"{self.name} was not called: a run delegates at most {MAX_DEPTH} deep."
        if not self.peers:
            return None
        if self.runs in path:
            above = " > ".join(name.removeprefix(self.peers) for name in path)
            return f"{self.name} was not asked, since it waits for this answer itself ({above}): answer with what you know."
        waiting = sum(name.startswith(self.peers) for name in path)
        if waiting >= PEERS_DEEP:
            return f"{self.name} was not asked: members consult each other at most {PEERS_DEEP} deep. Answer with what you know."
        if waiting and at_once >= PEERS_AT_ONCE:
            return f"{self.name} was not asked: one answer consults at most {PEERS_AT_ONCE} members. Ask the others in your next one."
        return None


def delegate_to(what: Runnable) -> Delegate:
    """Return the tool for an agent among an agent's tools."""
    task = {
        "type": "string",
        "description": described_input(what)
        or "The task, with everything needed to do it: the agent gets nothing else.",
    }
    return Delegate(
        spec=ToolSpec(
            what.name,
            what.description or f"Delegates a task to the {what.kind} {what.name} and returns its answer.",
            {"type": "object", "properties": {"task": task}, "required": ["task"], "additionalProperties": False},
        ),
        runs=what.name, kind=what.kind, queue=what.queue,
    )  # fmt: skip


def described_input(what: Runnable) -> str:
    """Return the text for a model about an input that is JSON; empty for text."""
    schema = what.input_json
    return (
        ""
        if schema is None
        else f"The input, as JSON text of this schema: {msgspec.json.encode(schema).decode()}"
    )
