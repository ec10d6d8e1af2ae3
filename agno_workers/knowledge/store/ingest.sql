-- Transactions of an ingestion; see ingest.py for their contents, and the tables for the order of locks.

-- name: context
-- The knowledge base and the options of the ingestion that a claimed step belongs to. No model: it was given up, or makes no vectors.
SELECT knowledge.id AS knowledge_id, knowledge.name AS knowledge, knowledge.options AS settings, ingestion.options, embedding_space.model,
       embedding_space.dimensions
FROM agno.ingestion JOIN agno.knowledge ON knowledge.id = ingestion.knowledge_id
LEFT JOIN agno.embedding_space ON embedding_space.id = %(embedding_space_id)s::int AND embedding_space.status <> 'retired' AND embedding_space.error IS NULL
WHERE ingestion.run_id = %(run_id)s;

-- name: call
SELECT call FROM agno.step WHERE id = %(step_id)s;

-- name: items
-- The sources of a step, with the stored state of their documents.
SELECT s.position, s.given, s.processing_hash, s.attempts, d.fingerprint, d.sha256, d.origin, d.updated_at AS known_at,
       coalesce(d.processing_hash = s.processing_hash AND d.pending IS NULL, false) AS same_processing
FROM agno.source s LEFT JOIN agno.document d ON d.knowledge_id = %(knowledge_id)s AND d.uri = s.uri
WHERE s.step_id = %(step_id)s AND s.status = 'taken' ORDER BY s.position;

-- name: texts
-- Existing chunks of a step without a vector. `known` is the vector of an equal text, in binary format. LATERAL with OFFSET 0 as in
-- copy_vectors.
SELECT c.id, c.heading, c.content, c.tokens,
       (SELECT vector.sent FROM (SELECT same.id FROM agno.chunk same WHERE same.hash = c.hash OFFSET 0) AS same
        CROSS JOIN LATERAL (SELECT halfvec_send(e.embedding) AS sent FROM agno.chunk_embedding e
            WHERE e.chunk_id = same.id AND e.embedding_space_id = %(embedding_space_id)s OFFSET 0) AS vector
        LIMIT 1) AS known
FROM agno.chunk c
WHERE c.id = ANY(%(chunk_ids)s)
  AND NOT EXISTS (SELECT FROM agno.chunk_embedding e WHERE e.chunk_id = c.id AND e.embedding_space_id = %(embedding_space_id)s)
ORDER BY c.id;

-- name: unfinished_sources
-- The failed and unfinished sources of another ingestion.
SELECT given FROM agno.source WHERE run_id = %(run_id)s AND status IN ('failed', 'pending', 'taken') ORDER BY position;

-- name: configurations
SELECT cfgname AS name FROM pg_ts_config;

-- name: end_step
-- The first result of the generation wins; no row: another one was first, or the run is over.
SELECT queue, priority FROM agno.end_step(%(run_id)s, %(step_id)s, %(generation)s, %(kind)s, %(result)s, %(moves_run)s);

-- name: update_call
-- Data that must survive a crash of the worker, such as the id of a provider's batch.
UPDATE agno.step SET call = call || %(more)s WHERE id = %(step_id)s AND status = 'running' AND attempt = %(attempt)s RETURNING id;

-- name: copy_sources
COPY agno.source (run_id, position, uri, bytes, given, processing_hash, status, document_id) FROM STDIN;

-- name: unchanged
-- Documents with the same fingerprint and processing hash need not be read.
SELECT d.id, d.uri FROM agno.document d
JOIN unnest(%(uris)s::text[], %(fingerprints)s::text[], %(processing_hashes)s::bytea[], %(origins)s::text[]) AS s (uri, fingerprint, processing_hash, origin)
    ON d.uri = s.uri AND d.fingerprint = s.fingerprint AND d.processing_hash = s.processing_hash AND s.origin IN (d.origin, '')
WHERE d.knowledge_id = %(knowledge_id)s AND d.pending IS NULL;

