"""The steps of an ingestion: scan sources, ingest a batch, embed chunks, finalize. See store/ingest.py for what each commits.

A step may be executed twice, after a crash or by two workers at once; the first commit wins. An error of one document is stored
with it, and the others continue; a step that fails as a whole is split until the cause is isolated.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from agno_workers.core.policy import Retry, delay_s
from agno_workers.core.ports import BatchEmbedder, CountingEmbedder, Embedder, Journal
from agno_workers.core.run import StepKind
from agno_workers.core.step import NOT_RECORDED, CommitResult, ExhaustedStep
from agno_workers.database.pool import to_json
from agno_workers.engine.active_steps import ActiveSteps, Stopped
from agno_workers.engine.handlers import Handler
from agno_workers.errors import (
    AgnoError,
    InvalidInput,
    ModelRejected,
    ModelUnavailable,
    SettingsError,
    SourceRejected,
    SourceUnavailable,
    Unavailable,
    error_to_json,
)
from agno_workers.knowledge.chunking import check
from agno_workers.knowledge.store.bases import MODEL_OPTIONS, EmbeddingSpace, KnowledgeBases, SourceInput
from agno_workers.knowledge.store.ingest import Ingest, Text, WorkClaim
from agno_workers.knowledge.store.search_index import Taken
from agno_workers.knowledge.types import (
    Chunking,
    EmbeddingSpaceStatus,
    Prepared,
    Raw,
    Refusal,
    Skipped,
    Source,
    embedded_text,
)
from agno_workers.knowledge.versions import (
    Failed,
    Outcome,
    Read,
    RetryLater,
    SourceItem,
    Unchanged,
    batched,
    processing_hash,
)
from agno_workers.signals import signal

log = logging.getLogger(__name__)

FETCHES = 8
"""Sources of one step that are fetched concurrently."""
SOURCE = Retry(attempts=3, first_delay_s=2.0, factor=5.0)
"""For a source that is unavailable."""
ELSEWHERE = Retry(attempts=3, first_delay_s=0.5)
"""For a model that this worker lacks, and another one may have: short, since a person may wait for the answer."""
STEP = Retry(attempts=4)
"""For a step that raised an unexpected error."""
MODEL = Retry(attempts=60, first_delay_s=1.0, max_delay_s=300.0)
"""For a provider that is unavailable: some hours, so that a long ingestion survives an outage."""
POLL = Retry(first_delay_s=15.0, factor=1.5, max_delay_s=300.0)
"""For a provider's batch, which may take a day."""
_BUSY_S = 1.0
_TAKEN_S = 10.0
_EXAMPLES = 3
_FOR_ALL_TEXTS = frozenset({401, 402, 403, 404, "not_configured", "dimensions", "insufficient_quota"})
"""Statuses and codes of errors that affect all texts: key, billing or model."""
PROBE = "Can this model make a vector?"
IsLost = Callable[[], bool]
See = Callable[[Raw, IsLost], Raw]
"""Adds a description to an image and returns anything else unchanged. Raises Stopped if the step is lost, ModelUnavailable, ModelRejected."""


@dataclass(frozen=True)
class IngestContext:
    """The dependencies of ingest steps."""

    ingest: Ingest
    knowledges: KnowledgeBases
    journal: Journal
    active: ActiveSteps
    find: Callable[[SourceInput, Mapping[str, Any]], Iterator[Source]]
    fetch: Callable[[Source, float, int], Raw]
    prepare: Callable[[Sequence[tuple[Source, Raw]], Chunking], Sequence[Prepared | Refusal]]
    rows: Callable[[Source, Raw], Sequence[Source] | Refusal]
    """Reads a file whose rows are documents."""
    embedder: Callable[[str], Embedder]
    viewer: Callable[[str], See]
    """Resolves a vision model."""
    refresh_index: Callable[[int], object]
    expect: Callable[[int, int], object]
    drop_embedding_space: Callable[[int, int], object]
    fetch_timeout_s: float
    document_max_bytes: int


Body = Callable[[IngestContext, WorkClaim, IsLost], CommitResult]
OnError = Callable[[IngestContext, WorkClaim, Exception], CommitResult]


