"""A model's JSON as the arguments of a call: accepted values, and the message for the model when they are refused."""

import enum
import json
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_validator

from agno_workers.core.messages import ToolSpec
from agno_workers.core.tool import Tool, ToolContext
from agno_workers.tools import execute, tool

CTX = ToolContext(run_id="run-1", step_id="step-1", call_id="call-1", agent="clerk", attempt=1)
UNSET = object()
LONG = "a number of 5001 digits"
"""A placeholder for a number that Python refuses to print."""


class Unit(enum.Enum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


@dataclass
class Place:
    lat: float
    lon: float = 0.0


class Guest(BaseModel):
    name: str
    age: int = 1

    @field_validator("name")
    @classmethod
    def has_a_name(cls, name: str) -> str:
        if not name:
            raise ValueError("a guest has a name")
        return name


def received(annotation: Any, value: str) -> Any:
    """Return the value that a parameter of this annotation receives for a JSON value, or the refusal."""
    got: list[Any] = []

    def function(x):  # type: ignore[no-untyped-def]
        got.append(x)

    function.__annotations__ = {"x": annotation}
    outcome = execute(tool(description="d")(function), "f", f'{{"x": {value}}}', CTX)
    assert outcome.kind == ("ok" if got else "invalid_arguments"), outcome
    return got[0] if got else outcome.content


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (int, "5", 5),
        (int, "5.0", 5),  # the same number in JSON schema
        (list[int], "[1.0, 2]", [1, 2]),
        (float, "5", 5.0),
        (str, '"ü\\u00fc"', "üü"),
        (bool, "true", True),
        (Literal["a", 2], "2", 2),
        (Unit, '"c"', Unit.CELSIUS),
        (date, '"2026-11-22"', date(2026, 11, 22)),
        (Decimal, '"1.10"', Decimal("1.10")),
        (Path, '"a/b"', Path("a/b")),
        (Place, '{"lat": 1}', Place(1.0, 0.0)),
        (Guest, '{"name": "Ann"}', Guest(name="Ann", age=1)),
        (list[Guest], '[{"name": "Ann"}]', [Guest(name="Ann")]),
        (str | None, "null", None),
        (tuple[int, str], '[1, "a"]', (1, "a")),
        (set[int], "[1, 1]", {1}),
        (dict[str, float], '{"a": 1}', {"a": 1.0}),
        (Annotated[int, Field(strict=False)], '"5"', 5),  # the author allows it
        (Any, '{"a": [1]}', {"a": [1]}),
    ],
)
def test_a_json_value_arrives_as_the_annotated_type(annotation: Any, value: str, expected: Any) -> None:
    got = received(annotation, value)

    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    ("annotation", "value", "said"),
    [
        (int, '"5"', 'x: expected a valid integer, got "5"'),
        (int, "5.5", "x: expected a valid integer, got 5.5"),
        (int, "true", "x: expected a valid integer, got true"),
        (str, "5", "x: expected a valid string, got 5"),
        (bool, '"yes"', 'x: expected a valid boolean, got "yes"'),
        (bool, "1", "x: expected a valid boolean, got 1"),
        (float, '"1"', 'x: expected a valid number, got "1"'),
        (str, "null", "x: expected a valid string, got null"),
        (Unit, '"k"', "x: expected 'c' or 'f', got \"k\""),
        (Literal["a", "b"], '"c"', "x: expected 'a' or 'b', got \"c\""),
        (list[int], '[1, "b"]', 'x[1]: expected a valid integer, got "b"'),
        (list[Guest], '[{"name": 5}]', "x[0].name: expected a valid string, got 5"),
        (Guest, '{"name": ""}', 'x.name: Value error, a guest has a name, got ""'),
        (Guest, "{}", "x.name: required, but missing"),
        (Place, '{"lat": 1, "alt": 2}', "x.alt: Unexpected keyword argument, got 2"),
        (Annotated[int, Field(ge=1)], "0", "x: expected greater than or equal to 1, got 0"),
        (date, '"soon"', "x: expected a valid date"),
        (int, json.dumps("y" * 200), f'x: expected a valid integer, got "{"y" * 79}…'),
    ],
)
def test_wrong_value_is_refused_with_parameter_expected_and_actual_value(
    annotation: Any, value: str, said: str
) -> None:
    assert said in received(annotation, value)


@tool
def book(city: str, nights: int = 1) -> str:
    """Book a room."""
    return f"{city}/{nights}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "city: required, but missing"),
        ("{}", "city: required, but missing"),
        (
            '{"city": "Basel", "night": 2}',
            "night: unknown parameter, did you mean nights? The tool takes: city, nights",
        ),
        ('{"city": "Basel", "zzz": 2}', "zzz: unknown parameter. The tool takes: city, nights"),
        ('{"city": "Bas', "not valid JSON (EOF while parsing a string at line 1 column 13)"),
        ("city=Basel", "not valid JSON"),
        ('{"city": "\\ud800"}', "not valid JSON"),
        ("[]", "expected one JSON object, got []"),
        ("null", "city: required, but missing"),
        ('"{}"', 'expected one JSON object, got "{}"'),
    ],
)
def test_arguments_that_are_not_a_call_are_refused(arguments: str, said: str) -> None:
    outcome = execute(book, "book", arguments, CTX)

    assert (outcome.kind, outcome.is_error) == ("invalid_arguments", True)
    assert said in outcome.content
    assert "not called" in outcome.content


