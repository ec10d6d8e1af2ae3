"""Compile a filter, a dict of conditions, to jsonpath with variables.

    {"lang": "en", "year": {"gte": 2020, "lt": 2024}, "tags": {"contains": "beta"}, "source": {"in": ["crm", "wiki"]},
     "any": [{"team": "a"}, {"team": "b"}], "not": {"draft": True}, "title": {"prefix": "How"}}

All conditions must hold. A field refers to the metadata (`author.name` is a nested field), except for fields that every document has:
uri, title, language (or lang), media_type, created, updated (times). `metadata.title` refers to the metadata. A list matches a
condition if one of its elements does. A missing field, or one of another type, matches no condition, and therefore every `not` and
`ne`.

Names are quoted and values are variables, so that no input becomes part of the jsonpath.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from difflib import get_close_matches
from functools import partial
from typing import Any

from agno_workers.core.words import safe_text
from agno_workers.errors import InvalidInput
from agno_workers.knowledge.types import Filter

FACTS = {each: each for each in ("uri", "title", "language", "media_type", "created", "updated")} | {
    "lang": "language"
}
COLUMNS = ("uri", "language", "media_type")
TIMES = ("created", "updated")
COMPARISONS = {"eq": "==", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
OPERATORS = (*COMPARISONS, "ne", "in", "contains", "prefix", "exists")
_SIGNS = {">": "gte", "<": "lte", "!": "ne"}
"""A field with an operator, as `year>=2024` has it before its first `=`."""
_COMPARED = re.compile(rf"(.+?)(?:\.(?={'|'.join(OPERATORS)})|\s*(?=[<>!]))({'|'.join(OPERATORS)}|[<>!])\s*")
WORDS = ("any", "all", "not")
MAX_CONDITIONS = 100
MAX_DEPTH = 8
_SHOWN = 8
_TYPES = {
    "string": "text",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
Scalar = str | int | float | bool | None


NONE = Filter()


def compile_filter(conditions: Mapping[str, Any] | None) -> Filter:
    """Compile conditions. Raises InvalidInput, which names the field, the operator and the nearest known one."""
    if not isinstance(conditions, Mapping | None):
        raise InvalidInput(f"filters are {conditions!r}: expected a dict, such as {{'year': 2024}}.")
    if not conditions:
        return NONE
    compiler = _Compiler()
    equal, columns, rest = [], dict[str, str](), []
    for field, given in _items(conditions):
        is_eq = field not in WORDS and isinstance(given, Mapping) and set(given) == {"eq"}
        value = given["eq"] if is_eq else given
        if _is_indexed(field, value):
            name = _path_of(field)[-1]
            plain = compiler.counted(_scalar(field, "eq", value))
            equal.append(({name: plain}, {name: [plain]}))
        elif FACTS.get(field) in COLUMNS and isinstance(value, str) and FACTS[field] not in columns:
            columns[FACTS[field]] = str(_scalar(field, "eq", value))
        else:
            rest.append(compiler.condition(field, value, 0))
    return Filter(
        equal=tuple(equal),
        columns=columns,
        path=f"strict $ ? ({' && '.join(rest)})" if rest else None,
        values=compiler.values,
        uses_facts=compiler.uses_facts,
    )


def unmatched(knowledge: str, conditions: Mapping[str, Any], known: Mapping[str, set[str]]) -> list[str]:
    """Return a sentence for each field that no document has, with the nearest one, or whose values have other types than the filter's.

    `known` holds the types of each field, as in JSON (`author.name`: {"string"}). Empty: there are no documents.
    """
    found = []
    for field, value in _fields(conditions) if known else ():
        path = _path_of(field)
        name, asked = ".".join(path[1:]), _types(value)
        if path[0] != "metadata":
            continue
        if name not in known:
            near = get_close_matches(name, (*known, *FACTS), 1, 0.6)
            compared = _COMPARED.fullmatch(name)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known are {', '.join(sorted(known)[:_SHOWN])}."
            if compared and compared[1] in (*known, *FACTS):
                operator = _SIGNS.get(compared[2], compared[2])
                hint = f'Comparisons are written {compared[1]}={{"{operator}": ...}}, as JSON.'
            found.append(f"filter {field!r}: no document of {knowledge!r} has this field. {hint}")
        elif asked and "array" not in known[name] and not asked & known[name]:
            has, got = (" or ".join(sorted(_TYPES[each] for each in types)) for types in (known[name], asked))
            found.append(
                f"filter {field!r}: the documents of {knowledge!r} have {has} there, and the filter compares it with {got}, so none matches."
            )
    return found


def _fields(conditions: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a filter with their values, also those within `any`, `all` and `not`."""
    for field, value in conditions.items():
        if field not in WORDS:
            yield field, value
            continue
        for each in value if isinstance(value, list | tuple) else [value]:
            yield from _fields(each)


