"""Context is refused where it stands when it can't work, and agno's words name ours."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agno_workers import Agent, Computed, Context, External, Fact, Limits, Private
from agno_workers.core.fields import AGNO
from agno_workers.engine.plan import AgentPlan
from agno_workers.errors import InvalidInput

ignored: Any = "ignore"
RING: dict[str, Any] = {}
RING["self"] = RING


def hours() -> str:
    return "9 to 5"


def of_run(ctx: Any = None) -> str:
    return f"orders of {ctx.user_id}"


def of_day(day: str) -> str:
    return day


@pytest.mark.parametrize(
    ("facts", "fault"),
    [
        ({"hours": of_day}, "'hours' has a function with a parameter 'day': only ctx can be passed"),
        ({"mood": Computed(of_day, needs=("days",))}, "'mood' has a function with a parameter 'day': only ctx, days"),
        ({"day": 1, "mood": Computed(hours, needs=("dya",))}, "needs 'dya', which the context does not have. Did you mean 'day'?"),
        ({"weather": External("sunny")}, "'weather' needs a function that fetches the value"),
        ({"weather": External(hours, ttl_s=0)}, "'weather' ttl_s must be"),
        ({"orders": External(of_run)}, "'orders' is shared by the runs of all users .scope='agent'., and its function asks for ctx"),
        ({"orders": External(of_run, scope="global")}, "'orders' is shared by the runs of all users"),
        ({"weather": External(hours, on_error=ignored)}, "on_error must be one of 'fail', 'omit', 'stale', got 'ignore'"),
        ({"plan": object}, "'plan' has a function|'plan' is the class object: pass a function or a value"),
        ({"plan": object()}, "'plan' is not JSON"),
        ({1: "x"}, "facts must be"),
        ({"self": RING}, "'self' is not JSON"),
        ("plan: free", "facts must be a dict, got 'plan: free'"),
    ],
)  # fmt: skip
def test_context_that_cannot_work_is_refused(facts: Any, fault: str) -> None:
    with pytest.raises(InvalidInput, match=fault):
        Context(facts)


def test_values_that_need_each_other_are_refused() -> None:
    def one(two: int) -> int:
        return two

    def two(one: int) -> int:
        return one

    with pytest.raises(InvalidInput, match="need each other in a ring"):
        Context({"one": Computed(one, needs=("two",)), "two": Computed(two, needs=("one",))})


def test_definition_of_an_agent_is_the_same_in_every_process() -> None:
    """It is stored by its hash, so it holds no code, whose text has an address in memory."""
    context = Context(
        {"plan": "free", "hours": hours, "place": Private(hours, category="location")}, tokens=100
    )
    definition = AgentPlan.of(Agent(name="a", model="openai:x", context=context)).definition
    assert definition.content["context"]["facts"] == {"plan": "free"}
    plan = AgentPlan.of(Agent(name="a", model="openai:x", context=context))
    assert plan.as_begun(definition.content).agent.context == Context({"plan": "free"}, tokens=100)


def test_fact_in_long_form_is_the_same_source() -> None:
    assert Context({"plan": Fact("free")}).sources == Context({"plan": "free"}).sources


@pytest.mark.parametrize("word", sorted(AGNO))
def test_word_of_agno_names_our_field(word: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        Agent(name="a", model="openai:x", **dict[str, Any]({word: True}))
    assert f"{word!r}, which is a word of agno: use {AGNO[word]}" in str(raised.value)


def test_words_of_agno_are_not_fields_of_ours() -> None:
    assert not set(AGNO) & set(Agent.__struct_fields__)


def test_misspelt_field_gets_the_nearest_one() -> None:
    with pytest.raises(InvalidInput, match=r"Agent has no field 'instruction'. Did you mean 'instructions'?"):
        Agent(name="a", model="openai:x", instruction="x")  # type: ignore[call-arg]
    with pytest.raises(InvalidInput, match=r"Limits has no field 'turn'. Did you mean 'turns'?"):
        Limits(turn=3)  # type: ignore[call-arg]
    assert msgspec.structs.replace(Limits(), turns=3) == Limits(turns=3)
