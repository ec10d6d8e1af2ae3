-- The index of past sessions; see talk.py. The rest of it is in functions/talk.sql.

-- name: base
-- The knowledge base, with the model of its vectors. `is_stale`: it is large, and a twentieth of its messages is new or gone since its words were
-- counted.
SELECT k.id, k.options->>'embedder' AS embedder, s.id AS space, s.model, k.chunk_count >= 1000 AND abs(k.chunk_count - k.stats_chunks) * 20 > k.chunk_count AS is_stale
FROM agno.knowledge k LEFT JOIN agno.embedding_space s ON s.id = k.embedding_space_id WHERE k.tenant = %(tenant)s AND k.name = %(name)s;

-- name: create
INSERT INTO agno.knowledge (tenant, name, words_version) VALUES (%(tenant)s, %(name)s, %(words_version)s) ON CONFLICT DO NOTHING;

-- name: before
-- The last message of a talk, other than those of the runs that are written now.
SELECT c.content, c.language::text FROM agno.document d JOIN agno.chunk c ON c.document_id = d.id
WHERE d.knowledge_id = %(base)s AND d.uri = %(uri)s AND c.run_id <> ALL (%(run_ids)s::uuid[]) ORDER BY c.position DESC LIMIT 1;

-- name: write
SELECT agno.write_talk(%(base)s, %(space)s, %(uri)s, %(about)s, %(messages)s) AS written;

-- name: search
-- The runs with the best message, best first.
SELECT c.run_id::text AS run_id, max((found.hit->>'score')::float8) AS score
FROM jsonb_array_elements(agno.search(%(asked)s, %(vector)s::text)->'hits') AS found (hit) JOIN agno.chunk c ON c.id = (found.hit->>'chunk_id')::bigint
WHERE c.run_id IS NOT NULL AND (%(since)s::timestamptz IS NULL OR c.said_at >= %(since)s)
GROUP BY c.run_id ORDER BY score DESC, c.run_id DESC;
