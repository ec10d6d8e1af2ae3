-- Searching. What finds and weighs is agno.search, in search_functions.sql.

-- name: search
-- One round trip: the version, and the hits unless they are known for that version.
SELECT agno.search(%(asked)s, %(vector)s::text) AS found;

-- name: patience
-- Of this session: how long a build may take.
SELECT set_config('statement_timeout', %(ms)s, false), set_config('lock_timeout', %(ms)s, false);

-- name: alone
SELECT pg_try_advisory_lock(%(lock)s::int, %(knowledge_id)s::int) AS ours;

-- name: brief
-- Of this transaction: nobody waits long behind a lock that it waits for.
SELECT set_config('lock_timeout', '2s', true);

-- name: means
SELECT set_config('maintenance_work_mem', %(memory)s, false), set_config('max_parallel_maintenance_workers', %(workers)s, false);

-- name: pgvector
SELECT extversion AS version FROM pg_extension WHERE extname = 'vector';

-- name: embedding_spaces
-- With how many vectors each has.
SELECT s.id, s.dimensions, s.status, s.has_partition, s.is_indexed,
       (SELECT count(*) FROM agno.chunk_embedding e WHERE e.embedding_space_id = s.id) AS vectors
FROM agno.embedding_space s WHERE s.knowledge_id = %(knowledge_id)s AND (s.status <> 'retired' OR %(retired)s) ORDER BY s.id;

-- name: words_are_stale
-- Of a small base with every change, which costs little; else once it has grown or shrunk by a twentieth.
SELECT FROM agno.knowledge WHERE id = %(knowledge_id)s AND version <> stats_version AND (chunk_count < 20000 OR abs(chunk_count - stats_chunks) * 20 > chunk_count);

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
-- One whose building was cut short is there, and not valid.
SELECT i.indisvalid AS valid FROM pg_index i WHERE i.indexrelid = to_regclass('agno.' || %(name)s);

-- name: indexed
-- The next searches use it.
UPDATE agno.embedding_space SET is_indexed = true WHERE id = %(embedding_space_id)s AND NOT is_indexed;
