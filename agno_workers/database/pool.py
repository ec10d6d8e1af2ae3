"""Connections to Postgres, the named statements of `.sql` files, and JSON in both directions.

Connections are autocommit: every named statement is a transaction of its own.
"""

from __future__ import annotations

import hashlib
import re
import select
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.resources import files
from typing import Any, ParamSpec, TypeVar

import msgspec
import psycopg
from psycopg import errors
from psycopg.pq import ExecStatus
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Jsonb, set_json_loads
from psycopg.types.string import TextLoader
from psycopg_pool import ConnectionPool, PoolTimeout

from agno_workers.core.words import safe_text
from agno_workers.database.connect import (
    DIRECT_URL,
    POOLED,
    READ_ONLY_MOVE,
    PinnedConnection,
    check_server,
    conninfo,
    pinned,
    unreachable,
)
from agno_workers.errors import (
    AgnoError,
    InvalidInput,
    NotWaiting,
    RunNotFound,
    SessionBusy,
    SessionEnded,
    SessionForbidden,
    SessionNotFound,
    SettingsError,
    StateConflict,
    Unavailable,
    UnusableDatabase,
)
from agno_workers.forks import after_fork

UNUSABLE = (
    errors.UndefinedTable,
    errors.UndefinedColumn,
    errors.UndefinedFunction,
    errors.InvalidSchemaName,
    errors.InsufficientPrivilege,
    errors.ReadOnlySqlTransaction,
)
"""Postgres answers, and the database is not as this code needs it."""

LOCKED = (errors.LockNotAvailable, errors.DeadlockDetected)
"""Another transaction holds a lock for longer than we wait: try again."""

RAISED: Mapping[str | None, type[AgnoError]] = {
    "AG001": StateConflict,
    "AG002": InvalidInput,
    "AG003": RunNotFound,
    "AG004": NotWaiting,
    "AG101": SessionForbidden,
    "AG102": SessionEnded,
    "AG103": SessionBusy,
    "AG104": SessionNotFound,
}
"""The errors that our functions in Postgres raise, by SQLSTATE; their DETAIL, if any, is the JSON of `ids`."""

Connection = psycopg.Connection[DictRow]
Row = dict[str, Any]
P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """At most `size` connections, opened when they are first needed and closed by `close()`. A forked process opens its own."""

    def __init__(
        self, url: str, *, size: int, timeout_s: float, statement_timeout_s: float, name: str = "agno-workers",
        direct_url: str | None = None, check: Callable[[psycopg.Connection[Any]], None] = lambda _: None,
    ) -> None:  # fmt: skip
        """`direct_url` leads to the same database without a pooler. `check` raises UnusableDatabase for a new connection that must not
        be used. Raises SettingsError for an unusable address.
        """
        self._check = check
        self.url = url
        defaults: dict[str, Any] = {"application_name": name, "connect_timeout": max(2, round(timeout_s))}
        self._address = conninfo(url, **defaults)
        self._direct = conninfo(direct_url, DIRECT_URL, **defaults) if direct_url else None
        self._timeout_s = timeout_s
        self._size = size
        self._name = name
        self._kwargs: dict[str, Any] = {
            "autocommit": True,
            "row_factory": dict_row,
            "pinned": pinned(statement_timeout_s=statement_timeout_s),
            "is_direct": self._direct == self._address,
        }
        self._refused: SettingsError | None = None
        self._is_pooled = False
        self._pool = self._new_pool()
        self._spare_listeners: list[Connection] = []
        after_fork(self, Pool._leave_to_parent)

    def _new_pool(self) -> ConnectionPool[PinnedConnection[DictRow]]:
        return ConnectionPool(
            self._address,
            connection_class=PinnedConnection[DictRow],
            min_size=1,
            max_size=self._size,
            open=False,
            configure=self._configure,
            kwargs=self._kwargs,
            timeout=self._timeout_s,
            # After an outage, an idle pool reconnects after 1, 2, 4, 8 ... s. With a short timeout it tries again at the
            # next request; see `_connection`.
            reconnect_timeout=0.5,
            name=self._name,
        )

    def _leave_to_parent(self) -> None:
        self._pool._closed = (
            True  # else it would stop its threads, which are the parent's, under locks that they may hold
        )
        self._pool = self._new_pool()
        self._spare_listeners = []

    def _configure(self, connection: PinnedConnection[DictRow]) -> None:
        try:
            check_server(connection)
            self._must_be_usable(connection)
        except SettingsError as error:
            self._refused = error
            raise
        self._refused = None
        _adapt(connection)

    def _must_be_usable(self, connection: Connection) -> None:
        """Check a connection as `check` of the pool says. Raises UnusableDatabase, also where the check itself is refused."""
        try:
            self._check(connection)
        except UNUSABLE as error:
            raise unusable(error) from None

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
        with self.connection_within(None) as connection:
            yield connection

    @contextmanager
    def connection_within(self, wait_s: float | None) -> Iterator[Connection]:
        """Borrow a connection that is free within so many seconds; None: within the timeout of the pool. Raises as `run` does."""
        pool = self._pool
        with translated():
            if pool.closed:
                pool.open()  # refused after `close`, as in a thread that goes on while its process ends
            connection = self._take(pool, wait_s)
            try:
                with connection:
                    yield connection
            except errors.ReadOnlySqlTransaction:
                connection.close()  # a standby: the next connection may lead to the primary
                raise
            finally:
                pool.putconn(connection)

    def _take(
        self, pool: ConnectionPool[PinnedConnection[DictRow]], wait_s: float | None = None
    ) -> PinnedConnection[DictRow]:
        """Ask the pool again each second, so that it notices soon when the server is back."""
        until = time.monotonic() + (self._timeout_s if wait_s is None else wait_s)
        while True:
            left_s = until - time.monotonic()
            try:
                connection = pool.getconn(timeout=max(0.01, min(1.0, left_s)))
            except PoolTimeout:
                if self._refused:
                    raise self._refused from None
                if wait_s is not None:
                    raise Unavailable(f"no Postgres connection within {wait_s} s.") from None
                if left_s <= 1.0:
                    raise self._no_connection() from None
                continue
            if not _is_lost(connection):
                return connection
            connection.close()
            pool.putconn(connection)

    def _no_connection(self) -> Unavailable:
        """Return why no connection was made; the pool keeps it in its log."""
        try:
            PinnedConnection.connect(self._address, connect_timeout=2).close()
        except psycopg.Error as error:
            return unreachable(error, self.url)
        return Unavailable(
            f"no Postgres connection within {self._timeout_s} s: all {self._size} of this process are in use. Raise database.pool_size "
            "(AGNO_DATABASE__POOL_SIZE), or use fewer threads."
        )

    def dedicated(self) -> Connection:
        """Open a connection outside the pool, for what belongs to a session; the caller closes it.

        Raises Unavailable, and SettingsError where only a pooler's address is known.
        """
        try:
            connection = PinnedConnection[DictRow].connect(
                self._direct or self._address, **self._kwargs | {"is_direct": self._direct is not None}
            )
        except psycopg.Error as error:
            raise unreachable(error, self._address) from None
        if connection.is_pooled:
            connection.close()
            self._is_pooled = True
            raise SettingsError(POOLED)
        try:
            self._must_be_usable(connection)
        except BaseException:
            connection.close()
            raise
        _adapt(connection)
        return connection

    def check(self) -> None:
        """Check the database again: behind a pooler, our connections outlive a change of it. Raises as `run` does."""
        with self.connection() as connection:
            self._must_be_usable(connection)

    def listen(self, channel: str) -> Connection | None:
        """Return a connection that hears a channel, for the caller to `put_back`. None where only a pooler's address is known: poll.

        Raises Unavailable.
        """
        if self._is_pooled:
            return None
        try:
            listener = self._listener()
        except SettingsError:
            return None
        try:
            listener.execute(f"LISTEN {channel}".encode())
        except psycopg.Error as error:
            listener.close()
            raise unreachable(error, self._address) from None
        return listener

    def _listener(self) -> Connection:
        with suppress(IndexError):  # of another thread that took the last one
            while self._spare_listeners:
                if not _is_lost(listener := self._spare_listeners.pop()):
                    return listener
                listener.close()
        return self.dedicated()

    def put_back(self, listener: Connection) -> None:
        """Keep one connection of `listen` for its next caller: to open one costs more than a short run."""
        if not self._spare_listeners:
            with suppress(psycopg.Error):
                listener.execute("UNLISTEN *")
                self._spare_listeners.append(listener)
                return
        listener.close()

    def close(self) -> None:
        self._pool.close(timeout=1)
        while self._spare_listeners:
            self._spare_listeners.pop().close()


