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


@pytest.mark.parametrize(
    ("stream", "found"),
    [
        (b"data: 1\n\ndata: 2\n", [b"1", b"2"]),  # no blank line after the last event
        (b"data: 1\n\ndata: 2", [b"1", b"2"]),
        (b'data: 1\n\ndata: {"a": ', [b"1"]),  # cut off
        (b"data: 1\ndata: 2\n\n", [b"1", b"2"]),  # no blank line between events
        (b"data: 1\ndata: [DONE]\n\ndata: 2\n\n", [b"1"]),
        (b"data: {\ndata: }\n\n", [b"{\n}"]),  # one event on two lines
        (b"data: 1\r\rdata: 2\r\r", [b"1", b"2"]),
        (b"\xef\xbb\xbfdata: 1\n\n", [b"1"]),
        (b"data:\n\ndata: \n\ndata\n\nevent: ping\n\n", []),
        (b"\n\n{\n}\n", [b"{\n}"]),  # plain JSON
        (b"{}\ndata: [DONE]\n\n", [b"{}"]),
        (b"data: oops", []),
        (b"data: 1\n\n{}\n", [b"1", b"{}"]),  # plain JSON after events
        (b"data: 1\n\nbad gateway\n", [b"1"]),
        (b"<html>\n</html>", [b"<html>\n</html>"]),
        (b"", []),
    ],
)
def test_what_servers_send_in_place_of_events_is_found(stream: bytes, found: list[bytes]) -> None:
    assert list(events([stream])) == list(events(bytes([byte]) for byte in stream)) == found


def test_one_long_line_takes_linear_time() -> None:
    def cpu_s(megabytes: int) -> float:
        began = time.process_time()
        [event] = events([b"data: ", *([b"x" * 1024] * 1024 * megabytes), b"\n\n"])
        assert len(event) == megabytes * 2**20
        return time.process_time() - began

    cpu_s(1)
    assert cpu_s(32) < 64 * cpu_s(4)
