"""What the acceptance tests share: commands typed in this process, and assertions that say as much as those in the tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agno_workers import wiring
from agno_workers.cli.main import main
from tests.acceptance.terminal import Type, Typed

pytest.register_assert_rewrite("tests.acceptance.matrix")


@pytest.fixture
def type_(
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Iterator[Type]:
    """Runs a command in this process: `type_("runs", "ls", AGNO_IMPORTS="...")`. Its output is a file or, with COLUMNS, a terminal
    without colours.
    """
    for name in [name for name in os.environ if name.startswith("AGNO_")]:
        monkeypatch.delenv(name)
    for name, value in {**environment, "AGNO_STATE_DIR": str(tmp_path / "state"), "LINES": "25"}.items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str, **changed: str) -> Typed:
        with monkeypatch.context() as patch:
            if "COLUMNS" in changed:
                patch.setattr(sys.stdout, "isatty", lambda: True)
                patch.setenv("TERM", "dumb")
            for name, value in changed.items():
                patch.setenv(name, value) if value else patch.delenv(name, raising=False)
            wiring.forget()
            with pytest.raises(SystemExit) as ended:
                main(list(arguments))
        wiring.forget()
        out, err = capsys.readouterr()
        code = ended.value.code
        return Typed(code if isinstance(code, int) else 1, out, err)

    yield run
    wiring.forget()


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """A file that keeps the tool `hold` at work as long as it exists."""
    path = tmp_path / "held"
    path.touch()
    return path
