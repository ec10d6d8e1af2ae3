-- Batches of runs, and their progress.
-- `open` to `close` are one transaction, in this order. Rows are inserted in the order of their keys and blobs, so that two batches
-- with the same ones cannot deadlock.

-- name: open
-- The batch itself. No row: it exists already; this waits for a concurrent insert of the same batch.
-- The next statements get a longer timeout than those of a run: the COPY lasts while the caller produces inputs.
-- Returns the queue of the runs. Raises undefined_object for an agent that no worker registered.
WITH patience AS (SELECT set_config('statement_timeout', %(timeout_ms)s::text, true)),
destination AS (SELECT agno.queue_for(%(tenant)s, %(agent)s, %(queue)s,
    %(allow_unknown)s OR EXISTS (SELECT FROM agno.batch WHERE id = %(batch_id)s), NULL) AS queue)
INSERT INTO agno.batch (id, tenant, agent, size) SELECT %(batch_id)s, %(tenant)s, %(agent)s, 0 FROM patience, destination
ON CONFLICT (id) DO NOTHING RETURNING id, (SELECT queue FROM destination) AS queue;

-- name: stage
CREATE TEMP TABLE agno_item (position int, id uuid DEFAULT agno.uuid7(), step_id uuid DEFAULT agno.uuid7(), key text, message jsonb, blobs jsonb)
ON COMMIT DROP;

-- name: copy
COPY pg_temp.agno_item (position, key, message, blobs) FROM STDIN;

-- name: enter_session
-- The place of the first run in its session; the others follow in the order of the inputs. The lock is short: the inputs are here.
SELECT place->>'status' AS session_status, (place->>'position')::bigint AS session_position
FROM agno.enter_session(jsonb_strip_nulls(jsonb_build_object('tenant', %(tenant)s::text, 'agent', %(agent)s::text, 'session_id', %(session_id)s::text,
    'user_id', %(user_id)s::text, 'if_busy', %(if_busy)s::text, 'input', (SELECT message FROM pg_temp.agno_item ORDER BY position LIMIT 1),
    'blobs', (SELECT blobs FROM pg_temp.agno_item ORDER BY position LIMIT 1))), agno.uuid7(), NULL, %(size)s) AS place;

-- name: runs
INSERT INTO agno.run (id, tenant, batch_id, batch_position, kind, agent, status, queue, priority, session_id, session_position, session_status, user_id,
    idempotency_key, metadata, deadline_at)
SELECT id, %(tenant)s, %(batch_id)s, position,
       coalesce(%(kind)s, (SELECT known.kind FROM agno.agent known WHERE known.tenant = %(tenant)s AND known.name = %(agent)s), 'agent'), %(agent)s, 'queued', %(queue)s, %(priority)s, %(session_id)s, %(session_position)s::bigint + position,
       %(session_status)s, %(user_id)s, key, %(metadata)s,
       clock_timestamp() + make_interval(secs => %(deadline_s)s)
FROM pg_temp.agno_item ORDER BY key COLLATE "C", id
ON CONFLICT DO NOTHING;

-- name: conflict
-- The first item whose key belongs to a run with another input, if any. The messages of this batch are not stored yet.
SELECT item.position, item.key, run.id AS run_id
FROM pg_temp.agno_item item JOIN agno.run ON run.tenant = %(tenant)s AND run.agent = %(agent)s AND run.idempotency_key = item.key
    AND run.user_id IS NOT DISTINCT FROM %(user_id)s AND run.id <> item.id
LEFT JOIN agno.message ON message.run_id = run.id AND message.seq = 0
LEFT JOIN pg_temp.agno_item first ON first.id = run.id
WHERE coalesce(message.content, first.message) <> item.message
ORDER BY item.position LIMIT 1;

-- name: known
-- Items whose key belongs to an existing run share it; the batch stores their positions.
WITH taken AS (
    DELETE FROM pg_temp.agno_item item USING agno.run
    WHERE run.tenant = %(tenant)s AND run.agent = %(agent)s AND run.idempotency_key = item.key
      AND run.user_id IS NOT DISTINCT FROM %(user_id)s AND run.id <> item.id
    RETURNING item.position, run.id AS run_id
)
UPDATE agno.batch SET metadata = jsonb_build_object('known', (SELECT jsonb_agg(taken ORDER BY position) FROM taken))
WHERE id = %(batch_id)s;

-- name: use_blobs
-- The same as in agno.store_blobs.
UPDATE agno.blob b SET used_at = clock_timestamp() FROM (
    SELECT sha256 FROM agno.blob WHERE used_at < clock_timestamp() - interval '1 day'
      AND sha256 = ANY(ARRAY(SELECT decode(digest, 'hex') FROM pg_temp.agno_item, jsonb_object_keys(blobs) digest))
    ORDER BY sha256 FOR UPDATE) AS old WHERE b.sha256 = old.sha256;

-- name: blobs
INSERT INTO agno.blob SELECT DISTINCT ON (b.key) decode(b.key, 'hex'), b.value
FROM pg_temp.agno_item item, jsonb_each(item.blobs) b ORDER BY b.key ON CONFLICT DO NOTHING;

-- name: messages
INSERT INTO agno.message (run_id, seq, content) SELECT id, 0, message FROM pg_temp.agno_item;

-- name: steps
-- Their timers are due at once; the keeper sends them (take_due), in this order.
-- In a session they wait for their turn, and `wake` sends the first.
INSERT INTO agno.step (id, run_id, generation, key, kind, queue, priority, seq, max_attempts, status, waits_for, not_before)
SELECT step_id, id, 0, 'turn:1', 'turn', %(queue)s, %(priority)s, 1, %(max_attempts)s, how.*
FROM (SELECT step_id, id FROM pg_temp.agno_item ORDER BY position) item, (
    SELECT CASE WHEN %(session_status)s = 'waiting' THEN 'waiting' ELSE 'ready' END, CASE WHEN %(session_status)s = 'waiting' THEN 'session' END,
        CASE WHEN %(session_status)s IS DISTINCT FROM 'waiting' THEN clock_timestamp() END) AS how;

