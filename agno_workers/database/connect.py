"""Connections to Postgres: addresses in every form of libpq, and sessions with the same settings everywhere.

Roles, databases, the server and the environment (PGOPTIONS, PGDATESTYLE ...) may have other settings. Ours are set on each
connection, after its start, when they win against all of these; whatever else they set is kept.

Behind a pooler (PgBouncer in transaction mode), the next statement may have another session. There the settings are set in each
transaction, nothing is prepared, and what belongs to a session (LISTEN, advisory locks) needs a direct address.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, Self

import psycopg
from psycopg import Cursor, IsolationLevel
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import Row, tuple_row
from psycopg.types.json import Jsonb

from agno_workers.addresses import check_postgres
from agno_workers.errors import SettingsError, Unavailable, UnusableDatabase

_PINNED = {
    "DateStyle": "ISO, MDY",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "300000",
    "idle_session_timeout": "0",
}
"""Settings that the statements and the readers of their results need."""
_REPORTED = ("DateStyle", "TimeZone")
"""Settings that the environment gives apart from `options`. Poolers keep them for each client."""
_LOOK = """
SELECT pg_backend_pid(), getdatabaseencoding(), to_regtype('halfvec') IS NOT NULL,
       coalesce(current_setting('transaction_timeout', true), '0') = '0'
"""
_PATH = """
SELECT concat_ws(', ', nullif(current_setting('search_path'), ''), quote_ident(coalesce(
    (SELECT nspname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'vector'), 'public')))
