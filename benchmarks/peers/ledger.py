"""The outside world: a file that keeps a line for each payment, whatever dies. Needs nothing but the standard library."""

from __future__ import annotations

import json
import os
from pathlib import Path


def append(path: str, **line: str | int) -> None:
    """Write one line; when this returns, it is on the disk."""
    ledger = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(ledger, json.dumps(line).encode() + b"\n")
        os.fsync(ledger)
    finally:
        os.close(ledger)


def lines(path: str) -> list[dict[str, str | int]]:
    """All that was ever paid."""
    if not Path(path).exists():
        return []
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
