"""What can be known when an agent is written is refused there, in one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from agno_workers import (
    Agent,
    Compaction,
    History,
    InvalidInput,
    Knowledge,
    Limits,
    Memory,
    Prices,
    Retry,
    Toolkit,
)
from agno_workers.core.agent import MAX_AGENT_NAME_CHARS
from agno_workers.core.checks import MODEL_PROVIDERS
from agno_workers.models.resolve import PROVIDERS, lacking
from agno_workers.types import ModelSettings

NAN = float("nan")


def add(left: int, right: int) -> int:
    """Add two numbers."""
    return left + right


def other() -> None:
    """Do nothing."""


other.__name__ = "add"
MEMBER = Agent(name="add", model="scripted:echo")
DOCS = Knowledge("docs")

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"model": None}, "model=None is not a model: write a name"),
    ({"model": "gpt-5"}, "model='gpt-5' names no provider: write provider:model, such as 'openai:gpt-5'"),
    ({"model": "claude-5"}, "such as 'anthropic:claude-5'"),
    ({"model": "opnai:gpt-5"}, "model='opnai:gpt-5' has an unknown provider .*did you mean 'openai:gpt-5'"),
    ({"model": "nope:foo"}, "model='nope:foo' has an unknown provider"),
    ({"model": "openai:"}, "model='openai:' names no model"),
    ({"model": 5}, "model=5 is not a model"),
    ({"model": object}, "is not a model"),
    ({"name": ""}, "name must be text that is not blank, got ''"),
    ({"name": " \n"}, "name must be text that is not blank"),
    ({"name": None}, "name must be text that is not blank, got None"),
    ({"name": "a\nb"}, "characters that can't be seen"),
    ({"name": "a\u200bb"}, "characters that can't be seen"),
    ({"name": "a" * (MAX_AGENT_NAME_CHARS + 1)}, "name has 201 characters"),
    ({"name": "knowledge:docs"}, "begins with 'knowledge:'"),
    ({"description": None}, "description must be text, got None"),
    ({"instructions": None}, "instructions must be text or a list of texts, got None"),
    ({"instructions": ["a", 3]}, "but item 1 is 3"),
    ({"queue": ""}, "queue must be the name of a queue, got ''"),
    ({"queue": 5}, "queue must be the name of a queue, got 5"),
    ({"metadata": None}, "metadata must be a dict of JSON values, got None"),
    ({"metadata": {"a": object()}}, "metadata must be a dict of JSON values"),
    ({"metadata": {1: 2}}, "the key 1"),
    ({"limits": {"turns": 3}}, r"limits must be Limits\(...\), got {'turns': 3}"),
    ({"limits": None}, r"limits must be Limits\(...\), got None"),
    ({"limits": Limits(turns=-1)}, "limits.turns must be a whole number >= 1, got -1"),
    ({"limits": Limits(turns=0)}, "limits.turns must be a whole number >= 1, got 0"),
    ({"limits": Limits(turns=True)}, "limits.turns must be a whole number, got True"),
    ({"limits": Limits(turns=None)}, "limits.turns must be a whole number, got None"),  # type: ignore[arg-type]
    ({"limits": Limits(tool_calls=-1)}, "limits.tool_calls must be a whole number >= 0, got -1"),
    ({"limits": Limits(tokens=1.5)}, "limits.tokens"),  # type: ignore[arg-type]
    ({"limits": Limits(deadline_s=NAN)}, "limits.deadline_s must be a finite number, got nan"),
    ({"limits": Limits(deadline_s="5")}, "limits.deadline_s must be a number or None, got '5'"),  # type: ignore[arg-type]
    ({"limits": Limits(on_limit="stop")}, "limits.on_limit must be one of 'fail', 'return', got 'stop'"),  # type: ignore[arg-type]
    ({"limits": Limits(cost_usd=1)}, "limits.cost_usd needs the model's prices"),
    ({"prices": Prices(-1, 1)}, "prices.input_usd must be a number >= 0.0, got -1"),
    ({"retry": Retry(attempts=0)}, "retry.attempts must be a whole number >= 1, got 0"),
    ({"retry": 3}, r"retry must be Retry\(...\), got 3"),
    ({"history": History(-1)}, "history.runs must be a whole number >= 0, got -1"),
    ({"history": History(tokens=0)}, "history.tokens must be a whole number >= 1, got 0"),
    ({"history": History(only="good")}, "history.only must be one of 'done', 'all', got 'good'"),  # type: ignore[arg-type]
    ({"history": History(roles=("users",))}, "history.roles must be one of 'user', 'assistant', 'tool', got "),  # type: ignore[arg-type]
    ({"history": History(search_past_sessions=-1)}, "history.search_past_sessions must be a whole number >= 0, got -1"),
    ({"memory": True}, r"memory must be Memory\(...\), got True"),
    ({"memory": Memory(scope="usr")}, "memory.scope must be one of 'user', 'agent', 'team', 'session', 'global', got 'usr'"),  # type: ignore[arg-type]
    ({"memory": Memory(learn="always")}, "memory.learn must be one of 'background', 'agentic', 'both', 'off'"),  # type: ignore[arg-type]
    ({"memory": Memory(min_confidence=2)}, "memory.min_confidence must be a number <= 1.0, got 2"),
    ({"memory": Memory(tokens=0)}, "memory.tokens must be a whole number >= 1, got 0"),
    ({"memory": Memory(half_life_days=0)}, "memory.half_life_days must be a number"),
    ({"history": History(summary_model="gpt-5")}, "history.summary_model='gpt-5' names no provider"),
    ({"memory": Memory(model="gpt-5")}, "memory.model='gpt-5' names no provider"),
    ({"history": 3}, r"history must be History\(...\), got 3"),
    ({"compaction": Compaction(offload_tokens=0)}, "compaction.offload_tokens must be"),
    ({"compaction": Compaction(at=1.5)}, "compaction.at must be a number <= 1.0, got 1.5"),
    ({"compaction": Compaction(at=0.3)}, r"compaction.keep \(0.3\) must be less than compaction.at \(0.3\)"),
    ({"compaction": Compaction(model="gpt-5")}, "compaction.model='gpt-5' names no provider"),
    ({"settings": ModelSettings(temperature="hot")}, "settings.temperature must be a number or None, got 'hot'"),  # type: ignore[arg-type]
    ({"tools": None}, "tools must be a list"),
    ({"tools": "add"}, "tools must be a list of functions, tools, toolkits and agents, got 'add'"),
    ({"tools": add}, "put it into a list"),
    ({"tools": Toolkit("maths", [add])}, "put it into a list"),
    ({"tools": ["add"]}, "'add' is not a tool"),
    ({"tools": [add, other]}, "two tools are named 'add'"),
    ({"tools": [add, MEMBER]}, "a tool and an agent called 'add'"),
    ({"tools": [lambda: 1]}, "can't be a tool"),
    ({"knowledge": "docs"}, "knowledge must be Knowledge.*got 'docs'"),
    ({"knowledge": [DOCS, "docs"]}, "knowledge must be Knowledge.*got 'docs'"),
    ({"knowledge": [DOCS, DOCS.context()]}, "knowledge has 'docs' twice"),
    ({"knowledge": DOCS.tool(filters={"year": {"gtt": 1}})}, "unknown operator 'gtt'"),
    ({"knowledge": DOCS.context(0)}, "max_results must be a whole number >= 1, got 0"),
    ({"output_schema": lambda: 1}, "output_schema=.* has no JSON schema"),
    ({"output_schema": object()}, "output_schema=.* has no JSON schema"),
    ({"output_schema": {"type": "object"}}, "output_schema=.* has no JSON schema"),
    ({"output_schema": "Answer"}, "output_schema='Answer' has no JSON schema"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "said"), WRONG, ids=lambda part: part[:50] if isinstance(part, str) else "_".join(part)
)
def test_agent_that_can_not_work_is_refused_where_it_is_written(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as refused:
        Agent(**({"name": "clerk", "model": "scripted:echo"} | fields))
    if "name" not in fields:
        assert str(refused.value).startswith("agent 'clerk': ")


def test_agent_may_have_several_knowledge_bases_and_a_model_of_its_own_class() -> None:
    class Own:
        name = "own:small"

        def ask(self) -> None: ...

    Agent(name="clerk", model=Own(), knowledge=[DOCS, Knowledge("wiki").context()], tools=[add, add])  # type: ignore[arg-type]


def test_providers_of_names_are_those_that_can_be_resolved() -> None:
    assert list(PROVIDERS) == list(MODEL_PROVIDERS)


def test_missing_key_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert "OPENAI_API_KEY is not set" in (lacking("openai:gpt-5") or "")
    assert lacking("scripted:echo") is None
