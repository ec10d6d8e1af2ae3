-- Search and its indexes. The search itself is agno.search in functions/search.sql.

-- name: search
SELECT agno.search(%(asked)s, %(vector)s::text) AS found;

-- name: set_timeouts
-- For the session: the time limit of a build.
SELECT set_config('statement_timeout', %(ms)s, false), set_config('lock_timeout', %(ms)s, false);

-- name: try_lock
SELECT pg_try_advisory_lock(%(lock)s::int, %(knowledge_id)s::int) AS ours;

-- name: set_short_lock_timeout
-- For the transaction: others must not queue for long behind a lock that it waits for.
SELECT set_config('lock_timeout', '2s', true);

-- name: set_build_resources
SELECT set_config('maintenance_work_mem', %(memory)s, false), set_config('max_parallel_maintenance_workers', %(workers)s, false);

-- name: owns_vectors
SELECT pg_has_role(relowner, 'USAGE') AS owns FROM pg_class WHERE oid = 'agno.chunk_embedding'::regclass;

-- name: pgvector
SELECT extversion AS version FROM pg_extension WHERE extname = 'vector';

-- name: embedding_spaces
-- Embedding spaces with the number of their vectors. Each search of past sessions compares those of one user, so an index would cost every
-- message and serve none.
SELECT s.id, s.dimensions, s.status, s.has_partition, s.is_indexed, k.name <> 'agno:sessions' AS needs_index,
       (SELECT count(*) FROM agno.chunk_embedding e WHERE e.embedding_space_id = s.id) AS vectors
FROM agno.embedding_space s JOIN agno.knowledge k ON k.id = s.knowledge_id WHERE s.knowledge_id = %(knowledge_id)s AND (s.status <> 'retired' OR %(retired)s) ORDER BY s.id;

-- name: words_are_stale
-- A small knowledge base is counted after each change, a large one after it grew or shrank by a twentieth.
SELECT FROM agno.knowledge WHERE id = %(knowledge_id)s AND version <> stats_version AND (chunk_count < 20000 OR abs(chunk_count - stats_chunks) * 20 > chunk_count);

-- name: words_version
SELECT words_version AS version FROM agno.knowledge WHERE id = %(knowledge_id)s;

-- name: documents_to_write
-- Locks them, in the order of all writers.
SELECT id, uri FROM agno.document WHERE knowledge_id = %(knowledge_id)s AND uri > %(after)s ORDER BY uri LIMIT %(limit)s FOR NO KEY UPDATE;

-- name: chunks_to_write
SELECT id, document_id, heading, content FROM agno.chunk WHERE document_id = ANY(%(document_ids)s) ORDER BY document_id, live, position;

-- name: write_words
UPDATE agno.chunk c SET words = n.words, weight = n.weight
FROM unnest(%(ids)s::bigint[], %(words)s::text[], %(weights)s::real[]) AS n (id, words, weight) WHERE c.id = n.id;

-- name: words_written
UPDATE agno.knowledge SET words_version = %(version)s, version = version + 1 WHERE id = %(knowledge_id)s;

-- name: merge_new_words
-- The index keeps new words in a list, which each search reads, until a vacuum merges them, which may be long after an ingestion.
SELECT gin_clean_pending_list('agno.chunk_words');

-- name: count_words
SELECT agno.count_words(%(knowledge_id)s::int);

-- name: make_partition
SELECT agno.make_partition(%(embedding_space_id)s::int);

-- name: fill_partition
SELECT agno.fill_partition(%(embedding_space_id)s::int);

-- name: attach_partition
SELECT agno.attach_partition(%(embedding_space_id)s::int);

-- name: drop_partition
SELECT agno.drop_partition(%(embedding_space_id)s::int);

-- name: index
-- An index whose build was interrupted exists and is not valid.
SELECT i.indisvalid AS valid FROM pg_index i WHERE i.indexrelid = to_regclass('agno.' || %(name)s);

-- name: indexed
-- Searches use the index from now on.
UPDATE agno.embedding_space SET is_indexed = true WHERE id = %(embedding_space_id)s AND NOT is_indexed;