def handlers(context: Callable[[], IngestContext], ingest: Ingest) -> dict[StepKind, Handler]:
    """Return the code for each kind of step of an ingestion. `context` is built with the first step that a worker executes."""
    return {
        kind: Handler(
            lambda *ids, kind=kind: run_step(context(), kind, *ids), partial(fail_exhausted, ingest)
        )
        for kind in _STEPS
    }


def run_step(
    context: IngestContext, kind: StepKind, run_id: str, step_id: str, generation: int
) -> CommitResult:
    """Claim and execute a step. Raises Unavailable when Postgres is away: the lease expires, and the step is executed again."""
    claim = context.ingest.claim(kind, run_id, step_id, generation)
    if claim is None:
        return NOT_RECORDED
    if claim.kind is StepKind.SCAN and claim.attempt == 1:
        log.info("run %s of agent %s started", claim.run_id, claim.agent)
    return replace(run_claimed(context, claim), agent=claim.agent)


def run_claimed(context: IngestContext, claim: WorkClaim) -> CommitResult:
    body, on_error = _STEPS[claim.kind]
    try:
        with context.active.step(claim.step_id) as is_lost:
            return body(context, claim, is_lost)
    except Stopped:
        return NOT_RECORDED
    except Unavailable:
        raise
    except Exception as error:
        ids = {"run_id": claim.run_id, "step_id": claim.step_id, "agent": claim.agent}
        if isinstance(error, AgnoError):
            log.warning("a step of an ingestion failed: %s", error, extra=ids)
        else:
            log.error("a step of an ingestion raised", exc_info=error, extra=ids)
        return replace(on_error(context, claim, error), cause=error)


# Scan.


