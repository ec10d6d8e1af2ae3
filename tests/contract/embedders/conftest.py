"""All embedders; the remote ones use the real SDK over real HTTP with a fake provider."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agno_workers.core.ports import Embedder
from agno_workers.knowledge.embedders import resolve
from tests.fakes import embeddings
from tests.fakes.provider import Provider

REMOTE = (
    "openai:text-embedding-3-small",
    "openai:text-embedding-3-large@512",
    "compatible:nomic",
    "compatible:{url}#nomic@384",
)
ALL = ("local", "hash:384", *REMOTE)


@pytest.fixture(scope="session")
def fake() -> Iterator[Provider]:
    with embeddings.running() as provider:
        yield provider


@pytest.fixture
def provider(fake: Provider, monkeypatch: pytest.MonkeyPatch) -> Provider:
    """The fake provider of every remote embedder in this test, without old requests."""
    for name, value in fake.env().items():
        monkeypatch.setenv(name, value)
    fake.forget()
    return fake


@pytest.fixture(params=ALL)
def embedder(request: pytest.FixtureRequest, provider: Provider) -> Embedder:
    return resolve(request.param.format(url=provider.openai_url))


@pytest.fixture(params=REMOTE)
def remote(request: pytest.FixtureRequest, provider: Provider) -> Embedder:
    return resolve(request.param.format(url=provider.openai_url))
