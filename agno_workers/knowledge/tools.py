"""Tools for agents: search a knowledge base, and add notes to it. The functions behind them are passed in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated

from pydantic import Field

from agno_workers.core.tool import Effect, ToolContext
from agno_workers.errors import ModelUnavailable, Unavailable
from agno_workers.knowledge.references import CITE, SEARCH, Found, first_number, found
from agno_workers.knowledge.types import KnowledgeBinding, Note, SearchResult
from agno_workers.tools.decorate import FunctionTool, tool

ADD = "add_knowledge"

Search = Callable[[KnowledgeBinding, str], Sequence[SearchResult]]
Learn = Callable[[KnowledgeBinding, Note, ToolContext], str]
"""Stores a note in the transaction of the call, and returns the message for the model."""


def tool_name(verb: str, uses: Sequence[KnowledgeBinding], use: KnowledgeBinding) -> str:
    """Return the name of a tool of one base: `search_knowledge`, or `search_knowledge_docs` where an agent has several bases, each
    with a tool of its own: models choose by name and description. Two bases whose names differ in other characters are numbered.
    """
    if len(uses) == 1:
        return verb
    names = [re.sub(r"[^a-zA-Z0-9_-]+", "_", each.knowledge.name)[:40] for each in uses]
    place = uses.index(use)
    return f"{verb}_{names[place]}" + (f"_{place + 1}" if names.count(names[place]) > 1 else "")


def search_tool(use: KnowledgeBinding, search: Search, uses: Sequence[KnowledgeBinding] = ()) -> FunctionTool:
    """Build `search_knowledge(query)`, which is safe to repeat. `uses` are all bases of the agent: their results share numbers."""
    uses = uses or (use,)
    stride = max(each.max_results for each in uses)
    before = sum(each.max_results for each in uses if each.way == "context")
    knowledge = use.knowledge
    about = f": {knowledge.description}" if knowledge.description else ""

    def search_knowledge(
        query: Annotated[
            str, Field(description="A question or a few words, in the language of the documents.")
        ],
        ctx: ToolContext,
    ) -> Found:
        return found(knowledge.name, search(use, query), before + first_number(ctx.key, stride))

    return tool(
        name=tool_name(SEARCH, uses, use),
        description=f"Search the knowledge base {knowledge.name!r}{about}. {CITE}",
        effect=Effect.PURE,
        retry_on=(ModelUnavailable, Unavailable),
        offload=False,  # citations need the whole result, whose length max_results limits
    )(search_knowledge)


def add_tool(use: KnowledgeBinding, learn: Learn, uses: Sequence[KnowledgeBinding] = ()) -> FunctionTool:
    """Build `add_knowledge(title, text, source, confidence)`, which commits together with the result of the call."""

    def add_knowledge(
        title: Annotated[str, Field(description="What it is about, in a few words.", min_length=1, max_length=300)],
        text: Annotated[str, Field(description="The fact itself, complete without context.", min_length=1)],
        source: Annotated[str, Field(description="Where it is from: a URL, a document, a person.", max_length=2000)],
        confidence: Annotated[float, Field(description="How sure you are, from 0 to 1.", ge=0, le=1)],
        ctx: ToolContext,
    ) -> str:  # fmt: skip
        return learn(use, Note(title, text, source, confidence, author=ctx.agent, run_id=ctx.run_id), ctx)

    return tool(
        name=tool_name(ADD, uses or (use,), use),
        description=f"Add a fact that others will need to the knowledge base {use.knowledge.name!r}.",
        effect=Effect.TRANSACTIONAL,
        retry_on=(ModelUnavailable, Unavailable),
    )(add_knowledge)
