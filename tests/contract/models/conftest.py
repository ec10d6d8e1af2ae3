"""The real model classes with the real SDKs over real HTTP with a fake provider; and the scripted model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agno_workers.core.messages import Delta, ModelRequest, Reply, ToolResult
from agno_workers.core.ports import Model
from agno_workers.errors import ModelUnavailable
from agno_workers.models import Scripted, Turn, resolve
from tests.fakes.provider import Asked, Provider, answer_to, running

REAL = ("openai:gpt-5", "openai-chat:gpt-5", "anthropic:claude-sonnet-5", "local:llama")

Ask = Callable[[ModelRequest], Reply]


class Watcher:
    """An emit that keeps its deltas."""

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


@pytest.fixture(scope="session")
def fake() -> Iterator[Provider]:
    with running() as provider:
        yield provider


@pytest.fixture
def provider(fake: Provider, monkeypatch: pytest.MonkeyPatch) -> Provider:
    """The fake provider of every model in this test, without old requests."""
    for name, value in fake.env().items():
        monkeypatch.setenv(name, value)
    fake.forget()
    return fake


@pytest.fixture(params=REAL)
def model(request: pytest.FixtureRequest, provider: Provider) -> Model:
    return resolve(request.param)


@pytest.fixture(params=(*REAL, "scripted:obedient"))
def any_model(request: pytest.FixtureRequest, provider: Provider) -> Model:
    """Every model, including the scripted one."""
    Scripted("obedient", obedient)
    return resolve(request.param)


@pytest.fixture
def ask(model: Model) -> Ask:
    return lambda request: model.ask(request, lambda _: None)


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture
def sent(provider: Provider) -> Callable[[], dict[str, Any]]:
    """Return the body of the last request."""
    return lambda: dict(provider.requests()[-1]["body"])


def obedient(request: ModelRequest) -> Turn:
    """Return the fake provider's answer as a turn of a script."""
    last = max(i for i, message in enumerate(request.messages) if message.role == "user")
    after = request.messages[last + 1 :]
    results = [part.content for m in after for part in m.parts if isinstance(part, ToolResult)]
    rounds = sum(bool(message.tool_calls) for message in after)
    asked = Asked(request.messages[last].text, rounds, tuple(results), "obedient", "")
    if asked.fault:
        return Turn(error=ModelUnavailable("Try again later.", retry_after_s=None))
    answer = answer_to(asked, rounds)
    return Turn(
        text=answer.text,
        reasoning=answer.thinking,
        calls=tuple((name, json.loads(arguments)) for _, name, arguments in answer.calls),
        delay_s=float(asked.option("delay", "0")),
    )
