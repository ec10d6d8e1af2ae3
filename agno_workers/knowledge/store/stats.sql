-- Read-only statistics of knowledge bases. Counts are index scans.

-- name: bases
SELECT k.name, k.options, k.version, k.created_at, s.model, coalesce(s.dimensions, 0) AS dimensions,
       (SELECT count(*) FROM agno.document d WHERE d.knowledge_id = k.id) AS documents,
       (SELECT count(*) FROM agno.chunk c WHERE c.knowledge_id = k.id) AS chunks,
       (SELECT count(*) FROM agno.chunk_embedding e WHERE e.embedding_space_id = k.embedding_space_id) AS vectors,
       (SELECT count(*) FROM agno.ingestion i JOIN agno.run r ON r.id = i.run_id WHERE i.knowledge_id = k.id AND r.ended_at IS NULL) AS open,
       (SELECT count(*) FROM agno.review v WHERE v.knowledge_id = k.id AND v.status = 'waiting') AS notes,
       (SELECT count(*) FROM agno.gap g WHERE g.knowledge_id = k.id) AS gaps,
       (SELECT c.refused FROM agno.chunk c WHERE c.knowledge_id = k.id AND c.refused IS NOT NULL AND NOT EXISTS (
           SELECT FROM agno.chunk_embedding e WHERE e.chunk_id = c.id AND e.embedding_space_id = k.embedding_space_id) LIMIT 1) AS refused,
       k.words_version,
       (SELECT max(d.updated_at) FROM agno.document d WHERE d.knowledge_id = k.id) AS updated_at
FROM agno.knowledge k LEFT JOIN agno.embedding_space s ON s.id = k.embedding_space_id
WHERE %(name)s::text IS NULL OR k.name = %(name)s ORDER BY k.name;

-- name: models
SELECT s.model, s.dimensions, s.status, s.has_partition, s.is_indexed, s.error->>'message' AS why,
       (SELECT count(*) FROM agno.chunk_embedding e WHERE e.embedding_space_id = s.id) AS vectors
FROM agno.embedding_space s JOIN agno.knowledge k ON k.id = s.knowledge_id WHERE k.name = %(name)s ORDER BY s.id;

-- name: origins
-- Origins by the number of documents; documents without an origin are one group.
SELECT d.origin, count(*) AS documents, max(d.updated_at) AS updated_at
FROM agno.document d JOIN agno.knowledge k ON k.id = d.knowledge_id
WHERE k.name = %(name)s GROUP BY d.origin ORDER BY documents DESC, d.origin LIMIT %(limit)s;

-- name: duplicates
-- Documents with the text of another one, then those that share NEAR_BANDS bands with an earlier one. A band that very many documents
-- share, such as the pages of a template, is compared with the first 32 only.
WITH band AS MATERIALIZED (
    SELECT d.id, b.hash, row_number() OVER (PARTITION BY b.hash ORDER BY d.id) AS nth
    FROM agno.document d, unnest(agno.bands_of(d)) AS b (hash) WHERE d.knowledge_id = %(knowledge_id)s
),
near AS (
    SELECT DISTINCT ON (mine.id) mine.id, other.id AS of, count(*) AS bands FROM band mine JOIN band other USING (hash)
    WHERE other.id < mine.id AND other.nth <= 32 GROUP BY mine.id, other.id HAVING count(*) >= %(near_bands)s
    ORDER BY mine.id, bands DESC, other.id
)
SELECT d.uri, o.uri AS of, 1.0::float8 AS similarity FROM agno.document d JOIN agno.document o ON o.id = d.duplicate_of
WHERE d.knowledge_id = %(knowledge_id)s
UNION ALL
SELECT d.uri, o.uri, power(near.bands / 16.0, 0.2) FROM near JOIN agno.document d ON d.id = near.id JOIN agno.document o ON o.id = near.of
LIMIT %(limit)s;

-- name: unfinished
-- Embedding spaces that are building while no ingestion is open.
SELECT k.name AS knowledge, s.model, (SELECT count(*) FROM agno.chunk_embedding e WHERE e.embedding_space_id = s.id) AS vectors,
       (SELECT count(*) FROM agno.chunk c WHERE c.knowledge_id = k.id) AS chunks
FROM agno.embedding_space s JOIN agno.knowledge k ON k.id = s.knowledge_id
WHERE s.status = 'building'
  AND NOT EXISTS (SELECT FROM agno.ingestion i JOIN agno.run r ON r.id = i.run_id WHERE i.knowledge_id = k.id AND r.ended_at IS NULL)
ORDER BY k.name, s.id;

-- name: sizes
-- In bytes: the chunks and vectors with their indexes, and what Postgres keeps of all tables in memory.
SELECT pg_total_relation_size('agno.chunk')::bigint + (SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('agno.chunk_embedding'))::bigint AS searched,
       pg_size_bytes(current_setting('shared_buffers')) AS shared_buffers;

-- name: searched
-- The parts of a knowledge base that a search needs.
SELECT k.id, k.embedding_space_id, s.model FROM agno.knowledge k LEFT JOIN agno.embedding_space s ON s.id = k.embedding_space_id WHERE k.name = %(name)s;

-- name: document
SELECT d.id, d.duplicate_of FROM agno.document d WHERE d.knowledge_id = %(knowledge_id)s AND d.uri = %(uri)s;

-- name: fields
-- The fields of the metadata with their types, also those of objects, three levels deep; with uri, which each document has.
WITH RECURSIVE field (name, value, depth) AS (
    SELECT e.key, e.value, 1 FROM agno.document d, jsonb_each(d.metadata || '{"uri": ""}') e WHERE d.knowledge_id = %(knowledge_id)s
    UNION ALL
    SELECT f.name || '.' || e.key, e.value, f.depth + 1 FROM field f,
        jsonb_each(CASE jsonb_typeof(f.value) WHEN 'object' THEN f.value ELSE '{}' END) e WHERE f.depth < 3
)
SELECT name AS field, array_agg(DISTINCT jsonb_typeof(value)) AS types FROM field GROUP BY name;
