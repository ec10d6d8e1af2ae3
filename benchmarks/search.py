"""Searching 100,000 chunks, by meaning, by words and by both, without a filter and behind one, beside Postgres's plain HNSW."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import mean
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agno_workers.database.pool import Connection, Pool
from agno_workers.knowledge.filters import compile_filter
from agno_workers.knowledge.store.search import Effort, Search
from agno_workers.knowledge.store.search_index import SearchIndex
from agno_workers.knowledge.types import Filter, SearchType
from benchmarks import cranfield
from benchmarks.made_base import DIMENSIONS, Corpus, corpus, literal, store
from benchmarks.processes import cpu_s
from benchmarks.report import Report, Row
from benchmarks.stage import Options, stage
from benchmarks.timing import p95

LIMIT = 10
SHARES = {"": 1, ", behind a filter of 10 %": 10, ", behind a filter of 1 %": 100}
FLOORS = {"plain HNSW, ef 100": 100, "plain HNSW, ef 200": 200}
AIMS = {("vector", 1): "<=4 ms", ("hybrid", 1): "<=10 ms"}
RECALL_AIMS = {1: ">=97", 10: ">=95"}
# Everything that a word of the question stands in, and every vector: what the bounds of a search cost it.
_ALL = Effort(candidates=1000, ef=1000, words_budget=10_000_000, exact_chunks=10_000_000)

Answer = Callable[[int], Sequence[int]]


class Timed(NamedTuple):
    p50_s: float
    p95_s: float
    cpu_s: float
    """The CPU of Postgres for one search."""
    answers: list[set[int]]


def run(options: Options) -> Report:
    chunks, asked, rounds = options.pick(100_000, 2000), options.pick(100, 10), options.pick(3, 1)
    made = corpus(chunks, asked)
    with stage() as on_stage:
        pool = Pool(on_stage.servers.database_url, size=3, timeout_s=10, statement_timeout_s=900)
        knowledge_id, embedding_space_id, first, built = _build(pool, made)
        postgres = on_stage.servers.postgres.pid
        rows = _rows(pool, postgres, made, knowledge_id, embedding_space_id, first, asked, rounds)
        rows += _quality(pool) if not options.quick else []
        setting = on_stage.setting()
        pool.close()
    return Report(
        name="search",
        title=f"searching {chunks} chunks of {DIMENSIONS} dimensions for the best {LIMIT}",
        setting=f"{setting}; {asked} questions a round, one at a time, {rounds} rounds in turn with the floor; no answer is cached",
        rows=(*rows, *built),
        notes=(
            "recall@10, in %: of vector against comparing every vector; of keyword and hybrid against the same scores without bounds.",
            "the floor gives ids; a search gives texts, sources and parts of scores, and looks whether a chunk is live.",
            *(() if cranfield.is_here() else ("no quality: CRANFIELD names no folder with Cranfield's questions, see benchmarks/cranfield.py.",)),
        ),
    )  # fmt: skip


def _build(pool: Pool, made: Corpus) -> tuple[int, int, int, list[Row]]:
    with pool.connection() as connection:
        (base,) = connection.execute("INSERT INTO agno.knowledge (name) VALUES ('made') RETURNING id").fetchall()  # fmt: skip
        (space,) = connection.execute(
            "INSERT INTO agno.embedding_space (knowledge_id, model, dimensions, status) VALUES (%s, 'made', %s, 'current') RETURNING id",
            [base["id"], DIMENSIONS],
        ).fetchall()
    index = SearchIndex(pool, own_partition=min(10_000, len(made.texts)))
    index.expect(base["id"], len(made.texts))
    store(pool, made, base["id"], space["id"])
    began = perf_counter()
    index.refresh_index(base["id"])
    took = perf_counter() - began
    with pool.connection() as connection:
        (row,) = connection.execute("SELECT min(id) AS first FROM agno.chunk WHERE knowledge_id = %s", [base["id"]]).fetchall()  # fmt: skip
    tidy = Row(measure="counting words and building the index, once after the load", unit="s", ours=(took,))
    return base["id"], space["id"], row["first"], [tidy]


def _rows(
    pool: Pool, postgres: int, made: Corpus, knowledge_id: int, embedding_space_id: int, first: int, asked: int, rounds: int
) -> list[Row]:  # fmt: skip
    search = Search(pool, cached=0)
    search_types: tuple[SearchType, ...] = ("vector", "keyword", "hybrid")
    filters = {name: compile_filter({f"in_{n}": 0}) if n > 1 else None for name, n in SHARES.items()}
    with pool.connection() as connection:
        sides: dict[str, Answer] = {name: partial(_plain, connection, made, embedding_space_id, ef) for name, ef in FLOORS.items()}  # fmt: skip
        for search_type in search_types:
            for name, narrowed in filters.items():
                sides[search_type + name] = partial(
                    _ours, search, made, knowledge_id, search_type, narrowed, None
                )
        timed = _in_turn(sides, asked, rounds, postgres)
    rows = []
    for search_type in search_types:
        for name, share in SHARES.items():
            mine, floor = timed[search_type + name], timed["plain HNSW, ef 200"]
            aim = AIMS.get((search_type, share), "")
            rows += [
                Row(measure=f"{search_type}{name}, p50", unit="s", ours=tuple(each.p50_s for each in mine), peer=tuple(each.p50_s for each in floor),
                    against="plain HNSW, ef 200", aim=aim, readme=share == 1 and search_type != "keyword"),
                Row(measure="the same, p95", unit="s", ours=tuple(each.p95_s for each in mine), peer=tuple(each.p95_s for each in floor), against="plain HNSW, ef 200"),
                Row(measure="the same, CPU of Postgres", unit="s", ours=tuple(each.cpu_s for each in mine)),
            ]  # fmt: skip
            if search_type == "vector":
                truth = _nearest(made, share, asked, first)
                plain = tuple(_recall(each.answers, truth) for each in floor) if share == 1 else ()
                row = Row(measure=f"{search_type}{name}, recall@10 in %", unit="", ours=tuple(_recall(each.answers, truth) for each in mine), peer=plain,
                          against="plain HNSW, ef 200" if plain else "", aim=RECALL_AIMS.get(share, ""))  # fmt: skip
            else:
                few = min(asked, 30)
                truth = [
                    set(_ours(search, made, knowledge_id, search_type, filters[name], _ALL, number))
                    for number in range(few)
                ]
                row = Row(measure=f"{search_type}{name}, recall@10 in %", unit="", ours=tuple(_recall(each.answers[:few], truth) for each in mine))  # fmt: skip
            rows.append(row)
    truth = _nearest(made, 1, asked, first)
    for name in FLOORS:
        rows.append(Row(measure=f"{name}: p50", unit="s", ours=tuple(each.p50_s for each in timed[name])))
        rows.append(Row(measure=f"{name}: recall@10 in %", unit="", ours=tuple(_recall(each.answers, truth) for each in timed[name])))  # fmt: skip
    return rows


def _in_turn(sides: dict[str, Answer], asked: int, rounds: int, postgres: int) -> dict[str, list[Timed]]:
    """Each round every side answers every question, the sides in turn; the first round only warms up."""
    found: dict[str, list[Timed]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name in sides if number % 2 else reversed(sides):
            took, answers, before = [], [], cpu_s(postgres)
            for question in range(asked):
                began = perf_counter()
                answer = sides[name](question)
                took.append(perf_counter() - began)
                answers.append(set(answer))
            if number:
                cpu = (cpu_s(postgres) - before) / asked
                found[name].append(Timed(float(np.median(took)), p95(took), cpu, answers))
    return found


def _ours(
    search: Search, made: Corpus, knowledge_id: int, search_type: SearchType, filter: Filter | None, effort: Effort | None, number: int
) -> list[int]:  # fmt: skip
    hits = search.search(
        knowledge_id, made.questions[number], made.asked[number].tolist(), search_type=search_type, filter=filter, max_results=LIMIT, effort=effort
    )  # fmt: skip
    return [hit.chunk_id for hit in hits]


def _plain(connection: Connection, made: Corpus, embedding_space_id: int, ef: int, number: int) -> list[int]:
    connection.execute("SELECT set_config('hnsw.ef_search', %s, false)", [str(ef)])
    rows: list[dict[str, Any]] = connection.execute(
        f"SELECT chunk_id FROM agno.chunk_embedding_{embedding_space_id} ORDER BY embedding::halfvec({DIMENSIONS}) <#> %s::text::halfvec({DIMENSIONS}) LIMIT {LIMIT}".encode(),
        [literal(made.asked[number])],
    ).fetchall()
    return [row["chunk_id"] for row in rows]


def _nearest(made: Corpus, share: int, asked: int, first: int) -> list[set[int]]:
    """The ids of the nearest, by comparing all; they were given in a row."""
    cosines: NDArray[np.float32] = made.vectors @ made.asked[:asked].T
    if share > 1:
        cosines[~made.share(share)] = -2
    return [set((np.argpartition(-column, LIMIT)[:LIMIT] + first).tolist()) for column in cosines.T]


def _recall(answers: list[set[int]], truth: list[set[int]]) -> float:
    return 100 * mean(len(answer & true) / max(1, len(true)) for answer, true in zip(answers, truth, strict=True))  # fmt: skip


def _quality(pool: Pool) -> list[Row]:
    if not cranfield.is_here():
        return []
    quoted = {"keyword": "38", "vector": "40", "hybrid": "43"}
    return [
        Row(measure=f"Cranfield, {search_type}: nDCG@10 in %", unit="", ours=(100 * mean(halves),), quoted=quoted[search_type],
            against={"keyword": "BM25 of whole documents", "vector": "MiniLM", "hybrid": "RRF of the two"}[search_type],
            aim=">=45" if search_type == "hybrid" else "")
        for search_type, halves in cranfield.quality(pool).items()
    ]  # fmt: skip