def test_at_most_eight_problems_are_listed() -> None:
    @tool
    def add(numbers: list[int]) -> None:
        """Add."""

    outcome = execute(add, "add", json.dumps({"numbers": ["x"] * 20}), CTX)

    assert outcome.content.count("expected a valid integer") == 8
    assert "and 12 more" in outcome.content


def test_half_a_surrogate_pair_in_arguments_is_replaced() -> None:
    assert execute(book, "book", '{"city": "\ud800"}', CTX).content == "\ufffd/1"


def test_a_mutable_default_is_new_in_each_call() -> None:
    @tool
    def add(item: int, to: list[int] = [1]) -> list[int]:  # noqa: B006 - the point of it
        """Add."""
        to.append(item)
        return to

    assert [execute(add, "add", '{"item": 2}', CTX).content for _ in range(2)] == ["[1,2]", "[1,2]"]


def test_blank_arguments_are_a_call_without_arguments() -> None:
    @tool
    def now() -> str:
        """Tell the time."""
        return "noon"

    assert execute(now, "now", "  ", CTX).content == "noon"


def test_a_default_is_the_functions_own_object() -> None:
    seen: list[object] = []

    def function(x=UNSET):  # type: ignore[no-untyped-def]
        seen.append(x)

    function.__annotations__ = {"x": Any}
    execute(tool(description="d")(function), "f", "{}", CTX)

    assert seen[0] is UNSET


def test_defaults_may_come_from_fields_and_any_kind_of_parameter_is_filled() -> None:
    @tool
    def f(
        a: int, /, b: int = 2, *, ctx: ToolContext, c: int = Field(3), d: Annotated[int, Field(default=4)]
    ) -> str:
        """Do."""
        return f"{a}{b}{c}{d} {ctx.agent}"

    assert execute(f, "f", '{"a": 1}', CTX).content == "1234 clerk"
    assert execute(f, "f", '{"a": 1, "b": 9, "c": 8, "d": 7}', CTX).content == "1987 clerk"


def test_the_model_cannot_set_ctx() -> None:
    @tool
    def f(ctx: ToolContext) -> str:
        """Do."""
        return ctx.run_id

    assert execute(f, "f", '{"ctx": {"run_id": "other"}}', CTX).kind == "invalid_arguments"


def test_tool_without_signature_receives_the_object_as_keywords_and_ctx() -> None:
    def call(ctx: ToolContext, **arguments: Any) -> str:
        return f"{ctx.call_id} {arguments}"

    remote = Tool(spec=ToolSpec("remote", "d", {"type": "object"}), function=call)

    assert execute(remote, "remote", '{"a": 1}', CTX).content == "call-1 {'a': 1}"
    assert execute(remote, "remote", "", CTX).content == "call-1 {}"
    assert execute(remote, "remote", "[1]", CTX).kind == "invalid_arguments"
    assert execute(remote, "remote", "{", CTX).kind == "invalid_arguments"


@pytest.mark.parametrize(("arguments", "said"), [("", None), (" ", None), ("{}", "3"), ('{"limit": 1}', "1")])
def test_arguments_that_never_arrived_are_not_replaced_by_defaults(arguments: str, said: str | None) -> None:
    @tool
    def delete(limit: int = 3) -> str:
        """Delete some."""
        return str(limit)

    outcome = execute(delete, "delete", arguments, CTX)
    if said is not None:
        assert outcome.content == said
    else:
        assert (outcome.kind, outcome.is_error) == ("invalid_arguments", True)
        assert "The arguments did not arrive" in outcome.content


@tool
def everything(
    a: int,
    b: Place | Guest | None = None,
    c: dict[str, list[Decimal]] | None = None,
    d: Unit = Unit.CELSIUS,
    e: Any = None,
) -> list[Any]:
    """Take all kinds of things."""
    return [a, b, c, d, e]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([LONG]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.sampled_from("abcde"), inner, max_size=4)
    ),
    max_leaves=10,
)


@settings(deadline=None)  # a busy machine is not a failure
@given(st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e", "f"]), json_values))
def test_any_json_object_returns_an_outcome(arguments: dict[str, Any]) -> None:
    outcome = execute(everything, "everything", _dumps(arguments), CTX)

    assert outcome.kind in ("ok", "invalid_arguments")
    outcome.content.encode()


@settings(deadline=None)  # a busy machine is not a failure
@given(st.text(alphabet=st.characters(exclude_categories=[])))
def test_any_text_as_arguments_returns_an_outcome(arguments: str) -> None:
    assert execute(everything, "everything", arguments, CTX).kind == "invalid_arguments"


def _dumps(value: Any) -> str:
    match value:
        case dict():
            return "{" + ",".join(f"{json.dumps(key)}:{_dumps(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ",".join(map(_dumps, value)) + "]"
        case str() if value == LONG:
            return "1" + "0" * 5000
        case _:
            return json.dumps(value)
