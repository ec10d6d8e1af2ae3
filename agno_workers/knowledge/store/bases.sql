-- Knowledge bases, and ingestions for callers. For the steps of an ingestion see ingest.sql.

-- name: ensure
-- New options override stored ones; the others stay.
INSERT INTO agno.knowledge AS k (name, options, words_version) VALUES (%(name)s, coalesce(%(options)s::jsonb, '{}'), %(words_version)s)
ON CONFLICT (tenant, name) DO UPDATE SET options = k.options || coalesce(%(options)s::jsonb, '{}')
RETURNING id, name, options, embedding_space_id, version;

-- name: get
SELECT id, name, options, embedding_space_id, version FROM agno.knowledge WHERE name = %(name)s;

-- name: all
SELECT id, name, options, embedding_space_id, version FROM agno.knowledge ORDER BY name;

-- name: embedding_spaces
SELECT id, knowledge_id, model, dimensions, status, has_partition, is_indexed, error FROM agno.embedding_space WHERE knowledge_id = %(knowledge_id)s ORDER BY id;

-- name: ensure_embedding_space
-- The first embedding space is searched at once, a later one once it has a vector for each chunk. A retired one is built again. Asking
-- for the current one retires the one that is being built.
WITH made AS (
    INSERT INTO agno.embedding_space AS s (knowledge_id, model, dimensions, status)
    SELECT k.id, %(model)s, %(dimensions)s, CASE WHEN k.embedding_space_id IS NULL THEN 'current' ELSE 'building' END
    FROM agno.knowledge k WHERE k.id = %(knowledge_id)s FOR NO KEY UPDATE
    ON CONFLICT (knowledge_id, model) DO UPDATE SET status = CASE s.status WHEN 'retired' THEN 'building' ELSE s.status END,
        error = CASE s.status WHEN 'retired' THEN NULL ELSE s.error END
    RETURNING id, knowledge_id, model, dimensions, status, has_partition, is_indexed
),
given_up AS (
    UPDATE agno.embedding_space s SET status = 'retired' FROM made
    WHERE s.knowledge_id = made.knowledge_id AND s.status = 'building' AND s.id <> made.id
),
searched AS (
    UPDATE agno.knowledge k SET embedding_space_id = CASE made.status WHEN 'current' THEN made.id ELSE k.embedding_space_id END, options = k.options || %(options)s
    FROM made WHERE k.id = made.knowledge_id AND (NOT k.options @> %(options)s OR made.status = 'current' AND k.embedding_space_id IS NULL)
)
SELECT * FROM made;

-- name: retry_models
UPDATE agno.embedding_space SET error = NULL WHERE knowledge_id = %(knowledge_id)s AND error IS NOT NULL AND (status = 'current' OR %(building)s);

-- name: open_reindexings
SELECT run.id::text FROM agno.ingestion JOIN agno.run ON run.id = ingestion.run_id
WHERE ingestion.knowledge_id = %(knowledge_id)s AND run.ended_at IS NULL AND ingestion.options ? 'all_vectors' AND NOT ingestion.options ? 'retry_of' ORDER BY run.id;

-- name: stop_reindex
WITH back AS (
    UPDATE agno.knowledge k SET options = k.options || jsonb_build_object('embedder', s.model) FROM agno.embedding_space s
    WHERE k.id = %(knowledge_id)s AND s.id = k.embedding_space_id
)
UPDATE agno.embedding_space SET status = 'retired', error = NULL WHERE knowledge_id = %(knowledge_id)s AND status = 'building' RETURNING model;

-- name: open_ingestions
SELECT run.id::text FROM agno.ingestion JOIN agno.run ON run.id = ingestion.run_id
WHERE ingestion.knowledge_id = %(knowledge_id)s AND run.ended_at IS NULL ORDER BY run.id;

-- name: lock_knowledge
-- Blocks new ingestions, whose insert locks this row.
SELECT id FROM agno.knowledge WHERE id = %(knowledge_id)s FOR UPDATE;

-- name: remove
-- Its partitions are dropped before (see search_index.py).
DELETE FROM agno.knowledge WHERE id = %(knowledge_id)s RETURNING id;

