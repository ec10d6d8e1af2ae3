"""Resolve a name to an embedder."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from agno_workers.errors import InvalidInput, ModelRejected
from agno_workers.knowledge.embedders import resolve

VARIABLES = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "AGNO_MODELS__LOCAL_BASE_URL", "AGNO_LOCAL_API_KEY")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("AGNO_MODELS__LOCAL_BASE_URL", "http://localhost:1/v1")


@pytest.mark.parametrize(
    ("name", "dimensions"),
    [
        ("local:all-minilm-l6-v2", 384),
        ("openai:text-embedding-3-small", 1536),
        ("openai:text-embedding-3-small@512", 512),
        ("openai:text-embedding-3-large", 3072),
        ("openai:text-embedding-ada-002", 1536),
        ("compatible:nomic-embed-text@768", 768),
        ("compatible:org/model:tag@768", 768),
        ("compatible:https://host:8000/v1#org/model@1024", 1024),
        ("hash:64", 64),
    ],
)
def test_resolve_returns_one_embedder_for_each_name(keyed: None, name: str, dimensions: int) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: resolve(name), range(32)))
    assert (found[0].name, found[0].dimensions) == (name, dimensions)
    assert len({id(embedder) for embedder in found}) == 1


def test_local_alone_is_minilm_under_its_whole_name() -> None:
    assert resolve("local") is resolve("local:all-minilm-l6-v2")


def test_another_key_is_another_embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a")
    first = resolve("openai:text-embedding-3-small")
    monkeypatch.setenv("OPENAI_API_KEY", "b")
    assert resolve("openai:text-embedding-3-small") is not first
    monkeypatch.setenv("OPENAI_API_KEY", "a")
    assert resolve("openai:text-embedding-3-small") is first


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("openai:text-embedding-3-small", "OPENAI_API_KEY"),
        ("compatible:nomic", "AGNO_MODELS__LOCAL_BASE_URL"),
    ],
)
def test_error_names_the_missing_variable(name: str, variable: str) -> None:
    with pytest.raises(ModelRejected, match=f"{name} can't be used: {variable} is not set") as caught:
        resolve(name)
    assert caught.value.code == "not_configured"


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("", "Known are local, "),
        ("loca", r"Did you mean local\?"),
        ("local:", r"Did you mean local\?"),
        ("local:minilm-l6", r"Did you mean local:all-minilm-l6-v2\?"),
        ("all-minilm-l6-v2", r"Did you mean local:all-minilm-l6-v2\?"),
        ("openai:text-embedding-3-smal", r"Did you mean openai:text-embedding-3-small\?"),
        ("text-embedding-3-large", r"Did you mean openai:text-embedding-3-large\?"),
        ("openai:text-embedding-3-small@2000", "is not an embedder's name"),
        ("openai:text-embedding-ada-002@512", "is not an embedder's name"),
        ("openai:text-embedding-3-small@many", "'many' is not a number of dimensions"),
        ("hash", r"Did you mean hash:384\?"),
        ("hash:0", "'0' is not a number of dimensions"),
        ("hash:99999", "'99999' is not a number of dimensions"),
        ("compatible:localhost:8000/v1#model", "write compatible:http://host:port/v1#model"),
        ("compatible:ftp://host/v1#model", "write compatible:http://host:port/v1#model"),
        ("compatible:http://user:password@host/v1#model", "without a user or a password"),
        ("compatible:http://host/v1#", "write compatible:http://host:port/v1#model"),
        ("compatible:http://host/v1#@768", "write compatible:http://host:port/v1#model"),
        ("cohere:embed-v4", "Known are local, "),
    ],
)
def test_invalid_name_gets_a_suggestion(keyed: None, name: str, advice: str) -> None:
    with pytest.raises(InvalidInput, match=advice) as caught:
        resolve(name)
    assert caught.value.ids["model"] == name
