"""The deadline of a call, on every connection that it uses."""

from __future__ import annotations

import httpx2
import pytest

from agno_workers.net.deadline import Deadline


def test_time_left_shrinks_and_then_raises() -> None:
    deadline = Deadline()
    assert deadline.left(3.0, TimeoutError) == 3.0
    deadline.begin(60)
    assert 59 < deadline.left(None, TimeoutError) <= 60
    assert deadline.left(3.0, TimeoutError) == 3.0
    deadline.begin(0)
    assert deadline.is_over
    with pytest.raises(TimeoutError):
        deadline.left(3.0, TimeoutError)


def test_deadline_guards_a_client_behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    deadline = Deadline()
    with httpx2.Client() as client:
        deadline.guard(client)
        deadline.begin(0)
        with pytest.raises(httpx2.ConnectTimeout, match="deadline"):
            client.get("https://example.org")
