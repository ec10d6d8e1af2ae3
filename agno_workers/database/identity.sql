-- name: read
SELECT oid::bigint AS oid, datname::text AS database, has_function_privilege('pg_control_system()', 'EXECUTE') AS tells_system,
    (SELECT value FROM agno.meta WHERE key = 'identity') AS stored,
    (SELECT value FROM agno.meta WHERE key = 'deployment') AS deployment
FROM pg_database WHERE datname = current_database();

-- name: system
SELECT system_identifier::text FROM pg_control_system();

-- name: store
INSERT INTO agno.meta (key, value) VALUES ('identity', %(identity)s) ON CONFLICT (key) DO UPDATE SET value = excluded.value;

-- name: live
SELECT name FROM agno.worker WHERE stopped_at IS NULL AND seen_at > clock_timestamp() - make_interval(secs => greatest(15, %(lease_s)s)) ORDER BY name;

-- name: open
SELECT count(*) AS open FROM agno.run WHERE ended_at IS NULL;

-- name: cut_canvases
-- No callback and no chord follows an open run.
WITH cut AS (UPDATE agno.run SET canvas = NULL WHERE ended_at IS NULL AND canvas IS NOT NULL)
UPDATE agno.barrier SET fired_at = clock_timestamp() WHERE run_id IS NULL AND fired_at IS NULL;

-- name: cancel_open
-- Callers before the runs that they delegated to: no step then waits for the end of such a run.
SELECT agno.stop_run(id, '{"status": "cancelled", "reason": "copy"}') FROM (SELECT id FROM agno.run WHERE ended_at IS NULL ORDER BY depth, id) AS open;

-- name: forget_messages
DELETE FROM agno.outbox;

-- name: forget_delayed
DELETE FROM agno.delayed_task;

-- name: forget_workers
UPDATE agno.worker SET stopped_at = clock_timestamp(), steps = 0 WHERE stopped_at IS NULL;

-- name: renew
-- The next keeper makes another epoch, and another id of the deployment.
DELETE FROM agno.meta WHERE key IN ('deployment', 'epoch');
