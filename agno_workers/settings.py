"""The addresses and numbers that may differ between two installations, in sections.

A value comes from the defaults here, the TOML file that `AGNO_CONFIG` names (`[runs]`, `lease_s = 30`) or the environment
(`AGNO_RUNS__LEASE_S=30`); the later one wins. `AGNO_DATABASE_URL` and `AGNO_BROKER_URL` are short for the `url` of their sections.
An unknown name is an error that names the nearest known one.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from agno_workers.addresses import check_postgres, redis_fault
from agno_workers.errors import SettingsError

# Read before there are settings: by `./run`, by the local servers, by tests of crashes and by models.
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


def _split(given: object) -> object:
    """Split a comma-separated text, which is how the environment writes a list."""
    if not isinstance(given, str):
        return given
    return tuple(item.strip() for item in given.split(",")) if given.strip() else ()


def _without_blanks(items: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(item for item in items if item)


Names = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_without_blanks)]
Secrets = Annotated[tuple[SecretStr, ...], BeforeValidator(_split)]


class Section(BaseModel):
    """A group of settings. Every number has its unit in its name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class DatabaseSection(Section):
    """Postgres, the only durable store."""

    url: SecretStr = SecretStr("")
    """`postgresql://USER:PASSWORD@HOST:5432/DATABASE`, or any other form of libpq: `host=... dbname=...`, a service, several hosts."""
    direct_url: SecretStr = SecretStr("")
    """The same database without a pooler; only needed where `database.url` leads to one, such as PgBouncer."""
    pool_size: int = Field(16, ge=1)
    """Connections of one process, at most."""
    timeout_s: float = Field(10.0, gt=0)
    """Time limit for connecting, and for waiting for a free connection."""
    statement_timeout_s: float = Field(30.0, gt=0)
    """Time limit of one SQL statement."""

    @field_validator("url", "direct_url")
    @classmethod
    def _is_of_postgres(cls, url: SecretStr) -> SecretStr:
        check_postgres(url.get_secret_value())
        return url


class BrokerSection(Section):
    """Redis or Valkey: Celery's broker, and the live streams."""

    url: SecretStr = SecretStr("")
    """`redis://...`, `rediss://...` or `redis+socket:///path`."""
    timeout_s: float = Field(5.0, gt=0)
    """Time limit for connecting and for an answer."""
    key_prefix: str = Field("", pattern=r"^[\w.:/-]*$", max_length=100)
    """Begins all keys and channels in Redis, such as `staging:`. Deployments that share a database of Redis need different ones; plain
    Celery apps set it as `global_keyprefix`, see docs/howto-celery.md."""

    @field_validator("url")
    @classmethod
    def _is_of_redis(cls, url: SecretStr) -> SecretStr:
        if url and (fault := redis_fault(url.get_secret_value())):
            raise ValueError(fault)
        return url


