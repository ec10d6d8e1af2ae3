"""Resolve a name to a model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from agno_workers.errors import InvalidInput, ModelRejected
from agno_workers.models import Scripted, Turn, resolve

VARIABLES = (
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "AGNO_MODELS__LOCAL_BASE_URL",
    "OPENAI_BASE_URL",
    "ANTHROPIC_BASE_URL",
)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "name", ["openai:gpt-5", "openai-chat:gpt-5", "anthropic:claude", "local:llama:8b", "scripted:echo"]
)
def test_resolve_returns_one_model_for_each_name(name: str) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(
            threads.map(lambda _: resolve(name, api_key="k", base_url="http://localhost:1/v1"), range(32))
        )
    assert found[0].name == name
    assert len({id(model) for model in found}) == 1


def test_another_key_or_address_is_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    first = resolve("openai:gpt-5", api_key="a")
    assert resolve("openai:gpt-5", api_key="b") is not first
    assert resolve("openai:gpt-5", api_key="a", base_url="http://localhost:1") is not first
    monkeypatch.setenv("OPENAI_API_KEY", "a")
    assert resolve("openai:gpt-5") is first


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("openai:gpt-5", "OPENAI_API_KEY"),
        ("openai-chat:gpt-5", "OPENAI_API_KEY"),
        ("anthropic:claude", "ANTHROPIC_API_KEY"),
        ("local:llama", "AGNO_MODELS__LOCAL_BASE_URL"),
    ],
)
def test_error_names_the_missing_variable(name: str, variable: str) -> None:
    with pytest.raises(ModelRejected, match=f"{name} can't be used: {variable} is not set"):
        resolve(name)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("antropic:claude", r"Did you mean anthropic:claude\?"),
        ("gpt-5", "write provider:model, with one of the providers openai:, openai-chat:, anthropic:"),
        ("openai:", "write provider:model"),
        ("", "write provider:model"),
        ("scripted:nobody", "No script is named 'nobody' in this process.*Known: .*echo"),
    ],
)
def test_invalid_name_gets_a_suggestion(name: str, advice: str) -> None:
    with pytest.raises(InvalidInput, match=advice):
        resolve(name)


def test_a_script_is_found_by_its_name() -> None:
    script = Scripted("found", (Turn(text="Hi."),))
    assert resolve("scripted:found") is script