-- name: progress
SELECT run.id::text AS run_id, knowledge.name AS knowledge, run.status, ingestion.scanned_at IS NOT NULL AS scanned, ingestion.total,
       run.started_at, run.ended_at, ingestion.skipped, ingestion.unmatched,
       coalesce(sum(c.documents), 0)::bigint AS documents, coalesce(sum(c.changed), 0)::bigint AS changed, coalesce(sum(c.unchanged), 0)::bigint AS unchanged,
       coalesce(sum(c.duplicates), 0)::bigint AS duplicates, coalesce(sum(c.failed), 0)::bigint AS failed,
       coalesce(sum(c.removed), 0)::bigint AS removed, coalesce(sum(c.chunks), 0)::bigint AS chunks,
       coalesce(sum(c.embedded), 0)::bigint AS embedded, coalesce(sum(c.to_embed), 0)::bigint AS to_embed,
       (SELECT count(*) FROM agno.refused_chunks(ingestion.run_id)) AS refused,
       coalesce(sum(c.tokens), 0)::bigint AS tokens, coalesce(sum(c.bytes), 0)::bigint AS bytes
FROM agno.ingestion JOIN agno.run ON run.id = ingestion.run_id JOIN agno.knowledge ON knowledge.id = ingestion.knowledge_id
LEFT JOIN agno.ingest_count c ON c.run_id = ingestion.run_id
WHERE ingestion.run_id = %(run_id)s GROUP BY run.id, knowledge.id, ingestion.run_id;

-- name: complete
-- A duplicate is as complete as its original. An edited document whose new version waits is not.
SELECT count(*) AS complete FROM agno.source s JOIN agno.document d ON d.id = s.document_id JOIN agno.knowledge k ON k.id = d.knowledge_id
WHERE s.run_id = %(run_id)s AND s.status IN ('done', 'unchanged', 'duplicate') AND d.pending IS NULL AND NOT EXISTS (
    SELECT FROM agno.chunk c WHERE c.document_id = coalesce(d.duplicate_of, d.id) AND c.live AND k.embedding_space_id IS NOT NULL
        AND NOT EXISTS (SELECT FROM agno.chunk_embedding e WHERE e.chunk_id = c.id AND e.embedding_space_id = k.embedding_space_id));

-- name: failures
-- Failed sources, and chunks without a vector.
SELECT uri, attempts, error->>'type' AS type, error->>'message' AS message, position FROM agno.source
WHERE run_id = %(run_id)s AND status = 'failed'
UNION
SELECT document.uri, 1, 'no_vector', format('chunk %%s: %%s', chunk.position, chunk.refused), chunk.position
FROM agno.refused_chunks(%(run_id)s) AS chunk JOIN agno.document ON document.id = chunk.document_id
ORDER BY position LIMIT %(limit)s;

-- name: ingestion
SELECT knowledge.name AS knowledge, run.queue FROM agno.ingestion JOIN agno.knowledge ON knowledge.id = ingestion.knowledge_id
JOIN agno.run ON run.id = ingestion.run_id WHERE ingestion.run_id = %(run_id)s;

-- name: ingestions
-- Newest first.
SELECT ingestion.run_id::text AS run_id, run.status, run.created_at, run.ended_at, ingestion.total FROM agno.ingestion
JOIN agno.run ON run.id = ingestion.run_id WHERE ingestion.knowledge_id = %(knowledge_id)s ORDER BY run.created_at DESC LIMIT %(limit)s;

-- name: documents
SELECT id, uri, origin, title, media_type, language, bytes, version, chunks, duplicate_of, metadata, updated_at
FROM agno.find_documents(%(knowledge_id)s, %(filter)s, %(after)s, %(limit)s);

-- name: document
-- By its uri or its id.
SELECT id, uri, origin, title, media_type, language, bytes, version, chunks, duplicate_of, metadata, updated_at
FROM agno.document WHERE knowledge_id = %(knowledge_id)s AND (uri = %(uri)s OR id = %(id)s);

-- name: chunks
-- Chunks that are searched.
SELECT c.id, c.position, CASE c.heading WHEN '' THEN '{}' ELSE string_to_array(c.heading, E'\n') END AS heading, c.content, c.start_at AS start, c.end_at AS end,
       c.tokens, c.refused, EXISTS (SELECT FROM agno.chunk_embedding e WHERE e.chunk_id = c.id AND e.embedding_space_id = k.embedding_space_id) AS has_vector
FROM agno.chunk c JOIN agno.knowledge k ON k.id = c.knowledge_id WHERE c.document_id = %(document_id)s AND c.live ORDER BY c.position;

-- name: similar_uris
SELECT uri FROM agno.document WHERE knowledge_id = %(knowledge_id)s AND (uri LIKE '%%' || %(end)s OR uri LIKE '%%' || %(end)s || '#%%') ORDER BY uri LIMIT 3;

-- name: raise_version
-- The counterpart of the one in ingest.sql, outside an ingestion.
UPDATE agno.knowledge SET version = version + 1, chunk_count = greatest(0, chunk_count + %(more)s) WHERE id = %(knowledge_id)s;
