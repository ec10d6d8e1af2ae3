-- Repairs of the keeper. Several keepers may execute each statement at once: it takes rows with SKIP LOCKED and moves their next due
-- time, so that a keeper that dies in between causes a delay and no loss.

-- name: lead
-- One keeper leads; the others wait until it has been silent for `lease_s`. The beat counts its rounds; see the epoch.
INSERT INTO agno.meta AS m (key, value, until, beat) VALUES ('keeper', %(worker)s, clock_timestamp() + make_interval(secs => %(lease_s)s), 1)
ON CONFLICT (key) DO UPDATE SET value = excluded.value, until = excluded.until, beat = m.beat + 1
WHERE m.value = excluded.value OR m.until < clock_timestamp()
RETURNING beat;

-- name: abdicate
-- Stop leading, so that another keeper leads at once.
UPDATE agno.meta SET until = clock_timestamp() WHERE key = 'keeper' AND value = %(worker)s RETURNING beat;

-- name: take_outbox
-- Rule 2: messages that were not published in time.
WITH due AS (
    SELECT id FROM agno.outbox WHERE due_at <= clock_timestamp() ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
),
taken AS (
    UPDATE agno.outbox SET due_at = clock_timestamp() + make_interval(secs => %(again_s)s)
    FROM due WHERE outbox.id = due.id RETURNING outbox.*
)
SELECT taken.id AS outbox_id, taken.ended_run_id, taken.chord_id, step.id AS step_id, step.run_id, step.generation, step.kind,
       step.queue, step.priority, step.status = 'ready' AS wanted
FROM taken LEFT JOIN agno.step ON step.id = taken.step_id;

-- name: release_expired
-- Rule 3: a lease expired. If an attempt is left and a repetition is safe, the step is ready again. Attempts that ended with an error
-- (`tries`) do not count, since the agent's Retry limits them. The next attempt of a `once` tool calls its reconcile hook.
WITH late AS (
    SELECT id FROM agno.step
    WHERE status = 'running' AND lease_until < clock_timestamp() AND attempt - tries < max_attempts
      AND (effect IS DISTINCT FROM 'once' OR (policy->>'reconcile')::boolean)
    ORDER BY lease_until LIMIT %(limit)s FOR UPDATE SKIP LOCKED
),
released AS (
    UPDATE agno.step SET status = 'ready', lease_until = NULL, sent_at = clock_timestamp(),
        reconciling = step.effect IS NOT DISTINCT FROM 'once',
        error = jsonb_build_object('type', 'LeaseExpired', 'message',
            format('attempt %%s on %%s ended without a result: the worker died, was paused or cut off', step.attempt, step.worker))
    FROM late WHERE step.id = late.id
    RETURNING step.id, step.run_id, step.generation, step.kind, step.queue, step.priority
),
pending AS (
    INSERT INTO agno.outbox (step_id, due_at) SELECT id, clock_timestamp() + make_interval(secs => %(again_s)s) FROM released
    RETURNING id, step_id
)
SELECT pending.id AS outbox_id, released.id AS step_id, released.run_id, released.generation, released.kind, released.queue,
       released.priority
FROM released JOIN pending ON pending.step_id = released.id;

-- name: exhausted
-- Rule 3: a lease expired and no attempt is left: these end as dead or unknown, and their run continues or fails. So do steps that no worker
-- could begin; `raised` is then their error.
SELECT step.id AS step_id, step.run_id, step.generation, step.kind, step.name, step.effect, step.attempt, step.worker, step.seq,
       step.call->>'id' AS call_id, coalesce(step.policy, '{}') AS policy, CASE WHEN step.error->'ids'->>'given_up' = 'true' THEN step.error END AS raised,
       (SELECT agent FROM agno.run WHERE run.id = step.run_id) AS agent
FROM agno.step
WHERE status = 'running' AND lease_until < clock_timestamp()
  AND (attempt - tries >= max_attempts OR effect = 'once' AND (policy->>'reconcile')::boolean IS NOT TRUE)
ORDER BY lease_until LIMIT %(limit)s;

-- name: silent_queues
-- Rule 4, first half: queues with sent steps that were not claimed for a while.
SELECT DISTINCT queue FROM (
    SELECT step.queue FROM agno.step JOIN agno.run ON run.id = step.run_id
    WHERE step.status = 'ready' AND step.not_before IS NULL AND run.paused_at IS NULL AND run.ended_at IS NULL
      AND step.sent_at < clock_timestamp() - make_interval(secs => %(resend_after_s)s)
    ORDER BY step.sent_at LIMIT 1000
) late;