-- name: wake
SELECT agno.wake_session(%(tenant)s, %(session_id)s);

-- name: close
UPDATE agno.batch SET size = %(size)s WHERE id = %(batch_id)s RETURNING pg_notify('agno_outbox', '');

-- name: batch
SELECT id, agent, size, created_at, cancelled_at FROM agno.batch WHERE id = %(batch_id)s;

-- name: progress
-- The number of items by the status of their runs, and the rate of ends in the last 30 s.
WITH batch AS (
    SELECT *, greatest(created_at, clock_timestamp() - interval '30 s') AS lately FROM agno.batch WHERE id = %(batch_id)s
),
item AS (
    SELECT status, ended_at FROM agno.run WHERE batch_id = %(batch_id)s
    UNION ALL
    SELECT run.status, run.ended_at
    FROM batch, jsonb_to_recordset(batch.metadata->'known') known (run_id uuid) JOIN agno.run ON run.id = known.run_id
)
SELECT batch.id, batch.agent, batch.size, batch.created_at, batch.cancelled_at,
       count(*) FILTER (WHERE item.status = 'queued') AS queued, count(*) FILTER (WHERE item.status = 'running') AS running,
       count(*) FILTER (WHERE item.status = 'waiting') AS waiting, count(*) FILTER (WHERE item.status = 'done') AS done,
       count(*) FILTER (WHERE item.status = 'failed') AS failed, count(*) FILTER (WHERE item.status = 'cancelled') AS cancelled,
       count(*) FILTER (WHERE item.ended_at > batch.lately)
           / extract(epoch FROM greatest(clock_timestamp() - batch.lately, interval '1 s'))::float8 AS per_s
FROM batch LEFT JOIN item ON true
GROUP BY batch.id, batch.agent, batch.size, batch.created_at, batch.cancelled_at, batch.lately;

-- name: unfinished
-- Up to `limit` open runs of a batch.
SELECT id FROM agno.run WHERE batch_id = %(batch_id)s AND ended_at IS NULL
UNION ALL
SELECT run.id FROM agno.batch, jsonb_to_recordset(batch.metadata->'known') known (run_id uuid) JOIN agno.run ON run.id = known.run_id
WHERE batch.id = %(batch_id)s AND run.ended_at IS NULL
LIMIT %(limit)s;

-- name: abandoned
-- The open runs of an interrupted cancel, without those that were retried since.
SELECT id FROM agno.run WHERE batch_id = %(batch_id)s AND ended_at IS NULL AND generation = 0
UNION ALL
SELECT run.id FROM agno.batch, jsonb_to_recordset(batch.metadata->'known') known (run_id uuid) JOIN agno.run ON run.id = known.run_id
WHERE batch.id = %(batch_id)s AND run.ended_at IS NULL AND run.generation = 0
LIMIT %(limit)s;

-- name: ended
-- Items in the order in which their runs ended.
SELECT position, id, ended_at FROM (
    SELECT batch_position AS position, id, ended_at FROM agno.run WHERE batch_id = %(batch_id)s AND ended_at >= %(ended_at)s
    UNION ALL
    SELECT known.position, run.id, run.ended_at
    FROM agno.batch, jsonb_to_recordset(batch.metadata->'known') known (position int, run_id uuid)
    JOIN agno.run ON run.id = known.run_id
    WHERE batch.id = %(batch_id)s AND run.ended_at >= %(ended_at)s
) item
WHERE (ended_at, id, position) > (%(ended_at)s, %(id)s, %(position)s)
ORDER BY ended_at, id, position LIMIT %(limit)s;

-- name: made
-- The runs of a batch, in the order of their inputs; without shared ones.
SELECT id, batch_position AS position FROM agno.run
WHERE batch_id = %(batch_id)s AND batch_position > %(after)s ORDER BY batch_position LIMIT %(limit)s;

-- name: taken
-- The shared runs of a batch: they existed before it, and have its keys.
SELECT DISTINCT run_id AS id FROM agno.batch, jsonb_to_recordset(batch.metadata->'known') known (run_id uuid)
WHERE batch.id = %(batch_id)s AND NOT EXISTS (SELECT FROM agno.run WHERE run.id = known.run_id AND run.batch_id = batch.id) ORDER BY run_id;

-- name: these
SELECT run.*, agno.inflate(run.content) AS answer FROM agno.run WHERE run.id = ANY(%(run_ids)s::uuid[]);

-- name: cancel
-- The cancel is recorded first: after a crash, `left_open` finds the rest.
UPDATE agno.batch SET cancelled_at = coalesce(cancelled_at, clock_timestamp()) WHERE id = %(batch_id)s RETURNING id;

-- name: left_open
-- Batches whose cancel was interrupted.
SELECT batch.id FROM agno.batch
WHERE batch.cancelled_at > clock_timestamp() - interval '1 day' AND batch.cancelled_at < clock_timestamp() - make_interval(secs => %(older_s)s)
  AND (EXISTS (SELECT FROM agno.run WHERE run.batch_id = batch.id AND run.ended_at IS NULL AND run.generation = 0)
       OR EXISTS (SELECT FROM jsonb_to_recordset(batch.metadata->'known') known (run_id uuid)
                  JOIN agno.run ON run.id = known.run_id WHERE run.ended_at IS NULL AND run.generation = 0))
LIMIT %(limit)s;
