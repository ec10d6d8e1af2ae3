"""Connections: kept, shared by threads, never by processes."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from agno_workers.core.messages import ModelRequest, user
from agno_workers.core.ports import Model
from agno_workers.errors import ModelUnavailable
from agno_workers.net.pool import CLIENT
from tests.fakes.provider import Provider


@pytest.fixture(autouse=True)
def _no_other_connections() -> None:
    """Close those of earlier tests."""
    CLIENT.close()


def say(model: Model, text: str = "say hello") -> str:
    return model.ask(ModelRequest((user(text),)), lambda _: None).message.text


def ports(provider: Provider) -> list[int]:
    return [request["peer"][1] for request in provider.requests()]


def test_calls_one_after_the_other_use_one_connection(model: Model, provider: Provider) -> None:
    for _ in range(4):
        say(model)
    assert len(set(ports(provider))) == 1


def test_an_error_answer_does_not_cost_the_connection(model: Model, provider: Provider) -> None:
    say(model)
    with pytest.raises(ModelUnavailable):
        say(model, "fault:429")
    say(model)
    assert len(set(ports(provider))) == 1


def test_threads_share_a_model_and_never_a_connection(model: Model, provider: Provider) -> None:
    together = threading.Barrier(16)

    def ask(number: int) -> str:
        together.wait(timeout=30)
        return say(model, f"delay=1\nsay {number}")

    with ThreadPoolExecutor(16) as threads:
        texts = list(threads.map(ask, range(16)))
    assert texts == [str(i) for i in range(16)]
    assert len(set(ports(provider))) == 16


def test_a_forked_process_makes_its_own_connections(model: Model, provider: Provider) -> None:
    say(model)
    child = os.fork()
    if not child:
        os._exit(0 if say(model) == "hello" else 1)
    assert os.waitpid(child, 0)[1] == 0
    say(model)
    before, of_child, after = ports(provider)
    assert before == after
    assert of_child != before


def test_a_connection_that_the_provider_closed_is_made_again(model: Model, provider: Provider) -> None:
    say(model)
    with pytest.raises(ModelUnavailable):
        say(model, "fault:reset")
    assert say(model) == "hello"
