"""Searching past sessions: how well, by LoCoMo's questions, and how fast, for one user of many."""

from __future__ import annotations

from datetime import UTC, datetime
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from agno_workers.database.pool import Pool, jsonb
from agno_workers.knowledge.embedders.resolve import resolve
from agno_workers.knowledge.talk import NAME, VECTORS, TalkIndex
from agno_workers.knowledge.words import VERSION
from agno_workers.sessions.search import SessionSearch
from benchmarks import locomo
from benchmarks.report import Report, Row
from benchmarks.stage import Options, stage

MODEL = "hash:384"
"""Vectors that cost nothing and are as long as MiniLM's."""
SESSIONS, EXCHANGES = 10, 10
"""The sessions of a user, and the exchanges of a session."""
_AT_ONCE = 50
"""Sessions that are written in one transaction here: a load, not what a run pays."""


def run(options: Options) -> Report:
    users, asked, rounds = options.pick(1000, 20), options.pick(50, 5), options.pick(3, 1)
    with stage() as on_stage:
        pool = Pool(on_stage.servers.database_url, size=3, timeout_s=10, statement_timeout_s=900)
        rows = _quality(pool)
        texts = _texts()
        written = _load(pool, "many", users, texts)
        _load(pool, "few", 1, texts)
        rows += _speed(pool, users, texts, asked, rounds)
        setting = on_stage.setting()
        pool.close()
    total = users * SESSIONS * EXCHANGES
    return Report(
        name="talk",
        title=f"searching {total:,} exchanges of {users:,} users for the best 10 of one user's {SESSIONS * EXCHANGES}",
        setting=f"{setting}; {asked} questions a round, one at a time, {rounds} rounds in turn with the peer",
        rows=(*rows, Row(measure="indexing the exchanges of a session, for each exchange", unit="s", ours=written)),
        notes=(
            "recall@10: the mean share of a question's evidence turns among the first 10 turns that are found. An exchange counts as its turns, two of most.",
            "the peers rank single turns, with the names of the speakers; their vectors are those of the product, and their words are stemmed as the product's.",
            f"speed: vectors of {MODEL}; the peer is the same search where the user is the only one.",
            *(() if locomo.is_here() else ("no quality: LOCOMO names no folder with LoCoMo's conversations, see benchmarks/locomo.py.",)),
        ),
    )  # fmt: skip


def _quality(pool: Pool) -> list[Row]:
    if not locomo.is_here():
        return []
    found = {name: 100 * float(np.mean(shares)) for name, shares in locomo.quality(pool).items()}
    ours = found.pop("search_past")
    return [
        Row(measure="LoCoMo: recall@10 in %", unit="", ours=(ours,), peer=(peer,), against=name, aim=">=72", readme=name.startswith("RRF"))
        for name, peer in found.items()
    ]  # fmt: skip


def _texts() -> list[str]:
    """Return messages of 30 words, as frequent as words of a language are."""
    random = np.random.default_rng(7)
    share: NDArray[np.float64] = 1 / np.arange(1, 8001) ** 0.9
    chosen = random.choice(8000, (5000, 30), p=share / share.sum())
    return [" ".join(_word(number) for number in row) for row in chosen]


def _word(number: int) -> str:
    letters = [chr(97 + number // 26**place % 26) for place in range(3)]
    return f"w{''.join(letters)}"


def _load(pool: Pool, tenant: str, users: int, texts: list[str]) -> tuple[float, ...]:
    """Store the runs of users and index their sessions. Return the seconds of an exchange, of each hundredth session."""
    index = TalkIndex(pool, resolve)
    options = {"tenant": tenant, "name": NAME, "words": VERSION, "options": jsonb({"embedder": MODEL})}
    pool.run("INSERT INTO agno.knowledge (tenant, name, words_version, options) VALUES (%(tenant)s, %(name)s, %(words)s, %(options)s)", options)  # fmt: skip
    pool.run(
        """INSERT INTO agno.run (id, tenant, agent, status, queue, session_id, user_id, content, created_at, ended_at)
        SELECT agno.uuid7(), %(tenant)s, 'helper', 'done', 'agents', format('s%%s-%%s', u, s), 'user' || u, '"ok"', now(), now()
        FROM generate_series(1, %(users)s) u, generate_series(1, %(sessions)s) s, generate_series(1, %(exchanges)s)""",
        {"tenant": tenant, "users": users, "sessions": SESSIONS, "exchanges": EXCHANGES},
    )
    rows = pool.run(
        "SELECT session_id, user_id, array_agg(id::text) AS ids FROM agno.run WHERE tenant = %(tenant)s GROUP BY 1, 2 ORDER BY md5(session_id)",
        {"tenant": tenant},
    )
    now, random, took = datetime.now(UTC), np.random.default_rng(1), []
    for first in range(0, len(rows), _AT_ONCE):
        with pool.connection() as connection, connection.transaction():
            for row in rows[first : first + _AT_ONCE]:
                said = [
                    (run_id, now, name, texts[random.integers(len(texts))]) for run_id in row["ids"] for name in (row["user_id"], "helper")
                ]  # fmt: skip
                about = {"user_id": row["user_id"], "session_id": row["session_id"], "agent": "helper"}
                began = perf_counter()
                index.prepare(tenant, [row["session_id"]], about, said)(connection)
                took.append((perf_counter() - began) / EXCHANGES)
    with pool.connection() as connection:
        connection.execute("ANALYZE agno.chunk, agno.document, agno.run, agno.chunk_embedding")
    return tuple(took[::100])


def _speed(pool: Pool, users: int, texts: list[str], asked: int, rounds: int) -> list[Row]:
    search = SessionSearch(pool, TalkIndex(pool, resolve))
    took: dict[str, list[float]] = {"many": [], "few": []}
    for number in range(rounds + 1):
        for tenant in ("many", "few") if number % 2 else ("few", "many"):
            each = []
            for question in range(asked):
                user = f"user{question * 7 % users + 1}" if tenant == "many" else "user1"
                query = " ".join(texts[-question - 1].split()[:8])
                began = perf_counter()
                found = search(tenant=tenant, user_id=user, query=query, limit=10)
                each.append(perf_counter() - began)
                assert found
            if number:  # the first round warms up
                took[tenant].append(median(each))
    return [
        Row(measure=f"search_past, p50, vectors count {VECTORS:g}", unit="s", ours=tuple(took["many"]), peer=tuple(took["few"]), against="the same user alone",
            aim="<=1.5x")
    ]  # fmt: skip
