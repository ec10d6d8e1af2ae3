-- Change runs from outside; functions/control.sql does the work.

-- name: stop
SELECT agno.stop_run(%(run_id)s, %(how)s) AS stopped;

-- name: stop_many
-- Nothing here waits for a run or a session while it holds others; what is left is stopped one by one.
SELECT count(*) FILTER (WHERE agno.stop_run(id, how || '{"alone": false}')) AS stopped
FROM jsonb_to_recordset(%(stops)s) AS s (id uuid, how jsonb);

-- name: still_open
SELECT id::text FROM agno.run WHERE id = ANY(%(run_ids)s::uuid[]) AND ended_at IS NULL ORDER BY id;

-- name: hold_run
-- Resume, first half: wait for a step that is being recorded. The second half is a separate statement, so that it sees the steps
-- of that commit.
SELECT FROM agno.run WHERE id = %(run_id)s FOR NO KEY UPDATE;

-- name: pause
-- No further step of the run is claimed; running steps end normally. The status does not change.
UPDATE agno.run SET paused_at = clock_timestamp() WHERE id = %(run_id)s AND ended_at IS NULL AND paused_at IS NULL RETURNING id;

-- name: resume
-- Ready steps are sent again, since the claims of their messages were refused while the run was paused.
WITH resumed AS (
    UPDATE agno.run SET paused_at = NULL WHERE id = %(run_id)s AND ended_at IS NULL AND paused_at IS NOT NULL RETURNING id
),
sent AS (
    UPDATE agno.step SET sent_at = clock_timestamp(), resend_at = agno.resend_time() FROM resumed
    WHERE step.run_id = resumed.id AND step.status = 'ready' AND step.not_before IS NULL
    RETURNING step.id
),
pending AS (INSERT INTO agno.outbox (step_id, due_at) SELECT id, clock_timestamp() FROM sent)
SELECT id, pg_notify('agno_outbox', '') FROM resumed;

-- name: open_children
SELECT id::text FROM agno.run WHERE parent_run_id = ANY(%(run_ids)s::uuid[]) AND ended_at IS NULL;

-- name: abandoned_children
-- The open runs that a program started and needs no more.
SELECT child.id::text FROM agno.run child JOIN agno.step ON step.id = child.parent_step_id
WHERE child.parent_run_id = %(run_id)s AND child.ended_at IS NULL AND step.status <> 'waiting';

-- name: signal
SELECT agno.send_signal(%(run_id)s, %(name)s, %(payload)s, %(key)s) AS is_sent;

-- name: retry_run
SELECT step_id::text, generation FROM agno.retry_run(%(run_id)s);

-- name: fork
SELECT run_id::text, created FROM agno.fork_run(%(fork)s);

-- name: remember_revoked
WITH old AS (
    DELETE FROM agno.revoked WHERE created_at < clock_timestamp() - interval '30 days'
      AND task_id NOT IN (SELECT task_id FROM agno.delayed_task)
)
INSERT INTO agno.revoked (task_id) SELECT DISTINCT unnest(%(task_ids)s::text[]) ON CONFLICT DO NOTHING;

-- name: runs_of_tasks
-- The runs with these ids, and those of steps with these ids.
SELECT id AS task_id, id AS run_id FROM agno.run WHERE id = ANY(%(task_ids)s::uuid[])
UNION ALL SELECT id, run_id FROM agno.step WHERE id = ANY(%(task_ids)s::uuid[]);
