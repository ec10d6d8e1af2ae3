"""Requests to an embeddings server, and its failures."""

from __future__ import annotations

import numpy as np
import pytest

from agno_workers.core.ports import Embedder
from agno_workers.errors import ModelRejected, ModelUnavailable
from agno_workers.knowledge.embedders import openai, resolve
from agno_workers.knowledge.embedders.openai import Embeddings
from tests.fakes.provider import Provider

TEXTS = ["one", "two", "three"]


# Requests.


def test_vectors_are_base64_and_dimensions_are_sent_only_to_openai(provider: Provider) -> None:
    resolve("openai:text-embedding-3-small@512").embed(TEXTS)
    resolve("openai:text-embedding-3-small").embed(TEXTS)
    resolve(f"compatible:{provider.openai_url}#nomic@384").embed(TEXTS)
    shortened, whole, elsewhere = (request["body"] for request in provider.requests())
    assert shortened == {
        "model": "text-embedding-3-small", "input": TEXTS, "encoding_format": "base64", "dimensions": 512,
    }  # fmt: skip
    assert "dimensions" not in whole
    assert "dimensions" not in elsewhere


def test_a_key_goes_only_to_the_address_it_was_set_with(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGNO_LOCAL_API_KEY", "secret-of-the-local-server")
    resolve("compatible:nomic@384").embed(["home"])
    resolve(f"compatible:{provider.openai_url}/#nomic@384").embed(["another address, as far as we know"])
    home, away = (dict(request["headers"])["Authorization"] for request in provider.requests())
    assert home == "Bearer secret-of-the-local-server"
    assert away == "Bearer none"


def test_a_text_above_the_limit_is_cut_by_tokens(provider: Provider) -> None:
    text = "🙂7 " * 5000
    resolve("openai:text-embedding-3-small").embed(["before", text, "after"])
    (sent,) = provider.requests()
    before, cut, after = sent["body"]["input"]
    assert (before, after) == ("before", "after")
    assert text.startswith(cut)
    assert 8000 < len(cut) < len(text)


def test_calls_use_one_connection(provider: Provider) -> None:
    embedder = resolve("openai:text-embedding-3-small")
    for _ in range(3):
        embedder.embed(TEXTS)
    with pytest.raises(ModelUnavailable):
        embedder.embed(["fault:429"])
    embedder.embed(TEXTS)
    assert len({request["peer"][1] for request in provider.requests()}) == 1


# Answers.


@pytest.mark.parametrize("kind", ["shuffled", "floats", "no-usage"])
def test_variants_of_servers_change_nothing(remote: Embedder, kind: str) -> None:
    texts = [f"fault:{kind}", "two", "three"]
    alone = [remote.embed([text])[0] for text in texts]
    assert np.allclose(remote.embed(texts), alone, atol=1e-6)


def test_tokens_are_counted_by_the_server(provider: Provider) -> None:
    embedder = resolve("openai:text-embedding-3-small")
    assert isinstance(embedder, Embeddings)
    assert embedder.embed_counted(["one two three", "four"])[1] == 4
    assert embedder.embed_counted(["fault:no-usage"])[1] == 0


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_temporary_status_is_worth_another_try(remote: Embedder, status: int) -> None:
    with pytest.raises(ModelUnavailable, match=f"answered {status}: You asked for a {status}") as caught:
        remote.embed(["fine", f"fault:{status}"])
    assert (caught.value.status, caught.value.retry_after_s) == (status, None)


def test_retry_after_is_passed_on(remote: Embedder) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        remote.embed(["fault:429 retry-after=7"])
    assert caught.value.retry_after_s == 7.0


@pytest.mark.parametrize("fault", ["reset", "html", "cut", "count", "index", "zero", "nan"])
def test_invalid_answer_is_worth_another_try(remote: Embedder, fault: str) -> None:
    text = f"fault:{fault} times=1 {remote.name}"
    with pytest.raises(ModelUnavailable, match=f"^{remote.name.split('@')[0]}"):
        remote.embed([text, "another"])
    assert len(remote.embed([text, "another"])) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_lasting_status_is_final(remote: Embedder, status: int) -> None:
    with pytest.raises(ModelRejected, match=f"You asked for a {status}") as caught:
        remote.embed([f"fault:{status}"])
    assert caught.value.status == status


def test_a_text_that_is_too_long_by_the_servers_count_is_final(remote: Embedder) -> None:
    with pytest.raises(ModelRejected, match=r"A text is longer than .* accepts, by its own count") as caught:
        remote.embed(["fault:context"])
    assert (caught.value.status, caught.value.code) == (400, "context_window")


def test_vectors_of_another_length_are_refused(remote: Embedder) -> None:
    assert remote.dimensions
    with pytest.raises(
        ModelRejected, match=f"of {remote.dimensions + 1} dimensions, not of {remote.dimensions}"
    ):
        remote.embed(["fault:dimensions"])


def test_wrong_dimensions_in_the_name_are_an_error(provider: Provider) -> None:
    with pytest.raises(
        ModelRejected, match=r"of 384 dimensions, not of 768\. Correct the number after the @"
    ):
        resolve("compatible:nomic@768").embed(["one"])


def test_silent_server_takes_at_most_the_timeout(remote: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai, "TIMEOUT_S", 0.3)
    with pytest.raises(ModelUnavailable, match=r"did not finish within timeout_s=0\.3"):
        remote.embed(["fault:never"])


def test_unreachable_server_is_worth_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelUnavailable, match="can't be reached"):
        resolve("compatible:http://127.0.0.1:9/v1#nomic").embed(["one"])
