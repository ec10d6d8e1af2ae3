"""An agent is a value: equal by its fields, frozen, and next to nothing in memory."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest

from agno_workers import Agent as DoorAgent
from agno_workers.core.agent import Agent, History, Limits
from agno_workers.core.context import Context
from agno_workers.core.messages import ModelSettings
from agno_workers.core.policy import Retry
from agno_workers.errors import InvalidInput


def look(query: str) -> str:
    """Look it up."""
    return query


FIELDS: dict[str, Any] = {
    "name": "researcher",
    "model": "openai:x",
    "instructions": ["Look it up.", "Say where."],
    "tools": (look,),
    "output_schema": dict,
    "settings": ModelSettings(temperature=0.2),
    "history": History(runs=3),
    "context": Context(facts={"plan": "free"}),
    "limits": Limits(turns=3),
    "retry": Retry(attempts=1),
    "queue": "slow",
    "metadata": {"team": "a"},
}
OTHERS: dict[str, Any] = {
    "name": "writer",
    "model": "openai:y",
    "instructions": "",
    "tools": (),
    "output_schema": None,
    "settings": ModelSettings(),
    "history": History(),
    "context": Context(),
    "limits": Limits(),
    "retry": Retry(),
    "queue": None,
    "metadata": {},
}


@pytest.mark.parametrize("kind", [Agent, DoorAgent])
def test_agents_with_equal_fields_are_equal(kind: type[Agent]) -> None:
    assert kind(**FIELDS) == kind(**FIELDS)


@pytest.mark.parametrize("field", FIELDS)
def test_agents_that_differ_in_one_field_are_not_equal(field: str) -> None:
    assert Agent(**FIELDS) != Agent(**{**FIELDS, field: OTHERS[field]})


@pytest.mark.parametrize("field", FIELDS)
def test_an_agent_is_frozen(field: str) -> None:
    with pytest.raises(AttributeError):
        setattr(Agent(**FIELDS), field, OTHERS[field])


def test_an_agent_is_made_of_names_not_of_places() -> None:
    with pytest.raises(TypeError):
        Agent("researcher", "openai:x")  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Agent(name="researcher")  # type: ignore[call-arg]
    with pytest.raises(InvalidInput):
        Agent(name="researcher", model="openai:x", instruction="typo")  # type: ignore[call-arg]


def test_two_agents_share_no_default_that_could_change() -> None:
    first, second = Agent(name="a", model="openai:m"), Agent(name="b", model="openai:m")
    assert first.metadata is not second.metadata
    assert Context().facts is not Context().facts


def test_an_agent_is_changed_by_making_another() -> None:
    before = Agent(**FIELDS)
    after = msgspec.structs.replace(before, name="writer")
    assert (before.name, after.name) == ("researcher", "writer")
    assert msgspec.structs.replace(after, name="researcher") == before


@pytest.mark.parametrize("kind", [Agent, DoorAgent])
def test_an_agent_costs_less_than_a_kilobyte_beside_what_all_share(kind: type[Agent]) -> None:
    agent = kind(name="a", model="openai:m")
    fields = msgspec.structs.fields(kind)
    parts = [
        agent,
        *(value for field in fields if (value := getattr(agent, field.name)) is not field.default),
    ]
    assert sum(sys.getsizeof(part) for part in parts) < 1024
    assert not hasattr(agent, "__dict__")
