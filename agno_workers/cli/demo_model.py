"""Choose the model of the demo: the one asked for, a provider whose key is set, a toy on this machine, or a script."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from agno_workers.errors import EmbeddedError
from agno_workers.local import model as local_model
from agno_workers.models.resolve import resolve
from agno_workers.settings import Settings

LOCAL = f"local:{local_model.NAME}"
SCRIPTED = "scripted:demo"
_PROVIDERS = (("OPENAI_API_KEY", "openai:gpt-5-mini"), ("ANTHROPIC_API_KEY", "anthropic:claude-haiku-4-5"))
_TOY_CHARS = 800
"""The toy reads this in a second, and in ten on busy cores."""
_CHARS = 40_000


@dataclass(frozen=True)
class Chosen:
    name: str
    note: str
    """A note about it for people."""
    max_chars: int = _CHARS
    """Characters of each document that it reads."""

    @property
    def byline(self) -> str:
        """A note for each answer."""
        if self.is_ours:
            return "  (a toy wrote this)"
        return "  (scripted)" if self.name.startswith("scripted:") else ""

    @property
    def calls_tools(self) -> bool:
        return not self.name.startswith(("local:", "scripted:"))

    @property
    def is_ours(self) -> bool:
        """It runs on this machine, started by us."""
        return self.name == LOCAL


def choose(asked: str, settings: Settings) -> Chosen:
    """Choose a model. Raises InvalidInput or ModelRejected for a name that can't be used."""
    if asked and asked != LOCAL:
        if not asked.startswith("scripted:"):  # scripts are known where the workers import them
            resolve(
                asked, base_url=settings.models.local_base_url or None if asked.startswith("local:") else None
            )
        return Chosen(asked, _scripted_is(asked) or "chosen with --model")
    for variable, name in () if asked else _PROVIDERS:
        if os.environ.get(variable):
            return Chosen(name, f"because {variable} is set; choose another with --model")
    try:
        local_model.weights()
    except EmbeddedError as error:
        if asked:
            raise
        return Chosen(
            SCRIPTED,
            f"no model writes here, a script does. {error} Or set OPENAI_API_KEY or ANTHROPIC_API_KEY.",
        )
    note = "135 million parameters on this machine, no network, no key: a toy that writes badly and calls no tools"
    return Chosen(LOCAL, note, _TOY_CHARS)


def _scripted_is(asked: str) -> str:
    return "no model writes here, a script does" if asked.startswith("scripted:") else ""


@contextmanager
def serving(chosen: Chosen) -> Iterator[dict[str, str]]:
    """Start the local model if it was chosen; yield the environment in which workers reach it."""
    if not chosen.is_ours:
        yield {}
        return
    with local_model.serve() as model:
        yield {"AGNO_MODELS__LOCAL_BASE_URL": model.base_url}
