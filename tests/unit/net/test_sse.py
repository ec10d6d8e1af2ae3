"""Server-sent events, however they are cut into chunks, and the deadline on every way out."""

from __future__ import annotations

import time

import httpx2
import pytest

from agno_workers.models.transport import events
from agno_workers.net.deadline import Deadline

STREAM = (
    ": hello\n\n"
    'event: a\ndata: {"n": 1}\n\n'
    "retry: 5\n\n"
    'data:{"n": "ä🦊"}\r\n\r\n'
    "data: one\ndata: two\n\n"
    "data: [DONE]\n\n"
    "data: after the end\n\n"
).encode()
EVENTS = [b'{"n": 1}', '{"n": "ä🦊"}'.encode(), b"one\ntwo"]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_do_not_depend_on_how_the_stream_is_cut(size: int) -> None:
    assert list(events(STREAM[i : i + size] for i in range(0, len(STREAM), size))) == EVENTS


def test_an_event_without_its_end_is_no_event() -> None:
    assert list(events([b"data: 1\n\n", b"data: 2\n"])) == [b"1"]


def test_one_long_line_takes_linear_time() -> None:
    def cpu_s(megabytes: int) -> float:
        began = time.process_time()
        [event] = events([b"data: ", *([b"x" * 1024] * 1024 * megabytes), b"\n\n"])
        assert len(event) == megabytes * 2**20
        return time.process_time() - began

    cpu_s(1)
    assert cpu_s(32) < 64 * cpu_s(4)


def test_what_is_left_shrinks_and_then_is_too_late() -> None:
    deadline = Deadline()
    assert deadline.left(3.0, TimeoutError) == 3.0
    deadline.begin(60)
    assert 59 < deadline.left(None, TimeoutError) <= 60
    assert deadline.left(3.0, TimeoutError) == 3.0
    deadline.begin(0)
    assert deadline.is_over
    with pytest.raises(TimeoutError):
        deadline.left(3.0, TimeoutError)


def test_a_client_behind_a_proxy_is_guarded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    deadline = Deadline()
    with httpx2.Client() as client:
        deadline.guard(client)
        deadline.begin(0)
        with pytest.raises(httpx2.ConnectTimeout, match="deadline"):
            client.get("https://example.org")
