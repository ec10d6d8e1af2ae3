-- Messages to live runs.

-- name: receipt
SELECT id, status, run_id, step_id, next_run_id, created_at, decided_at FROM agno.steer WHERE id = %(id)s;
