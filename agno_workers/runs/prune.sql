-- Delete ended runs. A unit is deleted as a whole, or stays: a run, the runs that it delegated to, and those of its canvas and its batch.
-- `open` to `chosen` prepare a temporary table on one connection.

-- name: open
-- The runs that are old enough, each with the keys that it shares with the others of its unit.
CREATE TEMP TABLE agno_old (id uuid PRIMARY KEY, keys text[] NOT NULL);

-- name: collect
INSERT INTO pg_temp.agno_old (id, keys)
SELECT id, array_remove(ARRAY[id::text, parent_run_id::text, batch_id::text, canvas->>'root_id', canvas->>'group_id'], NULL)
FROM agno.run WHERE ended_at < clock_timestamp() - make_interval(secs => %(older_than_s)s);

-- name: analyze
ANALYZE pg_temp.agno_old;

-- name: spare
-- Spare the runs whose unit has a run that is open or younger, or something that follows it. Repeat until no row is left: a spared run may
-- spare others.
WITH staying AS (
    SELECT ARRAY[r.id::text, r.parent_run_id::text, r.batch_id::text, r.canvas->>'root_id', r.canvas->>'group_id'] AS keys
    FROM agno.run r
    WHERE num_nonnulls(r.parent_run_id, r.batch_id, r.canvas) > 0 AND NOT EXISTS (SELECT FROM pg_temp.agno_old o WHERE o.id = r.id)
    UNION ALL
    SELECT ARRAY[shared.key] FROM (SELECT DISTINCT key FROM pg_temp.agno_old o, unnest(o.keys) key WHERE cardinality(o.keys) > 1) AS shared
        JOIN agno.run r ON r.id::text = shared.key WHERE NOT EXISTS (SELECT FROM pg_temp.agno_old o WHERE o.id = r.id)
    UNION ALL
    SELECT ARRAY[coalesce(s.run_id, o.ended_run_id, o.chord_id)::text] FROM agno.outbox o LEFT JOIN agno.step s ON s.id = o.step_id
    UNION ALL
    SELECT ARRAY[b.id::text] FROM agno.barrier b WHERE b.run_id IS NULL AND b.fired_at IS NULL
    UNION ALL
    SELECT ARRAY[i.run_id::text] FROM agno.background b JOIN agno.background_item i ON (i.tenant, i.kind, i.owner) = (b.tenant, b.kind, b.owner)
),
spared AS (
    SELECT DISTINCT o.id FROM (SELECT DISTINCT key FROM staying, unnest(staying.keys) key WHERE key IS NOT NULL) AS shared
    JOIN (SELECT o.id, key FROM pg_temp.agno_old o, unnest(o.keys) key) AS o ON o.key = shared.key  -- an equality, which can be hashed
)
DELETE FROM pg_temp.agno_old o USING spared WHERE o.id = spared.id RETURNING o.id;

-- name: chosen
SELECT r.agent, r.status, count(*) AS runs, count(r.idempotency_key) AS keys, count(DISTINCT r.session_id) AS sessions,
    min(r.ended_at) AS oldest, max(r.ended_at) AS newest
FROM pg_temp.agno_old o JOIN agno.run r ON r.id = o.id GROUP BY r.agent, r.status ORDER BY r.agent, r.status;

-- name: next
SELECT id::text FROM pg_temp.agno_old ORDER BY id LIMIT %(limit)s;

-- name: delete
-- With their steps, messages, events, barriers, ingestions and grounding, and their messages in the index of past sessions. A run that was
-- retried meanwhile stays.
WITH gone AS (
    DELETE FROM agno.run WHERE id = ANY(%(ids)s::uuid[]) AND ended_at < clock_timestamp() - make_interval(secs => %(older_than_s)s)
    RETURNING id, tenant, batch_id, canvas->>'group_id' AS group_id
),
forgotten AS (SELECT agno.forget_exchanges(NULL, array_agg(id)) FROM gone),
groups AS (DELETE FROM agno.task_group USING gone WHERE task_group.group_id = gone.group_id),
chords AS (DELETE FROM agno.barrier USING gone WHERE barrier.id = gone.group_id::uuid AND barrier.run_id IS NULL AND barrier.fired_at IS NOT NULL),
states AS (
    DELETE FROM agno.state s USING gone WHERE s.tenant = gone.tenant AND s.scope IN ('run', 'team') AND s.owner = gone.id::text
      AND agno.is_of_run(s.tenant, s.scope, s.owner)
),
changes AS (
    DELETE FROM agno.state_change c USING gone WHERE c.tenant = gone.tenant AND c.scope IN ('run', 'team') AND c.owner = gone.id::text
      AND agno.is_of_run(c.tenant, c.scope, c.owner)
),
batches AS (
    DELETE FROM agno.batch USING gone WHERE batch.id = gone.batch_id
      AND NOT EXISTS (SELECT FROM agno.run r WHERE r.batch_id = batch.id AND r.id <> ALL(%(ids)s::uuid[]))
)
SELECT count(*) AS deleted FROM gone, forgotten;

