"""The description of a function for a model, and the functions that are refused.

Without `from __future__ import annotations`, so that types may be defined inside a test.
"""

import enum
import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, Literal, Optional, TypedDict
from uuid import UUID

import jsonschema
import pytest
from pydantic import BaseModel, Field

from agno_workers.core.tool import Effect, Tool, ToolContext
from agno_workers.errors import InvalidTool
from agno_workers.tools import tool
from agno_workers.tools.decorate import FunctionTool


class Unit(enum.Enum):
    CELSIUS = "c"
    FAHRENHEIT = "f"


@dataclass
class Place:
    lat: float
    lon: float = 0.0


class Row(TypedDict):
    a: int


class Free(BaseModel):
    words: dict[str, int]


class Guest(BaseModel):
    """Someone who comes."""

    name: str
    age: int | None = None


def parameter_of(annotation: Any, **default: Any) -> dict[str, Any]:
    """Return the schema of a parameter `x` with this annotation."""

    def function(x): ...  # type: ignore[no-untyped-def]

    function.__annotations__ = {"x": annotation}
    if default:
        function.__defaults__ = (default["default"],)
    schema = tool(description="d")(function).spec.parameters
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema.get("required", []) == ([] if default else ["x"])
    found: dict[str, Any] = schema["properties"]["x"]
    return found


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (Any, {}),
        (list[str], {"type": "array", "items": {"type": "string"}}),
        (set[int], {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (str | None, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}),  # noqa: UP045 - people write it
        (int | str, {"anyOf": [{"type": "integer"}, {"type": "string"}]}),
        (date, {"type": "string", "format": "date"}),
        (UUID, {"type": "string", "format": "uuid"}),
        (Unit, {"$ref": "#/$defs/Unit"}),
        (Place, {"$ref": "#/$defs/Place"}),
        (Guest, {"$ref": "#/$defs/Guest"}),
        (list[Guest], {"type": "array", "items": {"$ref": "#/$defs/Guest"}}),
        (list[Row], {"type": "array", "items": {"$ref": "#/$defs/Row"}}),
        (Annotated[int, Field(ge=1, le=9)], {"type": "integer", "minimum": 1, "maximum": 9}),
        (Annotated[str, Field(description="a town")], {"type": "string", "description": "a town"}),
        (Annotated[str, "a town"], {"type": "string", "description": "a town"}),
    ],
)
def test_an_annotation_becomes_a_schema(annotation: Any, schema: dict[str, Any]) -> None:
    assert parameter_of(annotation) == schema


@pytest.mark.parametrize(
    ("annotation", "default", "schema"),
    [
        (int, 3, {"type": "integer", "default": 3}),
        (Unit, Unit.CELSIUS, {"$ref": "#/$defs/Unit", "default": "c"}),
        (Place, Place(1.0), {"$ref": "#/$defs/Place", "default": {"lat": 1.0, "lon": 0.0}}),
        (str, None, {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}),
        (int, Field(7, description="how many"), {"type": "integer", "default": 7, "description": "how many"}),
        (Any, object(), {}),
    ],
)
def test_default_is_in_the_schema_when_json_can_represent_it(
    annotation: Any, default: Any, schema: dict[str, Any]
) -> None:
    assert parameter_of(annotation, default=default) == schema


def test_the_whole_schema_is_one_closed_object_with_the_required_parameters() -> None:
    @tool
    def book(guest: Guest, nights: int, *, breakfast: bool = True) -> str:
        """Book a room."""
        return ""

    assert book.spec.parameters == {
        "type": "object",
        "properties": {
            "guest": {"$ref": "#/$defs/Guest"},
            "nights": {"type": "integer"},
            "breakfast": {"type": "boolean", "default": True},
        },
        "required": ["guest", "nights"],
        "additionalProperties": False,
        "$defs": {
            "Guest": {
                "title": "Guest",
                "description": "Someone who comes.",
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "age": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
                },
                "required": ["name"],
            }
        },
    }


def test_a_function_without_parameters_has_an_empty_object_as_schema() -> None:
    @tool
    def now() -> str:
        """Tell the time."""
        return ""

    assert now.spec.parameters == {"type": "object", "properties": {}, "additionalProperties": False}


GOOGLE = """Look up the weather.

It may be wrong.

Args:
    city: The town,
        such as Basel.
    days (int): How many days.

Returns:
    A text.
"""
NUMPY = """Look up the weather.

It may be wrong.

Parameters
----------
city : str
    The town, such as Basel.
days : int
    How many days.
"""
SPHINX = """Look up the weather.

It may be wrong.

:param city: The town, such as Basel.
:param int days: How many days.
:returns: A text.
"""


@pytest.mark.parametrize("docstring", [GOOGLE, NUMPY, SPHINX], ids=["google", "numpy", "sphinx"])
def test_docstrings_of_all_three_styles_describe_tool_and_parameters(docstring: str) -> None:
    def weather(city: str, days: int = 1) -> None: ...

    weather.__doc__ = docstring
    spec = tool(weather).spec

    assert spec.description == "Look up the weather.\n\nIt may be wrong."
    assert spec.parameters["properties"]["city"]["description"] == "The town, such as Basel."
    assert spec.parameters["properties"]["days"]["description"] == "How many days."


