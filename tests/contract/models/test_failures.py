"""A failure becomes ModelUnavailable or ModelRejected, with the facts that a caller needs, before the deadline."""

from __future__ import annotations

import logging
import pickle
import socket
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from agno_workers.core.messages import ModelRequest, ModelSettings, StopReason, user
from agno_workers.core.ports import Model
from agno_workers.errors import ModelError, ModelRejected, ModelUnavailable
from agno_workers.models import resolve
from tests.contract.models.conftest import REAL, Ask
from tests.fakes.provider import Provider


def request(text: str, timeout_s: float = 5.0) -> ModelRequest:
    return ModelRequest((user(text),), settings=ModelSettings(timeout_s=timeout_s))


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_temporary_status_is_worth_another_try(ask: Ask, status: int) -> None:
    with pytest.raises(ModelUnavailable, match=f"answered {status}: You asked for a {status}") as caught:
        ask(request(f"fault:{status}"))
    assert (caught.value.status, caught.value.retry_after_s) == (status, None)


@pytest.mark.parametrize(
    "fault", ["reset", "truncated", "malformed", "nonsense", "html", "empty", "error-event"]
)
def test_an_answer_that_breaks_off_is_worth_another_try(ask: Ask, fault: str) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        ask(request(f"fault:{fault}"))
    assert caught.value.retry_after_s is None


def test_after_the_fault_has_passed_the_same_request_is_answered(any_model: Model) -> None:
    text = f"fault:503 times=1 {any_model.name}\nsay hello"
    if any_model.name.startswith("scripted"):
        text = "say hello"
    else:
        with pytest.raises(ModelUnavailable):
            any_model.ask(request(text), lambda _: None)
    assert any_model.ask(request(text), lambda _: None).message.text == "hello"


@pytest.mark.parametrize(("header", "seconds"), [("retry-after=2", 2.0), ("retry-after-ms=1500", 1.5)])
def test_retry_after_is_passed_on(ask: Ask, header: str, seconds: float) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        ask(request(f"fault:429 {header}"))
    assert caught.value.retry_after_s == seconds


def test_retry_after_may_be_a_date(ask: Ask) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True).replace(" ", "_")
    with pytest.raises(ModelUnavailable) as caught:
        ask(request(f"fault:429 retry-after={date}"))
    assert 50 < (caught.value.retry_after_s or 0) <= 60


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_lasting_status_is_final_with_the_providers_words(ask: Ask, status: int) -> None:
    with pytest.raises(ModelRejected, match=f"You asked for a {status}") as caught:
        ask(request(f"fault:{status}"))
    assert caught.value.status == status


def test_an_empty_account_is_final_although_it_is_a_429(provider: Provider) -> None:
    with pytest.raises(ModelRejected, match="exceeded your current quota") as caught:
        resolve("openai:gpt-5").ask(request("fault:quota"), lambda _: None)
    assert caught.value.code == "insufficient_quota"


def test_a_final_error_may_also_come_within_the_stream(ask: Ask) -> None:
    with pytest.raises(ModelRejected, match="That can't be asked"):
        ask(request("fault:final-error-event"))


def test_too_long_transcript_has_one_code(ask: Ask) -> None:
    with pytest.raises(ModelRejected, match="longer than the context window") as caught:
        ask(request("fault:context"))
    assert caught.value.code == "context_window"


def test_errors_carry_their_ids_through_pickle_and_json(ask: Ask) -> None:
    with pytest.raises(ModelUnavailable) as caught:
        ask(request("fault:429 retry-after=7"))
    for copy in (pickle.loads(pickle.dumps(caught.value)), ModelError.from_json(caught.value.to_json())):
        assert isinstance(copy, ModelUnavailable)
        assert (str(copy), copy.ids) == (str(caught.value), caught.value.ids)


def test_key_is_never_shown(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ModelRejected, match=r"Wrong key: Bearer \*\*\*|Wrong key: .*none") as caught:
        model.ask(request("fault:leak"), lambda _: None)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + str(caught.value.ids)
    assert "sk-fake" not in shown + repr(model) + str(vars(model)) + caplog.text


# ---- time -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["never", "trickle", "bytes"])
def test_timeout_covers_the_whole_call_however_slow_the_provider(ask: Ask, fault: str) -> None:
    began = time.monotonic()
    with pytest.raises(ModelUnavailable, match=r"did not finish within timeout_s=0\.4"):
        ask(request(f"fault:{fault}", timeout_s=0.4))
    assert time.monotonic() - began < 1.5


def test_answer_slower_than_its_timeout_is_unavailable(any_model: Model) -> None:
    with pytest.raises(ModelUnavailable, match=r"did not finish within timeout_s=0\.4"):
        any_model.ask(request("delay=60\nsay a b c d e f g h i j k", timeout_s=0.4), lambda _: None)


def test_next_call_has_its_own_deadline(model: Model) -> None:
    with pytest.raises(ModelUnavailable):
        model.ask(request("fault:never", timeout_s=0.2), lambda _: None)
    assert model.ask(request("delay=0.3\nsay hello"), lambda _: None).stop is StopReason.END


@pytest.fixture
def full() -> Iterator[str]:
    """Yield the address of a listener with a full queue: connecting never ends."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for sock in (first, second):
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield "http://{}:{}/v1".format(*listener.getsockname())


@pytest.mark.parametrize("name", REAL)
def test_connecting_counts_towards_the_timeout(full: str, name: str) -> None:
    began = time.monotonic()
    with pytest.raises(ModelUnavailable, match=r"did not finish within timeout_s=0\.3"):
        resolve(name, api_key="sk-fake-key", base_url=full).ask(
            request("hello", timeout_s=0.3), lambda _: None
        )
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("name", REAL)
def test_unreachable_provider_is_unavailable(name: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        model = resolve(name, api_key="sk-fake-key", base_url="http://{}:{}/v1".format(*closed.getsockname()))
        with pytest.raises(ModelUnavailable, match=r"can't be reached.*refused"):
            model.ask(request("hello"), lambda _: None)
