"""Connections to Postgres, the named statements of `.sql` files, and JSON in both directions.

Connections are autocommit: every named statement is a transaction of its own.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.resources import files
from typing import Any, ParamSpec, TypeVar

import msgspec
import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb, set_json_loads
from psycopg.types.string import TextLoader
from psycopg_pool import ConnectionPool, PoolTimeout
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from agno_workers.core.words import safe_text
from agno_workers.errors import InvalidInput, SettingsError, Unavailable

NOT_MIGRATED = (
    errors.UndefinedTable,
    errors.UndefinedColumn,
    errors.UndefinedFunction,
    errors.InvalidSchemaName,
)

Connection = psycopg.Connection[DictRow]
Row = dict[str, Any]
P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """At most `size` connections, opened when they are first needed and closed by `close()`."""

    def __init__(
        self, url: str, *, size: int, timeout_s: float, statement_timeout_s: float, name: str = "agno-workers"
    ) -> None:
        self.url = url
        self._timeout_s = timeout_s
        self._kwargs: dict[str, Any] = {
            "autocommit": True,
            "row_factory": dict_row,
            "application_name": name,
            "connect_timeout": max(2, round(timeout_s)),
            "options": f"-c statement_timeout={round(statement_timeout_s * 1000)} -c idle_in_transaction_session_timeout=300000",
            # Detect a peer that is gone in seconds, not in the two hours of the system's default.
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": 10_000,
        }
        try:
            conninfo_to_dict(url)
        except psycopg.ProgrammingError:  # its text may repeat a password
            raise SettingsError(
                "the address of the database is not one of Postgres: write postgresql://USER:PASSWORD@HOST:5432/DATABASE."
            ) from None
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            url,
            min_size=1,
            max_size=size,
            open=False,
            configure=_adapt,
            kwargs=self._kwargs,
            timeout=timeout_s,
            # After an outage, an idle pool reconnects after 1, 2, 4, 8 ... s. With a short timeout it tries again at the
            # next request; see `_connection`.
            reconnect_timeout=0.5,
            name=name,
        )

    def run(self, statement: str, params: Mapping[str, Any] | None = None) -> list[Row]:
        """Execute a named statement in one round trip, and return its rows.

        Raises Unavailable when Postgres does not answer or the connection breaks: then the statement may have taken effect, and
        may be repeated. Raises InvalidInput for a value that is too large for Postgres, such as a key of many kilobytes.
        """
        with self.connection() as connection:
            return execute(connection, statement, params)

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Borrow a connection. Raises as `run` does."""
        self._pool.open()
        try:
            with ExitStack() as stack:
                yield self._connection(stack)
        except PoolTimeout as error:
            raise Unavailable(
                f"no Postgres connection within {self._timeout_s} s: {self._reason()}. Is it up, and is its address right?"
            ) from error
        except errors.ProgramLimitExceeded as error:
            # This OperationalError is not an outage: the same value would always fail.
            raise InvalidInput(
                f"a value is too large for Postgres: {error.diag.message_primary}. Shorten it."
            ) from error
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            raise Unavailable(f"Postgres did not answer: {str(error).strip()}") from error
        except NOT_MIGRATED as error:
            raise not_migrated(error) from error

    def _connection(self, stack: ExitStack) -> Connection:
        """Ask the pool again each second, so that it notices soon when the server is back."""
        until = time.monotonic() + self._timeout_s
        while True:
            left_s = until - time.monotonic()
            try:
                return stack.enter_context(self._pool.connection(timeout=max(0.01, min(1.0, left_s))))
            except PoolTimeout:
                if left_s <= 1.0:
                    raise

    def _reason(self) -> str:
        """Return why no connection was made; the pool keeps it in its log."""
        try:
            psycopg.connect(self.url, **{**self._kwargs, "connect_timeout": 2}).close()
        except psycopg.Error as error:
            return str(error).partition("\n")[0].rstrip(" .?")
        return "all connections are in use"

    def dedicated(self) -> Connection:
        """Open a connection outside the pool, for LISTEN; the caller closes it."""
        try:
            connection: Connection = psycopg.connect(self.url, **self._kwargs)
        except psycopg.OperationalError as error:
            raise Unavailable(f"Postgres can't be reached: {str(error).strip()}") from error
        _adapt(connection)
        return connection

    def close(self) -> None:
        self._pool.close(timeout=1)


