"""The local model, asked through OpenAI's client."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest

from agno_workers.local import model as local_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[local_model.LocalModel]:
    with local_model.serve(tmp_path_factory.mktemp("model") / "model.log") as model:
        yield model


@pytest.fixture
def client(model: local_model.LocalModel) -> openai.OpenAI:
    return openai.OpenAI(base_url=model.base_url, api_key="none", max_retries=0)


def test_it_answers_a_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=local_model.NAME, messages=[{"role": "user", "content": "Say hello."}], max_tokens=8
    )
    assert answer.model == local_model.NAME
    assert answer.choices[0].message.content
    assert answer.usage
    assert 0 < answer.usage.completion_tokens <= 8


def test_it_streams_a_chat(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=local_model.NAME,
        messages=[{"role": "user", "content": "Count from one to nine."}],
        max_tokens=8,
        temperature=0,
        stream=True,
    )
    assert len([chunk for chunk in stream if chunk.choices and chunk.choices[0].delta.content]) > 2


def test_it_speaks_the_responses_api(client: openai.OpenAI) -> None:
    assert client.responses.create(
        model=local_model.NAME, input="Say hello.", max_output_tokens=8
    ).output_text
    events = client.responses.create(
        model=local_model.NAME, input="Say hello.", max_output_tokens=8, stream=True
    )
    assert [event.type for event in events][-1] == "response.completed"


def test_four_requests_are_served_at_once(client: openai.OpenAI) -> None:
    def tell(number: int) -> int:
        prompt = "again and " * 100 + str(number)
        answer = client.completions.create(model=local_model.NAME, prompt=prompt, max_tokens=8)
        assert answer.usage
        return answer.usage.total_tokens

    with ThreadPoolExecutor(local_model.SLOTS) as pool:
        assert min(pool.map(tell, range(local_model.SLOTS))) > 200
    (model,) = client.models.list()
    assert model.model_extra
    assert model.model_extra["meta"]["n_ctx"] == local_model.SLOT_TOKENS


def test_it_ends_with_its_block(tmp_path: Path) -> None:
    with local_model.serve(tmp_path / "model.log") as model:
        watch = os.pidfd_open(model.pid)
    assert select.select([watch], [], [], 0)[0]
    os.close(watch)
