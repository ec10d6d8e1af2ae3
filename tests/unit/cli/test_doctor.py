"""The comparison of versions."""

from __future__ import annotations

import pytest

from agno_workers.cli.doctor import _is_older


@pytest.mark.parametrize(
    ("version", "than", "older"),
    [("0.7.4", "0.8", True), ("0.8", "0.8", False), ("0.8.0", "0.8", False), ("0.8.1", "0.8.4", True), ("0.10.0", "0.8.4", False), ("1.0", "0.8.4", False)],
)  # fmt: skip
def test_versions_are_compared_as_numbers(version: str, than: str, older: bool) -> None:
    assert _is_older(version, than) is older
