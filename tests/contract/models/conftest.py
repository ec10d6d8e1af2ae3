"""The real model classes with the real SDKs, over real HTTP, against a provider of our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agno_workers.core.messages import Delta, ModelRequest, Reply
from agno_workers.core.ports import Model
from agno_workers.models import resolve
from tests.fakes.provider import Provider, running

REAL = ("openai:gpt-5", "openai-chat:gpt-5", "anthropic:claude-sonnet-5", "local:llama")


@pytest.fixture(scope="session")
def fake() -> Iterator[Provider]:
    with running() as provider:
        yield provider


@pytest.fixture
def provider(fake: Provider, monkeypatch: pytest.MonkeyPatch) -> Provider:
    """The fake provider, to which every model of this test goes, with an empty memory."""
    for name, value in fake.env().items():
        monkeypatch.setenv(name, value)
    fake.forget()
    return fake


@pytest.fixture(params=REAL)
def model(request: pytest.FixtureRequest, provider: Provider) -> Model:
    return resolve(request.param)


@pytest.fixture
def ask(model: Model) -> Callable[[ModelRequest], Reply]:
    return lambda request: model.ask(request, lambda _: None)


class Watcher:
    """An emit that keeps what it sees."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []

    def __call__(self, delta: Delta) -> None:
        self.deltas.append(delta)

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)

    @property
    def reasoning(self) -> str:
        return "".join(delta.reasoning for delta in self.deltas)


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture
def sent(provider: Provider) -> Callable[[], dict[str, Any]]:
    """The body of the last request that the provider got."""
    return lambda: dict(provider.requests()[-1]["body"])