"""
_SET = "SELECT set_config(key, value, %s) FROM jsonb_each_text(%s)"
_REFUSED = "unsupported startup parameter"
"""A pooler's words about `options`."""
_DEFAULTS = {
    # Detect a peer that is gone in seconds, not in the two hours of the system's default.
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
OLDEST_SERVER = 14
"""The oldest major version of Postgres that is supported."""
_FAULTS = (
    (r'no such database: (\S+)|database "(.+?)" does not exist', "the database {0!r} does not exist: create it (`CREATE DATABASE` with ENCODING 'UTF8'), or correct {setting}"),
    (r'role "(.+?)" does not exist|no such user: (\S+)', "the role {0!r} does not exist: create it, or correct {setting}"),
    (r'role "(.+?)" is not permitted to log in', "the role {0!r} may not log in: run `ALTER ROLE ... LOGIN`, or correct {setting}"),
    (r"no password supplied|password authentication failed|authentication failed|SASL auth", "Postgres refuses the user or the password ({reason}): correct {setting}"),
    (r"pg_hba\.conf", "Postgres refuses this machine ({reason}): add it to pg_hba.conf, or correct {setting}"),
    (r"permission denied for database", "{reason}: run `GRANT CONNECT, TEMPORARY ON DATABASE ... TO ...` as its owner, or correct {setting}"),
    (r"too many (?:clients|connections)|remaining connection slots|no more connections|query_wait_timeout", "Postgres has no connection left ({reason}): raise max_connections, or the limit of the role or the pooler, or lower AGNO_DATABASE__POOL_SIZE"),
    (r"starting up|shutting down|in recovery mode|not yet accepting connections", "Postgres is not ready ({reason}): try again in a moment"),
    (r"session is (?:read-only|not read-only)|is not in hot standby|server is in hot standby", "no server of the address is the wanted one ({reason}): correct its hosts, or target_session_attrs"),
    (r"SSL|certificate", "Postgres can't be reached safely ({reason}): correct sslmode and the certificates of {setting}"),
)  # fmt: skip
"""Sentences for a refused connection, by the words of Postgres and PgBouncer; libpq gives no code for it."""
_SECRETS = ("password", "sslpassword", "oauth_client_secret")
DIRECT_URL = "AGNO_DATABASE__DIRECT_URL"
READ_ONLY_MOVE = (
    "set AGNO_DATABASE_URL to the primary (with several hosts: target_session_attrs=read-write), or unset "
    "default_transaction_read_only of the server, the database or the role."
)
POOLED = (
    "AGNO_DATABASE_URL leads to a pooler such as PgBouncer, and notifications and locks need a session of their own: set "
    "AGNO_DATABASE__DIRECT_URL to an address of the same database without the pooler, or to the same address if that pooler keeps "
    "sessions."
)


def parse(address: str, setting: str = "AGNO_DATABASE_URL") -> dict[str, Any]:
    """Return the parts of an address: a URL, also with SQLAlchemy's `postgresql+psycopg:`, or `key=value`. `setting`: its variable.

    Raises SettingsError, whose text holds no piece of the address.
    """
    plain = re.sub(r"^(\w+)\+\w+://", r"\1://", address.strip())
    try:
        check_postgres(plain)
        if not plain:
            raise ValueError("it is empty: write postgresql://USER:PASSWORD@HOST:5432/DATABASE")
        return conninfo_to_dict(plain)
    except ValueError as error:
        raise SettingsError(f"the address of the database ({setting}) can't be used: {error}.") from None
    except psycopg.ProgrammingError as error:  # its text may repeat a password
        unknown = re.search(r'invalid (?:URI query parameter|connection option).*"(\w+)"', str(error))
        raise SettingsError(
            f"the address of the database has the unknown option {unknown[1]!r}: correct {setting}."
            if unknown
            else f"the address of the database ({setting}) is not one of Postgres: write postgresql://USER:PASSWORD@HOST:5432/DATABASE, or "
            "key=value pairs with blanks in single quotes."
        ) from None


def shown(address: str) -> str:
    """Return the address without its secrets, for people."""
    return make_conninfo(**{key: value for key, value in parse(address).items() if key not in _SECRETS})


def conninfo(address: str, setting: str = "AGNO_DATABASE_URL", **defaults: Any) -> str:
    """Return the address for libpq, with defaults for what it leaves open. Raises SettingsError."""
    return make_conninfo(**_DEFAULTS | defaults | parse(address, setting) | {"client_encoding": "utf8"})


def pinned(*, statement_timeout_s: float, **more: str) -> dict[str, str]:
    """Return the settings of a session. 0: statements may take any time."""
    return _PINNED | {"statement_timeout": str(round(statement_timeout_s * 1000))} | more


class PinnedConnection(psycopg.Connection[Row]):
    """See the module. A forked process can't use its parent's, and sends nothing on it."""

    encoding = ""
    """The encoding of the database."""
    is_pooled = False
    """True behind a pooler."""
    _settings: Mapping[str, str] = {}
    _pid = 0

    @classmethod
    def connect(  # type: ignore[override]  # two more
        cls, conninfo: str = "", *, pinned: Mapping[str, str] = {}, is_direct: bool = False, **kwargs: Any
    ) -> Self:  # fmt: skip
        """`is_direct`: the address is known to keep its session, also if a pooler is in between."""
        options = _options(conninfo, pinned)
        try:
            connection = super().connect(conninfo, **options, **kwargs)
        except psycopg.OperationalError as error:
            if _REFUSED not in str(error):
                raise
            options = {}
            connection = super().connect(conninfo, **kwargs)
        connection._pid = os.getpid()
        try:
            connection._settle(pinned, is_direct, are_set=bool(options))
        except BaseException:
            connection.close()
            raise
        return connection

    def _settle(self, pinned: Mapping[str, str], is_direct: bool, *, are_set: bool) -> None:
        """Set what the start could not set. Behind a pooler, which tells another process id than the server does, only what it
        keeps for each client, which psycopg needs when it reads rows after their transaction.
        """
        wrong = {
            name: pinned[name]
            for name in pinned
            if not are_set or (name in _REPORTED and self.info.parameter_status(name) != pinned[name])
        }
        with self.cursor(row_factory=tuple_row) as cursor:
            server, self.encoding, has_vector, has_no_limit = cursor.execute(_LOOK).fetchone() or ()
            if not has_no_limit:
                wrong["transaction_timeout"] = "0"
            has_pooler = server != self.info.backend_pid
            if (
                has_pooler or not has_vector
            ):  # sessions behind a pooler may be older than a setting of the role
                (wrong["search_path"],) = cursor.execute(_PATH).fetchone() or ("",)
            if has_pooler:
                reported = {name: wrong[name] for name in _REPORTED if name in wrong}
                wrong = {**pinned, **wrong}  # a pooler may ignore the start's
                if not is_direct:
                    self.is_pooled, self._settings, wrong = True, wrong, reported
                    self.prepare_threshold = None
            if wrong:
                cursor.execute(_SET, (False, Jsonb(wrong)))
        self.commit()
        if self.is_pooled:
            self.isolation_level = IsolationLevel.READ_COMMITTED

    def execute(self, query: Any, params: Any = None, **kwargs: Any) -> Cursor[Row]:
        if not self.is_pooled or self.info.transaction_status is not TransactionStatus.IDLE:
            return super().execute(query, params, **kwargs)
        # Without parameters, it may be several statements, which a pipeline does not take.
        with self.pipeline() if params else nullcontext(), self.transaction():
            return super().execute(query, params, **kwargs)

    @contextmanager
    def transaction(self, *args: Any, **kwargs: Any) -> Iterator[psycopg.Transaction]:
        is_outermost = self.info.transaction_status is TransactionStatus.IDLE
        with super().transaction(*args, **kwargs) as opened:
            if self.is_pooled and is_outermost:
                super().execute(_SET, (True, Jsonb(dict(self._settings))))
            yield opened

    def wait(self, *args: Any, **kwargs: Any) -> Any:
        if self._pid not in (0, os.getpid()):
            raise psycopg.InterfaceError("this connection belongs to the parent process")
        return super().wait(*args, **kwargs)

    def close(self) -> None:
        if self._pid in (0, os.getpid()):  # else it would end the parent's session
            super().close()


def _options(conninfo: str, pinned: Mapping[str, str]) -> dict[str, Any]:
    """Add ours to the address's own options; none for a service, which has them in its file."""
    own = conninfo_to_dict(conninfo)
    if "service" in own or "PGSERVICE" in os.environ:
        return {}
    given = str(own.get("options", os.environ.get("PGOPTIONS", "")))
    ours = ("-c " + f"{name}={value}".replace(" ", "\\ ") for name, value in pinned.items())
    return {"options": " ".join([given, *ours])}


def connect(
    address: str, *, timeout_s: float, statement_timeout_s: float | None = None, name: str = "agno-workers",
    is_direct: bool = False, setting: str = "AGNO_DATABASE_URL", **kwargs: Any,
) -> PinnedConnection[Any]:  # fmt: skip
    """Open a connection. `statement_timeout_s`: default `timeout_s`; 0: none. `setting`: the variable that has the address.

    Raises SettingsError if the address or the database can't be used, and Unavailable, with the reason, if Postgres can't be reached.
    """
    limit_s = timeout_s if statement_timeout_s is None else statement_timeout_s
    given = conninfo(address, setting, application_name=name, connect_timeout=max(2, round(timeout_s)))
    try:
        connection = PinnedConnection[Any].connect(
            given, pinned=pinned(statement_timeout_s=limit_s), is_direct=is_direct, **kwargs
        )
    except psycopg.Error as error:
        raise unreachable(error, address, setting) from None  # it may repeat what the address says
    try:
        check_server(connection)
    except SettingsError:
        connection.close()
        raise
    return connection


def check_server(connection: PinnedConnection[Any]) -> None:
    """Raises UnusableDatabase for a server that is too old, and a database that can't store every text."""
    if (major := connection.info.server_version // 10_000) < OLDEST_SERVER:
        raise UnusableDatabase(
            f"Postgres {major} is too old: use {OLDEST_SERVER} or newer, or correct AGNO_DATABASE_URL."
        )
    if connection.encoding != "UTF8":
        raise UnusableDatabase(
            f"the encoding of database {connection.info.dbname!r} is {connection.encoding}, and text needs UTF8: make another one with "
            "`CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0`."
        )


def unreachable(error: psycopg.Error, address: str, setting: str = "AGNO_DATABASE_URL") -> Unavailable:
    """Return the error for a connection that was not made."""
    said = reason(error, address)
    refusal = said.rpartition("FATAL:")[2].strip()
    for words, sentence in _FAULTS:
        if found := re.search(words, str(error)):
            names = [name for name in found.groups() if name]
            return Unavailable(sentence.format(*names, reason=refusal, setting=setting) + ".")
    return Unavailable(f"Postgres can't be reached: {said}. Start it, or correct {setting}.")


def reason(error: psycopg.Error, address: str) -> str:
    """Return the first line of an error without the secrets of the address."""
    text = str(error).strip().partition("\n")[0].rstrip(" .?")
    parts = parse(address)
    public = {value for key, value in parts.items() if key not in _SECRETS}
    for secret in {str(parts[key]) for key in _SECRETS if parts.get(key)} - public:
        text = text.replace(secret, "***")
    return text
