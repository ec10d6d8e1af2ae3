"""The proof by a model, for ingestions: any transactions in any order break no invariant, and lose no text.

As test_state_machine.py, with a shelf of books that people write, change and take away while two or three ingestions read it:
workers look at a book and come late with what they saw, die, or carry a step twice; models refuse; messages are lost; a keeper
puts right what it finds. In the end (`calm`) one more ingestion is carried to its end, and what is searched is what is on the shelf.

    AGNO_EXAMPLES=2000 ./run test tests/integration/knowledge/store/test_ingest_machine.py
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agno_workers.core.run import StepKind
from agno_workers.core.step import CommitResult, ExhaustedStep, StepMessage
from agno_workers.database.pool import Row
from agno_workers.errors import ModelRejected, SourceUnavailable
from agno_workers.knowledge import steps as ingest
from agno_workers.knowledge.store.ingest import IngestLimits, WorkClaim
from agno_workers.knowledge.types import Raw
from agno_workers.knowledge.versions import Outcome, SourceItem, processing_hash
from tests import invariants
from tests.database import CountingPool, RunDatabase
from tests.ingesting import ORIGIN, Shelf

EXAMPLES = int(os.environ.get("AGNO_EXAMPLES", "0"))
SMALL = IngestLimits(ingest_window=2, embed_window=1, batch_documents=2, embed_texts=2, attempts=2, publish_after_s=0.0)  # fmt: skip
NAMES = ("a1", "a2", "a3", "b1")
PARTS = ("one", "two", "three", "bad", "four")
MAX_OPEN = 3
RATHER = (StepKind.INGEST, StepKind.EMBED, StepKind.SCAN, StepKind.FINALIZE)
WORKERS = ("w1", "w2", "w3")
ERROR = {"type": "E", "message": "no", "ids": {}}
picks = st.integers(0, 11)
texts = st.lists(st.sampled_from(PARTS), min_size=1, max_size=4).map("\n\n".join)
fates = st.sampled_from(["sent", "sent", "sent", "lost", "not sent"])


@dataclass
class Carried:
    """A step in the hands of a worker, who has looked at all that it needs, and has not recorded anything."""

    worker: str
    claim: WorkClaim
    end: Callable[[], CommitResult]


class Library(RuleBasedStateMachine):
    """What may happen, as rules."""

    def __init__(self, pool: CountingPool) -> None:
        super().__init__()
        self.db = RunDatabase(pool)
        self.db.empty()
        self.shelves = {worker: Shelf(self.db, SMALL, worker=worker) for worker in WORKERS}
        self.books: dict[str, str] = {}
        for shelf in self.shelves.values():
            shelf.books = self.books
            shelf.embedder.refuses = _refuses_bad
        self.shelf = self.shelves["w1"]
        self.mail: list[StepMessage] = []
        self.carried: list[Carried] = []
        self.hopeless: list[ExhaustedStep] = []
        self.runs: list[str] = []
        self.dimensions = 8
        self.open = 0

    # People.

    @initialize(texts=st.lists(texts, min_size=4, max_size=4), is_read=st.booleans())
    def begin(self, texts: list[str], is_read: bool) -> None:
        self.books.update(zip(NAMES, texts, strict=True))
        self.submit("", "sent")
        while self.mail and is_read:
            self.work(1)

    @rule(name=st.sampled_from(NAMES), text=texts)
    def write(self, name: str, text: str) -> None:
        self.books[name] = text

    @rule(name=st.sampled_from(NAMES))
    def take_away(self, name: str) -> None:
        self.books.pop(name, None)

    @rule(name=st.sampled_from(NAMES))
    def take_out(self, name: str) -> None:
        self.books.pop(name, None)
        self.shelf.knowledges.remove_documents("docs", [name])

    @precondition(lambda self: self.open < MAX_OPEN)
    @rule(prefix=st.sampled_from(["", "", "a"]), fate=fates)
    def submit(self, prefix: str, fate: str) -> None:
        submitted = self.shelf.submit(prefix)
        self.runs.append(submitted.run_id)
        self._publish([submitted], fate)

    @precondition(lambda self: self.open < MAX_OPEN)
    @rule(pick=picks)
    def rerun(self, pick: int) -> None:
        again = self.shelf.knowledges.rerun(_one(self.runs, pick))
        assert again.send is not None
        self.runs.append(again.run_id)
        self._publish([again.send], "sent")

    @precondition(lambda self: self.open < MAX_OPEN and self.dimensions == 8)
    @rule()
    def another_model(self) -> None:
        self.dimensions = 16
        for shelf in self.shelves.values():
            _other_model(shelf)
        again = self.shelf.knowledges.reindex("docs")
        assert again.send is not None
        self.runs.append(again.run_id)
        self._publish([again.send], "sent")

    @rule(pick=picks, is_meant=st.sampled_from([True, False, False]))
    def cancel(self, pick: int, is_meant: bool) -> None:
        if is_meant:
            self.db.journal.cancel(_one(self.runs, pick))

    @rule(pick=picks)
    def pause(self, pick: int) -> None:
        self.db.journal.pause(_one(self.runs, pick))

    @rule(pick=picks)
    def resume(self, pick: int) -> None:
        self.db.journal.resume(_one(self.runs, pick))

    # Workers.

    @rule(worker=st.sampled_from(WORKERS), times=st.integers(1, 3))
    def receive_some(self, worker: str, times: int) -> None:
        """Whatever was lost meanwhile."""
        if not self.mail:
            self.follow_up("sent")
            self.resend("sent")
        for _ in range(min(times, len(self.mail))):
            self.receive(0, worker, is_doubled=False)

    @precondition(lambda self: self.mail)
    @rule(pick=picks, worker=st.sampled_from(WORKERS), is_doubled=st.booleans())
    def receive(self, pick: int, worker: str, is_doubled: bool) -> None:
        """Claim a step, rather a batch than others, and look at all that it needs, as the world is now."""
        self.mail.sort(key=lambda send: RATHER.index(send.kind))
        send = _one(self.mail[:3], pick)
        if not is_doubled:
            self.mail.remove(send)
        shelf = self.shelves[worker]
        claim = shelf.ingest.claim(send.kind, send.run_id, send.step_id, send.generation)
        if claim is not None:
            self.carried.append(Carried(worker, claim, _looked(shelf, claim)))

    @precondition(lambda self: self.carried)
    @rule(pick=picks, is_doubled=st.booleans(), fate=fates)
    def record(self, pick: int, is_doubled: bool, fate: str) -> None:
        carried = self._take(pick, is_doubled)
        wanted = self._is_wanted(carried.claim)
        recorded = carried.end()
        assert wanted or not recorded.recorded
        self._publish(recorded.sends, fate)

    @precondition(lambda self: self.carried)
    @rule(pick=picks, fate=fates)
    def break_down(self, pick: int, fate: str) -> None:
        """The body of a step, rather of a batch, raises what nobody expected, for the last time."""
        self.carried.sort(key=lambda carried: RATHER.index(carried.claim.kind))
        carried = self._take(pick // 4, is_doubled=False)
        shelf, claim = self.shelves[carried.worker], carried.claim
        match claim.kind:
            case StepKind.INGEST:
                recorded = shelf.ingest.free_sources(claim, ERROR)
            case StepKind.EMBED if pick < 10:
                recorded = ingest.split_or_refuse(shelf.ingest, claim, claim.call or {}, ERROR)
            case _:
                recorded = shelf.ingest.fail(claim, ERROR, "broke")
        self._publish(recorded.sends, fate)

    @precondition(lambda self: self.carried)
    @rule(pick=picks)
    def try_later(self, pick: int) -> None:
        carried = self._take(pick, is_doubled=False)
        self.db.journal_of(carried.worker).retry(carried.claim.step_id, carried.claim.attempt, 60, ERROR)

    @precondition(lambda self: self.mail)
    @rule(times=st.integers(1, 4))
    def work(self, times: int) -> None:
        """The ordinary day."""
        for _ in range(times):
            held = len(self.carried)
            if self.mail:
                self.receive(0, "w1", is_doubled=False)
                if len(self.carried) > held:
                    self.record(-1, is_doubled=False, fate="sent")

    # Time, and the keeper.

    @rule(pick=picks, fate=fates)
    def lease_runs_out(self, pick: int, fate: str) -> None:
        rows = self.db.sql("SELECT id FROM agno.step WHERE status = 'running' ORDER BY created_at, id")
        if rows:
            self.db.sql("UPDATE agno.step SET lease_until = '2000-01-01' WHERE id = %(id)s", id=_one(rows, pick)["id"])  # fmt: skip
            self._publish(self.db.journal.release_expired(100), fate)
            self.hopeless += self.db.journal.exhausted(100)

    @precondition(lambda self: self.hopeless)
    @rule(fate=fates)
    def bury(self, fate: str) -> None:
        self._bury(fate)

    @rule(fate=fates)
    def timers_come(self, fate: str) -> None:
        self.db.sql("UPDATE agno.step SET not_before = '2000-01-01' WHERE not_before IS NOT NULL")
        self._publish(self.db.journal.take_due(100), fate)

    @rule(fate=fates)
    def follow_up(self, fate: str) -> None:
        for run_id in self.shelf.ingest.stalled(100):
            self._publish(self.shelf.ingest.schedule_next(run_id), fate)

    @precondition(lambda self: self.mail)
    @rule()
    def redis_forgets(self) -> None:
        self.mail.clear()

    @rule(fate=fates)
    def resend(self, fate: str) -> None:
        journal = self.db.journal
        self._publish(next(journal.forgotten(journal.now(), 100), []), fate)

    # What must be true.

    @invariant()
    def nothing_is_broken(self) -> None:
        assert not self._broken(invariants.ALWAYS)
        self.open = int(self.db.value("SELECT count(*) FROM agno.run WHERE ended_at IS NULL"))

    def teardown(self) -> None:
        self.calm()

    def calm(self) -> None:
        """Nothing fails any more: all ends, and after one more ingestion what is searched is what is on the shelf."""
        for shelf in self.shelves.values():
            shelf.embedder.refuses = lambda _: None
        self._finish()
        self.shelf.knowledges.submit("docs", ["", "a"], options={"all_vectors": True})
        self._finish()
        assert not self._broken({**invariants.ALWAYS, **invariants.AT_REST})
        found = self.shelf.chunks()
        held = {row["uri"] for row in self.db.sql("SELECT uri FROM agno.document")}
        assert held == self.books.keys()
        assert sorted("\n\n".join(parts) for parts in found.values()) == sorted(set(self.books.values()))
        assert all("\n\n".join(found[name]) == self.books[name] for name in found)
        lacking = self.db.value(
            "SELECT count(*) FROM agno.chunk c JOIN agno.knowledge k ON k.id = c.knowledge_id WHERE NOT EXISTS "
            "(SELECT FROM agno.chunk_embedding e WHERE e.chunk_id = c.id AND e.embedding_space_id = k.embedding_space_id)"
        )
        assert lacking == 0

    def _finish(self) -> None:
        self.mail.clear()
        self.carried.clear()
        for _ in range(60):
            for row in self.db.sql(
                "SELECT id FROM agno.run WHERE paused_at IS NOT NULL AND ended_at IS NULL"
            ):
                self.db.journal.resume(row["id"])
            self.db.sql("UPDATE agno.step SET lease_until = '2000-01-01' WHERE status = 'running'")
            self._publish(self.db.journal.release_expired(100), "sent")
            self.hopeless += self.db.journal.exhausted(100)
            self._bury("sent")
            self.timers_come("sent")
            self.follow_up("sent")
            self.resend("sent")
            self.db.sql("DELETE FROM agno.outbox")
            while self.mail:
                self.work(1)
            self.nothing_is_broken()
            if not self.open:
                return
        raise AssertionError(self.db.sql("SELECT * FROM agno.step WHERE ended_at IS NULL"))

    # How it is done.

    def _publish(self, sends: Sequence[StepMessage], fate: str) -> None:
        if fate == "sent":
            self.mail += sends
        if fate in ("sent", "lost"):
            self.db.journal.published([send.outbox_id for send in sends if send.outbox_id is not None])

    def _take(self, pick: int, is_doubled: bool) -> Carried:
        carried: Carried = _one(self.carried, pick)
        if not is_doubled:
            self.carried.remove(carried)
        return carried

    def _bury(self, fate: str) -> None:
        while self.hopeless:
            self._publish(ingest.fail_exhausted(self.shelf.ingest, self.hopeless.pop(0)).sends, fate)

    def _is_wanted(self, claim: WorkClaim) -> bool:
        run, step = self.db.run(claim.run_id), self.db.step(claim.step_id)
        return step["status"] in ("ready", "running") and run["ended_at"] is None and run["generation"] == claim.generation  # fmt: skip

    def _broken(self, statements: dict[str, str]) -> list[Row]:
        whole = " UNION ALL ".join(
            f"SELECT '{name.replace(chr(39), chr(39) * 2)}' AS what, to_jsonb(t) AS row FROM ({statement}\n) t"
            for name, statement in statements.items()
        )
        return self.db.sql(whole)


def _looked(shelf: Shelf, claim: WorkClaim) -> Callable[[], CommitResult]:
    """The second half of a step, for later: the first one is done here."""
    match claim.kind:
        case StepKind.SCAN:
            name = shelf.embedder.name
            shelf.knowledges.ensure_embedding_space(claim.knowledge_id, name, shelf.embedder.dimensions)
            sources = list(ingest.find_sources(shelf.context, claim.options, ingest.LeftOut(), lambda: False))
            origins = (
                []
                if "retry_of" in claim.options
                else [f"{ORIGIN}{given}" for given in claim.options["sources"]]
            )
            processing_hashes = [
                (source, processing_hash(source, ingest.chunking_of(claim))) for source in sources
            ]
            return lambda: shelf.ingest.finish_scan(claim, processing_hashes, origins)
        case StepKind.INGEST:
            if claim.attempt == 1 and claim.options["sources"] == ["a"]:
                shelf.ill = {"a1": SourceUnavailable("away")}
            outcomes = [
                (item, _read(shelf, item, found, claim))
                for item, found, _ in ingest.fetch_all(shelf.context, shelf.ingest.items(claim))
            ]
            shelf.ill = {}
            return lambda: shelf.ingest.finish_ingest(claim, outcomes)
        case StepKind.EMBED:
            shelf.ingest.update_call(claim, {"note": 1})  # as of a batch at a provider
            return lambda: ingest.run_claimed(shelf.context, claim)
        case _:
            return lambda: ingest.run_claimed(shelf.context, claim)


def _read(shelf: Shelf, item: SourceItem, found: Raw | Outcome, claim: WorkClaim) -> Outcome:
    if not isinstance(found, Raw):
        return found
    (result,) = shelf.prepare([(item.source, found)], ingest.chunking_of(claim))
    return ingest.outcome_of(item, found, result)


def _refuses_bad(asked: Sequence[str]) -> Exception | None:
    return ModelRejected("no", status=400) if "bad" in asked else None


def _other_model(shelf: Shelf) -> None:
    """From here on texts are embedded by another one; the first one is asked for what its space lacks."""
    first = shelf.embedder
    shelf.embedder = type(first)(16)
    shelf.embedder.refuses = first.refuses
    models = {first.name: first, shelf.embedder.name: shelf.embedder}
    object.__setattr__(shelf.context, "embedder", lambda name: models.get(name, shelf.embedder))


def _one(items: Sequence[Any], pick: int) -> Any:
    return items[pick % len(items)]


@pytest.fixture(scope="module")
def counting_pool(db_url: str) -> Any:
    pool = CountingPool(db_url)
    yield pool
    pool.close()


@pytest.mark.slow
@pytest.mark.timeout(3600 if EXAMPLES else 400)
def test_whatever_happens_in_whatever_order_nothing_breaks_and_no_text_is_lost(
    counting_pool: CountingPool,
) -> None:
    how = settings(
        max_examples=EXAMPLES or 40,
        stateful_step_count=50,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink) if "AGNO_SHORTEST" in os.environ else (Phase.generate,),
        report_multiple_bugs=False,
    )

    class ThisLibrary(Library):
        def __init__(self) -> None:
            super().__init__(counting_pool)

    run_state_machine_as_test(ThisLibrary, settings=how)
    ran = counting_pool.ran.keys() | counting_pool.functions()
    missing = [name for name in invariants.INGEST_MOVES if name not in ran]
    assert not missing, (missing, counting_pool.ran)
