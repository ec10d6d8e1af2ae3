"""Server-sent events, however they are cut into chunks."""

from __future__ import annotations

import time

import pytest

from agno_workers.net.sse import events

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


def test_event_without_its_end_is_dropped() -> None:
    assert list(events([b"data: 1\n\n", b"data: 2\n"])) == [b"1"]


def test_one_long_line_takes_linear_time() -> None:
    def cpu_s(megabytes: int) -> float:
        began = time.process_time()
        [event] = events([b"data: ", *([b"x" * 1024] * 1024 * megabytes), b"\n\n"])
        assert len(event) == megabytes * 2**20
        return time.process_time() - began

    cpu_s(1)
    assert cpu_s(32) < 64 * cpu_s(4)
