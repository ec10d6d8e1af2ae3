-- Celery's result backend: results of users' own tasks and chords. The result of a run is its row.

-- name: task_meta
-- The row of a run comes before a Celery result with the same id.
SELECT id::text AS task_id, run.status, NULL::jsonb AS meta, agno.inflate(run.content) AS content, run.error, run.ended_at
FROM agno.run WHERE id = %(run_id)s
UNION ALL
SELECT task_id, status, meta, NULL, NULL, updated_at FROM agno.task_result WHERE task_id = %(task_id)s
ORDER BY meta NULLS FIRST;

-- name: store_result
-- The first final result stays: a task that is delivered twice does not overwrite it.
WITH stored AS (
    INSERT INTO agno.task_result AS t (task_id, status, meta) VALUES (%(task_id)s, %(status)s, %(meta)s)
    ON CONFLICT (task_id) DO UPDATE SET status = excluded.status, meta = excluded.meta, updated_at = clock_timestamp()
    WHERE t.status NOT IN ('SUCCESS', 'FAILURE', 'REVOKED')
    RETURNING task_id
)
SELECT pg_notify('agno_result', task_id) FROM stored;

-- name: forget
DELETE FROM agno.task_result WHERE task_id = %(task_id)s;

-- name: save_group
INSERT INTO agno.task_group (group_id, result) VALUES (%(group_id)s, %(result)s)
ON CONFLICT (group_id) DO UPDATE SET result = excluded.result;

-- name: restore_group
SELECT result, created_at FROM agno.task_group WHERE group_id = %(group_id)s;

-- name: delete_group
DELETE FROM agno.task_group WHERE group_id = %(group_id)s;

-- name: pending_continuations
-- The pending continuations of an ended run, and of the chord that it completed.
SELECT id AS outbox_id, ended_run_id, chord_id FROM agno.outbox WHERE ended_run_id = %(run_id)s::uuid OR chord_id = %(chord_id)s::uuid;

-- name: hold_continuation
-- Take the right to continue a canvas. No row: it was continued, or another process holds it. Sending a large group takes longer than
-- the second after which a keeper takes a row again, and its tasks would start twice.
UPDATE agno.outbox SET due_at = clock_timestamp() + interval '10 s'
WHERE id = %(outbox_id)s AND due_at < clock_timestamp() + interval '2 s' RETURNING id;

-- name: release_continuation
UPDATE agno.outbox SET due_at = clock_timestamp() + interval '1 s' WHERE id = %(outbox_id)s;

-- name: size_chord
SELECT agno.size_chord(%(chord_id)s, %(size)s);

-- name: chord_part
SELECT agno.chord_part(%(chord_id)s, %(task_id)s, %(position)s, %(status)s, %(result)s) AS known;

-- name: chord
SELECT barrier.body, jsonb_agg(jsonb_build_object('task_id', part.task_id, 'status', part.status, 'result', agno.inflate(part.result))
                               ORDER BY part.position, part.created_at) AS parts,
       (array_agg(part.task_id ORDER BY part.created_at DESC))[1] AS last
FROM agno.barrier JOIN agno.chord_part part ON part.barrier_id = barrier.id
WHERE barrier.id = %(chord_id)s GROUP BY barrier.id;

-- name: has_chord
SELECT FROM agno.barrier WHERE id = %(chord_id)s AND run_id IS NULL;

-- name: leftovers
-- Chords of the last week that wait in vain: their submit ended before the parts were counted (no size), or a day has passed and no
-- open run and no other open chord leads to them, so that plain tasks were lost.
WITH waiting AS (
    SELECT id, size, arrived, body, created_at FROM agno.barrier
    WHERE run_id IS NULL AND fired_at IS NULL AND created_at > clock_timestamp() - interval '7 days'
),
open_canvas AS MATERIALIZED (  -- read once, whatever the number of chords, and only if one has waited for a day
    SELECT canvas::text AS plain FROM agno.run WHERE ended_at IS NULL AND canvas IS NOT NULL
)
SELECT id AS chord_id, size, arrived, body->>'task' AS body, created_at FROM waiting chord
WHERE size IS NULL AND created_at < clock_timestamp() - interval '10 min'
   OR created_at < clock_timestamp() - interval '1 day'
      AND NOT EXISTS (SELECT FROM open_canvas WHERE strpos(plain, chord.id::text) > 0)
      AND NOT EXISTS (SELECT FROM waiting other WHERE other.id <> chord.id AND strpos(other.body::text, chord.id::text) > 0)
ORDER BY created_at LIMIT %(limit)s;
