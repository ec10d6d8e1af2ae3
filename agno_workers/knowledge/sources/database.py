"""Rows of a database: a query, one document a row.

    {"database": "DOCS_DATABASE_URL", "query": "SELECT id, body, title, team, changed FROM article",
     "id": "id", "text": "body", "title": "title", "metadata": ["team"], "updated": "changed"}

`database` names an environment variable of the workers with the URL: `postgresql://...`, or any other that SQLAlchemy has a
driver for. The query runs in a read-only transaction with a cursor, which fetches pages of rows. Documents are named
`db:<name>/<id>`; a document whose row the query no longer returns is removed.
"""

from __future__ import annotations

import difflib
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import msgspec
import psycopg
from psycopg import errors
from psycopg.rows import dict_row
from sqlalchemy import create_engine, exc
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from agno_workers.database.connect import PinnedConnection, conninfo, pinned
from agno_workers.errors import InvalidInput, SettingsError
from agno_workers.knowledge.sources import records, spec
from agno_workers.knowledge.sources.failures import unavailable
from agno_workers.knowledge.types import Source

_CONNECT_S = 10
_IDLE_S = 600  # between two pages the rows are written
_POSTGRES = ("postgres", "postgresql", "postgresql+psycopg")
_READ_ONLY = {
    "sqlite": ("PRAGMA query_only = ON",),
    "mysql": ("SET SESSION TRANSACTION READ ONLY",),
    "mariadb": ("SET SESSION TRANSACTION READ ONLY",),
    "oracle": ("SET TRANSACTION READ ONLY",),
}


class Query(msgspec.Struct, frozen=True):
    """A query and the meaning of its columns."""

    database: str
    """The environment variable with the URL."""
    query: str
    id: str
    """The column that names a document permanently."""
    text: str
    name: str = ""
    """The name in `db:<name>/<id>`: two queries of one database need two. Default: `database`."""
    title: str | None = None
    metadata: tuple[str, ...] = ()
    """Columns."""
    updated: str | None = None
    """The column that changes whenever the row does; default: a hash of its text, title and metadata."""
    media_type: str = "text/plain"
    """The type of the text: `text/markdown`, `text/html` ..."""
    timeout_s: float = 300.0
    """The limit for the start of the query, and for each page of rows."""
    page_rows: int = 200

    @property
    def columns(self) -> list[str]:
        named = [self.id, self.text, self.title, self.updated, *self.metadata]
        return [column for column in named if column]


def takes(given: object) -> bool:
    """Return True for a description that `find` here reads."""
    return isinstance(given, Mapping) and "database" in given


def find(given: Mapping[str, Any], options: Mapping[str, Any] = {}) -> Iterator[Source]:
    """Yield the rows as sources with their text. `options["databases"]` is the operator's list of variables (the setting
    knowledge.source_databases).

    Raises InvalidInput, at once for an unusable description, during the iteration for a query that the database refuses and for
    missing columns; SourceUnavailable (try the whole again).
    """
    asked = spec.read(Query, given, "the description of a query")
    if asked.timeout_s <= 0 or asked.page_rows <= 0:
        raise InvalidInput("the description of a query needs a timeout_s and page_rows above 0.")
    url = spec.from_environment(
        asked.database,
        "the description of a query",
        options.get("databases", ("*",)),
        "knowledge.source_databases",
    )
    return _sources(asked, url)


def _sources(asked: Query, url: str) -> Iterator[Source]:
    name = f"db:{asked.name or asked.database}"
    scheme, is_url, _ = url.partition("://")
    rows = _postgres(asked, url) if not is_url or scheme.lower() in _POSTGRES else _other(asked, url)
    with closing(rows):
        for row in rows:
            if row[asked.id] is None:
                raise InvalidInput(
                    f"{name}: a row has NULL in {asked.id!r}, which names its document. Exclude such rows in the query."
                )
            yield records.document(
                name,
                row[asked.id],
                row[asked.text],
                title=row[asked.title] if asked.title else None,
                metadata={column: row[column] for column in asked.metadata},
                updated=row[asked.updated] if asked.updated else None,
                media_type=asked.media_type,
            )


Rows = Generator[Mapping[str, Any], None, None]