def test_numpy_may_describe_two_parameters_at_once() -> None:
    @tool
    def add(a: int, b: int) -> int:
        """Add.

        Parameters
        ----------
        a, b : int
            A number.
        """
        return a + b

    assert [p["description"] for p in add.spec.parameters["properties"].values()] == ["A number."] * 2


def test_field_wins_over_the_docstring() -> None:
    @tool
    def f(
        a: Annotated[int, Field(description="from the field")], b: int = Field(1, description="this too")
    ) -> None:
        """Do.

        Args:
            a: from the docstring
            b: from the docstring
        """

    assert f.spec.parameters["properties"]["a"]["description"] == "from the field"
    assert f.spec.parameters["properties"]["b"]["description"] == "this too"


def test_names_that_pydantic_reserves_are_valid_parameters() -> None:
    @tool(description="d")
    def f(_private: int, copy: int, model_config: int, schema: int, self_: int, p0: int) -> None: ...

    assert list(f.spec.parameters["properties"]) == [
        "_private",
        "copy",
        "model_config",
        "schema",
        "self_",
        "p0",
    ]


def test_options_are_stored_in_the_tool() -> None:
    @tool(name="pay-now", description="Pay.", effect="once", timeout_s=5, queue="bank", max_attempts=1)
    def pay(amount: Decimal) -> None:
        """Not shown."""

    assert (pay.name, pay.spec.description, pay.effect) == ("pay-now", "Pay.", Effect.ONCE)
    assert (pay.timeout_s, pay.queue, pay.max_attempts, pay.spec.strict) == (5.0, "bank", 1, False)


def test_bare_decorator_uses_the_defaults() -> None:
    @tool
    def f() -> None:
        """Do."""

    assert isinstance(f, Tool)
    assert (f.name, f.effect, f.timeout_s, f.queue, f.max_attempts) == (
        "f",
        Effect.AT_LEAST_ONCE,
        60.0,
        None,
        3,
    )


def test_a_tool_is_still_callable_as_the_function_it_was() -> None:
    @tool
    def add(a: int, b: int = 2) -> int:
        """Add."""
        return a + b

    assert add(1) == 3


def test_ctx_is_hidden_from_the_model() -> None:
    @tool
    def f(a: int, ctx: ToolContext) -> None:
        """Do."""

    assert list(f.spec.parameters["properties"]) == ["a"]


def test_ctx_may_be_imported_for_type_checkers_only() -> None:
    def f(a: int, ctx: "ToolContext") -> "Unheard":  # type: ignore[name-defined]  # noqa: F821
        """Do."""

    f.__annotations__["ctx"] = "somewhere.ToolContext"
    assert list(tool(f).spec.parameters["properties"]) == ["a"]


def test_a_partial_hides_what_it_has_bound() -> None:
    def send(channel: str, text: str, urgent: bool = False) -> str:
        """Send."""
        return f"{channel}: {text}"

    bound = tool(functools.partial(send, "news", urgent=True))

    assert bound.name == "send"
    assert list(bound.spec.parameters["properties"]) == ["text"]


def test_a_callable_object_is_named_after_its_class() -> None:
    class Lookup:
        """Look something up."""

        def __call__(self, key: str) -> str:
            return key

    lookup = tool(Lookup())
    assert (lookup.name, lookup.spec.description) == ("Lookup", "Look something up.")
    assert list(lookup.spec.parameters["properties"]) == ["key"]


def test_wrapped_function_has_the_signature_of_the_inner_one() -> None:
    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

        return wrapper

    @tool
    @logged
    def f(a: int) -> None:
        """Do."""

    assert list(f.spec.parameters["properties"]) == ["a"]


def test_a_method_becomes_a_tool_of_its_instance() -> None:
    class Counter:
        def __init__(self, start: int) -> None:
            self.start = start

        @tool
        def add(self, n: int) -> int:
            """Add to the count."""
            return self.start + n

        @staticmethod
        @tool
        def zero() -> int:
            """Give zero."""
            return 0

    assert Counter.add.unbound
    assert not Counter(1).add.unbound
    assert (Counter(1).add(2), Counter(10).add(2), Counter(1).zero()) == (3, 12, 0)
    assert list(Counter.add.spec.parameters["properties"]) == ["n"]
    assert Counter(1).add.signature is Counter.add.signature  # the pydantic model is built once


def test_a_plain_tool_as_class_attribute_does_not_bind() -> None:
    @tool
    def f(a: int) -> int:
        """Do."""
        return a

    class Holder:
        held = f

    assert Holder().held(3) == 3


def test_strict_does_not_change_the_schema() -> None:
    @tool(strict=True)
    def f(a: int = 3) -> None:
        """Do."""

    assert f.spec.strict
    assert f.spec.parameters["properties"] == {"a": {"type": "integer", "default": 3}}


