"""What a thin client, and a command that a person waits for, do not load."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "numpy",
    "onnxruntime",
    "tokenizers",
    "selectolax",
    "pypdfium2",
    "openai",
    "anthropic",
    "obstore",
    "bpe_openai",
    "docx",
}
THIN = {
    "agno_workers": HEAVY | {"celery", "psycopg", "redis", "pydantic", "msgspec"},
    "agno_workers.sdk.client": HEAVY | {"celery", "pydantic", "docstring_parser"},
    "agno_workers.sdk.knowledge": HEAVY,
    "agno_workers.cli.ingest": HEAVY | {"celery"},
    "agno_workers.cli.search": HEAVY | {"celery"},
    "agno_workers.cli.knowledge": HEAVY | {"celery"},
}  # fmt: skip


@pytest.mark.parametrize("module", THIN)
def test_what_is_heavy_is_loaded_by_who_uses_it(module: str) -> None:
    asked = f"import sys, json, {module}\nprint(json.dumps(sorted(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    assert not THIN[module] & set(json.loads(told.stdout))