def not_migrated(error: psycopg.Error) -> SettingsError:
    return SettingsError(
        f"this database does not have the tables that this code needs ({error.diag.message_primary}): "
        "run `agno-workers db upgrade`."
    )


def retry_while_unavailable(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Make a call that may be repeated; retry it for two minutes while Postgres does not answer."""
    retrying = Retrying(
        retry=retry_if_exception_type(Unavailable),
        wait=wait_random_exponential(0.1, 2.0),
        stop=stop_after_delay(120),
        reraise=True,
    )
    return retrying(call, *args, **kwargs)


def _adapt(connection: Connection) -> None:
    """Read ids as text, and JSON with msgspec, on our connections only."""
    connection.adapters.register_loader("uuid", TextLoader)
    set_json_loads(msgspec.json.decode, connection)


def execute(connection: Connection, statement: str, params: Mapping[str, Any] | None = None) -> list[Row]:
    cursor = connection.execute(statement, params)
    # The description is empty for rows without columns, and None without rows.
    return cursor.fetchall() if cursor.description is not None else []


@cache
def statements(file: str) -> Mapping[str, str]:
    """Return the statements of `<file>.sql` (a path in this package, such as `runs/claim`) by the name in their `-- name:` line."""
    text = files("agno_workers").joinpath(f"{file}.sql").read_text(encoding="utf-8")
    pieces = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def to_json(value: Any) -> bytes:
    """Return JSON for Postgres: U+0000 and lone surrogates, which jsonb refuses, become U+FFFD."""
    try:
        encoded = msgspec.json.encode(value)
    except UnicodeEncodeError:
        plain = msgspec.to_builtins(value, builtin_types=(msgspec.Raw,))  # a Raw value is clean already
        encoded = msgspec.json.encode(_without_surrogates(plain))
    if b"\\u0000" in encoded:
        encoded = re.sub(rb"(?<!\\)((?:\\\\)*)\\u0000", rb"\1\\ufffd", encoded)
    return encoded


def _without_surrogates(value: Any) -> Any:
    match value:
        case str():
            return safe_text(value)
        case dict():
            return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
        case list() | tuple():
            return [_without_surrogates(item) for item in value]
        case _:
            return value


class Payloads:
    """Packs the values of one transaction. A string over `inline_max_bytes` is stored once, by its hash, also when several values
    hold it; `agno.inflate` puts it back when they are read.
    """

    def __init__(self, inline_max_bytes: int) -> None:
        self._max = inline_max_bytes
        self.blobs: dict[str, msgspec.Raw] = {}
        """The large strings by their hashes."""

    def pack(self, value: Any) -> msgspec.Raw:
        text = to_json(value)
        if len(text) > self._max or b'"$blob"' in text:
            text = to_json(self._apart(msgspec.json.decode(text)))
        return msgspec.Raw(text)

    def _apart(self, value: Any) -> Any:
        """Return the value with a reference in place of each large string."""
        match value:
            case str() if len(text := to_json(value)) > self._max:
                return self._reference(text)
            case {"$blob": str(own)} if len(value) == 1:  # the user's own value, not a reference
                return {"$blob": self._reference(to_json(own))}
            case dict():
                return {key: self._apart(item) for key, item in value.items()}
            case list():
                return [self._apart(item) for item in value]
            case _:
                return value

    def _reference(self, text: bytes) -> dict[str, str]:
        digest = hashlib.sha256(text).hexdigest()
        self.blobs[digest] = msgspec.Raw(text)
        return {"$blob": digest}


def jsonb(value: Any) -> Jsonb | None:
    """Return a jsonb parameter; None is SQL NULL."""
    return None if value is None else Jsonb(value, to_json)
