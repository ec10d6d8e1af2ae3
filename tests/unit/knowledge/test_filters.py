"""What a filter says when it can't be understood, and what it is made into."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from agno_workers.errors import InvalidInput
from agno_workers.knowledge.filters import MAX_CONDITIONS, MAX_DEPTH, compile_filter, unmatched
from agno_workers.knowledge.types import Filter


@pytest.mark.parametrize("nothing", [None, {}])
def test_empty_conditions_are_no_filter(nothing: dict[str, Any] | None) -> None:
    assert compile_filter(nothing) == Filter()


def test_equality_uses_the_index() -> None:
    made = compile_filter({"kind": "note", "year": {"eq": 2024}, "lang": "en", "uri": "a"})
    assert made.equal == (({"kind": "note"}, {"kind": ["note"]}), ({"year": 2024}, {"year": [2024]}))
    assert made.columns == {"language": "en", "uri": "a"}
    assert made.path is None


def test_jsonpath_contains_no_values() -> None:
    evil = "' || true) -- \" $x"
    made = compile_filter({"a": {"gt": evil}, "not": {"title": {"prefix": evil}}, "any": [{"b": evil}]})
    assert made.path is not None
    assert evil not in made.path
    assert set(made.values.values()) == {evil}


def test_times_are_seconds_for_document_fields_and_text_for_metadata() -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert compile_filter({"created": {"gte": "2026-01-31T12:00:00Z"}}).values == {"v0": noon.timestamp()}
    assert compile_filter({"created": {"gte": noon.date()}}).values == {"v0": noon.timestamp() - 12 * 3600}
    assert compile_filter({"seen": {"gte": noon}}).values == {"v0": "2026-01-31T12:00:00+00:00"}
    assert compile_filter({"seen": {"gte": noon.date()}}).values == {"v0": "2026-01-31"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"year": {"gtee": 1}}, r"filter 'year': unknown operator 'gtee'. Did you mean 'gte'\?"),
        ({"year": {"$gte": 1}}, r"Did you mean 'gte'\?"),
        ({"author": {"name": "Ann"}}, r"or a nested field: 'author.name'"),
        ({"year": {}}, r"filter 'year': \{\} has no operator"),
        (
            {"tags": ["a", "b"]},
            r"filter 'tags': 'eq' takes .*, got \['a', 'b'\]. For one of several values use",
        ),
        ({"year": {"in": "ab"}}, r"filter 'year': 'in' takes a list, got 'ab'"),
        ({"year": {"gt": True}}, r"filter 'year': 'gt' takes text or a number, got True"),
        ({"year": {"gt": None}}, r"got None"),
        ({"year": float("nan")}, r"got nan"),
        ({"year": 2**64}, r"got 18446744073709551616"),
        ({"name": {"prefix": 3}}, r"filter 'name': 'prefix' takes text, got 3"),
        ({"name": {"exists": "yes"}}, r"'exists' takes true or false, got 'yes'"),
        ({"created": {"gt": "yesterday"}}, r"filter 'created': expected a time"),
        ({"created": {"prefix": "2026"}}, r"'prefix' does not apply to a time"),
        ({"any": {"a": 1}}, r"filter 'any': expected a list of conditions.*'metadata.any'"),
        ({"any": []}, r"filter 'any': expected a list of conditions"),
        ({"not": 3}, r"filter 'not': expected conditions"),
        ({"a..b": 1}, r"filter 'a..b': expected a name"),
        ({"": 1}, r"expected a name"),
        ({3: 1}, r"a field name must be text, got 3"),
        ({"a": {"in": list(range(MAX_CONDITIONS + 1))}}, r"more than 100 values"),
    ],
)
def test_invalid_filter_states_the_error_and_the_next_move(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        compile_filter(wrong)


def test_filter_depth_is_limited() -> None:
    deep: dict[str, Any] = {"a": 1}
    for _ in range(MAX_DEPTH + 2):
        deep = {"not": deep}
    with pytest.raises(InvalidInput, match="nested deeper than 8"):
        compile_filter(deep)


KNOWN = {
    "year": {"number"},
    "team": {"string"},
    "author": {"object"},
    "author.name": {"string"},
    "tags": {"array"},
    "mixed": {"number", "string"},
}


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ({"yaer": 2024}, "filter 'yaer': no document of 'docs' has this field. Did you mean 'year'?"),
        ({"langage": "en"}, "Did you mean 'language'?"),
        ({"author.nme": "Ann"}, "Did you mean 'author.name'?"),
        ({"metadata.yaer": 1}, "Did you mean 'year'?"),
        ({"zzz": 1}, "Known are author, author.name, mixed, tags, team, year."),
        ({"not": {"taem": "a"}}, "Did you mean 'team'?"),
        ({"any": [{"team": "a"}, {"all": [{"taem": "b"}]}]}, "Did you mean 'team'?"),
        ({"yaer": {"exists": True}}, "Did you mean 'year'?"),
        ({"year.gte": 2024}, 'Comparisons are written year={"gte": ...}'),
        ({"author.name.prefix": "A"}, 'Comparisons are written author.name={"prefix": ...}'),
        ({"year>": 2024}, 'Comparisons are written year={"gte": ...}'),
        ({"team !": "a"}, 'Comparisons are written team={"ne": ...}'),
        (
            {"year": "2024"},
            "the documents of 'docs' have a number there, and the filter compares it with text",
        ),
        ({"year": {"gte": "2024"}}, "compares it with text"),
        ({"team": {"in": [1, 2]}}, "have text there, and the filter compares it with a number"),
        ({"team": True}, "compares it with true or false"),
    ],
    ids=str,
)
def test_field_that_no_document_has_is_named_with_the_nearest_one(
    conditions: dict[str, Any], said: str
) -> None:
    (sentence,) = unmatched("docs", conditions, KNOWN)
    assert said in sentence


@pytest.mark.parametrize(
    "conditions",
    [
        {"year": 2024.5, "team": "a"}, {"tags": "a"}, {"author.name": {"prefix": "A"}}, {"mixed": 1}, {"mixed": "a"}, {"uri": "a", "lang": "en"},
        {"created": {"gt": "2026-01-01"}}, {"year": {"exists": False}}, {"team": None}, {"team": {"in": []}}, {"year": {"in": ["a", 1]}},
    ],
    ids=str,
)  # fmt: skip
def test_field_that_documents_have_is_not_named(conditions: dict[str, Any]) -> None:
    assert unmatched("docs", conditions, KNOWN) == []
    assert unmatched("docs", {"any": [{"zzz": 1}]}, {}) == [], "there are no documents"
