"""Settings: where a value comes from, and what a person reads who got one wrong."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from agno_workers.errors import SettingsError
from agno_workers.settings import Settings, load

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AGNO_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A settings file that AGNO_CONFIG names; the test writes it."""
    path = tmp_path / "settings.toml"
    monkeypatch.setenv("AGNO_CONFIG", str(path))
    return path


def test_defaults_need_no_file() -> None:
    assert load().lease_s == 15.0


def test_a_file_beats_the_default(write: Path) -> None:
    write.write_text("lease_s = 30")
    assert load().lease_s == 30.0


def test_the_environment_beats_the_file(write: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write.write_text("lease_s = 30\nrenew_every_s = 7")
    monkeypatch.setenv("AGNO_LEASE_S", "45")
    assert (load().lease_s, load().renew_every_s) == (45.0, 7.0)


def test_an_unknown_key_of_the_file_names_the_nearest(write: Path) -> None:
    write.write_text("leese_s = 30")
    with pytest.raises(
        SettingsError, match=r"unknown setting 'leese_s' in .*settings\.toml: did you mean 'lease_s'\?"
    ):
        load()


def test_an_unknown_variable_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGNO_DATABSE_URL", "postgresql://")
    with pytest.raises(
        SettingsError, match="'AGNO_DATABSE_URL' in the environment: did you mean 'AGNO_DATABASE_URL'"
    ):
        load()


def test_a_section_is_an_unknown_key(write: Path) -> None:
    write.write_text("[lease]\nseconds = 30")
    with pytest.raises(SettingsError, match="'lease'"):
        load()


@pytest.mark.parametrize(
    "name", sorted(re.findall(r"^#   (AGNO_\w+)", (ROOT / "run").read_text(encoding="utf-8"), re.MULTILINE))
)
def test_what_run_reads_from_the_environment_is_no_mistake(
    name: str, monkeypatch: pytest.MonkeyPatch, write: Path
) -> None:
    write.write_text("")
    monkeypatch.setenv(name, str(write))
    load()


def test_broken_toml_is_said_with_file_and_place(write: Path) -> None:
    write.write_text("lease_s = = 3")
    with pytest.raises(SettingsError, match=r"settings\.toml is not valid TOML: .*line 1"):
        load()


def test_a_file_that_is_no_text_is_said(write: Path) -> None:
    write.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="is not valid TOML"):
        load()


def test_a_missing_file_is_said(write: Path) -> None:
    with pytest.raises(SettingsError, match=r"AGNO_CONFIG names .*settings\.toml.*No such file"):
        load()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("lease_s = 0", "lease_s"),
        ("lease_s = -1", "lease_s"),
        ('lease_s = "soon"', "lease_s"),
        ("db_pool_size = 0", "db_pool_size"),
        ("db_pool_size = 1.5", "db_pool_size"),
        ("inline_max_bytes = 10", "inline_max_bytes"),
    ],
)
def test_a_value_out_of_range_names_its_key_and_where_to_set_it(text: str, key: str, write: Path) -> None:
    write.write_text(text)
    with pytest.raises(
        SettingsError, match=f"setting '{key}'.*Set it in .*settings.toml or as AGNO_{key.upper()}"
    ):
        load()


def test_every_number_says_its_unit() -> None:
    counted = {  # connections, attempts, events, steps, documents, tokens
        "db_pool_size",
        "turn_attempts",
        "stream_max_events",
        "ingest_window",
        "embed_window",
        "batch_documents",
        "embed_tokens",
        "ingest_attempts",
    }
    numbers = {name for name, field in Settings.model_fields.items() if field.annotation in (int, float)}
    assert {name for name in numbers if not name.endswith(("_s", "_bytes"))} == counted


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch, write: Path) -> None:
    write.write_text('broker_url = "redis://:hunter2@host/0"')
    monkeypatch.setenv("AGNO_DATABASE_URL", "postgresql://me:hunter2@host/db")
    shown = load()
    for text in (
        repr(shown),
        str(shown),
        f"{shown.database_url} {shown.broker_url}",
        shown.model_dump_json(),
    ):
        assert "hunter2" not in text
    assert "hunter2" in shown.database_url.get_secret_value()


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().lease_s = 1.0  # type: ignore[misc]  # that is the test


def test_an_address_is_a_secret() -> None:
    """What may hold a password must not be a plain string, which a log line would show."""
    urls = {name for name in Settings.model_fields if name.endswith("_url")} - {"local_base_url"}
    assert all(Settings.model_fields[name].annotation.__name__ == "SecretStr" for name in urls)  # type: ignore[union-attr]