def scan(context: IngestContext, claim: WorkClaim, is_lost: IsLost) -> CommitResult:
    signal("scan.claimed")
    asked = {option: claim.options[option] for option in MODEL_OPTIONS if option in claim.options}
    claim = replace(claim, settings=claim.settings | asked)
    settle_models(context, claim, asked)
    options, chunking, vision = claim.options, chunking_of(claim), vision_of(claim)
    left_out = LeftOut()
    listed = context.ingest.with_given_metadata(
        claim, list(find_sources(context, options, left_out, is_lost))
    )
    found = [(source, processing_hash(source, chunking, vision)) for source in listed]
    signal("scan.found")
    context.expect(claim.knowledge_id, sum(source.bytes for source, _ in found) // chunking.max_chars)
    whole = [] if "retry_of" in options else sorted({source.origin for source, _ in found} - {""})
    recorded = context.ingest.finish_scan(claim, found, whole, left_out.skipped, left_out.unmatched)
    signal("scan.recorded")
    return recorded


def settle_models(context: IngestContext, claim: WorkClaim, asked: Mapping[str, str]) -> None:
    """Check the models that the ingestion asks for, here, where their keys are, and store them with the knowledge base.

    The first embedding model of a knowledge base, a new one, and that of a reindexing must make a vector now. Another ingestion goes on
    without its models, since its texts can be searched by keyword meanwhile. Raises ModelRejected and ModelUnavailable.
    """
    knowledges, knowledge_id = context.knowledges, claim.knowledge_id
    spaces = {space.model: space for space in knowledges.embedding_spaces(knowledge_id)}
    is_reindex = bool(claim.options.get("all_vectors")) and "retry_of" not in claim.options
    must_work = bool(asked) or is_reindex or not spaces
    knowledges.retry_models(knowledge_id, building=must_work)
    try:
        if vision := vision_of(claim):
            context.viewer(vision)
        if not (name := claim.settings.get("embedder", "local")):
            return
        embedder = context.embedder(name)
        if must_work:
            checked(embedder, spaces.get(embedder.name))
        knowledges.ensure_embedding_space(knowledge_id, embedder.name, embedder.dimensions, asked)
    except (ModelRejected, ModelUnavailable) as error:
        if must_work and isinstance(error, ModelRejected):
            text = f"{error} The workers need it; {claim.knowledge!r} keeps the models that it had."
            raise ModelRejected(text, **error.ids) from error
        if must_work:
            raise
        log.warning(
            "the vectors of an ingestion wait for their model: %s", error, extra={"run_id": claim.run_id}
        )


def checked(embedder: Embedder, known: EmbeddingSpace | None) -> None:
    """Raise ModelRejected for a model that makes no vectors, or vectors of other dimensions than it made before."""
    (vector,) = embedder.embed([PROBE])
    for dimensions in (embedder.dimensions, known.dimensions if known else embedder.dimensions):
        check_dimensions(embedder.name, len(vector), dimensions)


def check_dimensions(model: str, made: int, expected: int) -> None:
    if made != expected:
        raise ModelRejected(
            f"{model} makes vectors of {made} dimensions, and those that are stored have {expected}: "
            "name the model with other dimensions (`MODEL@DIMENSIONS`) to build all vectors again.",
            model=model,
            code="dimensions",
        )


class LeftOut:
    """Counts what a scan leaves out, and collects the sources in which it found nothing."""

    def __init__(self) -> None:
        self.unmatched: list[str] = []
        self._by_reason: dict[str, Skipped] = {}

    @property
    def skipped(self) -> list[Skipped]:
        return sorted(self._by_reason.values(), key=lambda each: -each.count)

    def skip(self, reason: str, uri: str) -> None:
        known = self._by_reason.get(reason) or Skipped(reason, 0, ())
        self._by_reason[reason] = Skipped(reason, known.count + 1, (*known.examples, uri)[:_EXAMPLES])


def find_sources(
    context: IngestContext, options: Mapping[str, Any], left_out: LeftOut, is_lost: IsLost
) -> Iterator[Source]:
    """Yield the sources as they are found, with the metadata that they were given."""
    if "retry_of" in options:
        yield from context.ingest.unfinished_sources(options["retry_of"])
        return
    for given in options["sources"]:
        metadata, is_empty = given_metadata(given, options), True
        for source in context.find(given, {**options, "skip": left_out.skip}):
            if is_lost():
                raise Stopped
            for each in rows_of(context, source) if source.rows else (source,):
                is_empty = False
                yield each if metadata is None else replace(each, given=metadata)
        if is_empty:
            left_out.unmatched.append(name_of(given))


def given_metadata(given: SourceInput, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the metadata that an ingestion and the description of a source give to its documents; None if neither gives any."""
    own = given.get("metadata") if isinstance(given, Mapping) else None
    said = [each for each in (options.get("metadata"), own) if isinstance(each, Mapping)]
    return {name: value for each in said for name, value in each.items()} if said else None


def name_of(given: SourceInput) -> str:
    """Return a source as its author knows it."""
    if isinstance(given, Mapping):
        return str(given.get("path") or given.get("uri") or to_json(given).decode())
    return str(given)


def rows_of(context: IngestContext, source: Source) -> Sequence[Source]:
    """Read a file whose rows are documents. It fails as a whole: without it, its rows would count as removed."""
    raw = context.fetch(
        replace(source, fingerprint=None), context.fetch_timeout_s, context.document_max_bytes
    )
    found = context.rows(source, raw)
    if isinstance(found, Refusal):
        raise SourceRejected(f"{source.uri}: {found.message}", uri=source.uri, code=found.type)
    return found


def scan_failed(context: IngestContext, claim: WorkClaim, error: Exception) -> CommitResult:
    if isinstance(error, ModelRejected):
        elsewhere = error.ids.get("code") == "not_configured" and retry_later(
            context, claim, ELSEWHERE, error
        )
        return elsewhere or context.ingest.fail(claim, error_to_json(error), "model_rejected")
    if isinstance(error, InvalidInput | SourceRejected | SettingsError):
        return context.ingest.fail(claim, error_to_json(error), "scan")
    return retry_later(context, claim, STEP, error) or context.ingest.fail(
        claim, error_to_json(error), "scan"
    )


# Ingest.


def ingest(context: IngestContext, claim: WorkClaim, is_lost: IsLost) -> CommitResult:
    signal("ingest.claimed")
    chunking, outcomes = chunking_of(claim), list[tuple[SourceItem, Outcome]]()
    vision, items = vision_of(claim), context.ingest.items(claim)
    see = viewer_of(context, vision, is_lost) if vision else None
    for portion in portions(fetch_all(context, items, see), context.ingest.windows.batch_bytes):
        outcomes += [(item, found) for item, found, _ in portion if not isinstance(found, Raw)]
        raws = [(item, found) for item, found, _ in portion if isinstance(found, Raw)]
        if is_lost():
            raise Stopped
        results = context.prepare([(item.source, raw) for item, raw in raws], chunking) if raws else ()
        outcomes += [
            (item, outcome_of(item, raw, result)) for (item, raw), result in zip(raws, results, strict=True)
        ]
    signal("ingest.read")
    recorded = context.ingest.finish_ingest(claim, outcomes)
    signal("ingest.recorded")
    return recorded


def viewer_of(context: IngestContext, vision: str, is_lost: IsLost) -> Callable[[Raw], Raw]:
    """Bind the description of images to one step. Without its model the images fail, and the other documents get in."""
    try:
        see = context.viewer(vision)
    except ModelRejected as error:
        return partial(refuse_image, error)
    return lambda raw: see(raw, is_lost)


def refuse_image(error: ModelRejected, raw: Raw) -> Raw:
    from agno_workers.knowledge.readers.detect import bitmap  # noqa: PLC0415 - needs the extra `knowledge`

    if bitmap(raw.content) is not None:
        raise error
    return raw


Fetched = tuple[SourceItem, Raw | Outcome, int]
"""A source, its bytes or its outcome, and the number of bytes."""


def fetch_all(
    context: IngestContext, items: Sequence[SourceItem], see: Callable[[Raw], Raw] | None = None
) -> Iterator[Fetched]:
    """Fetch the sources, some at a time: the bytes, or the outcome of a source that is unchanged or unavailable."""
    with ThreadPoolExecutor(FETCHES) as pool:
        for few in batched(items, FETCHES):
            yield from pool.map(partial(fetch_one, context, see), few)


def fetch_one(context: IngestContext, see: Callable[[Raw], Raw] | None, item: SourceItem) -> Fetched:
    source = item.source
    same_place = item.same_processing and item.origin == source.origin
    if same_place and source.fingerprint is not None and source.fingerprint == item.fingerprint:
        return item, Unchanged(source.fingerprint), 0
    if item.same_processing and source.fingerprint is None:
        source = replace(source, fingerprint=item.fingerprint)  # for a conditional request
    try:
        raw = context.fetch(source, context.fetch_timeout_s, context.document_max_bytes)
    except SourceRejected as error:
        return item, Failed(error_to_json(error)), 0
    except SourceUnavailable as error:
        return item, retry_or_fail(item, SOURCE, error), 0
    fingerprint = raw.fingerprint or item.source.fingerprint
    if raw.unchanged or (item.same_processing and hashlib.sha256(raw.content).digest() == item.sha256):
        return item, Unchanged(fingerprint), 0
    try:
        return item, see(raw) if see else raw, len(raw.content)
    except ModelRejected as error:
        return item, Failed(error_to_json(error)), 0
    except ModelUnavailable as error:
        return item, retry_or_fail(item, MODEL, error), 0


def retry_or_fail(item: SourceItem, retry: Retry, error: AgnoError) -> RetryLater | Failed:
    """Retry later, or fail after the last attempt."""
    if item.attempts + 1 >= retry.attempts:
        return Failed(error_to_json(error))
    wait_s = delay_s(retry, item.attempts + 1, random.random(), error.ids.get("retry_after_s"))
    return RetryLater(error_to_json(error), wait_s)


def outcome_of(item: SourceItem, raw: Raw, result: Prepared | Refusal) -> Outcome:
    if isinstance(result, Refusal):
        return Failed({"type": result.type, "message": result.message, "ids": {"uri": item.source.uri}})
    return Read(result, raw.fingerprint or item.source.fingerprint, raw.tokens)


def portions(fetched: Iterable[Fetched], max_bytes: int) -> Iterator[list[Fetched]]:
    """Group sources so that a group fits in memory."""
    portion: list[Fetched] = []
    held = 0
    for each in fetched:
        portion.append(each)
        held += each[2]
        if held >= max_bytes:
            yield portion
            portion, held = [], 0
    if portion:
        yield portion


def ingest_failed(context: IngestContext, claim: WorkClaim, error: Exception) -> CommitResult:
    """Retry, in case the error was temporary; then release the sources one by one."""
    return retry_later(context, claim, STEP, error) or context.ingest.free_sources(
        claim, error_to_json(error)
    )


# Embed.


def embed(context: IngestContext, claim: WorkClaim, is_lost: IsLost) -> CommitResult:
    signal("embed.claimed")
    texts = context.ingest.texts(claim)
    if not texts or claim.model is None:
        return context.ingest.finish_embed(claim, {})
    embedder = context.embedder(claim.model)
    if claim.options.get("batch") and isinstance(embedder, BatchEmbedder):
        return embed_by_batch(context, claim, embedder, texts)
    vectors = {text.id: text.known[4:] for text in texts if text.known}
    alike: dict[str, list[Text]] = {}
    for text in texts:
        if not text.known:
            alike.setdefault(embedded(text), []).append(text)
    tokens = 0
    for few in calls([same[0] for same in alike.values()], embedder):
        if is_lost():
            raise Stopped
        made, took = call(embedder, few)
        check_dimensions(embedder.name, made.shape[1], claim.dimensions or made.shape[1])
        for first, vector in zip(few, half_floats([text.id for text in few], made).values(), strict=True):
            vectors |= {text.id: vector for text in alike[embedded(first)]}
        tokens += took
    signal("embed.made")
    recorded = context.ingest.finish_embed(claim, vectors, tokens=tokens)
    signal("embed.recorded")
    return recorded


def embed_by_batch(context: IngestContext, claim: WorkClaim, embedder: BatchEmbedder, texts: Sequence[Text]) -> CommitResult:  # fmt: skip
    """Start a batch at the provider and poll it in later attempts, so that no worker waits. The step's id is the key of the batch:
    a batch that was started right before a crash is found and not paid for twice.
    """
    batch: dict[str, Any] = (claim.call or {}).get("batch") or {}
    if "id" not in batch:
        batch_id = embedder.find(claim.step_id) if batch else None
        if batch_id is None:
            batch = {"chunks": [text.id for text in texts]}
            if not context.ingest.update_call(claim, {"batch": batch}):
                return NOT_RECORDED
            batch_id = embedder.start([embedded(text) for text in texts], claim.step_id)
        signal("embed.started")
        batch = batch | {"id": batch_id}
        if not context.ingest.update_call(claim, {"batch": batch}):
            return NOT_RECORDED
    if (made := embedder.poll(batch["id"])) is None:
        waiting = {"type": "Waiting", "message": f"the provider is processing batch {batch['id']}", "ids": {}}
        return repeat_later(context, claim, delay_s(POLL, waits_of(claim) + 1, random.random()), waiting)
    tokens = sum(text.tokens for text in texts)
    return context.ingest.finish_embed(claim, half_floats(batch["chunks"], made), tokens=tokens)


def calls(texts: Sequence[Text], embedder: Embedder) -> Iterator[list[Text]]:
    """Group texts into calls within the limits of the embedder."""
    few: list[Text] = []
    tokens = 0
    for text in texts:
        if few and (len(few) >= embedder.batch_texts or tokens + text.tokens > embedder.batch_tokens):
            yield few
            few, tokens = [], 0
        few.append(text)
        tokens += text.tokens
    if few:
        yield few


def call(embedder: Embedder, texts: Sequence[Text]) -> tuple[Any, int]:
    """Return the vectors and their tokens, as the provider counts them if it does."""
    asked = [embedded(text) for text in texts]
    if isinstance(embedder, CountingEmbedder):
        return embedder.embed_counted(asked)
    return embedder.embed(asked), sum(text.tokens for text in texts)


def embedded(text: Text) -> str:
    return embedded_text(text.heading.split("\n") if text.heading else (), text.content)


def half_floats(chunk_ids: Sequence[int], vectors: Any) -> dict[int, bytes]:
    """Convert float32 rows to big-endian float16, the binary format of Postgres."""
    return {chunk_id: row.tobytes() for chunk_id, row in zip(chunk_ids, vectors.astype(">f2"), strict=True)}


def embed_failed(context: IngestContext, claim: WorkClaim, error: Exception) -> CommitResult:
    if isinstance(error, ModelRejected) and {error.ids.get("status"), error.ids.get("code")} & _FOR_ALL_TEXTS:
        # A worker without the key leaves the step to another one, for some attempts.
        elsewhere = error.ids.get("code") == "not_configured" and retry_later(context, claim, STEP, error)
        return elsewhere or context.ingest.stop_model(claim, error_to_json(error))
    if isinstance(error, ModelUnavailable):
        again = retry_later(context, claim, MODEL, error, error.ids.get("retry_after_s"))
    else:
        again = None if isinstance(error, ModelRejected) else retry_later(context, claim, STEP, error)
    return again or split_or_refuse(context.ingest, claim, claim.call or {}, error_to_json(error))


def split_or_refuse(ingest: Ingest, step: WorkClaim | ExhaustedStep, call: dict[str, Any], error: dict[str, Any]) -> CommitResult:  # fmt: skip
    """Split the step in half; a single text stays without a vector."""
    if len(call["chunks"]) > 1:
        return ingest.split_embed(step, error, call)
    return ingest.refuse_embed(step, error, call)


# Finalize.


def finalize(context: IngestContext, claim: WorkClaim, is_lost: IsLost) -> CommitResult:
    signal("finalize.claimed")
    if not context.ingest.remove_vanished(claim):
        busy = {"type": "Busy", "message": "a document to remove is locked elsewhere", "ids": {}}
        return repeat_later(context, claim, _BUSY_S, busy)
    signal("finalize.removed")
    if is_lost():
        raise Stopped
    if context.ingest.has_changed(claim):
        context.ingest.merge_duplicates(claim)
        try:
            context.refresh_index(claim.knowledge_id)
        except Taken as error:  # possibly for the time of an index build, so the worker does not wait
            return repeat_later(context, claim, _TAKEN_S, error_to_json(error))
    recorded = context.ingest.finish_finalize(claim)
    signal("finalize.recorded")
    forget_retired(context, claim)
    return recorded


def forget_retired(context: IngestContext, claim: WorkClaim) -> None:
    """Delete the vectors of retired embedding spaces; after a crash the next ingestion does it."""
    for space in context.knowledges.embedding_spaces(claim.knowledge_id):
        if space.status is EmbeddingSpaceStatus.RETIRED and space.has_partition:
            with suppress(Taken):
                context.drop_embedding_space(claim.knowledge_id, space.id)
    context.ingest.drop_retired(claim)


def finalize_failed(context: IngestContext, claim: WorkClaim, error: Exception) -> CommitResult:
    return retry_later(context, claim, STEP, error) or context.ingest.fail(
        claim, error_to_json(error), "finalize"
    )


_STEPS: Mapping[StepKind, tuple[Body, OnError]] = {
    StepKind.SCAN: (scan, scan_failed),
    StepKind.INGEST: (ingest, ingest_failed),
    StepKind.EMBED: (embed, embed_failed),
    StepKind.FINALIZE: (finalize, finalize_failed),
}


# Shared by all steps.


def fail_exhausted(ingest: Ingest, step: ExhaustedStep) -> CommitResult:
    """End a step that no attempt ended, for the keeper."""
    ids = {"run_id": step.run_id, "step_id": step.step_id, "agent": step.agent}
    said = f"its worker died in each of {step.attempt} attempts"
    error = step.error if step.raised else {"type": "crashed", "message": said, "ids": ids}
    log.error("a step of an ingestion is given up: %s", error["message"], extra=ids)
    if step.raised:  # by the worker, and not because of its documents
        return ingest.fail(step, error, step.reason)
    match step.kind:
        case StepKind.INGEST:
            return ingest.free_sources(step, error)
        case StepKind.EMBED:
            return split_or_refuse(ingest, step, ingest.call(step), error)
        case _:
            return ingest.fail(step, error, step.reason)


def retry_later(
    context: IngestContext, claim: WorkClaim, retry: Retry, error: Exception, wish_s: float | None = None
) -> CommitResult | None:
    """Retry later. Returns None after the last attempt."""
    tries = claim.tries - waits_of(claim) + 1
    if tries >= retry.attempts:
        return None
    context.journal.retry(
        claim.step_id,
        claim.attempt,
        delay_s(retry, max(1, tries), random.random(), wish_s),
        error_to_json(error),
    )
    return NOT_RECORDED


def repeat_later(
    context: IngestContext, claim: WorkClaim, delay_s: float, why: dict[str, Any]
) -> CommitResult:
    """Check again later; this does not count as an attempt."""
    if context.ingest.update_call(claim, {"waits": waits_of(claim) + 1}):
        context.journal.retry(claim.step_id, claim.attempt, delay_s, why)
    return NOT_RECORDED


def waits_of(claim: WorkClaim) -> int:
    return int((claim.call or {}).get("waits", 0))


def chunking_of(claim: WorkClaim) -> Chunking:
    return check(msgspec.convert(claim.settings.get("chunking", {}), Chunking))


def vision_of(claim: WorkClaim) -> str | None:
    """Return the vision model, if there is one."""
    vision = claim.settings.get("vision")
    return vision if vision and vision != "none" else None
