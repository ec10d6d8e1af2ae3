"""JSON schemas for the providers' strict modes, where every object is closed and every property is required.

OpenAI refuses a keyword that it does not know. A constraint that it can't enforce is told in the description, and the answer
is checked here in either case.
"""

from __future__ import annotations

import json
from typing import Any

_MAPS = ("properties", "$defs", "definitions")
_KEPT = {
    *_MAPS, "$ref", "type", "items", "anyOf", "enum", "const", "title", "description", "pattern", "format", "multipleOf", "minimum",
    "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems",
}  # fmt: skip
_TOLD = {"minLength", "maxLength", "pattern", "format", "uniqueItems", "minProperties", "maxProperties"}
"""Constraints that are described where they can't be kept."""
_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
_INEXPRESSIBLE = {
    "allOf", "not", "if", "then", "else", "prefixItems", "contains", "patternProperties", "propertyNames", "dependentRequired",
    "dependentSchemas", "unevaluatedProperties",
}  # fmt: skip
_JSON_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a copy that strict mode accepts: objects closed, all properties required, known keywords only, references alone."""
    if "$ref" in schema:
        return {
            key: _closed_map(schema[key]) if key in _MAPS else schema[key]
            for key in ("$ref", *_MAPS)
            if key in schema
        }
    result = {key: value for key, value in schema.items() if key in _KEPT and _is_enforced(key, value)}
    told = {key: value for key, value in schema.items() if key in _TOLD and key not in result}
    if told:
        result["description"] = " ".join(filter(None, [schema.get("description"), json.dumps(told)]))
    if "oneOf" in schema:
        result["anyOf"] = schema["oneOf"]
    for key in _MAPS:
        if key in result:
            result[key] = _closed_map(result[key])
    if "anyOf" in result:
        result["anyOf"] = [closed(item) for item in result["anyOf"]]
    if isinstance(result.get("items"), dict):
        result["items"] = closed(result["items"])
    if "type" not in result and (values := _values(result)):
        types = sorted({_JSON_TYPES[type(value)] for value in values})
        result["type"] = types[0] if len(types) == 1 else types
    if _is_object(result):
        result["additionalProperties"] = False
        result["required"] = list(result.get("properties", {}))
    return result


def can_be_closed(schema: dict[str, Any]) -> bool:
    """Return True if `closed` keeps the schema's meaning: no object has free keys, no value is of any type, and no keyword is
    needed that strict mode lacks.
    """
    if _INEXPRESSIBLE & schema.keys():
        return False
    if _is_object(schema):
        if "properties" not in schema or schema.get("additionalProperties", False) is not False:
            return False
    elif "$ref" not in schema and not (schema.keys() & {"type", "anyOf", "oneOf", "enum", "const"}):
        return False
    if schema.get("type") == "array" and not isinstance(schema.get("items"), dict):
        return False
    nested = [item for key in _MAPS for item in schema.get(key, {}).values()]
    nested += [item for key in ("anyOf", "oneOf") for item in schema.get(key, [])]
    nested += [schema["items"]] if "items" in schema else []
    return all(isinstance(item, dict) and can_be_closed(item) for item in nested)


def is_recursive(schema: dict[str, Any]) -> bool:
    """Return True if a definition refers to itself, also through others; Anthropic refuses such a schema."""
    definitions = schema.get("$defs", {})
    reached = {name: _references(definition) for name, definition in definitions.items()}
    for _ in reached:
        reached = {
            name: names.union(*(reached.get(each, set()) for each in names))
            for name, names in reached.items()
        }
    return any(name in names for name, names in reached.items())


def _references(value: Any) -> set[str]:
    match value:
        case {"$ref": str(reference)}:
            return {reference.rpartition("/")[2]}
        case dict():
            return set[str]().union(*map(_references, value.values()))
        case list():
            return set[str]().union(*map(_references, value))
        case _:
            return set()


def _is_enforced(key: str, value: Any) -> bool:
    """Return False for formats and patterns outside strict mode's grammar."""
    if key == "format":
        return value in _FORMATS
    return key != "pattern" or "(?" not in str(value).replace("(?:", "")


def _values(schema: dict[str, Any]) -> list[Any]:
    values = schema.get("enum", [schema["const"]] if "const" in schema else [])
    return values if all(type(value) in _JSON_TYPES for value in values) else []


def _closed_map(schemas: dict[str, Any]) -> dict[str, Any]:
    return {name: closed(schema) for name, schema in schemas.items()}


def _is_object(schema: dict[str, Any]) -> bool:
    kind = schema.get("type")
    return kind == "object" or (isinstance(kind, list) and "object" in kind) or "properties" in schema