def _postgres(asked: Query, url: str) -> Rows:
    """DECLARE CURSOR accepts only a single SELECT, and the session can't write."""
    limit_ms = str(round(asked.timeout_s * 1000))
    settings = pinned(
        statement_timeout_s=asked.timeout_s,
        lock_timeout=limit_ms,
        idle_in_transaction_session_timeout=str(_IDLE_S * 1000),
        default_transaction_read_only="on",
    )
    with _translated(asked), ExitStack() as stack:
        given = conninfo(url, connect_timeout=_CONNECT_S, application_name="agno-workers")
        connection = PinnedConnection[dict[str, Any]].connect(given, pinned=settings, row_factory=dict_row)
        stack.callback(connection.close)
        connection.read_only = True
        stack.enter_context(connection.transaction())
        cursor = stack.enter_context(closing(connection.cursor("agno_rows")))
        cursor.execute(asked.query.encode())
        _check_columns(asked, [column.name for column in cursor.description or ()])
        while page := cursor.fetchmany(asked.page_rows):
            yield from page


def _other(asked: Query, url: str) -> Rows:
    """Read another database, read-only and by pages if its driver can."""
    with _translated(asked):
        engine = create_engine(make_url(url), poolclass=NullPool)
        connection = engine.connect()
    with closing(connection):
        with _translated(asked):
            for statement in _READ_ONLY.get(engine.dialect.name, ()):
                connection.exec_driver_sql(statement)
            result = connection.execution_options(stream_results=True).exec_driver_sql(asked.query)
            if not result.returns_rows:
                raise InvalidInput(f"{_what(asked)} returns no rows: write a SELECT.")
            _check_columns(asked, list(result.keys()))
        while True:
            with _translated(asked):
                page = result.mappings().fetchmany(asked.page_rows)
            if not page:
                return
            yield from ({str(column): value for column, value in row.items()} for row in page)


def _check_columns(asked: Query, columns: list[str]) -> None:
    for column in asked.columns:
        if column not in columns:
            near = difflib.get_close_matches(column, columns, n=1, cutoff=0.0)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InvalidInput(
                f"{_what(asked)} returns no column {column!r}: {hint}It returns {', '.join(columns)}."
            )


def _what(asked: Query) -> str:
    return f"the query of {asked.name or asked.database!r}"


@contextmanager
def _translated(asked: Query) -> Iterator[None]:
    """Raise the database's errors as ours. They repeat its words about the query, but not host, user or password."""
    try:
        yield
    except InvalidInput:
        raise
    except errors.QueryCanceled:
        what = f"took longer than {asked.timeout_s:g} s: make the query cheaper, or raise its timeout_s"
        raise unavailable(_uri(asked), what) from None
    except (
        psycopg.OperationalError,
        psycopg.InterfaceError,
        exc.OperationalError,
        exc.InterfaceError,
    ) as error:
        if isinstance(error, exc.DBAPIError) and not error.connection_invalidated and error.statement:
            raise _refused(asked, type(error.orig).__name__, str(error.orig)) from None
        state = f" ({error.sqlstate})" if isinstance(error, psycopg.Error) and error.sqlstate else ""
        what = f"has no answer{state} from the database at {asked.database!r}: check it"
        raise unavailable(_uri(asked), what) from None
    except psycopg.Error as error:
        raise _refused(
            asked, error.sqlstate or type(error).__name__, error.diag.message_primary or ""
        ) from None
    except exc.DBAPIError as error:
        raise _refused(asked, type(error.orig).__name__, str(error.orig)) from None
    except (exc.ArgumentError, exc.NoSuchModuleError, ImportError, ValueError, SettingsError) as error:
        raise InvalidInput(
            f"{asked.database!r} does not hold the URL of a readable database ({type(error).__name__}): write it as "
            "postgresql://..., or install its driver for SQLAlchemy."
        ) from None  # fmt: skip


def _refused(asked: Query, state: str, words: str) -> InvalidInput:
    return InvalidInput(f"{_what(asked)} was refused by the database ({state}): {words[:300]}. Correct it.")


def _uri(asked: Query) -> str:
    return f"db:{asked.name or asked.database}"