def _types(value: Any) -> set[str]:
    """Return the JSON types that a condition compares with; empty if it compares with none, or any."""
    if isinstance(value, Mapping):
        given = (each for operator, each in value.items() if operator != "exists")
        flat = (one for each in given for one in (each if isinstance(each, list | tuple | set) else [each]))
        return {kind for one in flat for kind in _types(one)}
    match value:
        case bool():
            return {"boolean"}
        case int() | float():
            return {"number"}
        case str() | date():
            return {"string"}
    return set()


def _is_indexed(field: str, value: Any) -> bool:
    """Return whether an index serves the condition: a top-level metadata field equals a value."""
    is_plain = field not in WORDS and not isinstance(value, Mapping | list | tuple | set)
    return is_plain and field not in FACTS and len(_path_of(field)) == 2


class _Compiler:
    """Collects variables while it writes the jsonpath."""

    def __init__(self) -> None:
        self.values: dict[str, Scalar] = {}
        self.uses_facts = False
        self._count = 0

    def counted(self, value: Scalar) -> Scalar:
        self._count += 1
        if self._count > MAX_CONDITIONS:
            raise InvalidInput(f"the filter has more than {MAX_CONDITIONS} values: use fewer.")
        return value

    def all_of(self, conditions: Any, where: str, depth: int) -> str:
        if not isinstance(conditions, Mapping) or not conditions:
            raise InvalidInput(
                f"filter {where!r}: expected conditions such as {{'lang': 'en'}}, got {conditions!r}."
            )
        if depth > MAX_DEPTH:
            raise InvalidInput(f"the filter is nested deeper than {MAX_DEPTH} levels: flatten it.")
        return _and(self.condition(field, value, depth) for field, value in _items(conditions))

    def condition(self, field: str, value: Any, depth: int) -> str:
        match field:
            case "any" | "all":
                if not isinstance(value, list | tuple) or not value:
                    raise InvalidInput(
                        f"filter {field!r}: expected a list of conditions, got {value!r}. For a field of that name use 'metadata.{field}'."
                    )
                parts = [self.all_of(each, field, depth + 1) for each in value]
                return _or(parts) if field == "any" else _and(parts)
            case "not":
                return _not(self.all_of(value, field, depth + 1))
            case _:
                return self._field(field, value)

    def _field(self, field: str, value: Any) -> str:
        path = _path_of(field)
        self.uses_facts |= path[0] != "metadata"
        place = "@" + "".join(f".{_quoted(name)}" for name in path)
        if not isinstance(value, Mapping):
            return self._operator(field, place, "eq", value)
        if not value:
            raise InvalidInput(
                f"filter {field!r}: {{}} has no operator. Use one of {', '.join(OPERATORS)}, or a nested field: '{field}.name'."
            )
        return _and(
            self._operator(field, place, _known(field, operator), given) for operator, given in value.items()
        )

    def _operator(self, field: str, place: str, operator: str, value: Any) -> str:
        compare = partial(self._compare, field, place, operator)
        match operator:
            case "exists":
                if not isinstance(value, bool):
                    raise InvalidInput(f"filter {field!r}: 'exists' takes true or false, got {value!r}.")
                found = f"exists(@ ? (exists({place})))"
                return found if value else f"!({found})"
            case "in":
                if isinstance(value, str | Mapping) or not hasattr(value, "__iter__"):
                    raise InvalidInput(f"filter {field!r}: 'in' takes a list, got {value!r}.")
                # An empty list never matches.
                return _or([compare(each) for each in value] or ["1 == 2"])
            case "ne":
                return _not(compare(value))
            case _:
                return compare(value)

    def _compare(self, field: str, place: str, operator: str, value: Any) -> str:
        variable = f"v{len(self.values)}"
        self.values[variable] = self.counted(_scalar(field, operator, value))
        sign = "starts with" if operator == "prefix" else COMPARISONS.get(operator, "==")
        test = f"? (@ {sign} ${variable})"
        elements = f"exists({place}[*] {test})"
        return elements if operator == "contains" else f"(exists({place} {test}) || {elements})"


