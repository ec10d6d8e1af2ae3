"""The choice of the demo's model."""

from __future__ import annotations

import importlib.util

import pytest

from agno_workers.cli.demo_model import LOCAL, SCRIPTED, choose
from agno_workers.errors import EmbeddedError, InvalidInput
from agno_workers.settings import Settings

SETTINGS = Settings()


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variable", "provider"), [("OPENAI_API_KEY", "openai:"), ("ANTHROPIC_API_KEY", "anthropic:")]
)
def test_a_provider_whose_key_is_set_is_chosen(
    variable: str, provider: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "key")
    chosen = choose("", SETTINGS)
    assert chosen.name.startswith(provider)
    assert variable in chosen.note
    assert not chosen.byline
    assert choose("scripted:demo", SETTINGS).name == "scripted:demo"  # what is asked for goes first


def test_without_a_key_the_toy_is_chosen_and_called_a_toy() -> None:
    chosen = choose("", SETTINGS)
    assert (chosen.name, chosen.is_ours) == (LOCAL, True)
    assert "toy" in chosen.note
    assert "calls no tools" in chosen.note
    assert chosen.max_chars < choose("scripted:demo", SETTINGS).max_chars


def test_without_the_toy_a_script_is_chosen_and_called_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    chosen = choose("", SETTINGS)
    assert chosen.name == SCRIPTED
    assert "a script does" in chosen.note
    assert "not installed" in chosen.note
    assert chosen.byline == "  (scripted)"
    with pytest.raises(EmbeddedError):
        choose(LOCAL, SETTINGS)


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(InvalidInput):
        choose("gpt", SETTINGS)
