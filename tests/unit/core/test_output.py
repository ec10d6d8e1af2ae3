"""Types of answers: their schemas for providers, and the answers that fit."""

from __future__ import annotations

import enum
import typing
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Optional, TypeVar

import pytest
from pydantic import BaseModel, Field, RootModel
from typing_extensions import TypeAliasType, TypedDict

from agno_workers import Agent
from agno_workers.core.output import output_type
from agno_workers.errors import InvalidInput
from agno_workers.models import strict

T = TypeVar("T")


class A(BaseModel):
    a: int


class B(BaseModel):
    b: str


class Wrap(BaseModel, Generic[T]):
    item: T


class Node(BaseModel):
    value: int
    next: Node | None = None


class Many(RootModel[list[A]]):
    pass


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]


class Colour(enum.Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


class Row(TypedDict, total=False):
    a: int


class Opaque:
    pass


class Plain(typing.TypedDict, total=False):
    a: typing.Required[int]
    rows: list[Row]


@dataclass
class Place:
    name: str
    near: list[A]


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]
WORKING: list[tuple[Any, str, Any]] = [
    (A, '{"a": 1}', {"a": 1}),
    (A | B, '{"result": {"b": "x"}}', {"b": "x"}),
    (A | B, '{"a": 1}', {"a": 1}),  # of a server that does not follow the schema
    (A | B | None, '{"result": null}', None),
    (Optional[A], '{"result": {"a": 1}}', {"a": 1}),  # noqa: UP045 - people write it
    (list[A], '{"result": [{"a": 1}]}', [{"a": 1}]),
    (tuple[A, B], '{"result": [{"a": 1}, {"b": "x"}]}', [{"a": 1}, {"b": "x"}]),
    (set[int], '{"result": [1]}', [1]),
    (dict[str, int], '{"k": 1}', {"k": 1}),
    (dict, '{"k": [1]}', {"k": [1]}),
    (Place, '{"name": "x", "near": []}', {"name": "x", "near": []}),
    (Row, "{}", {}),
    (Plain, '{"a": 1}', {"a": 1}),
    (list[Plain] | None, '{"result": [{"a": 1, "rows": [{}]}]}', [{"a": 1, "rows": [{}]}]),
    (dict[str, Annotated[Plain, "a note"]], '{"k": {"a": 1}}', {"k": {"a": 1}}),
    (Point, '{"result": [1, 2]}', [1, 2]),
    (Wrap[A], '{"item": {"a": 1}}', {"item": {"a": 1}}),
    (Wrap[list[int]], '{"item": [1]}', {"item": [1]}),
    (Wrap[A] | Wrap[B], '{"result": {"item": {"b": "x"}}}', {"item": {"b": "x"}}),
    (Pet, '{"result": {"kind": "dog"}}', {"kind": "dog"}),
    (list[Pet], '{"result": [{"kind": "cat"}]}', [{"kind": "cat"}]),
    (Literal["yes", "no"], '{"result": "no"}', "no"),
    (Colour, '{"result": "red"}', "red"),
    (Annotated[A, "a note"], '{"a": 1}', {"a": 1}),
    (Annotated[int, Field(gt=0)], '{"result": 5}', 5),
    (NewType("Id", A), '{"a": 1}', {"a": 1}),
    (TypeAliasType("Either", A | B), '{"result": {"a": 1}}', {"a": 1}),
    (Node, '{"value": 1, "next": {"value": 2, "next": null}}', {"value": 1, "next": {"value": 2, "next": None}}),
    (Many, '{"result": [{"a": 1}]}', [{"a": 1}]),
    (int, '{"result": 5}', 5),
    (bool, "true", True),
    (date, '{"result": "2026-01-01"}', "2026-01-01"),
    (Any, '{"result": [3]}', [3]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("schema", "answer", "content"), WORKING, ids=lambda each: str(each).partition(" at 0x")[0][:40]
)
def test_type_of_answers_is_sent_as_an_object_and_its_answers_are_read(
    schema: Any, answer: str, content: Any
) -> None:
    output = output_type("a", Agent(name="a", model="local:m", output_schema=schema).output_schema)
    sent = output.spec.schema
    assert sent["type"] == "object"
    assert not {"$ref", "anyOf", "oneOf"} & sent.keys()
    assert strict.closed(sent)["additionalProperties"] is False
    assert output.spec.name.replace("_", "").isalnum()
    assert output.read(answer) == (content, None)


def test_misfit_names_the_place_within_the_answer() -> None:
    assert output_type("a", list[A]).read('{"result": [{"a": "x"}]}')[1] == (
        "result.0.a: Input should be a valid integer, unable to parse string as an integer"
    )


NOT_WORKING: list[Any] = [
    "A",
    "list[A]",
    5,
    {"type": "object"},
    A(a=1),
    Opaque,
    Callable[[], int],
    A | Opaque,
    list[Opaque],
]


@pytest.mark.parametrize("schema", NOT_WORKING, ids=lambda each: str(each).partition(" at 0x")[0][:40])
def test_type_without_a_schema_is_refused_by_the_agent_in_one_sentence(schema: Any) -> None:
    with pytest.raises(
        InvalidInput, match=r"agent 'clerk': output_schema=.* has no JSON schema .*: use a"
    ) as refused:
        Agent(name="clerk", model="local:m", output_schema=schema)
    assert "\n" not in str(refused.value)
