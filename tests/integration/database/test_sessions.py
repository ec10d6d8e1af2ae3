"""Sessions in Postgres: their settings are ours, whatever roles, databases and the environment say."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from agno_workers import Client
from agno_workers.database import migrate
from agno_workers.database.checks import database_problems
from agno_workers.database.connect import connect, parse, shown
from agno_workers.database.pool import Pool
from agno_workers.errors import SettingsError, Unavailable
from agno_workers.runs.metrics import counted
from tests.servers import Servers

ODD = {
    "client_encoding": "latin1",
    "DateStyle": "German",
    "IntervalStyle": "iso_8601",
    "TimeZone": "PST8PDT",
    "bytea_output": "escape",
    "default_transaction_isolation": "serializable",
    "statement_timeout": "1ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "1ms",
    "idle_session_timeout": "1ms",
    "search_path": "nowhere",
}
NAMED = "CREATE ROLE {} SUPERUSER LOGIN"


@pytest.fixture
def role(servers: Servers) -> Iterator[str]:
    """A role that may do all."""
    name = f"role_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(servers.database_url, autocommit=True) as connection:
        connection.execute(sql.SQL(NAMED).format(sql.Identifier(name)))
        yield name
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


@pytest.fixture
def new_database(servers: Servers) -> Iterator[Callable[[str], str]]:
    """Create an empty database with these words of CREATE DATABASE, and return its address."""
    names: list[str] = []
    with psycopg.connect(servers.database_url, autocommit=True) as connection:

        def create(words: str = "") -> str:
            names.append(f"empty_{uuid.uuid4().hex[:12]}")
            connection.execute(f"CREATE DATABASE {names[-1]} {words}".encode())
            return servers.postgres.url_of(names[-1])

        yield create
        for name in names:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@contextmanager
def odd_role(url: str, role: str) -> Iterator[str]:
    with psycopg.connect(url, autocommit=True) as connection:
        for name, value in ODD.items():
            connection.execute(
                sql.SQL("ALTER ROLE {} SET {} = {}").format(sql.Identifier(role), sql.Identifier(name), value)
            )
    yield url.replace("agno@", f"{role}@")


@contextmanager
def odd_database(url: str) -> Iterator[str]:
    database = parse(url)["dbname"]
    with psycopg.connect(url, autocommit=True) as connection:
        for name, value in ODD.items():
            connection.execute(
                sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                    sql.Identifier(database), sql.Identifier(name), value
                )
            )
    yield url


@contextmanager
def odd_environment(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    options = {
        name: value for name, value in ODD.items() if name not in ("client_encoding", "DateStyle", "TimeZone")
    }
    with monkeypatch.context() as patched:
        patched.setenv("PGOPTIONS", " ".join(f"-c {name}={value}" for name, value in options.items()))
        for name, setting in {
            "PGCLIENTENCODING": "client_encoding",
            "PGDATESTYLE": "DateStyle",
            "PGTZ": "TimeZone",
        }.items():
            patched.setenv(name, ODD[setting])
        yield url


@contextmanager
def odd_address(url: str) -> Iterator[str]:
    yield f"{url}&client_encoding=latin1&options=" + quote(
        " ".join(f"-c {name}={value}" for name, value in ODD.items())
    )


@pytest.mark.parametrize("place", ["role", "database", "environment", "address"])
def test_settings_of_others_change_nothing(
    place: str, role: str, new_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade, a submit and every reader work as they do without these settings."""
    plain = new_database()
    odd: dict[str, Callable[[], AbstractContextManager[str]]] = {
        "role": lambda: odd_role(plain, role),
        "database": lambda: odd_database(plain),
        "environment": lambda: odd_environment(plain, monkeypatch),
        "address": lambda: odd_address(plain),
    }
    with odd[place]() as url:
        assert migrate.upgrade(url)[0] is None
        assert database_problems(url, "") == []
        with Client(url) as client:
            eta = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
            run = client.runs.submit(
                "nobody", "Grüße, 東京", allow_unknown=True, eta=eta, metadata={"ß": "東"}
            )
            assert (run.messages[0].text, run.run.metadata, run.steps[0].not_before) == (
                "Grüße, 東京",
                {"ß": "東"},
                eta,
            )
            pool = run._database.pool
            assert pool.run("SHOW transaction_isolation") == [{"transaction_isolation": "read committed"}]
            assert pool.run("SELECT '[1]'::halfvec::text AS vector") == [{"vector": "[1]"}]
            listener = pool.listen("heard")
            assert listener
            pool.run("NOTIFY heard")
            assert [note.channel for note in listener.notifies(timeout=10, stop_after=1)] == ["heard"]
            listener.close()
        assert counted(url, timeout_s=10, recent_s=60).counts


