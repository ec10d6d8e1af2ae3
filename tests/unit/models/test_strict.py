"""Schemas for strict mode."""

from __future__ import annotations

from typing import Any

import pytest

from agno_workers.models.strict import can_be_closed, closed

NESTED: dict[str, Any] = {
    "$defs": {"Leaf": {"type": "object", "properties": {"default": {"type": "string", "default": "x"}}}},
    "type": "object",
    "properties": {
        "leaf": {"$ref": "#/$defs/Leaf", "description": "dropped"},
        "many": {"type": "array", "items": {"type": "object", "properties": {}}},
        "either": {"oneOf": [{"type": "null"}, {"$ref": "#/$defs/Leaf"}]},
    },
    "required": ["leaf"],
}


def test_every_object_is_closed_however_deep() -> None:
    before = repr(NESTED)
    assert closed(NESTED) == {
        "$defs": {
            "Leaf": {
                "type": "object",
                "properties": {"default": {"type": "string"}},
                "required": ["default"],
                "additionalProperties": False,
            }
        },
        "type": "object",
        "properties": {
            "leaf": {"$ref": "#/$defs/Leaf"},
            "many": {
                "type": "array",
                "items": {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
            },
            "either": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/Leaf"}]},
        },
        "required": ["leaf", "many", "either"],
        "additionalProperties": False,
    }
    assert repr(NESTED) == before


@pytest.mark.parametrize(
    ("schema", "possible"),
    [
        (NESTED, True),
        ({"type": "string"}, True),
        ({"type": "object"}, False),
        ({"type": ["object", "null"]}, False),
        ({"type": "object", "additionalProperties": {"type": "string"}}, False),
        ({"type": "object", "properties": {}, "additionalProperties": True}, False),
        ({"type": "array", "items": {"type": "object"}}, False),
        ({"anyOf": [{"type": "null"}, {"type": "object"}]}, False),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"type": "object"}}}, False),
    ],
)
def test_object_with_free_keys_can_not_be_closed(schema: dict[str, Any], possible: bool) -> None:
    assert can_be_closed(schema) is possible