class SigningSection(Section):
    """Signatures of messages; see docs/reference-messages.md."""

    keys: Secrets = ()
    """With a key, tasks are signed when they are sent, and workers reject unsigned ones. Several keys replace one without downtime:
    the first one signs, all are accepted."""
    max_age_s: int = Field(0, ge=0)
    """Reject a message that was signed longer ago, unless it is a step; 0: no limit."""

    @field_validator("keys")
    @classmethod
    def _are_long(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(len(key) < _SHORTEST_KEY for key in keys):
            raise ValueError(
                f"a key has at least {_SHORTEST_KEY} characters (`openssl rand -hex 32` makes one)"
            )
        return keys

    @property
    def text(self) -> str:
        """The keys with commas between them, as `sign` takes them."""
        return ",".join(key.get_secret_value() for key in self.keys)


class QueuesSection(Section):
    """The Celery queues, for agents and tools that name none."""

    agents: str = "agents"
    """The queue of runs and their turns."""
    tools: str = "tools"
    """The queue of tool calls."""
    knowledge: str = "knowledge"
    """The queue of ingestions."""
    background: str = "background"
    """The queue of summaries, memories and the index of past sessions, which follow the runs of sessions."""


class RunsSection(Section):
    """The steps of runs."""

    lease_s: float = Field(15.0, gt=0)
    """A worker that has not renewed its leases for this long loses its steps to other workers."""
    renew_every_s: float = Field(5.0, gt=0)
    """Time between two renewals; at most half of `runs.lease_s`, so that one missed renewal does no harm."""
    publish_after_s: float = Field(0.5, gt=0)
    """The keeper publishes outbox rows that are older: their sender crashed."""
    turn_attempts: int = Field(5, ge=1)
    """The run fails when workers have died this many times in one turn. Refusals of the provider count by `Retry`."""
    inline_max_bytes: int = Field(64 * 1024, ge=1024)
    """A longer string is stored once, by its hash, and referred to."""

    @model_validator(mode="after")
    def _renewal_beats_the_lease(self) -> RunsSection:
        if self.renew_every_s * 2 > self.lease_s:
            raise ValueError(
                f"runs.renew_every_s ({self.renew_every_s}) must be at most half of runs.lease_s ({self.lease_s}), or long steps "
                "are executed twice"
            )
        return self


class KeeperSection(Section):
    """The keeper, which one worker at a time runs: it sends again what was lost."""

    every_s: float = Field(0.25, gt=0)
    """Pause between two rounds."""
    lease_s: float = Field(1.0, gt=0)
    """Another worker takes over when the keeper has been silent for this long."""
    resend_after_s: float = Field(3.0, gt=0)
    """A step is sent again when nobody has claimed it for this long although its queue is empty."""


class WorkerSection(Section):
    """A worker process."""

    shutdown_grace_s: float = Field(10.0, ge=0)
    """After SIGTERM, active steps may finish within this time; the rest is handed over to other workers."""
    shutdown_max_s: float = Field(300.0, gt=0)
    """Time limit for what cannot be handed over: `once` tools and Celery tasks of your own."""
    canary_every_s: float = Field(30.0, gt=0)
    """Time between two self-test messages; a worker that misses three in a row shuts down for a restart."""


class StreamsSection(Section):
    """Live events of runs, in Redis."""

    max_events: int = Field(10_000, ge=1)
    """Events kept of one run; the oldest go first."""
    ttl_s: int = Field(3600, ge=1)
    """Time that a run's events are kept after the last one."""


class KnowledgeSection(Section):
    """Ingestions: how they are cut into steps, and what they may read."""

    ingest_window: int = Field(4, ge=1)
    """Reading steps of one ingestion that are sent at a time; the others wait in Postgres, so that every ingestion gets workers."""
    embed_window: int = Field(8, ge=1)
    """Embedding steps of one ingestion that are sent at a time."""
    batch_bytes: int = Field(4 * 1024 * 1024, ge=1)
    """Bytes of documents in one step, at most."""
    batch_documents: int = Field(50, ge=1)
    """Documents in one step, at most."""
    embed_tokens: int = Field(64_000, ge=1)
    """Tokens that one step embeds, at most."""
    attempts: int = Field(3, ge=1)
    """A step is cut into smaller ones, or given up, when workers have died in it this many times."""
    document_max_bytes: int = Field(50 * 1024 * 1024, ge=1)
    """Larger documents are rejected."""
    source_allow: Names = ()
    """Private hosts and networks that documents may be fetched from: `wiki.intern`, `*.intern`, `10.0.0.0/8`, `host:8443`. Other
    private addresses are refused; see docs/sources.md."""
    source_roots: Names = ()
    """Folders that documents may be read from: `/srv/documents`. Files elsewhere are refused, after links are resolved. Empty: no
    files; `/`: every file that the worker can read."""
    source_variables: Names = ()
    """Environment variables that `headers_env` of a source may name, each with the host that gets its value:
    `ARTICLES_AUTHORIZATION@api.example.com`. Without a host, the author of a source chooses it; `*`: all."""
    source_databases: Names = ()
    """Environment variables with the URL of a database that sources may query: `DOCS_DATABASE_URL`; `*`: all."""
    source_objects: Names = ()
    """Buckets, or prefixes in them, that sources may read: `s3://documents`, `gs://wiki/public`; `*`: all that the workers'
    credentials open."""
    fetch_timeout_s: float = Field(60.0, gt=0)
    """Time limit for fetching one document."""


class ModelsSection(Section):
    """Model providers. Their keys are variables of their own: `OPENAI_API_KEY`, `ANTHROPIC_API_KEY`, `AGNO_LOCAL_API_KEY`."""

    local_base_url: str = ""
    """The OpenAI-compatible server of `local:...` models, such as `http://127.0.0.1:11434/v1`."""


class Settings(Section):
    """The settings of one process."""

    imports: Names = ()
    """Modules in which workers find agents: `myapp.agents`."""
    deployment: str = Field("", max_length=100)
    """The name of this deployment, such as `production`. The first worker stores it in the database, and workers with another name
    refuse that database: a copy of its disk does not execute its runs again."""
    local_servers: bool = True
    """Without `database.url` and `broker.url`, use the servers of a running `agno-workers up` of the same user. Off in production."""
    database: DatabaseSection = DatabaseSection()
    broker: BrokerSection = BrokerSection()
    signing: SigningSection = SigningSection()
    queues: QueuesSection = QueuesSection()
    runs: RunsSection = RunsSection()
    keeper: KeeperSection = KeeperSection()
    worker: WorkerSection = WorkerSection()
    streams: StreamsSection = StreamsSection()
    knowledge: KnowledgeSection = KnowledgeSection()
    models: ModelsSection = ModelsSection()

    @property
    def may_use_local_servers(self) -> bool:
        """True if a process that needs servers may take those of a running `agno-workers up`."""
        return self.local_servers and not (
            self.database.url.get_secret_value() or self.broker.url.get_secret_value()
        )

    def changed(self, **sections: Mapping[str, Any]) -> Settings:
        """Return a copy with other values, which are not checked: `changed(database={"pool_size": 3})`."""
        return self.model_copy(
            update={name: getattr(self, name).model_copy(update=values) for name, values in sections.items()}
        )


SECTIONS: Mapping[str, type[Section]] = {
    name: field.annotation
    for name, field in Settings.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}
KEYS = (
    *(name for name in Settings.model_fields if name not in SECTIONS),
    *(f"{name}.{field}" for name, section in SECTIONS.items() for field in section.model_fields),
)
"""Every setting, as in `runs.lease_s`."""
_SHORT = {"database.url": "AGNO_DATABASE_URL", "broker.url": "AGNO_BROKER_URL"}


def variable(key: str) -> str:
    """Return the environment variable of a setting: AGNO_RUNS__LEASE_S for `runs.lease_s`."""
    return _SHORT.get(key) or _long(key)


def load() -> Settings:
    """Return the settings of this process. Raises SettingsError, whose message says what to correct."""
    path = os.environ.get("AGNO_CONFIG", "")
    found = (_from_file(Path(path)) if path else {}) | _from_environment()
    nested: dict[str, Any] = {}
    for key, (value, _) in found.items():
        *section, name = key.split(".")
        (nested.setdefault(section[0], {}) if section else nested)[name] = value
    try:
        return Settings(**nested)
    except ValidationError as error:
        raise _refused(error, found) from error


class _Found(NamedTuple):
    value: object
    place: str


def _from_environment() -> dict[str, _Found]:
    keys = {name: key for key in KEYS for name in (_long(key), variable(key))}
    found: dict[str, _Found] = {}
    for name, value in os.environ.items():
        if not name.upper().startswith("AGNO_") or name in _OTHER_VARIABLES:
            continue
        if name not in keys:
            raise _unknown(name, "the environment", [*map(variable, KEYS), *_OTHER_VARIABLES])
        key = keys[name]
        if key in found and found[key].value != value:
            raise SettingsError(
                f"{variable(key)} and {_long(key)} have different values: set one of them.", key=key
            )
        found[key] = _Found(value, f"{name} in the environment")
    return found


def _from_file(path: Path) -> dict[str, _Found]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            f"AGNO_CONFIG names {str(path)!r}, which can't be read: {error.strerror}. Correct the path."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid TOML: {error}. Correct that line.") from error
    found: dict[str, _Found] = {}
    for name, value in values.items():
        is_section = name in SECTIONS and isinstance(value, dict)
        items = {f"{name}.{own}": value[own] for own in value} if is_section else {name: value}
        for key, item in items.items():
            if key not in KEYS:
                raise _unknown(key, str(path), KEYS)
            found[key] = _Found(item, f"{key} in {path}")
    return found


def _refused(error: ValidationError, found: Mapping[str, _Found]) -> SettingsError:
    first = error.errors()[0]
    message = str(first["msg"]).removeprefix("Value error, ")
    key = ".".join(map(str, first["loc"][:2]))
    if key in SECTIONS:  # settings that do not go together; the message names them
        places = [place for name, (_, place) in found.items() if name in message]
        return SettingsError(f"{message}. Correct {' or '.join(places)}.", key=key)
    if key not in found:  # an item of a list
        key = key.partition(".")[0]
    value, place = found[key]
    shown = "" if _is_secret(key) else f" is {value!r}"
    return SettingsError(f"setting {key!r}{shown}: {message}. Correct {place}.", key=key)


def _is_secret(key: str) -> bool:
    section, _, name = key.rpartition(".")
    fields = (SECTIONS[section] if section else Settings).model_fields
    return "SecretStr" in str(fields[name].annotation)


def _unknown(name: str, where: str, known: Iterable[str]) -> SettingsError:
    near = max(known, key=lambda other: _likeness(name, other))
    return SettingsError(f"unknown setting {name!r} in {where}: did you mean {near!r}?", key=name)


def _likeness(given: str, known: str) -> float:
    """Compare two names as a whole and by the last part of the known one: a section may be missing or shortened."""
    last = known.rpartition("__")[2].rpartition(".")[2]
    return max(difflib.SequenceMatcher(None, _words(given), _words(name)).ratio() for name in (known, last))


def _words(name: str) -> str:
    return name.lower().removeprefix("agno_").replace("__", "_").replace(".", "_")


def _long(key: str) -> str:
    return f"AGNO_{key.upper().replace('.', '__')}"
