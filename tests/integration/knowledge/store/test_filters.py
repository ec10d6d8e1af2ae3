"""A filter lets through, in Postgres, what a few lines of Python say it should, whatever stands in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agno_workers.database.pool import jsonb
from agno_workers.knowledge.filters import FACTS, WORDS, compile_filter
from tests.database import RunDatabase

# Few names and values, so that they meet; and those that would break out of a text that is put together.
ODD = [
    "a",
    "b",
    "tags",
    'x"y',
    "o'b",
    "$v0",
    "@",
    "*",
    "\\",
    "ä\U0001f600",
    "any ",
    '") || true || ("',
    "\n",
    "\x7f",
]
NAMES = st.sampled_from(ODD) | st.text(min_size=1, max_size=3).filter(lambda name: "." not in name and name not in {*WORDS, *FACTS})  # fmt: skip
TEXTS = st.sampled_from(["", "x", "xy", "x' OR true --", '" || true', "\\", "$v1", "%s", "ä", "\U0001f600", "\uffee"]) | st.text(max_size=4)  # fmt: skip
NUMBERS = st.integers(-3, 3) | st.sampled_from([0.5, 1.0, 2.5, -1e300, 2**62])
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
METADATA = st.dictionaries(NAMES, SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(NAMES, SCALARS, max_size=2), max_size=4)  # fmt: skip
FIELDS = NAMES | st.tuples(NAMES, NAMES).map(".".join)
ORDERED = NUMBERS | TEXTS
OPERATION = st.one_of(
    SCALARS,
    st.fixed_dictionaries({}, optional={"eq": SCALARS, "ne": SCALARS, "contains": SCALARS}).filter(bool),
    st.fixed_dictionaries({}, optional=dict.fromkeys(("gt", "gte", "lt", "lte"), ORDERED)).filter(bool),
    st.fixed_dictionaries({"in": st.lists(SCALARS, max_size=3)}),
    st.fixed_dictionaries({"prefix": TEXTS}),
    st.fixed_dictionaries({"exists": st.booleans()}),
)
CONDITIONS = st.recursive(
    st.dictionaries(FIELDS, OPERATION, min_size=1, max_size=3),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"any": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"all": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
        st.tuples(inner, inner).map(lambda pair: {**pair[0], **pair[1]}),
    ),
    max_leaves=4,
)
ALL = "SELECT 1 WHERE {condition}"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(metadata=METADATA, conditions=CONDITIONS)
def test_filters_match_in_postgres_as_in_python(db: RunDatabase, metadata: dict[str, Any], conditions: dict[str, Any]) -> None:  # fmt: skip
    assert passes(db, metadata, conditions) == meets(metadata, conditions)


def passes(db: RunDatabase, metadata: dict[str, Any], conditions: dict[str, Any]) -> bool:
    """As agno.search asks it, of one document."""
    made = jsonb(msgspec.structs.asdict(compile_filter(conditions)))
    with db.pool.connection() as connection, connection.transaction(force_rollback=True):
        ((condition,),) = (
            row.values()
            for row in connection.execute("SELECT agno.filter_condition(%(f)s)", {"f": made}).fetchall()
        )
        statement = f"SELECT 1 FROM (SELECT 1 AS version, %(m)s::jsonb AS metadata, 'u' AS uri, 't' AS title, 'en' AS language, 'x' AS media_type, now() AS created_at, now() AS updated_at) d WHERE {condition.replace('%', '%%').replace('$1', '%(f)s::jsonb')}"
        return bool(connection.execute(statement.encode(), {"f": made, "m": jsonb(metadata)}).fetchall())


def meets(metadata: Mapping[str, Any], conditions: Mapping[str, Any]) -> bool:
    return all(_meets(metadata, field, value) for field, value in conditions.items())


def _meets(metadata: Mapping[str, Any], field: str, value: Any) -> bool:
    match field:
        case "any":
            return any(meets(metadata, each) for each in value)
        case "all":
            return all(meets(metadata, each) for each in value)
        case "not":
            return not meets(metadata, value)
    there = True
    found: Any = metadata
    for name in field.split("."):
        there = there and isinstance(found, Mapping) and name in found
        found = found[name] if there else {}
    operations = value if isinstance(value, Mapping) else {"eq": value}
    return all(_operation(there, found, operator, given) for operator, given in operations.items())


def _operation(there: bool, found: Any, operator: str, value: Any) -> bool:
    values = [found, *found] if isinstance(found, list) else [found]
    match operator:
        case "exists":
            return bool(there == value)
        case "ne":
            return not _operation(there, found, "eq", value)
        case "in":
            return any(_operation(there, found, "eq", each) for each in value)
        case "contains":
            return there and isinstance(found, list) and any(_compares(each, "eq", value) for each in found)
        case _:
            return there and any(_compares(each, operator, value) for each in values)


def _compares(found: Any, operator: str, value: Any) -> bool:
    if _kind(found) != _kind(value) or isinstance(found, list | dict):
        return False
    if isinstance(found, str):  # by UTF-16, as jsonpath does it
        found, value = _units(found), _units(value)
    match operator:
        case "eq":
            return bool(found == value)
        case "prefix":
            return isinstance(found, tuple) and found[: len(value)] == value
        case "gt":
            return bool(found > value)
        case "gte":
            return bool(found >= value)
        case "lt":
            return bool(found < value)
        case _:
            return bool(found <= value)


def _kind(value: Any) -> str:
    return (
        "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__
    )


def _units(text: str) -> tuple[int, ...]:
    raw = text.replace("\0", "\ufffd").encode("utf-16-be")
    return tuple(int.from_bytes(raw[i : i + 2], "big") for i in range(0, len(raw), 2))
