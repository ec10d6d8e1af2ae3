"""What a thin client, and a command that a person waits for, do not load."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from agno_workers.cli.main import COMMANDS

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
    "chardet",
    "lxml",
    "defusedxml",
}
SENDER = HEAVY | {"alembic", "sqlalchemy", "rich", "typer", "tenacity", "tornado"}
THIN = {
    "agno_workers": HEAVY | {"celery", "psycopg", "redis", "pydantic", "msgspec"},
    "agno_workers.types": HEAVY | {"celery", "pydantic", "docstring_parser"},
    "agno_workers.sdk.client": HEAVY | {"celery", "pydantic", "docstring_parser"},
    "agno_workers.sdk.knowledge": HEAVY,
    "agno_workers.cli.runs": HEAVY | {"celery", "alembic", "sqlalchemy"},
    "agno_workers.sdk.agent": SENDER | {"packaging.requirements"},
    "agno_workers.tasks.app": SENDER,  # a worker
    "agno_workers.cli.ingest": HEAVY | {"celery"},
    "agno_workers.cli.search": HEAVY | {"celery"},
    "agno_workers.cli.knowledge": HEAVY | {"celery"},
}  # fmt: skip
NOWHERE = {"AGNO_DATABASE_URL": "postgresql://127.0.0.1:1/none", "AGNO_BROKER_URL": "redis://127.0.0.1:1/0"}
"""A worker's modules need addresses, and connect to none."""


@pytest.mark.parametrize("module", THIN)
def test_what_is_heavy_is_loaded_by_who_uses_it(module: str) -> None:
    asked = f"import sys, json, {module}\nprint(json.dumps(sorted(sys.modules)))"
    told = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, timeout=60, env=os.environ | NOWHERE
    )
    assert told.returncode == 0, told.stderr
    assert not THIN[module] & set(json.loads(told.stdout))


def test_help_lists_every_command_and_imports_none() -> None:
    """Imports are what makes help slow."""
    asked = "import sys, json\nfrom agno_workers.cli.main import main\ntry:\n main(['--help'])\nfinally:\n print(json.dumps(sorted(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=30)
    *text, modules = shown.stdout.splitlines()
    assert all(any(line.startswith(f"  {name} ") for line in text) for name in COMMANDS)
    heavy = HEAVY | {"celery", "alembic", "sqlalchemy", "psycopg", "redis", "pydantic", "msgspec"}
    assert not heavy & set(json.loads(modules))


def test_importing_models_imports_no_sdk() -> None:
    program = (
        "import sys, agno_workers.models\n"
        "agno_workers.models.resolve('openai:gpt-5', api_key='k')\n"
        "print([name for name in ('openai', 'anthropic', 'httpx2', 'httpx', 'aiohttp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_embedders_import_nothing_heavy_before_it_is_needed() -> None:
    program = (
        "import os, sys\n"
        "from agno_workers.knowledge.embedders import resolve\n"
        "heavy = ('numpy', 'onnx', 'onnxruntime', 'tokenizers', 'openai', 'httpx2', 'aiohttp', 'bpe_openai', 'torch')\n"
        "told = lambda: print([name for name in heavy if name in sys.modules])\n"
        "told()\n"
        "os.environ['OPENAI_API_KEY'] = 'k'\n"
        "resolve('openai:text-embedding-3-small')\n"
        "told()\n"
        "resolve('local')\n"
        "told()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:3] == ["[]", "['numpy']", "['numpy', 'onnxruntime', 'tokenizers']"]


def test_counting_loads_no_vocabulary_that_it_does_not_need() -> None:
    """bpe_openai's Python half reads all of them."""
    program = (
        "import sys; from agno_workers.knowledge.tokens import tokens\n"
        "[tokens(name).counts(['pump']) for name in ('minilm', 'cl100k_base')]\n"
        "print([name for name in ('bpe_openai', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
