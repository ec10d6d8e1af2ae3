"""Settings: where a value comes from, and the errors for a wrong one."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from pydantic import SecretStr

from agno_workers import extras, wiring
from agno_workers.errors import SettingsError
from agno_workers.knowledge.store.ingest import IngestLimits
from agno_workers.runs.base import RunNumbers
from agno_workers.settings import KEYS, SECTIONS, Settings, load, variable

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
    assert load() == Settings()
    assert load().runs.lease_s == 15.0


def test_a_file_beats_the_default(write: Path) -> None:
    write.write_text("[runs]\nlease_s = 30")
    assert load().runs.lease_s == 30.0


def test_the_environment_beats_the_file(write: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write.write_text("[runs]\nlease_s = 30\nrenew_every_s = 7")
    monkeypatch.setenv("AGNO_RUNS__LEASE_S", "45")
    assert (load().runs.lease_s, load().runs.renew_every_s) == (45.0, 7.0)


def test_every_setting_has_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in KEYS:
        section, _, name = key.rpartition(".")
        default = getattr(getattr(Settings(), section) if section else Settings(), name)
        monkeypatch.setenv(variable(key), "" if isinstance(default, tuple) else str(default))
    assert load() == Settings().changed(
        database={"url": load().database.url}, broker={"url": load().broker.url}
    )


@pytest.mark.parametrize("section", ["database", "broker"])
def test_an_address_has_a_short_and_a_long_variable(section: str, monkeypatch: pytest.MonkeyPatch) -> None:
    short, long = f"AGNO_{section.upper()}_URL", f"AGNO_{section.upper()}__URL"
    scheme = {"database": "postgresql", "broker": "redis"}[section]
    for name in (short, long):
        monkeypatch.setenv(name, f"{scheme}://secret")
        assert getattr(load(), section).url.get_secret_value() == f"{scheme}://secret"
    monkeypatch.setenv(short, f"{scheme}://other")
    with pytest.raises(SettingsError, match=f"{short} and {long} have different values: set one") as refused:
        load()
    assert scheme not in str(refused.value)


@pytest.mark.parametrize("name", ["AGNO_DATABASE_URL", "AGNO_DATABASE__DIRECT_URL"])
def test_malformed_address_of_the_database_is_refused_without_its_password(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "postgresql://agno:hu/sh@db/agno")
    with pytest.raises(SettingsError, match=f"%2F for /.*Correct {name} in the environment") as refused:
        load()
    assert "hu" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "names"),
    [("a.b", ("a.b",)), (" a, b ,", ("a", "b")), ("", ()), (" , ", ())],
)
def test_a_list_is_a_text_with_commas_or_an_array(
    text: str, names: tuple[str, ...], write: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write.write_text(f"imports = {list(names)}\n[knowledge]\nsource_roots = {text!r}")
    assert (load().imports, load().knowledge.source_roots) == (names, names)
    monkeypatch.setenv("AGNO_KNOWLEDGE__SOURCE_ALLOW", text)
    assert load().knowledge.source_allow == names


@pytest.mark.parametrize(
    ("text", "given", "known"),
    [
        ("[runs]\nleese_s = 30", "runs.leese_s", "runs.lease_s"),
        ("lease_s = 30", "lease_s", "runs.lease_s"),
        ("[lease]\nseconds = 30", "lease", "runs.lease_s"),
        ("[statement]", "statement", "database.statement_timeout_s"),
        ("import = 'a'", "import", "imports"),
        ("runs = 30", "runs", "runs.lease_s"),
    ],
)
def test_an_unknown_key_of_the_file_names_the_nearest(text: str, given: str, known: str, write: Path) -> None:
    write.write_text(text)
    with pytest.raises(
        SettingsError, match=rf"unknown setting '{given}' in .*settings\.toml: did you mean '{known}'\?"
    ):
        load()


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ("AGNO_DATABSE_URL", "AGNO_DATABASE_URL"),
        ("agno_database_url", "AGNO_DATABASE_URL"),
        ("AGNO_LEASE_S", "AGNO_RUNS__LEASE_S"),
        ("AGNO_LEASE", "AGNO_RUNS__LEASE_S"),
        ("AGNO_KEEPER_LEASE_S", "AGNO_KEEPER__LEASE_S"),
        ("AGNO_DB_POOL_SIZE", "AGNO_DATABASE__POOL_SIZE"),
        ("AGNO_AGENT_QUEUE", "AGNO_QUEUES__AGENTS"),
        ("AGNO_SIGNING_KEY", "AGNO_SIGNING__KEYS"),
        ("AGNO_STREAM_TTL_S", "AGNO_STREAMS__TTL_S"),
        ("AGNO_WORKER__GRACE_S", "AGNO_WORKER__SHUTDOWN_GRACE_S"),
        ("AGNO_STATE_DIRECTORY", "AGNO_STATE_DIR"),
    ],
)
def test_an_unknown_variable_names_the_nearest(given: str, known: str, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv(given, "1")
    with pytest.raises(
        SettingsError, match=rf"unknown setting '{given}' in the environment: did you mean '{known}'\?"
    ):
        load()


@pytest.mark.parametrize(
    "name", sorted(re.findall(r"^#   (AGNO_\w+)", (ROOT / "run").read_text(encoding="utf-8"), re.MULTILINE))
)
def test_variables_that_run_reads_are_accepted(
    name: str, monkeypatch: pytest.MonkeyPatch, write: Path
) -> None:
    write.write_text("")
    monkeypatch.setenv(name, str(write))
    load()


def test_broken_toml_is_reported_with_file_and_line(write: Path) -> None:
    write.write_text("imports = = 3")
    with pytest.raises(SettingsError, match=r"settings\.toml is not valid TOML: .*line 1"):
        load()


def test_a_file_that_is_not_text_is_reported(write: Path) -> None:
    write.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="is not valid TOML"):
        load()


def test_a_missing_file_is_reported(write: Path) -> None:
    with pytest.raises(SettingsError, match=r"AGNO_CONFIG names .*settings\.toml.*No such file"):
        load()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("runs.lease_s", "0"),
        ("runs.lease_s", "-1"),
        ("runs.lease_s", "nan"),
        ("runs.lease_s", "'soon'"),
        ("database.pool_size", "0"),
        ("database.pool_size", "1.5"),
        ("runs.inline_max_bytes", "10"),
        ("knowledge.source_roots", "[1]"),
        ("imports", "[1]"),
        ("imports", "{a = 1}"),
    ],
)
def test_a_wrong_value_is_reported_with_its_key_and_its_place(
    key: str, value: str, write: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write.write_text(f"{key} = {value}")
    with pytest.raises(
        SettingsError, match=rf"setting '{key}' is .*: Input should .*\. Correct {key} in .*settings\.toml\.$"
    ) as refused:
        load()
    assert refused.value.ids["key"] == key
    if value.strip("'-").isalnum():
        write.write_text("")
        monkeypatch.setenv(variable(key), value.strip("'"))
        with pytest.raises(SettingsError, match=rf"Correct {variable(key)} in the environment\.$"):
            load()


def test_a_renewal_that_misses_the_lease_is_reported_with_both_places(
    write: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write.write_text("[runs]\nrenew_every_s = 6\nturn_attempts = 3")
    monkeypatch.setenv("AGNO_RUNS__LEASE_S", "10")
    with pytest.raises(
        SettingsError,
        match=r"^runs\.renew_every_s \(6\.0\) must be at most half of runs\.lease_s \(10\.0\).*twice\. "
        r"Correct runs\.renew_every_s in .*settings\.toml or AGNO_RUNS__LEASE_S in the environment\.$",
    ):
        load()


def test_the_numbers_of_runs_and_ingestions_are_those_of_their_sections() -> None:
    """A number whose name differs in its section would silently keep its default."""
    own = {
        "embed_texts",
        "unknown_bytes",
        "publish_after_s",
    }  # of IngestLimits, and no settings of `knowledge`
    names = [name for name in IngestLimits.__struct_fields__ if name not in own]
    settings = Settings().changed(
        database={"url": SecretStr("postgresql://nobody")},
        runs=dict.fromkeys(RunNumbers.__struct_fields__, 77),
        knowledge=dict.fromkeys(names, 78),
    )
    with wiring.database(settings) as database:
        assert database.numbers == RunNumbers(*[77] * len(RunNumbers.__struct_fields__))
        assert database.ingest.windows == IngestLimits(publish_after_s=77, **dict.fromkeys(names, 78))
    with wiring.database(Settings().changed(database={"url": SecretStr("postgresql://nobody")})) as database:
        assert (database.numbers, database.ingest.windows) == (RunNumbers(), IngestLimits())


def test_every_number_has_its_unit_in_its_name() -> None:
    counted = {  # connections, attempts, events, steps, documents, tokens
        "database.pool_size",
        "runs.turn_attempts",
        "streams.max_events",
        "knowledge.ingest_window",
        "knowledge.embed_window",
        "knowledge.batch_documents",
        "knowledge.embed_tokens",
        "knowledge.attempts",
    }
    numbers = {
        f"{section}.{name}"
        for section, owner in SECTIONS.items()
        for name, field in owner.model_fields.items()
        if field.annotation in (int, float)
    }
    assert {key for key in numbers if not key.endswith(("_s", "_bytes"))} == counted


def test_every_section_has_a_docstring() -> None:
    assert all(owner.__doc__ for owner in SECTIONS.values())


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch, write: Path) -> None:
    write.write_text('signing.keys = ["hunter2 and more letters"]\nbroker.url = "redis://:hunter2@host/0"')
    monkeypatch.setenv("AGNO_DATABASE_URL", "postgresql://me:hunter2@host/db")
    shown = load()
    for text in (
        repr(shown),
        str(shown),
        f"{shown.database.url} {shown.broker.url} {shown.signing.keys}",
        shown.model_dump_json(),
    ):
        assert "hunter2" not in text
    assert "hunter2" in shown.database.url.get_secret_value()
    assert shown.signing.text == "hunter2 and more letters"


@pytest.mark.parametrize("text", ["signing.keys = ['short']", "signing.keys = [17]", "broker.url = 17"])
def test_an_error_never_shows_a_secret(text: str, write: Path) -> None:
    write.write_text(text)
    with pytest.raises(SettingsError, match=r"^setting '\w+\.\w+': ") as refused:
        load()
    assert not re.search("short|input_value", str(refused.value.__cause__))
    assert not re.search(r"short|17", str(refused.value).removesuffix(str(write)).replace(str(write), ""))


def test_settings_do_not_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().runs.lease_s = 1.0  # type: ignore[misc]  # that is the test
    with pytest.raises(ValueError, match="frozen"):
        load().runs = Settings().runs  # type: ignore[misc]  # that is the test


def test_an_address_is_a_secret() -> None:
    """A value that may hold a password must not be a plain string, which a log line would show."""
    plain = [
        f"{section}.{name}"
        for section, owner in SECTIONS.items()
        for name, field in owner.model_fields.items()
        if name.endswith("url") and "SecretStr" not in str(field.annotation)
    ]
    assert plain == ["models.local_base_url"]


@pytest.mark.parametrize(("places", "extra"), [((), None), (("*",), None), (("s3://documents",), "objects")])
def test_named_buckets_require_objects(
    places: tuple[str, ...], extra: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`up` sets "*": it permits buckets, and must work where only `embedded` and `knowledge` are installed."""
    monkeypatch.setattr(
        extras, "problem", lambda extra: "obstore is not installed" if extra == "objects" else None
    )
    problem = wiring._lacking(Settings().changed(knowledge={"source_objects": places}))
    assert problem is None if extra is None else f"the extra {extra!r}" in str(problem)
