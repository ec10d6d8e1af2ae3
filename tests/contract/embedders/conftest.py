"""Every embedder, the remote ones with the real SDK over real HTTP against a provider of our own."""

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
    """The fake provider, to which every remote embedder of this test goes, with an empty memory."""
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
