"""Warnings about a Redis."""

from __future__ import annotations

from typing import Any

import pytest

from agno_workers.broker.checks import space, unsigned_warnings


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


@pytest.mark.parametrize(
    ("info", "problem", "warning"),
    [
        ({"used_memory": 5e9, "maxmemory": 0}, "", ""),
        ({"used_memory": 79e6, "maxmemory": 100e6}, "", ""),
        (
            {"used_memory": 80e6, "maxmemory": 100e6},
            "",
            "uses 80.0 MB of its maxmemory, 100.0 MB; when it is full",
        ),
        (
            {"used_memory": 101e6, "maxmemory": 100e6},
            "uses 101.0 MB of its maxmemory, 100.0 MB, and refuses",
            "",
        ),
        ({"aof_last_write_status": "err"}, "could not write to its disk (aof_last_write_status)", ""),
        ({"aof_last_write_status": "ok", "rdb_last_bgsave_status": "err"}, "(rdb_last_bgsave_status)", ""),
        ({}, "", ""),
    ],
)
def test_redis_that_is_full_or_nearly_so_is_reported(
    info: dict[str, Any], problem: str, warning: str
) -> None:
    for said, found in zip((problem, warning), space(info), strict=True):
        assert len(found) == bool(said)
        assert said in "".join(found)