-- name: deleted
DELETE FROM pg_temp.agno_old WHERE id = ANY(%(ids)s::uuid[]);

-- name: forget_context
-- Values from outside that nobody has asked for since they became old.
DELETE FROM agno.context_value
WHERE coalesce(expires_at, fetching_until) < clock_timestamp() - make_interval(secs => %(older_than_s)s);

-- name: forget_state
-- Old changes of state, but for the newest of each key, so that the state of every later time stays known; and keys that were deleted long ago.
WITH old AS (
    SELECT id, tenant, scope, owner, key, lead(id) OVER (PARTITION BY tenant, scope, owner, key ORDER BY version) IS NULL AS is_newest
    FROM agno.state_change WHERE at < clock_timestamp() - make_interval(secs => %(older_than_s)s)
),
deleted AS (
    DELETE FROM agno.state WHERE value IS NULL AND updated_at < clock_timestamp() - make_interval(secs => %(older_than_s)s)
    RETURNING tenant, scope, owner, key
)
DELETE FROM agno.state_change c USING old LEFT JOIN deleted d USING (tenant, scope, owner, key)
WHERE c.id = old.id AND (NOT old.is_newest OR d.key IS NOT NULL);

-- name: forget_memories
-- Memories that were superseded, forgotten or redacted so long ago, with their versions.
DELETE FROM agno.memory WHERE valid_to < clock_timestamp() - make_interval(secs => %(older_than_s)s);

-- name: forget_blobs
-- Large strings to which nothing refers. One that was used in the last two days may belong to a transaction that is under way.
WITH referred AS MATERIALIZED (
    SELECT DISTINCT decode(found[1], 'hex') AS sha256 FROM (
        SELECT content::text AS held FROM agno.message WHERE content @? '$.**."$blob"'
        UNION ALL SELECT content::text FROM agno.steer WHERE content @? '$.**."$blob"'
        UNION ALL SELECT call::text FROM agno.step WHERE call @? '$.**."$blob"'
        UNION ALL SELECT answer::text FROM agno.step WHERE answer @? '$.**."$blob"'
        UNION ALL SELECT result::text FROM agno.step WHERE result @? '$.**."$blob"'
        UNION ALL SELECT content::text FROM agno.map_item WHERE content @? '$.**."$blob"'
        UNION ALL SELECT content::text FROM agno.run WHERE content @? '$.**."$blob"'
        UNION ALL SELECT canvas::text FROM agno.run WHERE canvas @? '$.**."$blob"'
        UNION ALL SELECT result::text FROM agno.chord_part WHERE result @? '$.**."$blob"'
        UNION ALL SELECT body::text FROM agno.barrier WHERE body @? '$.**."$blob"'
        UNION ALL SELECT options::text FROM agno.ingestion WHERE options @? '$.**."$blob"'
        UNION ALL SELECT value::text FROM agno.state WHERE value @? '$.**."$blob"'
        UNION ALL SELECT value::text FROM agno.state_change WHERE value @? '$.**."$blob"'
        UNION ALL SELECT before::text FROM agno.state_change WHERE before @? '$.**."$blob"'
        UNION ALL SELECT given::text FROM agno.source WHERE given @? '$.**."$blob"'
    ) AS holders, regexp_matches(held, '\{"\$blob": "([0-9a-f]{64})"\}', 'g') AS found
),
gone AS (
    DELETE FROM agno.blob WHERE used_at < clock_timestamp() - interval '2 days' AND sha256 NOT IN (SELECT sha256 FROM referred) RETURNING 1
)
SELECT count(*) AS blobs FROM gone;