def test_options_of_the_address_are_kept(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c work_mem=12345kB")
    for url, wanted in {
        servers.database_url: "12345kB",
        f"{servers.database_url}&options=-c%20work_mem%3D23456kB&application_name=own": "23456kB",
    }.items():
        pool = Pool(url, size=1, timeout_s=10, statement_timeout_s=30)
        assert pool.run("SHOW work_mem") == [{"work_mem": wanted}]
        assert pool.run("SHOW statement_timeout") == [{"statement_timeout": "30s"}]
        pool.close()
    assert shown(url).endswith("application_name=own")


@pytest.mark.parametrize("words", ["ENCODING 'LATIN1'", "ENCODING 'SQL_ASCII'"])
def test_database_of_another_encoding_is_refused(new_database: Callable[[str], str], words: str) -> None:
    url = new_database(f"{words} LOCALE_PROVIDER libc LOCALE 'C' TEMPLATE template0")
    calls: list[Callable[[], object]] = [
        lambda: migrate.upgrade(url),
        lambda: database_problems(url),
        Client(url, timeout_s=10).runs.list,
    ]
    for call in calls:
        with pytest.raises(
            SettingsError,
            match=r"encoding of database 'empty_\w+' is (LATIN1|SQL_ASCII), and text needs UTF8",
        ):
            call()


@pytest.mark.parametrize(
    ("schema", "path"), [("public", "nowhere"), ("extensions", '"$user", public'), ("extensions", "''")]
)
def test_pgvector_is_found_in_any_schema(new_database: Callable[[], str], schema: str, path: str) -> None:
    url = new_database()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            f"CREATE SCHEMA IF NOT EXISTS {schema}; CREATE EXTENSION vector SCHEMA {schema}".encode()
        )
        connection.execute(f"ALTER DATABASE {parse(url)['dbname']} SET search_path = {path}".encode())
    migrate.upgrade(url)
    with connect(url, timeout_s=10) as session:
        assert session.execute("SELECT '[1,2]'::halfvec <#> '[1,2]'").fetchone() == (-5.0,)


def forms(url: str, tmp: Path) -> dict[str, str]:
    """Return an address in each form of libpq."""
    parts = parse(url)
    folder, database = parts["host"], parts["dbname"]
    (tmp / "services").write_text(f"[ours]\nhost={folder}\nuser=agno\ndbname={database}\n")
    encoded = folder.replace("/", "%2F")
    return {
        "host in the query": f"postgresql://agno@/{database}?host={folder}",
        "encoded host": f"postgresql://agno@{encoded}/{database}",
        "postgres:": f"postgres://agno@{encoded}/{database}",
        "SQLAlchemy's": f"postgresql+psycopg://agno@{encoded}/{database}",
        "user in the query": f"postgresql:///{database}?user=agno&host={folder}",
        "several hosts": f"postgresql://agno@127.0.0.1:1,{encoded}:5432/{database}",
        "key=value": f"host={folder} user=agno dbname='{database}' password='a b'",
        "blanks around it": f" postgresql://agno@{encoded}/{database}\n",
        "service": "service=ours",
    }


FORMS = (
    "host in the query", "encoded host", "postgres:", "SQLAlchemy's", "user in the query", "several hosts", "key=value",
    "blanks around it", "service",
)  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_address_works_everywhere(
    form: str, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = forms(database_url, tmp_path)[form]
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    assert migrate.upgrade(url)[0] is not None
    assert database_problems(url) == []
    with Client(url) as client:
        assert client.runs.list() == []
    assert counted(url, timeout_s=10, recent_s=60).counts is not None
    assert "a b" not in shown(url)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://agno:hush/hush@db.internal/agno",
        "postgresql://agno:12/hush@db.internal/agno",
        "postgresql://agno:hu@hush@db.internal/agno",
        "postgresql://agno:hush%zz@db.internal/agno",
        "postgresql://agno:hush%@db.internal/agno",
        "postgresql://agno:hush",
        "postgresql://agno:hush/agno",
        "postgresql://agno:99999999/agno",
        "postgresql://agno:hush@db.internal:port/agno",
        "postgresql://agno:hu sh@db.internal/agno",
        "postgresql://agno:hush@db.internal/agno?sslmod=hush",
        "postgresql:/agno:hush@db.internal/agno",
        "http://agno:hush@db.internal/agno",
        "agno:hush@db.internal/agno",
        "host=db.internal password=a hush",
        "host=db.internal password='hush",
        "hush",
    ],
)
def test_malformed_address_is_refused_at_once_and_shown_nowhere(address: str) -> None:
    for call in (Client, migrate.upgrade, lambda url: counted(url, timeout_s=1, recent_s=1)):
        with pytest.raises(SettingsError, match="address of the database") as caught:
            call(address)
        assert not any(piece in str(caught.value) for piece in ("hush", "99999999", "internal"))


@pytest.mark.parametrize("password", ["hu%2Fs%40h", "hu%23sh", "hu%3Ash", "agno"])
def test_reason_of_a_failed_connection_is_told_without_the_password(password: str) -> None:
    url = f"postgresql://agno:{password}@127.0.0.1:1/agno"
    calls: list[Callable[[], object]] = [
        Client(url, timeout_s=1).runs.list,
        lambda: migrate.upgrade(url, 1),
        lambda: database_problems(url),
        lambda: Pool(url, size=1, timeout_s=1, statement_timeout_s=1).dedicated(),
    ]
    for call in calls:
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1.*port 1.*Connection refused") as caught:
            call()
        assert "hu" not in str(caught.value)
