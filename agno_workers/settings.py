"""The numbers and addresses that may differ between two installations.

Values come, in rising order, from the defaults here, the TOML file that `AGNO_CONFIG` names, and the
environment (`AGNO_LEASE_S=30`). An unknown key, in the file or in the environment, is an error that names the
nearest known one: a setting that is silently ignored is found on the worst of days.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from agno_workers.errors import SettingsError

# Read by `./run` and the embedded servers before there are settings.
_OTHER_VARIABLES = frozenset(
    {
        "AGNO_CONFIG",
        "AGNO_CRASH_AT",
        "AGNO_CRASH_HOW",
        "AGNO_INSTALLER",
        "AGNO_LOCAL_API_KEY",
        "AGNO_PYTHON",
        "AGNO_STATE_DIR",
        "AGNO_VENV",
    }
)

_SHORTEST_KEY = 16


class Settings(BaseSettings):
    """Every number has its unit in its name."""

    model_config = SettingsConfigDict(env_prefix="AGNO_", extra="forbid", frozen=True, allow_inf_nan=False)

    database_url: SecretStr = SecretStr("")
    """`postgresql://...`; the one durable store."""
    broker_url: SecretStr = SecretStr("")
    """`redis://...`, `rediss://...` or `redis+socket:///path`; the wake-up calls and the live streams."""
    signing_key: SecretStr = SecretStr("")
    """With a key, tasks are signed when they are sent, and a worker takes no others; several, with commas, while one
    replaces another: the first signs, each is believed. Empty: no signatures."""
    signing_max_age_s: int = Field(0, ge=0)
    """With a key: refuse what was signed longer ago, but for steps; 0: however old. See docs/messages.md."""
    imports: str = ""
    """Comma-separated modules in which the worker finds agents: `myapp.agents,myapp.more`."""

    agent_queue: str = "agents"
    """The Celery queue of runs and their turns, for agents that name none."""
    tool_queue: str = "tools"
    """The Celery queue of tool calls, for tools that name none."""
    knowledge_queue: str = "knowledge"
    """The Celery queue of ingestions."""
    ingest_window: int = Field(4, ge=1)
    """Steps of one ingestion that read documents, sent at a time: the rest waits in Postgres, so that others have their turn."""
    embed_window: int = Field(8, ge=1)
    """The same, of steps that make vectors."""
    batch_bytes: int = Field(4 * 1024 * 1024, ge=1)
    """Bytes of documents that one step reads."""
    batch_documents: int = Field(50, ge=1)
    """Documents that one step reads, at the most."""
    embed_tokens: int = Field(32_000, ge=1)
    """Tokens of which one step makes vectors."""
    ingest_attempts: int = Field(3, ge=1)
    """Times that a worker may die in one step of an ingestion, before the step is cut into smaller ones, and then given up."""
    document_max_bytes: int = Field(50 * 1024 * 1024, ge=1)
    """A larger document is refused."""
    source_allow: str = ""
    """Private hosts and networks that documents may be fetched from, with commas: `wiki.intern`, `*.intern`, `10.0.0.0/8`,
    `host:8443`. Others are refused, whoever names them: see net/addresses.py."""
    source_roots: str = ""
    """Folders that documents may be read from, with commas: `/srv/documents,/mnt/wiki`. Files elsewhere are refused, links resolved,
    whoever names them. Empty: whatever the worker can read."""
    fetch_timeout_s: float = Field(60.0, gt=0)
    """The longest that fetching one document may take."""
    local_base_url: str = ""
    """Where `local:...` models answer (OpenAI-compatible), such as `http://127.0.0.1:11434/v1`."""

    db_pool_size: int = Field(16, ge=1)
    """Postgres connections of one process at the most."""
    db_timeout_s: float = Field(10.0, gt=0)
    """Wait for a free connection, and for connecting."""
    statement_timeout_s: float = Field(30.0, gt=0)
    """The longest that one SQL statement may take."""
    broker_timeout_s: float = Field(5.0, gt=0)
    """Wait for Redis to connect or to answer."""

    lease_s: float = Field(15.0, gt=0)
    """A worker that has not renewed for so long has lost its steps."""
    renew_every_s: float = Field(5.0, gt=0)
    """How often a worker renews the leases of its steps; well under `lease_s`, so that one missed time is no loss."""
    keeper_every_s: float = Field(0.25, gt=0)
    """Pause between two rounds of the keeper."""
    publish_after_s: float = Field(0.5, gt=0)
    """An outbox row older than this was left behind by a crash: the keeper publishes it."""
    resend_after_s: float = Field(3.0, gt=0)
    """A sent step that nobody claimed, while its queue is empty, was lost: the keeper sends it again."""
    keeper_lease_s: float = Field(1.0, gt=0)
    """A keeper that is silent for so long is replaced by another worker's."""
    shutdown_grace_s: float = Field(10.0, ge=0)
    """A worker that is asked to end (SIGTERM) finishes what it can within this, and hands the rest over to others."""
    shutdown_max_s: float = Field(300.0, gt=0)
    """What can't be handed over, `once` tools and tasks of your own, is waited for so long, then cut short."""
    canary_every_s: float = Field(30.0, gt=0)
    """How often a worker sends itself a message; one that did not hear three in a row ends, to be started again."""

    turn_attempts: int = Field(5, ge=1)
    """Times that a worker may die in one turn before the run fails; refusals of the provider count by `Retry`."""
    inline_max_bytes: int = Field(64 * 1024, ge=1024)
    """A string above this is stored once, by its hash, and referred to."""
    stream_max_events: int = Field(10_000, ge=1)
    """Live events kept of one run; the oldest go first."""
    stream_ttl_s: int = Field(3600, ge=1)
    """How long the live events of a run are kept after the last one."""

    @field_validator("signing_key")
    @classmethod
    def _keys_are_long(cls, given: SecretStr) -> SecretStr:
        keys = [key.strip() for key in given.get_secret_value().split(",")]
        if any(len(key) < _SHORTEST_KEY for key in keys) and keys != [""]:
            raise ValueError(
                f"a key has at least {_SHORTEST_KEY} characters (`openssl rand -hex 32` makes one)"
            )
        return given

    @model_validator(mode="after")
    def _renewal_beats_the_lease(self) -> Settings:
        if self.renew_every_s * 2 > self.lease_s:
            raise ValueError(
                f"renew_every_s ({self.renew_every_s}) must be at most half of lease_s ({self.lease_s}), or steps that take "
                "long are carried twice"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - pydantic-settings names the arguments
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over what `load` hands in from the file."""
        return env_settings, init_settings


def load() -> Settings:
    """The settings of this process. Raises SettingsError, whose message is all a person needs to mend it."""
    _refuse_unknown(
        {name for name in os.environ if name.startswith("AGNO_")},
        {f"AGNO_{field.upper()}" for field in Settings.model_fields} | _OTHER_VARIABLES,
        "the environment",
    )
    path = os.environ.get("AGNO_CONFIG", "")
    values = _read(Path(path)) if path else {}
    try:
        return Settings(**values)
    except ValidationError as error:
        raise _refused(error, path or "a file named by AGNO_CONFIG") from error


def _refused(error: ValidationError, where: str) -> SettingsError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if not key:  # two settings that don't go together
        return SettingsError(
            f"{first['msg'].removeprefix('Value error, ')}. Change one of them in {where} or the environment."
        )
    return SettingsError(
        f"setting {key!r}: {first['msg']}. Set it in {where} or as AGNO_{key.upper()}.", key=key
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"AGNO_CONFIG names {str(path)!r}, which can't be read: {error.strerror}. Correct the path."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}. Correct that line.") from error
    _refuse_unknown(set(values), set(Settings.model_fields), str(path))
    return values


def _refuse_unknown(given: set[str], known: set[str], where: str) -> None:
    for name in sorted(given - known):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise SettingsError(f"unknown setting {name!r} in {where}: did you mean {near[0]!r}?", key=name)
