"""The public Agent: the core's value with Celery's verbs, see `sdk/verbs.py`."""

from __future__ import annotations

from agno_workers import wiring
from agno_workers.core import agent as core
from agno_workers.engine.plan import members_and_tools
from agno_workers.errors import InvalidInput, InvalidTool
from agno_workers.knowledge.filters import compile_filter
from agno_workers.knowledge.types import Uses, uses_of
from agno_workers.sdk.sessions import SessionHandle
from agno_workers.sdk.verbs import Verbs


class Session(SessionHandle):
    """A session, for a process with the agents' code: `Session("chat-17").submit(assistant, "Hello")`. A service without it uses
    `client.sessions`. SessionHandle has the verbs.
    """

    def __init__(self, id: str, user_id: str | None = None) -> None:
        services = wiring.services()
        super().__init__(id, services.database, services.streams, user_id=user_id)


class Agent(core.Agent, Verbs, frozen=True, kw_only=True):
    """The definition of an agent, with the verbs that submit runs. It is a value: two agents with equal fields are equal."""

    knowledge: Uses = None
    """A knowledge base to search: `docs` (a tool), `docs.context()` (results with each question), `docs.with_feedback()` (may add to
    it); or a list of several, each with tools of its own, as `search_knowledge_docs`."""

    def __post_init__(self) -> None:
        """Raise InvalidInput for what can't work, InvalidTool for a tool that can't be offered to a model."""
        core.Agent.__post_init__(self)
        if self.tools:
            try:
                members_and_tools(self, ())
            except InvalidTool as error:
                raise InvalidTool(f"agent {self.name!r}: tools: {error}", agent=self.name) from error
        if self.knowledge is not None:
            try:
                for use in uses_of(self.knowledge):
                    compile_filter(use.filters)
            except InvalidInput as error:
                raise self.fault(str(error).rstrip(".")) from error