-- name: take_lost
-- Rule 4, second half, for empty queues: these messages were lost. Rule 1 (Redis lost data) is the same for every queue and all
-- messages that were sent before that was noticed.
WITH lost AS (
    SELECT step.id FROM agno.step JOIN agno.run ON run.id = step.run_id
    WHERE step.status = 'ready' AND step.not_before IS NULL AND run.paused_at IS NULL AND run.ended_at IS NULL
      AND (%(queues)s::text[] IS NULL OR step.queue = ANY(%(queues)s))
      AND step.sent_at < coalesce(%(sent_before)s, clock_timestamp() - make_interval(secs => %(resend_after_s)s))
    ORDER BY step.sent_at LIMIT %(limit)s FOR UPDATE OF step SKIP LOCKED
)
UPDATE agno.step SET sent_at = clock_timestamp() FROM lost WHERE step.id = lost.id
RETURNING step.id AS step_id, step.run_id, step.generation, step.kind, step.queue, step.priority;

-- name: take_overdue
-- Rule 4, for queues that are never empty: a step that has waited since it was sent for `patience_s`, and for as long as it had waited
-- before. The wait doubles each time, so that a real backlog is not sent twice.
WITH overdue AS (
    SELECT step.id FROM agno.step JOIN agno.run ON run.id = step.run_id
    WHERE step.status = 'ready' AND step.not_before IS NULL AND run.paused_at IS NULL AND run.ended_at IS NULL
      AND step.sent_at < clock_timestamp() - make_interval(secs => %(patience_s)s)
      AND clock_timestamp() - step.sent_at > step.sent_at - step.created_at
    ORDER BY step.sent_at LIMIT %(limit)s FOR UPDATE OF step SKIP LOCKED
)
UPDATE agno.step SET sent_at = clock_timestamp() FROM overdue WHERE step.id = overdue.id
RETURNING step.id AS step_id, step.run_id, step.generation, step.kind, step.queue, step.priority;

-- name: take_due
-- Rule 5: timers that are due.
WITH due AS (
    SELECT id FROM agno.step WHERE status = 'ready' AND not_before <= clock_timestamp()
    ORDER BY not_before LIMIT %(limit)s FOR UPDATE SKIP LOCKED
),
begun AS (
    UPDATE agno.step SET not_before = NULL, sent_at = clock_timestamp() FROM due WHERE step.id = due.id
    RETURNING step.id, step.run_id, step.generation, step.kind, step.queue, step.priority
),
pending AS (
    INSERT INTO agno.outbox (step_id, due_at) SELECT id, clock_timestamp() + make_interval(secs => %(again_s)s) FROM begun
    RETURNING id, step_id
)
SELECT pending.id AS outbox_id, begun.id AS step_id, begun.run_id, begun.generation, begun.kind, begun.queue, begun.priority
FROM begun JOIN pending ON pending.step_id = begun.id;

-- name: expired_waits
-- Rule 5: waits that nobody answered in time; their policy decides what follows.
SELECT step.id AS step_id, step.run_id, step.generation, step.kind, step.name, step.attempt, step.seq,
       step.call->>'id' AS call_id, coalesce(step.policy, '{}') AS policy, step.waits_for, run.agent
FROM agno.step JOIN agno.run ON run.id = step.run_id
WHERE step.status = 'waiting' AND step.expires_at < clock_timestamp() AND run.ended_at IS NULL AND run.generation = step.generation
ORDER BY step.expires_at LIMIT %(limit)s;

-- name: overdue_runs
-- Rule 5: open runs past their deadline.
SELECT id::text FROM agno.run WHERE ended_at IS NULL AND deadline_at <= clock_timestamp() ORDER BY deadline_at LIMIT %(limit)s;

-- name: orphans
-- Rule 5: delegated runs that no step waits for: their parent has ended, or was retried since.
SELECT child.id::text FROM agno.run child JOIN agno.step ON step.id = child.parent_step_id JOIN agno.run parent ON parent.id = child.parent_run_id
WHERE child.ended_at IS NULL AND child.parent_run_id IS NOT NULL AND (step.status <> 'waiting' OR parent.ended_at IS NOT NULL)
LIMIT %(limit)s;

-- name: deployment
-- The id of this database, which never changes. The update makes RETURNING return the row that exists.
INSERT INTO agno.meta AS m (key, value) VALUES ('deployment', %(fresh)s) ON CONFLICT (key) DO UPDATE SET value = m.value
RETURNING value, current_database() AS database;

-- name: new_epoch
UPDATE agno.meta SET value = %(fresh)s WHERE key = 'epoch' RETURNING value;

-- name: has_epoch
SELECT FROM agno.meta WHERE key = 'epoch';

-- name: epoch
-- The value that Redis stores; it is made once.
INSERT INTO agno.meta AS m (key, value) VALUES ('epoch', %(fresh)s) ON CONFLICT (key) DO UPDATE SET value = m.value RETURNING value;
