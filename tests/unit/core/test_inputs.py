"""The arguments of a workflow's function as the input of a run, and back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Any, Literal

import pydantic
import pytest

from agno_workers.core.flow import Flow
from agno_workers.core.inputs import inputs_of
from agno_workers.core.messages import Image
from agno_workers.errors import InvalidInput


class Plan(Enum):
    FREE = "free"


class Customer(pydantic.BaseModel):
    name: str
    since: date | None = None


@dataclass
class Point:
    x: int


def text(flow: Flow, customer: str) -> None: ...
def bare(flow, customer) -> None: ...  # type: ignore[no-untyped-def]
def number(flow: Flow, n: int) -> None: ...
def day(flow: Flow, on: date) -> None: ...
def plan(flow: Flow, plan: Plan) -> None: ...
def word(flow: Flow, word: Literal["a", "b"]) -> None: ...
def either(flow: Flow, value: str | int) -> None: ...
def model(flow: Flow, customer: Customer) -> None: ...
def point(flow: Flow, point: Point) -> None: ...
def numbers(flow: Flow, items: list[int]) -> None: ...
def several(flow: Flow, customer: Customer, n: int, plan: Plan = Plan.FREE) -> None: ...
def one_needed(flow: Flow, name: str, n: int = 3) -> None: ...
def nothing(flow: Flow) -> None: ...
def defaults(flow: Flow, n: int = 5) -> None: ...


ACME = Customer(name="Acme", since=date(2026, 1, 1))


@pytest.mark.parametrize(
    ("function", "given", "sent", "values"),
    [
        (text, ["Acme"], "Acme", ["Acme"]),
        (text, ["5"], "5", ["5"]),
        (text, ['{"a": 1}'], '{"a": 1}', ['{"a": 1}']),
        (bare, ["Acme"], "Acme", ["Acme"]),
        (bare, [{"name": "Acme"}], '{"name":"Acme"}', [{"name": "Acme"}]),
        (bare, [[1, 2]], "[1,2]", [[1, 2]]),
        (bare, ["{no json"], "{no json", ["{no json"]),
        (number, [5], "5", [5]),
        (number, ["5"], "5", [5]),
        (day, [date(2026, 1, 2)], '"2026-01-02"', [date(2026, 1, 2)]),
        (day, ["2026-01-02"], "2026-01-02", [date(2026, 1, 2)]),
        (plan, [Plan.FREE], '"free"', [Plan.FREE]),
        (plan, ["free"], "free", [Plan.FREE]),
        (word, ["a"], "a", ["a"]),
        (either, ["5"], "5", ["5"]),
        (model, [ACME], '{"name":"Acme","since":"2026-01-01"}', [ACME]),
        (model, [{"name": "Acme"}], '{"name":"Acme"}', [Customer(name="Acme")]),
        (point, [Point(3)], '{"x":3}', [Point(3)]),
        (numbers, [[1, 2]], "[1,2]", [[1, 2]]),
        (several, [ACME, 2], '{"customer":{"name":"Acme","since":"2026-01-01"},"n":2}', [ACME, 2, Plan.FREE]),
        (several, [{"customer": {"name": "A"}, "n": 1, "plan": "free"}], None, [Customer(name="A"), 1, Plan.FREE]),
        (one_needed, ["Acme"], "Acme", ["Acme", 3]),
        (one_needed, ["Acme", 4], '{"name":"Acme","n":4}', ["Acme", 4]),
        (one_needed, [{"name": "Acme"}], '{"name":"Acme"}', ["Acme", 3]),
        (nothing, [], "{}", []),
        (nothing, ["ignored"], "ignored", []),
        (defaults, [], "{}", [5]),
        (defaults, [6], "6", [6]),
    ],
)  # fmt: skip
def test_arguments_become_text_and_are_read_from_it(
    function: Any, given: list[Any], sent: str | None, values: list[Any]
) -> None:
    inputs = inputs_of("onboard", function)
    (encoded,) = inputs.encoded(given)
    assert sent is None or encoded == sent
    assert inputs.values(encoded) == values
    assert inputs.encoded([encoded]) == [encoded]  # twice is once


@pytest.mark.parametrize(
    ("function", "given", "text"),
    [
        (number, ["five"], "workflow 'onboard': the input does not fit: n: Input should be a valid integer"),
        (model, [{"nam": "Acme"}], "customer.name: Field required"),
        (several, ["Acme"], "it takes customer, n, plan=.*, as arguments or as one JSON object, got 'Acme'"),
        (several, [ACME, "x"], "n: Input should be a valid integer"),
        (several, [ACME, 1, Plan.FREE, 4], "got 4 arguments"),
        (text, [], "it takes customer"),
        (nothing, ["a", "b"], "it takes no arguments, got 2 arguments"),
        (bare, [object()], "can't be sent as JSON"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_refused(function: Any, given: list[Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        inputs_of("onboard", function).encoded(given)


def test_images_and_files_are_left_to_the_function() -> None:
    image = Image(url="https://example.com/a.png")
    assert inputs_of("onboard", text).encoded(["look", image]) == ["look", image]


async def waits(flow: Flow) -> None: ...
def yields(flow: Flow) -> Any:
    yield 1


async def both(flow: Flow) -> Any:
    yield 1


def no_flow() -> None: ...
def starred(flow: Flow, *customers: str) -> None: ...
def named(flow: Flow, *, customer: str) -> None: ...
def unknown_type(flow: Flow, customer: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (waits, "its function is async: write def"),
        (yields, "its function is a generator: write def"),
        (both, "its function is an async generator: write def"),
        (no_flow, "takes no flow: write def name"),
        (starred, "parameter 'customers' can't be sent"),
        (named, "parameter 'customer' can't be sent"),
        (unknown_type, "an annotation can't be resolved"),
    ],
)
def test_function_that_can_not_be_a_workflow_is_refused(function: Any, text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        inputs_of("onboard", function)
