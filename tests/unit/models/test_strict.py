"""Schemas for strict mode."""

from __future__ import annotations

from typing import Any

import pytest

from agno_workers.models.strict import can_be_closed, closed, is_recursive

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
        ({}, False),
        ({"description": "anything"}, False),
        ({"type": "array"}, False),
        ({"type": "array", "items": {}}, False),
        ({"type": "array", "prefixItems": [{"type": "string"}]}, False),
        ({"type": "object", "properties": {"any": {"title": "Any"}}}, False),
        ({"type": "object", "properties": {}, "patternProperties": {"^x": {"type": "string"}}}, False),
        ({"allOf": [{"type": "string"}]}, False),
        ({"enum": [1, "a", None]}, True),
        ({"const": "a"}, True),
    ],
)
def test_only_schemas_that_strict_mode_can_express_can_be_closed(
    schema: dict[str, Any], possible: bool
) -> None:
    assert can_be_closed(schema) is possible


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        ({"type": "string", "default": "x", "examples": ["y"]}, {"type": "string"}),
        ({"type": "string", "minLength": 3}, {"type": "string", "description": '{"minLength": 3}'}),
        ({"type": "string", "format": "date"}, {"type": "string", "format": "date"}),
        (
            {"type": "string", "format": "uri", "description": "A page."},
            {"type": "string", "description": 'A page. {"format": "uri"}'},
        ),
        ({"type": "string", "pattern": "^(?:a|b)$"}, {"type": "string", "pattern": "^(?:a|b)$"}),
        ({"type": "string", "pattern": "^(?!x)"}, {"type": "string", "description": '{"pattern": "^(?!x)"}'}),
        (
            {"oneOf": [{"type": "null"}], "discriminator": {"propertyName": "kind"}},
            {"anyOf": [{"type": "null"}]},
        ),
        ({"enum": [1, "a", None]}, {"enum": [1, "a", None], "type": ["integer", "null", "string"]}),
        ({"const": True}, {"const": True, "type": "boolean"}),
    ],
)
def test_keywords_that_strict_mode_lacks_are_told_or_dropped(
    schema: dict[str, Any], sent: dict[str, Any]
) -> None:
    assert closed(schema) == sent


@pytest.mark.parametrize(
    ("definitions", "recursive"),
    [
        ({"A": {"$ref": "#/$defs/B"}, "B": {"type": "string"}}, False),
        ({"A": {"type": "array", "items": {"$ref": "#/$defs/A"}}}, True),
        ({"A": {"anyOf": [{"$ref": "#/$defs/B"}]}, "B": {"properties": {"a": {"$ref": "#/$defs/A"}}}}, True),
        ({}, False),
    ],
)
def test_recursive_schema_refers_to_itself_also_through_others(
    definitions: dict[str, Any], recursive: bool
) -> None:
    assert is_recursive({"type": "object", "$defs": definitions}) is recursive
