"""Local servers let sources use all that their user can read."""

from __future__ import annotations

import pytest

from agno_workers.cli.servers import _everything

NAMES = [f"AGNO_KNOWLEDGE__SOURCE_{each}" for each in ("ROOTS", "VARIABLES", "DATABASES", "OBJECTS")]


def test_lists_of_the_settings_come_before_those_of_local_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AGNO_CONFIG", raising=False)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    assert _everything() == dict(zip(NAMES, ("/", "*", "*", "*"), strict=True))
    monkeypatch.setenv(NAMES[0], "/srv/documents")
    assert list(_everything()) == NAMES[1:]
