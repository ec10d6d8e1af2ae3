"""Which agents and knowledge bases the modules of AGNO_IMPORTS bring."""

from __future__ import annotations

import pytest

from agno_workers.core.agent import Agent
from agno_workers.errors import InvalidInput
from agno_workers.knowledge.types import Knowledge
from agno_workers.registry import Registry
from tests.agents import handbook, reader

DOCS = Knowledge("docs")


def test_knowledge_is_found_in_a_module() -> None:
    registry = Registry.importing("tests.agents")
    assert registry.knowledge("handbook") == handbook
    assert registry.knowledge("nothing") is None
    assert registry.get("reader") == reader


@pytest.mark.parametrize("use", [DOCS, DOCS.context(), DOCS.with_feedback()])
def test_knowledge_is_found_with_the_agent_that_uses_it(use: Knowledge) -> None:
    registry = Registry([Agent(name="helper", model="scripted:echo", knowledge=use)])
    assert registry.knowledge("docs") == DOCS


def test_two_knowledge_bases_of_one_name_are_refused() -> None:
    registry = Registry([Agent(name="helper", model="scripted:echo", knowledge=DOCS)])
    with pytest.raises(InvalidInput, match="two different knowledge bases are named 'docs'"):
        registry.add_knowledge(Knowledge("docs", embedder="hash:8"))
