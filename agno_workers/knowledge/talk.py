"""The index of past sessions: what users and agents said, in a knowledge base of its own for each tenant, `agno:sessions`.

A document is the talk of one session with one agent, and a chunk is one message, or a part of a long one. Users can't take the name, since
theirs have no colon. `agno-workers knowledge reindex agno:sessions` makes missing vectors, and with `--embedder` those of another model.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

import msgspec

from agno_workers.core.ports import Embedder
from agno_workers.core.tokens import estimate
from agno_workers.core.words import as_uuid, safe_text
from agno_workers.database.pool import Connection, Pool, Row, execute, jsonb, statements
from agno_workers.errors import ModelError, ModelUnavailable, SettingsError, Unavailable
from agno_workers.knowledge.filters import compile_filter
from agno_workers.knowledge.store.documents import configurations
from agno_workers.knowledge.store.search import Effort
from agno_workers.knowledge.store.search_index import SearchIndex, Taken
from agno_workers.knowledge.versions import batched
from agno_workers.knowledge.words import VERSION, words

log = logging.getLogger(__name__)
_SQL = {
    **statements("knowledge/store/talk"),
    "ensure_embedding_space": statements("knowledge/store/bases")["ensure_embedding_space"],
}
NAME = "agno:sessions"
EMBEDDER = "local"
"""The model of an index that has none yet, if this process has it."""
VECTORS = 0.4
"""The weight of vectors beside words; see agno.in_talk. Between 0.3 and 0.5 it makes little difference."""
MAX_CHARS = 20_000
"""The most characters of a message that are indexed: what comes after them is mostly pasted."""
_PART = re.compile(r"\S.{0,1499}(?=\s|\Z)|\S{1,1500}", re.DOTALL)
"""A part of a long message: at most 1,500 characters, as models of vectors read little more."""
_CONTEXT_CHARS = 500
_QUERY_CHARS = 4000

Said = tuple[str, datetime, str, str]
"""A message: the id of its run, when that was asked, the name of who said it, and the text."""


class TalkIndex:
    """Writes and searches the index; `embedder` resolves the name of a model. Raises Unavailable if Postgres can't be reached."""

    def __init__(self, pool: Pool, embedder: Callable[[str], Embedder]) -> None:
        self._pool = pool
        self._embedder = embedder
        self._lacking = ""

    def prepare(
        self, tenant: str, talk: Sequence[str | None], about: Mapping[str, Any], said: Sequence[Said]
    ) -> Callable[[Connection], int]:
        """Make the words and the vectors of messages, and return the function that writes them in a transaction of the caller. It replaces
        earlier messages of the same runs, and returns how many it wrote.

        `talk` is the key of the document, such as the session, the agent and the user; `about` is what searches filter by. Without the model on this
        worker there are no vectors. Raises ModelUnavailable.
        """
        base = self._base(tenant)
        uri = safe_text(msgspec.json.encode(talk).decode())
        messages = [message for each in said for message in _parts(each)]
        before, language = self._before(base["id"], uri, messages)
        texts = _with_context(messages, before)
        space, vectors = self._vectors(base, texts)
        for place, (message, text) in enumerate(zip(messages, texts, strict=True)):
            message |= {"language": language, "hash": hashlib.sha256(text.encode()).hexdigest()}
            if vectors is not None:
                message["vector"] = vectors[place]
        asked = {"base": base["id"], "space": space, "uri": uri, "about": jsonb(dict(about)), "messages": jsonb(messages)}  # fmt: skip
        return partial(_write, asked)

    def search(
        self, tenant: str, query: str, *, about: Mapping[str, Any], since: datetime | None = None, limit: int = 10
    ) -> list[tuple[str, float]]:  # fmt: skip
        """Return the ids of the runs with the best messages, best first, with their scores. `about` is a filter as for knowledge bases.

        While the model can't be asked, words alone are searched.
        """
        rows = self._pool.run(_SQL["base"], {"tenant": tenant, "name": NAME})
        if not rows or not query.strip():
            return []
        text = safe_text(query[:_QUERY_CHARS])
        vector = self._embed(rows[0]["model"], [text], "query") if rows[0]["model"] else None
        asked: dict[str, Any] = {
            "knowledge_id": rows[0]["id"], "embedding_space_id": rows[0]["space"], "text": words(text, query=True), "search_type": "hybrid",
            "filter": msgspec.structs.asdict(compile_filter(about)), "max_results": limit * 2, "per_document": limit * 2, "talk": VECTORS,
        } | msgspec.structs.asdict(Effort())  # fmt: skip
        if since is not None:
            asked["since"] = since.timestamp()
        literal = msgspec.json.encode(vector[0]).decode() if vector else None
        found = self._pool.run(_SQL["search"], {"asked": jsonb(asked), "vector": literal, "since": since})
        return [(row["run_id"], row["score"]) for row in found][:limit]

    def _base(self, tenant: str) -> Row:
        """Return the knowledge base, which is created by the first call, and keep its indexes up to date."""
        asked = {"tenant": tenant, "name": NAME}
        if not (rows := self._pool.run(_SQL["base"], asked)):
            self._pool.run(_SQL["create"], asked | {"words_version": VERSION})
            rows = self._pool.run(_SQL["base"], asked)
        if rows[0]["is_stale"]:
            self._refresh(rows[0]["id"])
        return rows[0]

    def _refresh(self, base: int) -> None:
        """Count the words, and give many vectors a partition. Messages are found without, too, so the work goes on when it fails."""
        try:
            SearchIndex(self._pool).refresh_index(base, wait_s=0.0)
        except Taken:
            return  # another worker does it
        except (Unavailable, SettingsError) as error:
            log.warning("the index of past sessions is searched as it is: %s", error)

    def _before(self, base: int, uri: str, messages: Sequence[dict[str, Any]]) -> tuple[str, str]:
        """Return the last message of a talk so far, and the text search configuration: of the new messages, if it is clear, else as before."""
        try:
            from agno_workers.knowledge.language import detect  # noqa: PLC0415 - loads a model of the extra
        except ImportError:
            code = None
        else:
            code = detect(" ".join(each["content"] for each in messages))
        own = {"base": base, "uri": uri, "run_ids": [each["run_id"] for each in messages]}
        with self._pool.connection() as connection:
            known = configurations(connection).get(code or "")
            before = execute(connection, _SQL["before"], own)
        if not before:
            return "", known or "english"
        return before[0]["content"], known or before[0]["language"]

    def _vectors(self, base: Row, texts: Sequence[str]) -> tuple[int | None, list[list[float]] | None]:
        """Return the embedding space and the vectors; None without the model."""
        model = base["model"] or base["embedder"] or EMBEDDER
        if not texts or (vectors := self._embed(model, texts)) is None:
            return None, None
        if base["space"] is not None:
            return base["space"], vectors
        own = {"knowledge_id": base["id"], "model": self._embedder(model).name, "dimensions": len(vectors[0]), "options": jsonb({})}  # fmt: skip
        return self._pool.run(_SQL["ensure_embedding_space"], own)[0]["id"], vectors

    def _embed(self, model: str, texts: Sequence[str], kind: Any = "document") -> list[list[float]] | None:
        try:
            embedder = self._embedder(model)
            return [vector for few in batched(texts, embedder.batch_texts) for vector in embedder.embed(few, kind).tolist()]  # fmt: skip
        except ModelError as error:
            if kind == "document" and isinstance(error, ModelUnavailable):
                raise
            if self._lacking != str(error):  # once, not for each message
                self._lacking = str(error)
                log.warning("past sessions are indexed and searched by their words only: %s", error)
            return None


def _parts(said: Said) -> list[dict[str, Any]]:
    """Return the parts of a message. The name and the day are its heading: people ask for both."""
    run_id, said_at, speaker, text = said
    name = "" if as_uuid(speaker) else safe_text(speaker)
    heading = "\n".join(filter(None, (name, f"{said_at.day} {said_at:%B %Y}")))
    return [
        {
            "run_id": run_id, "said_at": said_at, "heading": heading, "content": content, "words": words(f"{heading}\n{content}"),
            "tokens": estimate(content), "spoken": f"{name}: {content}" if name else content,
        }
        for content in _PART.findall(safe_text(text[:MAX_CHARS]))
    ]  # fmt: skip


def _with_context(messages: Sequence[dict[str, Any]], before: str) -> list[str]:
    """Return the text of each message for its vector: with what was said before it, since many answers mean little alone."""
    texts = []
    for message in messages:
        texts.append(f"{message.pop('spoken')}\n{before[:_CONTEXT_CHARS]}".strip())
        before = message["content"]
    return texts


def _write(asked: dict[str, Any], connection: Connection) -> int:
    written: int = execute(connection, _SQL["write"], asked)[0]["written"]
    return written
