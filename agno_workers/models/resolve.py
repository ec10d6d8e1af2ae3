"""Resolve a name, `provider:model`, to its Model.

To add a provider: write a file beside this one, add a line to `PROVIDERS` and its name to `core.checks.MODEL_PROVIDERS`, and run the contract suite.
"""

from __future__ import annotations

from collections.abc import Callable

from agno_workers.core.checks import KNOWN_PROVIDERS, meant_model
from agno_workers.core.ports import Model
from agno_workers.errors import AgnoError, InvalidInput
from agno_workers.models.access import missing, once, variable
from agno_workers.models.anthropic import Anthropic
from agno_workers.models.openai import Chat, Responses
from agno_workers.models.scripted import script

Provider = Callable[[str, str | None, str | None], Model]
"""Return the model for what follows `provider:`, an API key and a base URL; None for those of the environment."""


def resolve(name: str, *, api_key: str | None = None, base_url: str | None = None) -> Model:
    """Return the model of that name, `provider:model`; `PROVIDERS` lists the providers.

    `api_key` and `base_url` default to the provider's usual environment variables. The same arguments in the same
    environment return the same object, which any number of threads may share, also after a fork.

    Raises InvalidInput for a name that is not a model's, and ModelRejected when the key or the address that the
    provider needs is missing; the message names the variable to set.
    """
    provider, _, model = name.partition(":")
    if provider not in PROVIDERS or not model:
        raise InvalidInput(_advice(name), model=name)
    return PROVIDERS[provider](model, api_key, base_url)


def lacking(model: str | Model, *, base_url: str | None = None) -> str | None:
    """Return a sentence about what this process lacks to use a model, such as a key; None if it has all that can be checked here."""
    if isinstance(model, str):
        try:
            resolve(model, base_url=base_url)
        except AgnoError as error:
            return str(error)
    return None


def _hosted(
    kind: type[Responses | Chat | Anthropic], provider: str, key_name: str, url_name: str
) -> Provider:
    """A provider that needs a key, at an address of its own unless told otherwise."""

    def find(model: str, api_key: str | None, base_url: str | None) -> Model:
        key, url = (api_key or variable(key_name)).strip(), base_url or variable(url_name) or None
        if not key:
            raise missing(f"{provider}:{model}", key_name, "or pass api_key")
        return once((kind, model, key, url), lambda: kind(model, api_key=key, base_url=url))

    return find


def _local(model: str, api_key: str | None, base_url: str | None) -> Model:
    """Ollama, vLLM, llama.cpp and others that speak OpenAI's chat completions; most need no key."""
    url = base_url or variable("AGNO_MODELS__LOCAL_BASE_URL")
    if not url:
        advice = "such as http://localhost:11434/v1, or pass base_url"
        raise missing(f"local:{model}", "AGNO_MODELS__LOCAL_BASE_URL", advice)
    key = (api_key or variable("AGNO_LOCAL_API_KEY") or "none").strip()
    return once(
        ("local", model, key, url),
        lambda: Chat(model, api_key=key, base_url=url, provider="local", dialect="local"),
    )


PROVIDERS: dict[str, Provider] = {
    "openai": _hosted(Responses, "openai", "OPENAI_API_KEY", "OPENAI_BASE_URL"),
    "openai-chat": _hosted(Chat, "openai-chat", "OPENAI_API_KEY", "OPENAI_BASE_URL"),
    "anthropic": _hosted(Anthropic, "anthropic", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"),
    "local": _local,
    "scripted": lambda model, _key, _url: script(model),
}


def _advice(name: str) -> str:
    if near := meant_model(name):
        return f"{name!r} has an unknown provider; known are {KNOWN_PROVIDERS}. Did you mean {near}?"
    return (
        f"{name!r} is not a model's name: write provider:model, with one of the providers {KNOWN_PROVIDERS}."
    )
