-- Pending messages: committed with the state that caused them, published right after.

-- name: pending
-- Ready steps of a run whose messages are not published, such as the turn after a delegation.
SELECT outbox.id AS outbox_id, step.id AS step_id, step.run_id, step.generation, step.kind, step.queue, step.priority
FROM agno.outbox JOIN agno.step ON step.id = outbox.step_id
WHERE step.run_id = %(run_id)s AND step.status = 'ready';

-- name: published
-- The commit need not reach the disk: a row that reappears is published twice, which is harmless.
-- In the order of the ids, since the keeper may delete the same rows.
WITH no_wait AS (SELECT set_config('synchronous_commit', 'off', true)),
held AS (SELECT outbox.id FROM agno.outbox, no_wait WHERE outbox.id = ANY(%(outbox_ids)s) ORDER BY outbox.id FOR UPDATE OF outbox)
DELETE FROM agno.outbox USING held WHERE outbox.id = held.id;
