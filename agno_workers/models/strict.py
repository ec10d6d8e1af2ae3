"""JSON schemas for OpenAI's strict mode, where every object is closed and every property is required."""

from __future__ import annotations

from typing import Any

_LISTS = ("anyOf", "allOf", "prefixItems")
_MAPS = ("properties", "$defs", "definitions")


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a copy that strict mode accepts: objects closed, all properties required, no defaults, references alone."""
    if "$ref" in schema:
        return {
            key: _closed_map(schema[key]) if key in _MAPS else schema[key]
            for key in ("$ref", *_MAPS)
            if key in schema
        }
    result = {key: value for key, value in schema.items() if key != "default"}
    if "oneOf" in result:
        result["anyOf"] = result.pop("oneOf")
    for key in _MAPS:
        if key in result:
            result[key] = _closed_map(result[key])
    for key in _LISTS:
        if key in result:
            result[key] = [closed(item) for item in result[key]]
    if isinstance(result.get("items"), dict):
        result["items"] = closed(result["items"])
    if _is_object(result):
        result["additionalProperties"] = False
        result["required"] = list(result.get("properties", {}))
    return result


def can_be_closed(schema: dict[str, Any]) -> bool:
    """Return True if `closed` keeps the schema's meaning: no object in it has free keys."""
    if _is_object(schema) and (
        "properties" not in schema or schema.get("additionalProperties", False) is not False
    ):
        return False
    nested = [item for key in _MAPS for item in schema.get(key, {}).values()]
    nested += [item for key in (*_LISTS, "oneOf") for item in schema.get(key, [])]
    nested += [schema["items"]] if "items" in schema else []
    return all(can_be_closed(item) for item in nested if isinstance(item, dict))


def _closed_map(schemas: dict[str, Any]) -> dict[str, Any]:
    return {name: closed(schema) for name, schema in schemas.items()}


def _is_object(schema: dict[str, Any]) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema
