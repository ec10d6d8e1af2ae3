"""Which agents and knowledge bases the modules of AGNO_IMPORTS bring."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from agno_workers.core.agent import Agent
from agno_workers.errors import InvalidInput, SettingsError, notes
from agno_workers.knowledge.types import Knowledge
from agno_workers.registry import Registry
from tests.agents import handbook, reader

DOCS = Knowledge("docs")


def test_knowledge_is_found_in_a_module() -> None:
    registry = Registry.importing("tests.agents")
    assert registry.knowledge("handbook") == handbook
    assert registry.knowledge("nothing") is None
    assert registry.get("reader") == reader


@pytest.mark.parametrize("use", [DOCS, DOCS.context(), DOCS.with_feedback()])
def test_knowledge_is_found_with_the_agent_that_uses_it(use: Knowledge) -> None:
    registry = Registry([Agent(name="helper", model="scripted:echo", knowledge=use)])
    assert registry.knowledge("docs") == DOCS


def test_two_knowledge_bases_of_one_name_are_refused() -> None:
    registry = Registry([Agent(name="helper", model="scripted:echo", knowledge=DOCS)])
    with pytest.raises(InvalidInput, match="two different knowledge bases are named 'docs'"):
        registry.add_knowledge(Knowledge("docs", embedder="hash:8"))


# Modules that can't be imported: the end of the sentence, and the last lines of the traceback ("" for none).

MODULES = {
    "a module that is not there": (
        {"agents.py": ""}, "agent", "Did you mean 'agents'? Correct AGNO_IMPORTS, or start in the folder that has the module.", "",
    ),
    "a package without that module": (
        {"shop/__init__.py": "", "shop/agents.py": ""}, "shop.agent",
        "the package 'shop' ({here}/shop) has no module 'agent'. Did you mean 'shop.agents'? Correct", "",
    ),
    "a module in a module": (
        {"plain.py": ""}, "plain.agents", "'plain' ({here}/plain.py) is a module and not a package: name 'plain' alone.", "",
    ),
    "a path": ({"shop/agents.py": ""}, "shop/agents.py", "Write 'shop.agents': the name of a module", ""),
    "an object": ({"agents.py": ""}, "agents:helper", "Write 'agents': the name of a module", ""),
    "a relative name": ({}, ".agents", "write its whole name, as in myapp.agents.", ""),
    "a syntax error": (
        {"typo.py": "x = 1\ndef f(:\n    pass\n"}, "typo", "SyntaxError: invalid syntax ({here}/typo.py, line 2). Correct the module.",
        '  File "{here}/typo.py", line 2\n    def f(:\n          ^\nSyntaxError: invalid syntax',
    ),
    "a syntax error in a module that it imports": (
        {"outer.py": "\nimport inner\n", "inner.py": "1 +\n"}, "outer", "SyntaxError: invalid syntax ({here}/inner.py, line 1).",
        'Traceback (most recent call last):\n  File "{here}/outer.py", line 2, in <module>\n    import inner\n  File "{here}/inner.py", line 1\n',
    ),
    "a library that is not installed": (
        {"needy.py": "\nimport not_installed_here\n"}, "needy",
        "ModuleNotFoundError: No module named 'not_installed_here' ({here}/needy.py, line 2).",
        "ModuleNotFoundError: No module named 'not_installed_here'",
    ),
    "a name that is not there": (
        {"asks.py": "from os import nothing\n"}, "asks", "ImportError: cannot import name 'nothing' from 'os'",
        'File "{here}/asks.py", line 1, in <module>',
    ),
    "an exception": (
        {"raises.py": "import os\n\ndef key():\n    return os.environ['NOT_SET_HERE']\n\nKEY = key()\n"}, "raises",
        "KeyError: 'NOT_SET_HERE' ({here}/raises.py, line 4).", 'File "{here}/raises.py", line 6, in <module>',
    ),
    "an exception in a library": (
        {"parses.py": "import json\njson.loads('{')\n"}, "parses", "({here}/parses.py, line 2).", "json/decoder.py",
    ),
    "an exception of ours": (
        {"badly.py": "from agno_workers import tool\n\n@tool\ndef f(x: 'Nope'): ...\n"}, "badly", "({here}/badly.py, line 3).",
        "InvalidTool: badly.f: parameter 'x'",
    ),
    "an exception without words": ({"bare.py": "raise ValueError\n"}, "bare", "ValueError ({here}/bare.py, line 1).", "ValueError"),
    "an end of the process": (
        {"ends.py": "import sys\nsys.exit(3)\n"}, "ends", "SystemExit: 3 ({here}/ends.py, line 2).", "SystemExit: 3",
    ),
    "modules that import each other": (
        {"one.py": "import two\nA = 1\n", "two.py": "from one import A\n"}, "one", "({here}/two.py, line 1).",
        "(most likely due to a circular import)",
    ),
    "bytes that are no text": ({"binary.py": "\udcff"}, "binary", "({here}/binary.py, line 1).", "SyntaxError"),
}  # fmt: skip


@pytest.mark.parametrize("case", MODULES)
def test_module_that_can_not_be_imported_is_explained_by_its_own_lines(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, name, sentence, shown = MODULES[case]
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(os.fsencode(text))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    try:
        with pytest.raises(SettingsError) as refused:
            Registry.importing(name)
    finally:
        for new in set(sys.modules) - before:
            del sys.modules[new]
    assert str(refused.value).startswith(f"AGNO_IMPORTS names {name!r}, which cannot be imported: ")
    assert sentence.replace("{here}", str(tmp_path)) in str(refused.value)
    assert [shown.replace("{here}", str(tmp_path)) in note for note in notes(refused.value)] == (
        [True] if shown else []
    )
    assert not any("registry.py" in note or "importlib" in note for note in notes(refused.value))


def test_django_that_cannot_be_set_up_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "nowhere.settings")
    with pytest.raises(SettingsError, match=r"'nowhere.settings'.*No module named 'nowhere'"):
        Registry.importing()