@pytest.mark.parametrize(
    "annotation", [dict, dict[str, int], list, Any, object, tuple[int, str], Free, list[Free]]
)
def test_strict_tool_with_free_keys_is_refused_with_the_name_of_the_parameter(annotation: Any) -> None:
    def f(city: str, options: Any) -> None:
        """Do."""

    f.__annotations__["options"] = annotation
    assert not tool(f).spec.strict
    with pytest.raises(InvalidTool, match=r"f is strict, but '(options|Free)' has free keys"):
        tool(strict=True)(f)


def any_number(*numbers: int) -> None:
    """Do."""


def any_keyword(**options: int) -> None:
    """Do."""


def untyped(city) -> None:  # type: ignore[no-untyped-def]
    """Do."""


def wrong_ctx(ctx: str) -> None:
    """Do."""


def misnamed_context(context: ToolContext) -> None:
    """Do."""


def takes_socket(connection: Callable[[int], object]) -> None:
    """Do."""


def takes_object(thing: object, lock: "type[int] | slice") -> None:
    """Do."""


def unreadable(city: "Nowhere") -> None:  # type: ignore[name-defined]  # noqa: F821
    """Do."""


def silent(city: str) -> None: ...


def generates() -> Any:
    """Do."""
    yield 1


async def generates_async() -> Any:
    """Do."""
    yield 1


def of_class(cls: type) -> None:
    """Do."""


def fine() -> None:
    """Do."""


def with_ünicode() -> None:  # noqa: PLC2401 - the point of it
    """Do."""


@pytest.mark.parametrize(
    ("function", "options", "said"),
    [
        (any_number, {}, ["any_number", "'numbers'", "name each parameter"]),
        (any_keyword, {}, ["any_keyword", "'options'", "name each parameter"]),
        (untyped, {}, ["untyped", "'city'", "no annotation"]),
        (wrong_ctx, {}, ["wrong_ctx", "'ctx'", "ToolContext"]),
        (misnamed_context, {}, ["misnamed_context", "'context'", "rename it to 'ctx'"]),
        (takes_socket, {}, ["takes_socket", "'connection'", "no JSON schema"]),
        (takes_object, {}, ["takes_object", "'lock'", "no JSON schema"]),
        (unreadable, {}, ["unreadable", "'city'", "Nowhere", "module level"]),
        (silent, {}, ["silent", "no description", "docstring"]),
        (fine, {"description": " "}, ["fine", "no description"]),
        (lambda: None, {"name": "x", "description": "d"}, ["<lambda>", "def"]),
        (with_ünicode, {}, ["with_ünicode", "@tool(name=...)"]),
        (fine, {"name": "a b"}, ["fine", "'a b'", "letters"]),
        (fine, {"name": ""}, ["''"]),
        (fine, {"name": "a\n"}, ["letters"]),
        (fine, {"name": "x" * 65}, ["64"]),
        (
            fine,
            {"effect": "twice"},
            ["fine", "'twice'", "at_least_once, pure, idempotent, transactional, once"],
        ),
        (fine, {"effect": "transactional"}, ["fine", "ctx: ToolContext", "ctx.connection"]),
        (fine, {"timeout_s": 0}, ["fine", "timeout_s=0"]),
        (fine, {"timeout_s": float("inf")}, ["timeout_s=inf"]),
        (fine, {"timeout_s": float("nan")}, ["timeout_s=nan"]),
        (fine, {"max_attempts": 0}, ["max_attempts=0"]),
        (generates, {}, ["generates", "list"]),
        (generates_async, {}, ["generates_async", "list"]),
        (classmethod(of_class), {}, ["of_class", "classmethod"]),
        (staticmethod(fine), {}, ["staticmethod"]),
        (dict, {}, ["not a function"]),
        ("fine", {}, ["'fine'", "not a function"]),
        (tool(fine), {}, ["already"]),
        (print, {}, ["print", "name each parameter"]),
    ],
)
def test_unusable_function_is_refused_with_the_next_move(
    function: Any, options: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(InvalidTool) as refused:
        tool(**options)(function)

    for words in said:
        assert words in str(refused.value)
    assert str(refused.value).endswith(".")


def test_a_refused_parameter_is_named_in_the_errors_ids() -> None:
    with pytest.raises(InvalidTool) as refused:
        tool(untyped)

    assert refused.value.ids["parameter"] == "city"
    assert refused.value.ids["function"].endswith("untyped")


def test_a_transactional_tool_with_ctx_is_accepted() -> None:
    @tool(effect=Effect.TRANSACTIONAL)
    def write(text: str, ctx: ToolContext) -> None:
        """Write."""

    assert write.effect is Effect.TRANSACTIONAL


def test_unparsable_docstring_is_the_description_unchanged() -> None:
    def f() -> None: ...

    f.__doc__ = ":  :param a: x"  # docstring_parser raises IndexError
    assert tool(f).spec.description == ":  :param a: x"


def test_decorator_returns_a_function_tool() -> None:
    assert isinstance(tool(fine), FunctionTool)