# A jsonpath condition may be unknown (a type that can't be compared, a missing field), and then its negation is unknown, too.
# `exists(@ ? (...))` turns unknown into false.


def _not(condition: str) -> str:
    return f"!(exists(@ ? ({condition})))"


def _and(conditions: Iterator[str] | list[str]) -> str:
    return "(" + " && ".join(conditions) + ")"


def _or(conditions: list[str]) -> str:
    return "(" + " || ".join(conditions) + ")"


def _items(conditions: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for field, value in conditions.items():
        if not isinstance(field, str):
            raise InvalidInput(f"filter: a field name must be text, got {field!r}.")
        yield field, value


def _path_of(field: str) -> tuple[str, ...]:
    """`year`: ("metadata", "year"); `uri`: ("uri",)."""
    names = tuple(field.split("."))
    if "" in names:
        raise InvalidInput(f"filter {field!r}: expected a name, or names separated by dots.")
    if len(names) == 1 and names[0] in FACTS:
        return (FACTS[names[0]],)
    return names if names[0] == "metadata" and len(names) > 1 else ("metadata", *names)


def _known(field: str, operator: Any) -> str:
    if operator in OPERATORS:
        return str(operator)
    near = get_close_matches(str(operator), OPERATORS, 1, 0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise InvalidInput(
        f"filter {field!r}: unknown operator {operator!r}.{hint} Use one of {', '.join(OPERATORS)}, or a nested field: '{field}.{operator}'."
    )


def _scalar(field: str, operator: str, value: Any) -> Scalar:
    """Return a JSON scalar. A time or date is seconds since 1970 for `created` and `updated`, and ISO text otherwise."""
    if field in TIMES:
        return _seconds(field, operator, value)
    if isinstance(value, date):  # a datetime is one, too
        value = value.isoformat()
    match value:
        case bool() | None if operator not in ("gt", "gte", "lt", "lte", "prefix"):
            return value
        case bool() | None:
            pass
        case str():
            return safe_text(value)
        case int() if operator != "prefix" and abs(value) < 2**63:
            return value
        case float() if operator != "prefix" and math.isfinite(value):
            return value
        case _:
            pass
    expected = {"prefix": "text"}.get(operator, "text or a number" if operator in COMPARISONS and operator != "eq" else "text, a number, true, false or null")  # fmt: skip
    hint = " For one of several values use {'in': [...]}." if isinstance(value, list | tuple | set) else ""
    raise InvalidInput(f"filter {field!r}: {operator!r} takes {expected}, got {value!r}.{hint}")


def _seconds(field: str, operator: str, value: Any) -> float:
    if operator in ("prefix", "contains"):
        raise InvalidInput(
            f"filter {field!r}: {operator!r} does not apply to a time: use gt, gte, lt or lte."
        )
    try:
        when = datetime.fromisoformat(value.isoformat() if isinstance(value, date) else value)
    except (TypeError, ValueError):
        raise InvalidInput(
            f"filter {field!r}: expected a time such as '2026-01-31' or '2026-01-31T12:00:00Z', got {value!r}."
        ) from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _quoted(name: str) -> str:
    """Quote a name as a jsonpath string, without NUL and lone surrogates, which Postgres can't store."""
    return json.dumps(safe_text(name), ensure_ascii=False)
