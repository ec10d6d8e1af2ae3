"""OpenAI's batch API: submitted once, found again, and all vectors in the end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agno_workers.core.ports import BatchEmbedder
from agno_workers.errors import InvalidInput, ModelRejected, ModelUnavailable
from agno_workers.knowledge.embedders import resolve
from tests.fakes.provider import Provider


@pytest.fixture
def embedder(provider: Provider) -> BatchEmbedder:
    found = resolve("openai:text-embedding-3-small@512")
    assert isinstance(found, BatchEmbedder)
    return found


@pytest.fixture
def asked(provider: Provider) -> Callable[[str], list[dict[str, Any]]]:
    """Return the requests to a path so far."""
    return lambda path: [request for request in provider.requests() if request["path"] == path]


def test_batch_returns_the_vectors_of_calls(
    embedder: BatchEmbedder, asked: Callable[[str], list[dict[str, Any]]]
) -> None:
    texts = ["polls=2 one", "two ünïcode 🙂", "", "line\nbreak"]
    batch = embedder.start(texts, "key-1")
    assert embedder.poll(batch) is None
    assert embedder.poll(batch) is None
    vectors: Any = embedder.poll(batch)
    assert not asked("/v1/embeddings")
    assert np.allclose(vectors, embedder.embed(texts), atol=1e-6)
    assert np.array_equal(vectors, np.asarray(embedder.poll(batch))), "a look changes nothing"


def test_a_batch_is_found_by_its_key_and_no_other(embedder: BatchEmbedder) -> None:
    first, second = embedder.start(["one"], "key-first"), embedder.start(["two"], "key-second")
    assert first != second
    assert embedder.find("key-first") == first
    assert embedder.find("key-second") == second
    assert embedder.find("key-of-nobody") is None


def test_a_batch_is_found_behind_a_hundred_others(embedder: BatchEmbedder) -> None:
    wanted = embedder.start(["wanted"], "key-behind")
    for number in range(101):
        embedder.start([f"{number}"], f"other-{number}")
    assert embedder.find("key-behind") == wanted


@pytest.mark.parametrize("end", ["failed", "expired", "cancelled"])
def test_calls_fetch_what_a_batch_lacks(
    embedder: BatchEmbedder,
    asked: Callable[[str], list[dict[str, Any]]],
    caplog: pytest.LogCaptureFixture,
    end: str,
) -> None:
    texts = [f"batch:{end} one", "two", "three", "four"]
    batch = embedder.start(texts, f"key-{end}")
    assert embedder.poll(batch) is None
    with caplog.at_level(logging.WARNING):
        vectors: Any = embedder.poll(batch)
    (call,) = asked("/v1/embeddings")
    assert call["body"]["input"] == (texts if end == "failed" else texts[1::2])
    assert np.allclose(vectors, embedder.embed(texts), atol=1e-6)
    (told,) = caplog.records
    assert (told.__dict__["texts"], told.__dict__["status"]) == (4, end)
    assert told.__dict__["missing"] == len(call["body"]["input"])


def test_failed_line_is_fetched_by_a_call(
    embedder: BatchEmbedder, asked: Callable[[str], list[dict[str, Any]]]
) -> None:
    batch = embedder.start(["good", "fault:500 times=1 bad line"], "key-line")
    assert embedder.poll(batch) is None
    vectors: Any = embedder.poll(batch)
    (call,) = asked("/v1/embeddings")
    assert call["body"]["input"] == ["fault:500 times=1 bad line"]
    assert np.allclose(vectors, embedder.embed(["good", "fault:500 times=1 bad line"]), atol=1e-6)


@pytest.mark.parametrize(("fault", "error"), [("429", ModelUnavailable), ("400", ModelRejected)])
def test_line_that_keeps_failing_is_an_error(
    embedder: BatchEmbedder, fault: str, error: type[Exception]
) -> None:
    batch = embedder.start(["good", f"fault:{fault} for good"], f"key-{fault}")
    assert embedder.poll(batch) is None
    with pytest.raises(error, match=f"You asked for a {fault}"):
        embedder.poll(batch)


def test_unknown_batch_is_final(embedder: BatchEmbedder) -> None:
    with pytest.raises(ModelRejected, match="No batch found"):
        embedder.poll("batch_of_nobody")


def test_too_large_batch_is_refused_before_anything_is_sent(
    embedder: BatchEmbedder, provider: Provider
) -> None:
    with pytest.raises(InvalidInput, match="holds at most 50,000 texts, not 50,001"):
        embedder.start(["x"] * 50_001, "key-many")
    assert not provider.requests()


def test_files_at_openai_expire(
    embedder: BatchEmbedder, asked: Callable[[str], list[dict[str, Any]]]
) -> None:
    embedder.start(["one"], "key-expiry")
    (order,) = asked("/v1/batches")
    week = {"anchor": "created_at", "seconds": 7 * 86_400}
    assert order["body"]["output_expires_after"] == week
    assert order["body"]["metadata"] == {"agno_key": "key-expiry"}


def test_only_openai_has_batches(provider: Provider) -> None:
    assert not isinstance(resolve("hash:8"), BatchEmbedder)
    assert not isinstance(resolve("compatible:nomic@384"), BatchEmbedder)
