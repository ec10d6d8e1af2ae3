-- Workers: one row per worker process, and the handover of its steps when it ends.

-- name: seen
-- A heartbeat. It inserts the row again if it is missing, as after the restore of a backup.
INSERT INTO agno.worker AS w (name, hostname, pid, version, pool, agents, concurrency, queues, steps)
VALUES (%(name)s, %(hostname)s, %(pid)s, %(version)s, %(pool)s, %(agents)s, %(concurrency)s, %(queues)s, %(steps)s)
ON CONFLICT (name) DO UPDATE SET seen_at = clock_timestamp(), concurrency = excluded.concurrency, queues = excluded.queues,
    steps = excluded.steps, stopped_at = NULL
RETURNING xmax = 0 AS is_new;

-- name: stopped
UPDATE agno.worker SET stopped_at = clock_timestamp(), seen_at = clock_timestamp(), steps = 0 WHERE name = %(name)s;

-- name: forget
-- Delete workers without a heartbeat for a day.
DELETE FROM agno.worker WHERE seen_at < clock_timestamp() - make_interval(days => 1);

-- name: workers
SELECT worker.*, extract(epoch FROM clock_timestamp() - seen_at)::float8 AS silent_s FROM agno.worker
ORDER BY stopped_at IS NOT NULL, name;

-- name: hand_over
-- Release and send the steps of a worker that ends. This is not a crash, so `max_attempts` makes up for the interrupted attempt
-- (`tries` would count towards the agent's Retry). A `once` tool is never handed over. A locked row is being recorded.
WITH cut AS (
    SELECT id FROM agno.step WHERE status = 'running' AND coalesce(lease_until, expires_at) IS NOT NULL AND worker = %(worker)s
      AND effect IS DISTINCT FROM 'once'
    ORDER BY id FOR UPDATE SKIP LOCKED
),
released AS (
    UPDATE agno.step SET status = 'ready', lease_until = NULL, sent_at = clock_timestamp(),
        resend_at = agno.resend_time(), max_attempts = step.max_attempts + 1
    FROM cut WHERE step.id = cut.id
    RETURNING step.id, step.run_id, step.generation, step.kind, step.queue, step.priority
),
pending AS (
    INSERT INTO agno.outbox (step_id, due_at)
    SELECT id, clock_timestamp() + make_interval(secs => %(publish_after_s)s) FROM released
    RETURNING id, step_id
)
SELECT pending.id AS outbox_id, released.id AS step_id, released.run_id, released.generation, released.kind, released.queue,
       released.priority
FROM released JOIN pending ON pending.step_id = released.id;

-- name: held
-- The steps that a worker holds.
SELECT id FROM agno.step WHERE status = 'running' AND coalesce(lease_until, expires_at) IS NOT NULL AND worker = %(worker)s;
