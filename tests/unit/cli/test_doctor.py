"""Comparisons that the doctor makes, and lists that allow sources too much."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from agno_workers.cli.doctor import _space, too_few_buffers, wide_lists
from agno_workers.database.checks import is_older
from agno_workers.knowledge.store.stats import Sizes
from agno_workers.settings import KnowledgeSection, Settings


@pytest.mark.parametrize(
    ("version", "than", "older"),
    [("0.7.4", "0.8", True), ("0.8", "0.8", False), ("0.8.0", "0.8", False), ("0.8.1", "0.8.4", True), ("0.10.0", "0.8.4", False), ("1.0", "0.8.4", False)],
)  # fmt: skip
def test_versions_are_compared_as_numbers(version: str, than: str, older: bool) -> None:
    assert is_older(version, than) is older


OWN = "postgresql://agno:secret@db/agno"


@pytest.mark.parametrize(
    ("lists", "wide"),
    [
        ({}, []),
        ({"source_roots": ["/srv/documents"], "source_variables": ["KEY@api.example.com"], "source_databases": ["DOCS_URL"],
          "source_objects": ["s3://documents"], "source_allow": ["10.0.0.0/8", "wiki.intern"]}, []),
        ({"source_roots": ["/srv", "/"]}, ["source_roots has '/'"]),
        ({"source_roots": ["/srv/../etc/"]}, ["source_roots has '/srv/../etc/'"]),
        ({"source_variables": ["*", "KEY", "K*@api.example.com"]}, [f"source_variables has {each!r}" for each in ("*", "KEY", "K*@api.example.com")]),
        ({"source_databases": ["*", "OWN_URL"]}, ["source_databases has '*'", "source_databases has 'OWN_URL'"]),
        ({"source_objects": ["*"]}, ["source_objects has '*'"]),
        ({"source_allow": ["0.0.0.0/0"]}, ["source_allow has '0.0.0.0/0'"]),
    ],
)  # fmt: skip
def test_lists_that_allow_sources_nearly_everything_are_reported(
    lists: dict[str, list[str]], wide: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN_URL", OWN)
    monkeypatch.setenv("DOCS_URL", "postgresql://docs@db/docs")
    settings = Settings().changed(
        database={"url": SecretStr(OWN)}, broker={"url": SecretStr("redis://cache")}
    )
    settings = settings.model_copy(update={"knowledge": KnowledgeSection(**lists)})
    found = wide_lists(settings)
    assert [each.level for each in found] == ["warn"] * len(wide)
    assert [each.text.removeprefix("The setting knowledge.").partition(": ")[0] for each in found] == wide


def test_local_servers_may_have_wide_lists(tmp_path: Path) -> None:
    for name, mode in (("database", 0o700), ("broker", 0o700), ("open", 0o755)):
        (tmp_path / name).mkdir(mode=mode)
    database = {"url": SecretStr(f"postgresql://agno@/agno?host={tmp_path}/database")}
    lists = {"knowledge": KnowledgeSection(source_roots=("/",))}
    for folder, warnings in (("broker", 0), ("open", 1)):
        broker = {"url": SecretStr(f"redis+socket://{tmp_path}/{folder}/valkey.sock")}
        settings = Settings().changed(database=database, broker=broker).model_copy(update=lists)
        assert len(wide_lists(settings)) == warnings
    assert wide_lists(Settings().model_copy(update=lists)) == [], "no servers, no authors"


def test_buffers_that_hold_what_searches_read_are_no_finding() -> None:
    assert too_few_buffers(Sizes(2**27, 2**27), is_local=False) == []


@pytest.mark.parametrize(
    ("is_local", "move"), [(False, "set shared_buffers of Postgres to 451 MB or more"), (True, "use a server of your own")]
)  # fmt: skip
def test_buffers_smaller_than_what_searches_read_are_reported(is_local: bool, move: str) -> None:
    (finding,) = too_few_buffers(Sizes(451 * 2**20, 128 * 2**20), is_local=is_local)
    assert (finding.level, finding.about) == ("warn", "knowledge")
    assert "take 451 MB with their indexes, and shared_buffers is 128 MB" in finding.text
    assert move in finding.text


@pytest.mark.parametrize(
    ("size", "free", "level", "said"),
    [
        (10**7, None, "ok", "takes 0.01 GB, and a write succeeds; its free space can't be seen from here"),
        (10**7, 2 * 10**9, "ok", "2.00 GB are free"),
        (10**7, 5 * 10**8, "warn", "0.50 GB are free: Postgres stops when its disk is full"),
        (10**11, 5 * 10**9, "warn", "5.00 GB are free: Postgres stops"),
    ],
)
def test_disk_is_nearly_full_below_a_gigabyte_or_a_tenth_of_the_database(
    size: int, free: int | None, level: str, said: str
) -> None:
    found = _space(size, free)
    assert (found.level, said in found.text) == (level, True)
