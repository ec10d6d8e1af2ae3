"""From a name, `provider:model`, to the Model that answers to it.

To add a provider: a file beside this one, a line in `PROVIDERS`, and the contract suite over it.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable

from agno_workers.core.ports import Model
from agno_workers.errors import InvalidInput, ModelRejected
from agno_workers.models.anthropic import Anthropic
from agno_workers.models.openai import Chat, Responses
from agno_workers.models.scripted import script

Access = tuple[str | None, str | None]
"""API key and base URL, as handed in; None where they weren't."""


def resolve(name: str, *, api_key: str | None = None, base_url: str | None = None) -> Model:
    """The model of that name, `provider:model`; see `PROVIDERS` for the providers.

    `api_key` and `base_url` default to the provider's usual environment variables. The same arguments in the
    same environment give the same object, which any number of threads may share, also after a fork: resolving
    again is cheap, no need to keep it.

    Raises InvalidInput for a name that can't be a model's, and ModelRejected when the key or the address that
    the provider needs is missing; the message names the variable to set.
    """
    provider, _, model = name.partition(":")
    if provider not in PROVIDERS or not model:
        raise InvalidInput(_advice(name, provider), model=name)
    return PROVIDERS[provider](model, (api_key, base_url))


def _openai(model: str, access: Access) -> Model:
    key, url = _key("openai", model, access, "OPENAI_API_KEY"), _url(access, "OPENAI_BASE_URL")
    return _once((Responses, model, key, url), lambda: Responses(model, api_key=key, base_url=url))


def _openai_chat(model: str, access: Access) -> Model:
    key, url = _key("openai-chat", model, access, "OPENAI_API_KEY"), _url(access, "OPENAI_BASE_URL")
    return _once((Chat, model, key, url), lambda: Chat(model, api_key=key, base_url=url))


def _anthropic(model: str, access: Access) -> Model:
    key, url = _key("anthropic", model, access, "ANTHROPIC_API_KEY"), _url(access, "ANTHROPIC_BASE_URL")
    return _once((Anthropic, model, key, url), lambda: Anthropic(model, api_key=key, base_url=url))


def _local(model: str, access: Access) -> Model:
    """Ollama, vLLM, llama.cpp and others that speak OpenAI's chat completions; most want no key."""
    url = _url(access, "AGNO_LOCAL_BASE_URL")
    if not url:
        raise _missing(
            "local", model, "AGNO_LOCAL_BASE_URL", "such as http://localhost:11434/v1, or pass base_url"
        )
    key = (access[0] or os.environ.get("AGNO_LOCAL_API_KEY") or "none").strip()
    return _once(
        ("local", model, key, url),
        lambda: Chat(model, api_key=key, base_url=url, provider="local", dialect="local"),
    )


PROVIDERS: dict[str, Callable[[str, Access], Model]] = {
    "openai": _openai,
    "openai-chat": _openai_chat,
    "anthropic": _anthropic,
    "local": _local,
    "scripted": lambda model, _: script(model),
}

_models: dict[tuple[object, ...], Model] = {}


def _once(key: tuple[object, ...], build: Callable[[], Model]) -> Model:
    """One object for the same arguments. Without a lock, which a fork could leave locked for ever:
    building twice is harmless, and `setdefault` lets only one of the two be seen.
    """
    return _models.get(key) or _models.setdefault(key, build())


def _key(provider: str, model: str, access: Access, variable: str) -> str:
    key = (access[0] or os.environ.get(variable) or "").strip()
    if not key:
        raise _missing(provider, model, variable, "or pass api_key")
    return key


def _url(access: Access, variable: str) -> str | None:
    return access[1] or os.environ.get(variable) or None


def _missing(provider: str, model: str, variable: str, advice: str) -> ModelRejected:
    return ModelRejected(
        f"{provider}:{model} can't be asked: {variable} is not set. Set it in the environment, {advice}.",
        provider=provider, model=model, status=None, code="not_configured",
    )  # fmt: skip


def _advice(name: str, provider: str) -> str:
    known = ", ".join(f"{known}:" for known in PROVIDERS)
    nearest = difflib.get_close_matches(provider, PROVIDERS, n=1)
    if nearest and nearest[0] != provider and ":" in name:
        return (
            f"{name!r} names no known provider ({known}). Did you mean {nearest[0]}:{name.partition(':')[2]}?"
        )
    return f"{name!r} is not a model's name: write provider:model, with one of the providers {known}."
