"""Reading descriptions of sources."""

from __future__ import annotations

import pytest

from agno_workers.errors import InvalidInput
from agno_workers.knowledge.sources import spec


@pytest.mark.parametrize(
    "variable",
    ["AGNO_SIGNING__KEYS", "AGNO_DATABASE_URL", "agno_broker_url", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"],
)
def test_secrets_of_the_workers_are_refused(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "swordfish")
    with pytest.raises(InvalidInput, match=f"'{variable}' belongs to the workers") as refused:
        spec.from_environment(variable, "a description", ["*"], "knowledge.source_variables")
    assert "swordfish" not in str(refused.value)


def test_any_other_variable_is_read_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCS_URL", "postgresql://docs")
    assert (
        spec.from_environment("DOCS_URL", "a description", ["DOCS_*"], "knowledge.source_databases")
        == "postgresql://docs"
    )
