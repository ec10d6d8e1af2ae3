"""Warnings about a Redis."""

from __future__ import annotations

import pytest

from agno_workers.broker.checks import unsigned_warnings


@pytest.mark.parametrize(
    ("url", "signed", "warned"),
    [
        ("redis://queue.example:6379/0", False, True),
        ("rediss://:***@10.0.0.7:6379/0", False, True),
        ("redis://queue.example:6379/0", True, False),
        ("redis://localhost:6379/0", False, False),
        ("redis://127.0.0.1:6379/0", False, False),
        ("redis://[::1]:6379/0", False, False),
        ("redis+socket:///run/redis.sock?virtual_host=0", False, False),
    ],
)
def test_unsigned_messages_in_a_remote_redis_are_a_warning(url: str, signed: bool, warned: bool) -> None:
    assert bool(unsigned_warnings(url, signed=signed)) is warned