-- name: given_metadata
-- A pending version has newer ones.
SELECT uri, coalesce(nullif(pending#>'{row,given_metadata}', 'null'), given_metadata) AS metadata FROM agno.document
WHERE knowledge_id = %(knowledge_id)s AND uri = ANY(%(uris)s) AND (given_metadata IS NOT NULL OR pending#>'{row,given_metadata}' <> 'null');

-- name: given_metadata_of
SELECT DISTINCT ON (origin) origin, given_metadata AS metadata FROM agno.document
WHERE knowledge_id = %(knowledge_id)s AND origin = ANY(%(origins)s) AND given_metadata IS NOT NULL ORDER BY origin, updated_at DESC;

-- name: scanned
UPDATE agno.ingestion SET scanned_at = clock_timestamp(), origins = %(origins)s, total = %(total)s, skipped = %(skipped)s, unmatched = %(unmatched)s
WHERE run_id = %(run_id)s;

-- name: clear_vectors_missing
-- Return true when vectors may be missing, since an ingestion ended early or made none (`all`: then also those that the model
-- refused, as the reason may be gone), or an embedding space is building.
WITH taken AS (UPDATE agno.knowledge SET vectors_missing = false WHERE id = %(knowledge_id)s AND vectors_missing RETURNING id)
SELECT EXISTS (SELECT FROM taken) AS all, EXISTS (SELECT FROM agno.embedding_space WHERE knowledge_id = %(knowledge_id)s AND status = 'building' AND error IS NULL) AS some;

-- name: missing_vectors
-- Chunks without a vector, except those of other open ingestions. `refused` includes chunks that the model rejected.
SELECT s.id AS embedding_space_id, c.id, c.tokens FROM agno.embedding_space s JOIN agno.chunk c ON c.knowledge_id = s.knowledge_id
JOIN agno.document d ON d.id = c.document_id
WHERE s.knowledge_id = %(knowledge_id)s AND s.status IN ('current', 'building') AND s.error IS NULL AND (c.refused IS NULL OR %(refused)s)
  AND NOT EXISTS (SELECT FROM agno.chunk_embedding e WHERE e.chunk_id = c.id AND e.embedding_space_id = s.id)
  AND (s.status = 'building' OR NOT EXISTS (
      SELECT FROM agno.run WHERE run.id = d.run_id AND run.ended_at IS NULL AND run.id <> %(run_id)s))
ORDER BY s.id, c.id;

-- name: lock_texts
-- Serialises transactions that write the same text under two uris. Locks are taken in the same order everywhere.
SELECT pg_advisory_xact_lock(text.key) FROM (SELECT DISTINCT unnest(%(keys)s::bigint[]) AS key ORDER BY key) AS text;

-- name: upsert_documents
-- Insert new documents and lock known ones, which are returned unchanged, in the order of their uris.
INSERT INTO agno.document AS d (knowledge_id, uri, origin, title, media_type, language, bytes, fingerprint, sha256, text_sha256, processing_hash,
    metadata, given_metadata, bands, version, chunks, run_id)
SELECT %(knowledge_id)s, n.uri, n.origin, n.title, n.media_type, n.language, n.bytes, n.fingerprint, n.sha256, n.text_sha256, n.processing_hash,
    n.metadata, n.given_metadata, n.bands, 1, n.chunks, %(run_id)s
FROM jsonb_to_recordset(%(rows)s) AS n (uri text, origin text, title text, media_type text, language text, bytes bigint, fingerprint text,
    sha256 bytea, text_sha256 bytea, processing_hash bytea, metadata jsonb, given_metadata jsonb, bands bigint[], chunks int)
ORDER BY n.uri
ON CONFLICT (knowledge_id, uri) DO UPDATE SET knowledge_id = excluded.knowledge_id
RETURNING d.id, d.uri, d.xmax = 0 AS is_new, d.version, d.text_sha256, d.duplicate_of, d.updated_at;

-- name: reassign_chunks
SELECT leaving AS id, agno.reassign_chunks(leaving) AS is_free FROM unnest(%(document_ids)s::bigint[]) AS leaving;

-- name: live_chunks
SELECT id, document_id, hash FROM agno.chunk WHERE document_id = ANY(%(document_ids)s) AND live ORDER BY document_id, position;

-- name: originals
-- Documents that have these texts already. Locked ones are skipped, so that nothing waits here.
SELECT d.id, d.text_sha256 FROM agno.document d
WHERE d.knowledge_id = %(knowledge_id)s AND d.text_sha256 = ANY(%(texts)s) AND d.duplicate_of IS NULL AND d.pending IS NULL AND d.version > 0
  AND d.id <> ALL(%(document_ids)s)
ORDER BY d.id FOR SHARE SKIP LOCKED;

-- name: chunk_ids
SELECT nextval('agno.chunk_id_seq') AS id FROM generate_series(1, %(count)s);

-- name: copy_chunks
COPY agno.chunk (id, knowledge_id, document_id, version, position, live, hash, content, heading, start_at, end_at, tokens, language, words, weight, place) FROM STDIN;

-- name: write_documents
-- Update known documents: at once, or with `pending` when their vectors exist. A document that is now ingested by itself keeps its origin,
-- and is removed when the origin no longer lists it.
UPDATE agno.document d SET pending = n.pending, run_id = %(run_id)s, updated_at = clock_timestamp(),
    origin = coalesce(nullif(n.origin, ''), d.origin), title = CASE WHEN n.pending IS NULL THEN n.title ELSE d.title END,
    media_type = coalesce(n.media_type, d.media_type), language = CASE WHEN n.pending IS NULL THEN n.language ELSE d.language END,
    bytes = coalesce(n.bytes, d.bytes), fingerprint = CASE WHEN n.pending IS NULL THEN n.fingerprint ELSE d.fingerprint END,
    sha256 = coalesce(n.sha256, d.sha256), text_sha256 = coalesce(n.text_sha256, d.text_sha256), processing_hash = coalesce(n.processing_hash, d.processing_hash),
    metadata = coalesce(n.metadata, d.metadata), given_metadata = coalesce(n.given_metadata, d.given_metadata), bands = coalesce(n.bands, d.bands), version = coalesce(n.version, d.version), chunks = coalesce(n.chunks, d.chunks),
    duplicate_of = n.duplicate_of
FROM jsonb_to_recordset(%(rows)s) AS n (id bigint, pending jsonb, origin text, title text, media_type text, language text, bytes bigint,
    fingerprint text, sha256 bytea, text_sha256 bytea, processing_hash bytea, metadata jsonb, given_metadata jsonb, bands bigint[], version int, chunks int, duplicate_of bigint)
WHERE d.id = n.id;

-- name: touch_documents
-- Documents that were read and had not changed: the new fingerprint avoids reading them again.
UPDATE agno.document d SET fingerprint = n.fingerprint, origin = coalesce(nullif(n.origin, ''), d.origin)
FROM jsonb_to_recordset(%(rows)s) AS n (id bigint, fingerprint text, origin text) WHERE d.id = n.id;

-- name: lock_unchanged
-- Skips locked documents, because this lock is taken outside the common order.
SELECT d.id, d.uri FROM agno.document d WHERE d.knowledge_id = %(knowledge_id)s AND d.uri = ANY(%(uris)s) ORDER BY d.uri FOR NO KEY UPDATE SKIP LOCKED;

-- name: drop_chunks
-- All chunks of documents that became duplicates; of edited documents, those of an abandoned version.
DELETE FROM agno.chunk c WHERE c.document_id = ANY(%(document_ids)s) AND c.id <> ALL(%(but)s) AND (c.live IS FALSE OR %(live)s)
RETURNING c.live;

-- name: copy_vectors
-- Copy the vectors of equal texts from the same model. Each text is looked up once, however many chunks have it. OFFSET 0 forces
-- index lookups: without statistics on a table that was just filled, the planner would read all vectors for each text.
WITH wanted AS MATERIALIZED (
    SELECT text.hash, target.id AS embedding_space_id, known.embedding FROM (SELECT DISTINCT unnest(%(hashes)s::bytea[]) AS hash) AS text
    JOIN agno.embedding_space target ON target.knowledge_id = %(knowledge_id)s AND agno.is_open(target)
    CROSS JOIN LATERAL (
        SELECT vector.embedding FROM (SELECT c.id FROM agno.chunk c WHERE c.hash = text.hash AND c.id <> ALL(%(chunk_ids)s) OFFSET 0) AS same
        CROSS JOIN LATERAL (SELECT e.embedding FROM agno.chunk_embedding e JOIN agno.embedding_space s ON s.id = e.embedding_space_id
            WHERE e.chunk_id = same.id AND s.model = target.model AND s.dimensions = target.dimensions OFFSET 0) AS vector
        LIMIT 1) AS known
)
INSERT INTO agno.chunk_embedding (embedding_space_id, chunk_id, embedding)
SELECT wanted.embedding_space_id, new.id, wanted.embedding FROM wanted
JOIN unnest(%(chunk_ids)s::bigint[], %(hashes)s::bytea[]) AS new (id, hash) ON new.hash = wanted.hash
RETURNING embedding_space_id, chunk_id;

-- name: lacking
-- Unchanged chunks without a vector, from an interrupted ingestion, or since the model refused them.
SELECT s.id AS embedding_space_id, c.id, c.tokens, c.refused IS NOT NULL AS is_refused FROM agno.chunk c JOIN agno.embedding_space s ON s.knowledge_id = c.knowledge_id AND agno.is_open(s)
WHERE c.id = ANY(%(chunk_ids)s)
  AND NOT EXISTS (SELECT FROM agno.chunk_embedding e WHERE e.chunk_id = c.id AND e.embedding_space_id = s.id);

-- name: open_embedding_spaces
SELECT s.id FROM agno.embedding_space s WHERE s.knowledge_id = %(knowledge_id)s AND agno.is_open(s) ORDER BY s.id;

-- name: switch
SELECT agno.switch_documents(%(document_ids)s) AS more;

-- name: write_embeds
-- They wait for the window.
INSERT INTO agno.step (id, run_id, generation, key, kind, status, waits_for, queue, priority, seq, call, policy, max_attempts)
SELECT n.id, %(run_id)s, %(generation)s, 'embed:' || right(n.id::text, 12), 'embed', 'waiting', 'window', %(queue)s, %(priority)s, 3, n.call,
       '{"death_attempts": 2}', %(attempts)s * CASE jsonb_array_length(n.call->'chunks') WHEN 1 THEN 2 ELSE 1 END
FROM jsonb_to_recordset(%(steps)s) AS n (id uuid, call jsonb);

-- name: write_retry
-- Sources to retry later, in a step with a timer.
WITH written AS (
    INSERT INTO agno.step (id, run_id, generation, key, kind, queue, priority, seq, policy, max_attempts, not_before)
    VALUES (%(retry_id)s, %(run_id)s, %(generation)s, 'ingest:' || right(%(retry_id)s::uuid::text, 12), 'ingest', %(queue)s, %(priority)s, 2,
            '{"death_attempts": 2}', %(attempts)s * CASE jsonb_array_length(%(sources)s) WHEN 1 THEN 2 ELSE 1 END, clock_timestamp() + make_interval(secs => %(after_s)s))
)
UPDATE agno.source s SET step_id = %(retry_id)s, attempts = s.attempts + 1, error = n.error
FROM jsonb_to_recordset(%(sources)s) AS n (position bigint, error jsonb) WHERE s.run_id = %(run_id)s AND s.position = n.position;

-- name: end_sources
UPDATE agno.source s SET status = n.status, document_id = n.document_id, error = n.error
FROM jsonb_to_recordset(%(sources)s) AS n (position bigint, status text, document_id bigint, error jsonb)
WHERE s.run_id = %(run_id)s AND s.position = n.position;

-- name: free_sources
-- Sources of a step that crashed its worker: each gets a step of its own; one that had its own fails.
UPDATE agno.source s SET status = CASE WHEN batch.is_single THEN 'failed' ELSE 'pending' END, alone = true, attempts = s.attempts + 1,
    error = CASE WHEN batch.is_single THEN %(error)s::jsonb END
FROM (SELECT count(*) = 1 AS is_single FROM agno.source WHERE step_id = %(step_id)s AND status = 'taken') AS batch
WHERE s.step_id = %(step_id)s AND s.status = 'taken'
RETURNING s.status;

-- name: count
INSERT INTO agno.ingest_count AS c (run_id, shard, documents, changed, unchanged, duplicates, failed, removed, chunks, embedded, to_embed, tokens, bytes)
VALUES (%(run_id)s, %(shard)s, %(documents)s, %(changed)s, %(unchanged)s, %(duplicates)s, %(failed)s, %(removed)s, %(chunks)s, %(embedded)s, %(to_embed)s,
        %(tokens)s, %(bytes)s)
ON CONFLICT (run_id, shard) DO UPDATE SET documents = c.documents + excluded.documents, changed = c.changed + excluded.changed, unchanged = c.unchanged + excluded.unchanged,
    duplicates = c.duplicates + excluded.duplicates, failed = c.failed + excluded.failed, removed = c.removed + excluded.removed,
    chunks = c.chunks + excluded.chunks, embedded = c.embedded + excluded.embedded, to_embed = c.to_embed + excluded.to_embed,
    tokens = c.tokens + excluded.tokens, bytes = c.bytes + excluded.bytes;

-- name: raise_version
-- The last statement of a transaction, because all other writers of this knowledge base wait for it.
UPDATE agno.knowledge k SET version = k.version + 1, chunk_count = greatest(0, k.chunk_count + %(more)s)
FROM agno.ingestion WHERE ingestion.run_id = %(run_id)s AND k.id = ingestion.knowledge_id;

-- name: lock_documents_of
-- Lock the documents of these chunks before writing.
SELECT d.id, d.pending IS NOT NULL AS is_pending FROM agno.document d
WHERE d.id IN (SELECT document_id FROM agno.chunk WHERE id = ANY(%(chunk_ids)s)) ORDER BY d.uri FOR NO KEY UPDATE;

-- name: lock_chunks
-- A statement of its own, before vectors are read or written: see attach_partition in functions/search.sql.
SELECT id FROM agno.chunk WHERE id = ANY(%(chunk_ids)s) ORDER BY id FOR KEY SHARE;

-- name: wanting
SELECT c.id, c.refused IS NOT NULL AS is_refused FROM agno.chunk c JOIN agno.embedding_space s ON s.id = %(embedding_space_id)s AND s.status <> 'retired'
WHERE c.id = ANY(%(chunk_ids)s)
  AND NOT EXISTS (SELECT FROM agno.chunk_embedding e WHERE e.chunk_id = c.id AND e.embedding_space_id = %(embedding_space_id)s);

-- name: copy_embeddings
COPY agno.chunk_embedding (embedding_space_id, chunk_id, embedding) FROM STDIN (FORMAT BINARY);

-- name: refuse
UPDATE agno.chunk SET refused = %(why)s WHERE id = ANY(%(chunk_ids)s) AND refused IS DISTINCT FROM %(why)s;

-- name: vanished
-- Documents that the origins of an ingestion no longer list. Excludes origins that a later ingestion has listed, and documents that
-- were written since.
SELECT d.id, d.duplicate_of IS NOT NULL AS is_duplicate FROM agno.ingestion mine JOIN agno.document d ON d.knowledge_id = mine.knowledge_id
WHERE mine.run_id = %(run_id)s AND d.origin <> '' AND d.updated_at < mine.scanned_at
  AND d.origin IN (SELECT whole.origin FROM jsonb_array_elements_text(mine.origins) AS whole (origin)
      WHERE NOT EXISTS (SELECT FROM agno.ingestion later WHERE later.knowledge_id = mine.knowledge_id AND later.scanned_at > mine.scanned_at
                        AND later.origins ? whole.origin))
  AND NOT EXISTS (SELECT FROM agno.source s WHERE s.run_id = mine.run_id AND s.uri = d.uri)
ORDER BY d.uri LIMIT %(limit)s FOR NO KEY UPDATE OF d;

-- name: merge_duplicates
SELECT agno.merge_duplicates(%(run_id)s, %(knowledge_id)s) AS less;

-- name: lock_run
SELECT FROM agno.run WHERE id = %(run_id)s AND generation = %(generation)s AND ended_at IS NULL FOR SHARE;

-- name: named_documents
SELECT d.id, d.duplicate_of IS NOT NULL AS is_duplicate FROM agno.document d
WHERE d.knowledge_id = %(knowledge_id)s AND d.uri = ANY(%(uris)s) ORDER BY d.uri FOR NO KEY UPDATE;

-- name: remove_documents
WITH live AS (SELECT count(*) AS chunks FROM agno.chunk WHERE document_id = ANY(%(document_ids)s) AND live),
gone AS (DELETE FROM agno.document WHERE id = ANY(%(document_ids)s) RETURNING id)
SELECT (SELECT count(*) FROM gone) AS documents, (SELECT chunks FROM live) AS chunks;

-- name: switch_embedding_space
-- Search the embedding space that was built, if it is complete, and its model did not refuse everything.
WITH built AS (
    SELECT s.id FROM agno.embedding_space s WHERE s.knowledge_id = %(knowledge_id)s AND s.status = 'building'
      AND (EXISTS (SELECT FROM agno.chunk_embedding e WHERE e.embedding_space_id = s.id)
           OR NOT EXISTS (SELECT FROM agno.chunk c WHERE c.knowledge_id = s.knowledge_id))
      AND NOT EXISTS (SELECT FROM agno.chunk c WHERE c.knowledge_id = s.knowledge_id AND c.refused IS NULL
                      AND NOT EXISTS (SELECT FROM agno.chunk_embedding e WHERE e.chunk_id = c.id AND e.embedding_space_id = s.id))
    ORDER BY s.id DESC LIMIT 1
),
spaces AS (
    UPDATE agno.embedding_space s SET status = CASE s.id WHEN built.id THEN 'current' ELSE 'retired' END FROM built
    WHERE s.knowledge_id = %(knowledge_id)s AND s.status <> 'retired'
)
UPDATE agno.knowledge k SET embedding_space_id = built.id, version = k.version + 1 FROM built WHERE k.id = %(knowledge_id)s RETURNING built.id;

-- name: stop_model
UPDATE agno.embedding_space SET error = %(error)s WHERE id = %(embedding_space_id)s AND status <> 'retired';

-- name: stopped_model
-- Why the ingestion could not make its vectors: those that are searched, or those that it was to build.
SELECT error FROM agno.embedding_space WHERE knowledge_id = %(knowledge_id)s AND error IS NOT NULL AND (status = 'current' OR status = 'building' AND %(building)s)
ORDER BY id LIMIT 1;

-- name: no_documents
-- The number of sources and a reason, if all of them failed.
SELECT count(*) AS failed, (array_agg(uri || ': ' || coalesce(error->>'message', '') ORDER BY position))[1] AS reason FROM agno.source
WHERE run_id = %(run_id)s HAVING bool_and(status = 'failed');

-- name: no_vectors
-- The number of chunks that the model refused and a reason, if the ingestion made no vector, and no document that it listed has one.
SELECT count(*) AS refused, min(c.refused) AS reason FROM agno.refused_chunks(%(run_id)s) c
WHERE EXISTS (SELECT FROM agno.step s WHERE s.run_id = %(run_id)s AND s.kind = 'embed' AND s.status = 'dead')
  AND NOT EXISTS (SELECT FROM agno.ingest_count n WHERE n.run_id = %(run_id)s AND n.embedded > 0)
  AND NOT EXISTS (
      SELECT FROM agno.source s JOIN agno.chunk o ON o.document_id = s.document_id JOIN agno.chunk_embedding e ON e.chunk_id = o.id
      JOIN agno.knowledge k ON k.id = o.knowledge_id AND k.embedding_space_id = e.embedding_space_id WHERE s.run_id = %(run_id)s)
HAVING count(*) > 0;

-- name: has_changed
-- Return true when the ingestion changed anything that a search can see, or an earlier version wrote the words of the chunks.
SELECT EXISTS (SELECT FROM agno.knowledge WHERE id = %(knowledge_id)s AND words_version < %(words_version)s)
    OR coalesce(sum(documents + duplicates + removed + embedded), 0) > 0 AS changed FROM agno.ingest_count WHERE run_id = %(run_id)s;

-- name: drop_retired
-- A portion of the vectors of retired embedding spaces.
DELETE FROM agno.chunk_embedding e USING (
    SELECT o.chunk_id, o.embedding_space_id FROM agno.embedding_space s JOIN agno.chunk_embedding o ON o.embedding_space_id = s.id
    WHERE s.knowledge_id = %(knowledge_id)s AND s.status = 'retired' LIMIT %(limit)s) AS old
WHERE e.chunk_id = old.chunk_id AND e.embedding_space_id = old.embedding_space_id RETURNING 1 AS gone;

-- name: end_open_steps
SELECT agno.end_open_steps(%(run_id)s, %(reason)s);

-- name: move_run
SELECT agno.move_run(%(run_id)s, %(change)s);

-- name: schedule_next
SELECT * FROM agno.schedule_next(%(run_id)s, %(how)s);

-- name: stalled
-- Rule 6 of the keeper: ingestions without a step under way, because nobody scheduled the next one.
SELECT run.id::text FROM agno.run JOIN agno.ingestion ON ingestion.run_id = run.id
WHERE run.ended_at IS NULL AND run.kind = 'ingestion' AND ingestion.scanned_at IS NOT NULL
  AND NOT EXISTS (SELECT FROM agno.step WHERE step.run_id = run.id AND step.kind IN ('scan', 'ingest', 'embed', 'finalize')
                  AND step.status IN ('ready', 'running'))
LIMIT %(limit)s;
