-- Users' own tasks that are not due yet.

-- name: store
-- No row: the task is due.
INSERT INTO agno.delayed_task (task_id, queue, message, due_at)
SELECT %(task_id)s, %(queue)s, %(message)s, %(due_at)s::timestamptz WHERE %(due_at)s::timestamptz > clock_timestamp() RETURNING id;

-- name: take
-- Tasks that are due; after 10 s, a row that was not deleted is taken again.
WITH due AS (
    SELECT id FROM agno.delayed_task WHERE due_at <= statement_timestamp() ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE agno.delayed_task task SET due_at = clock_timestamp() + interval '10 s' FROM due WHERE task.id = due.id
RETURNING task.id, task.queue, task.message, task.failures, EXISTS (SELECT FROM agno.revoked WHERE revoked.task_id = task.task_id) AS is_revoked;

-- name: delete
DELETE FROM agno.delayed_task WHERE id = ANY(%(ids)s::bigint[]);

-- name: put_off
-- A task that can't be sent is tried again after 20 s, 40 s and so on.
UPDATE agno.delayed_task SET failures = failures + 1, due_at = clock_timestamp() + interval '20 s' * 2 ^ failures WHERE id = %(id)s;
