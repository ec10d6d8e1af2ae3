"""The quality of search over past sessions: LoCoMo's questions about long conversations, and the turns that answer them.

Maharana et al., "Evaluating Very Long-Term Conversational Memory of LLM Agents" (ACL 2024, arXiv 2402.17753). Its licence, CC BY-NC 4.0, is
why it is not a part of this project: the environment variable LOCOMO names a folder (else it is benchmarks/data/locomo) with one JSON file for each conversation, `{"speakers": [name, name],
"sessions": [{"session", "date_time", "turns": [{"id", "speaker", "text"}]}], "questions": [{"question", "evidence": [id]}]}`.

One speaker is the user, the other the agent. A run is a turn of the user and the agent's turn after it; where the agent begins, or speaks
twice, a run has one turn. The product indexes the runs as it does after a user's, and `search_past` is asked each question. Its exchanges count as their turns,
in their order, and only the first ten turns count: about five exchanges. The captions of images are left out.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from uuid6 import uuid7

from agno_workers.core.agent import Agent
from agno_workers.core.messages import user
from agno_workers.core.ports import Model
from agno_workers.core.run import StepKind
from agno_workers.core.step import ClaimedStep
from agno_workers.database.pool import Pool, jsonb
from agno_workers.knowledge.embedders.resolve import resolve
from agno_workers.knowledge.talk import TalkIndex
from agno_workers.knowledge.words import words
from agno_workers.sessions.background import Work
from agno_workers.sessions.index import KIND, worker
from agno_workers.sessions.search import SessionSearch
from benchmarks.stage import data_folder

FOLDER = data_folder("locomo")
FIRST = 10


class Turn(NamedTuple):
    id: str
    session: str
    at: datetime
    speaker: str
    text: str


class Conversation(NamedTuple):
    name: str
    speakers: tuple[str, str]
    turns: list[Turn]
    questions: list[tuple[str, frozenset[str]]]


def is_here() -> bool:
    return any(FOLDER.glob("*.json"))


def quality(pool: Pool, folder: Path = FOLDER) -> dict[str, list[float]]:
    """Return the share of the evidence among the first ten turns, for each question, of the product and of its peers."""
    found: dict[str, list[float]] = {}
    for conversation in conversations(folder):
        sides = {"search_past": _product(pool, conversation), **_peers(pool, conversation)}
        for name, answers in sides.items():
            found.setdefault(name, []).extend(
                len(evidence.intersection(answer[:FIRST])) / len(evidence)
                for (_, evidence), answer in zip(conversation.questions, answers, strict=True)
            )
    return found


def conversations(folder: Path) -> Iterator[Conversation]:
    for path in sorted(folder.glob("*.json")):
        given = json.loads(path.read_text())
        turns = [
            Turn(turn["id"], f"{path.stem}:{each['session']}", _time(each["date_time"]), turn["speaker"], turn["text"])
            for each in given["sessions"] for turn in each["turns"]
        ]  # fmt: skip
        questions = [(each["question"], frozenset(each["evidence"])) for each in given["questions"]]
        yield Conversation(path.stem, tuple(given["speakers"]), turns, questions)


def _time(text: str) -> datetime:
    """Read `1:56 pm on 8 May, 2023`."""
    return datetime.strptime(text, "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)


def _product(pool: Pool, conversation: Conversation) -> list[list[str]]:
    """Index the runs session by session, and ask. A conversation is a tenant, since several have a speaker of the same name."""
    index, tenant = TalkIndex(pool, resolve), f"locomo-{conversation.name}"
    turns_of: dict[str, list[str]] = {}
    work = worker(pool, index)
    for runs in _sessions(conversation):
        run_ids = [_store(pool, tenant, conversation.speakers, turns) for turns in runs]
        turns_of |= {run_id: [turn.id for turn in turns] for run_id, turns in zip(run_ids, runs, strict=True)}
        done = work(as_work(tenant, runs[0][0].session, run_ids))
        with pool.connection() as connection, connection.transaction():
            done.write(connection)
    search = SessionSearch(pool, index)
    answers = []
    for question, _ in conversation.questions:
        exchanges = search(tenant=tenant, user_id=conversation.speakers[0], query=question, limit=FIRST)
        answers.append([turn for each in exchanges for turn in turns_of[each.run_id]])
    return answers


def _sessions(conversation: Conversation) -> Iterator[list[list[Turn]]]:
    """Yield the runs of each session."""
    asks = conversation.speakers[0]
    runs: list[list[Turn]] = []
    for turn in conversation.turns:
        if runs and runs[-1][0].session != turn.session:
            yield runs
            runs = []
        if runs and len(runs[-1]) == 1 and turn.speaker != asks and runs[-1][0].speaker == asks:
            runs[-1].append(turn)
        else:
            runs.append([turn])
    yield runs


def _store(pool: Pool, tenant: str, speakers: tuple[str, str], turns: Sequence[Turn]) -> str:
    """Store a run that has ended."""
    run_id = str(uuid7())
    asked = "".join(turn.text for turn in turns if turn.speaker == speakers[0])
    answered = "".join(turn.text for turn in turns if turn.speaker != speakers[0])
    pool.run(
        """WITH run AS (INSERT INTO agno.run (id, tenant, agent, status, queue, session_id, user_id, content, created_at, ended_at)
            VALUES (%(id)s, %(tenant)s, %(agent)s, 'done', 'agents', %(session)s, %(user)s, %(answered)s, %(at)s, %(at)s) RETURNING id)
        INSERT INTO agno.message (run_id, seq, content) SELECT id, 0, %(asked)s FROM run""",
        {"id": run_id, "tenant": tenant, "agent": speakers[1], "session": turns[0].session, "user": speakers[0], "at": turns[0].at,
         "asked": jsonb(user(asked)), "answered": jsonb(answered)},
    )  # fmt: skip
    return run_id


def as_work(tenant: str, session_id: str, run_ids: Iterable[str]) -> Work:
    """Return the background work after runs of a session."""
    claim = ClaimedStep(
        "", "", 0, StepKind.BACKGROUND, "", 0, 1, 0, "talks", datetime.now(UTC), tenant=tenant
    )
    agent = Agent(name="talks", model="openai:none")
    return Work(claim, KIND, session_id, agent, _no_model, tuple(run_ids), lambda: False)


def _no_model(model: str | Model) -> Model:
    raise AssertionError(f"the index asks no model such as {model!r}")


def _peers(pool: Pool, conversation: Conversation) -> dict[str, list[list[str]]]:
    """Rank the turns of a conversation, each with the name of its speaker, as search libraries do."""
    turns, questions = conversation.turns, [question for question, _ in conversation.questions]
    texts = [f"{turn.speaker}: {turn.text}" for turn in turns]
    pairs = [
        f"{texts[n - 1]}\n{text}" if n and turns[n - 1].session == turns[n].session else text
        for n, text in enumerate(texts)
    ]
    embedder = resolve("local")
    asked = _lexemes(pool, questions)
    scores = {
        "BM25 of a turn": bm25(_lexemes(pool, texts), asked),
        "BM25 of a turn with the one before": bm25(_lexemes(pool, pairs), asked),
        "MiniLM": embedder.embed(questions, "query") @ embedder.embed(texts).T,
    }
    scores["RRF of BM25 and MiniLM"] = sum(
        1 / (61 + np.argsort(np.argsort(-scores[name], kind="stable"), kind="stable")) for name in ("BM25 of a turn", "MiniLM")
    )  # fmt: skip
    return {
        name: [[turns[place].id for place in np.argsort(-row, kind="stable")[:FIRST]] for row in ranked]
        for name, ranked in scores.items()
    }


def _lexemes(pool: Pool, texts: Sequence[str]) -> list[list[str]]:
    """Return the stemmed words of each text, as often as it has them."""
    rows = pool.run(
        """SELECT (SELECT array_agg(lexeme) FROM unnest(to_tsvector('english', text)) AS v, unnest(v.positions) AS place) AS lexemes
        FROM unnest(%(texts)s::text[]) WITH ORDINALITY AS t (text, nth) ORDER BY nth""",
        {"texts": [words(text) for text in texts]},
    )
    return [row["lexemes"] or [] for row in rows]


def bm25(documents: Sequence[Sequence[str]], questions: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """Return BM25 (k1 = 1.2, b = 0.75), one row for each question."""
    counts = [Counter(document) for document in documents]
    holders = Counter(lexeme for count in counts for lexeme in count)
    lengths = np.array([len(document) for document in documents])
    rest = 1.2 * (0.25 + 0.75 * lengths / lengths.mean())
    scores = np.zeros((len(questions), len(documents)))
    for each, question in zip(scores, questions, strict=True):
        for lexeme in set(question) & holders.keys():
            often = np.array([count[lexeme] for count in counts])
            each[:] += math.log(1 + (len(counts) - holders[lexeme] + 0.5) / (holders[lexeme] + 0.5)) * 2.2 * often / (often + rest)  # fmt: skip
    return scores
