"""Shared parts of the knowledge commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from agno_workers.cli import connection, screen
from agno_workers.cli.ids import whole_id
from agno_workers.core.step import Submitted
from agno_workers.errors import InvalidInput, ModelRejected
from agno_workers.knowledge.embedders.resolve import resolve
from agno_workers.knowledge.service import KnowledgeService
from agno_workers.knowledge.store.bases import KnowledgeBases, KnowledgeRow
from agno_workers.knowledge.store.feedback import FeedbackStore
from agno_workers.knowledge.types import Knowledge, as_options, from_options
from agno_workers.models.resolve import resolve as resolve_model
from agno_workers.repositories import Database
from agno_workers.runs.queries import RunQueries
from agno_workers.sdk.ingestion import Ingestion, named
from agno_workers.settings import Settings


@dataclass(frozen=True)
class KnowledgeCommands:
    """Services of a knowledge command."""

    settings: Settings
    database: Database
    library: KnowledgeService

    @property
    def look(self) -> RunQueries:
        return self.database.queries

    @property
    def knowledges(self) -> KnowledgeBases:
        return self.database.knowledge

    @property
    def feedback(self) -> FeedbackStore:
        return self.database.feedback

    def described(self, name: str) -> Knowledge:
        """Return the knowledge base from AGNO_IMPORTS, or from Postgres. Raises UnknownKnowledge."""
        return in_code(self.settings, name) or as_row(self.knowledges.get(name))

    def ensure(
        self, name: str, embedder: str | None, vision: str | None = None, *, moves: bool = False
    ) -> dict[str, Any]:
        """Create it if necessary, with the options of the code or these, and return the new models; see `KnowledgeBases.prepare`.
        The vision model `none` removes it.
        """
        known = in_code(self.settings, name if moves else named(name))
        said: dict[str, Any] = {"embedder": embedder} if embedder else {}
        if vision:
            said["vision"] = None if vision == "none" else vision
        for option, value in said.items() if known else ():
            if (has := getattr(known, option)) not in (None, value):
                raise InvalidInput(
                    f"the {option} of {name!r} is {has!r} in the code of AGNO_IMPORTS: change it there."
                )
        finders: tuple[tuple[Callable[[str], object], str | None], ...] = (
            (resolve, embedder), (resolve_model, said.get("vision"))
        )  # fmt: skip
        for find, model in finders:
            with suppress(ModelRejected):  # the workers may have the key that is missing here
                find(model) if model else None
        return self.knowledges.prepare(name, (as_options(known) if known else {}) | said, moves=moves)

    def ingestion(self, run_id: str) -> Ingestion:
        return Ingestion(whole_id(self.database, run_id, "run"), self.database)

    def began(self, submitted: Submitted) -> Ingestion:
        """Return a submitted ingestion, and wake the keeper, which sends it."""
        self.database.submissions.wake_keeper()
        return self.ingestion(submitted.run_id)


@contextmanager
def opened(given: Settings | None = None) -> Iterator[KnowledgeCommands]:
    """Raises as `connection.database`."""
    given = given or connection.settings()
    with connection.database(given) as database:
        service = KnowledgeService.on(database.pool, database.knowledge, resolve)
        yield KnowledgeCommands(given, database, service)


def in_code(given: Settings, name: str) -> Knowledge | None:
    """Return the knowledge base from a module of AGNO_IMPORTS, if there is one."""
    if not given.imports:
        return None
    return connection.registry(given).knowledge(name)


def as_row(row: KnowledgeRow) -> Knowledge:
    return from_options(row.name, row.options)


def pairs(option: str, given: Sequence[str]) -> dict[str, Any]:
    """Parse `lang=en` and `year=2024`; a value that is not JSON is text. A JSON object is taken as it is. Raises InvalidInput."""
    found: dict[str, Any] = {}
    for text in given:
        if text.lstrip().startswith("{"):
            try:
                found |= msgspec.json.decode(text, type=dict[str, Any])
            except (msgspec.MsgspecError, UnicodeError) as error:
                raise InvalidInput(
                    f"{option} {text!r} starts like JSON and is not valid ({error}): correct it."
                ) from error
            continue
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InvalidInput(f"{option} {text!r} has no '=': write it as {option} name=value.")
        found[name.strip()] = screen.json_or_text(value)
    return found
