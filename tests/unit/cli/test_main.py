"""The command line's door."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from agno_workers import __version__
from agno_workers.cli.main import COMMANDS, main


def test_help_lists_every_command_and_imports_none() -> None:
    """What makes help slow is what it imports."""
    asked = "import sys, json\nfrom agno_workers.cli.main import main\ntry:\n main(['--help'])\nfinally:\n print(json.dumps(sorted(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=30)
    *text, modules = shown.stdout.splitlines()
    assert all(any(f"│ {name} " in line for line in text) for name in COMMANDS)
    assert not {"celery", "sqlalchemy", "psycopg", "redis", "pydantic", "msgspec"} & set(json.loads(modules))


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"agno-workers {command}" in capsys.readouterr().out


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["runs", "nonsense"], ["run", "only-an-agent"], ["up", "--agents", "0"]]
)
def test_a_wrong_command_line_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