def _is_lost(connection: Connection) -> bool:
    """Return True when the server has ended an idle session, as a restart does. Nobody else writes to one, so the check takes 2 us."""
    if connection.closed:
        return True
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if not poll.poll(0):
        return False
    try:
        ConnectionPool.check_connection(connection)  # it may be a notice
    except psycopg.Error:
        return True
    return False


@contextmanager
def translated() -> Iterator[None]:
    """Raise our errors in place of those of psycopg: Unavailable, UnusableDatabase, and InvalidInput for a value that is too large."""
    try:
        yield
    except errors.ProgramLimitExceeded as error:
        # This OperationalError is not an outage: the same value would always fail.
        raise InvalidInput(
            f"a value is too large for Postgres: {error.diag.message_primary}. Shorten it."
        ) from error
    except UNUSABLE as error:
        raise unusable(error) from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise Unavailable(f"Postgres did not answer: {str(error).strip()}") from error


def unusable(error: psycopg.Error) -> UnusableDatabase:
    """Return the error for one of UNUSABLE."""
    said = error.diag.message_primary
    match error:
        case errors.ReadOnlySqlTransaction():
            return UnusableDatabase(f"this database is read-only now ({said}): {READ_ONLY_MOVE}")
        case errors.InsufficientPrivilege():
            move = (
                "use the role that owns the schema agno for this"
                if "must be owner" in str(said)
                else "run what `agno-workers db grants ROLE` prints, as the owner of the schema agno"
            )
            return UnusableDatabase(
                f"the role of this process lacks rights in the database ({said}): {move}."
            )
        case _:
            return UnusableDatabase(
                f"this database does not have the tables that this code needs ({said}): run `agno-workers db upgrade`."
            )


def retry_while_unavailable(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Make a call that may be repeated; retry it for two minutes while Postgres does not answer."""
    with suppress(Unavailable):
        return call(*args, **kwargs)  # nearly always enough, and a tenth of the cost
    from tenacity import (  # noqa: PLC0415 - brings Tornado where that is installed, as with Flower: 2 MB
        Retrying,
        retry_if_exception_type,
        stop_after_delay,
        wait_random_exponential,
    )

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
    """Execute a named statement on a connection, and return its rows. Raises what our functions raise as errors of ours; see RAISED."""
    try:
        cursor = connection.execute(statement, params)
    except psycopg.DatabaseError as error:
        if (kind := RAISED.get(error.sqlstate)) is None:
            raise
        ids = msgspec.json.decode(error.diag.message_detail or "{}")
        raise kind(str(error.diag.message_primary), **ids) from None
    # Not `cursor.description`, which makes an object for each column.
    has_rows = cursor.pgresult is not None and cursor.pgresult.status == ExecStatus.TUPLES_OK
    return cursor.fetchall() if has_rows else []


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
