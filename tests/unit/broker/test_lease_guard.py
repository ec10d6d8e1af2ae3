"""The process that renews a worker's leases."""

from __future__ import annotations

from pathlib import Path

import pytest

from agno_workers.broker.lease_guard import LeaseGuard
from tests import invariants


def test_guard_imports_from_where_its_worker_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not from the packages of the interpreter alone, which may have another version of ours or none."""
    (tmp_path / "psycopg.py").write_text("open(__file__ + '.imported', 'w')\nraise SystemExit\n")
    monkeypatch.syspath_prepend(tmp_path)
    guard = LeaseGuard("postgresql://", "SELECT 1", {}, every_s=0.01)
    guard.beat()
    invariants.until((tmp_path / "psycopg.py.imported").exists)
