-- What the keeper puts right. Every statement may be run by several keepers at once: a row is taken with
-- SKIP LOCKED and its next due time moved, so that a keeper that dies in between delays it and loses nothing.

-- name: lead
-- One keeper does the rounds; the others look on until it has been silent for `lease_s`.
INSERT INTO agno.meta AS m (key, value, until) VALUES ('keeper', %(worker)s, clock_timestamp() + make_interval(secs => %(lease_s)s))
ON CONFLICT (key) DO UPDATE SET value = excluded.value, until = excluded.until
WHERE m.value = excluded.value OR m.until < clock_timestamp()
RETURNING value;

-- name: take_outbox
-- Rule 2: messages that the one who owed them did not publish.
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
-- Rule 3: a lease ran out. With attempts left, and if a repetition is safe, the step is ready again. A try that a
-- provider refused is an attempt, too, but no crash: those are bounded by the agent's Retry.
WITH late AS (
    SELECT id FROM agno.step
    WHERE status = 'running' AND lease_until < clock_timestamp() AND attempt - tries < max_attempts AND effect IS DISTINCT FROM 'once'
    ORDER BY lease_until LIMIT %(limit)s FOR UPDATE SKIP LOCKED
),
released AS (
    UPDATE agno.step SET status = 'ready', lease_until = NULL, sent_at = clock_timestamp(),
        error = jsonb_build_object('type', 'LeaseExpired', 'message',
            format('attempt %%s on %%s ended without a result: the worker died, was paused or cut off', step.attempt, step.worker))
    FROM late WHERE step.id = late.id
    RETURNING step.id, step.run_id, step.generation, step.kind, step.queue, step.priority
),
owed AS (
    INSERT INTO agno.outbox (step_id, due_at) SELECT id, clock_timestamp() + make_interval(secs => %(again_s)s) FROM released
    RETURNING id, step_id
)
SELECT owed.id AS outbox_id, released.id AS step_id, released.run_id, released.generation, released.kind, released.queue,
       released.priority
FROM released JOIN owed ON owed.step_id = released.id;

-- name: hopeless
-- Rule 3: a lease ran out and there is no further attempt: these end as dead or unknown, and their run goes on or fails.
SELECT step.id AS step_id, step.run_id, step.generation, step.kind, step.name, step.effect, step.attempt, step.worker, step.seq,
       step.key, step.call->>'id' AS call_id
FROM agno.step WHERE status = 'running' AND lease_until < clock_timestamp() AND (attempt - tries >= max_attempts OR effect = 'once')
ORDER BY lease_until LIMIT %(limit)s;

-- name: silent_queues
-- Rule 4, first half: queues whose sent steps nobody claimed for a while.
SELECT DISTINCT queue FROM (
    SELECT queue FROM agno.step WHERE status = 'ready' AND not_before IS NULL
      AND sent_at < clock_timestamp() - make_interval(secs => %(resend_after_s)s)
    ORDER BY sent_at LIMIT 1000
) late;

-- name: take_lost
-- Rule 4, second half, for queues that are empty: those messages were lost. Rule 1 (Redis lost its memory) is the
-- same with every queue, and all that was sent before it was noticed.
WITH lost AS (
    SELECT id FROM agno.step
    WHERE status = 'ready' AND not_before IS NULL AND (%(queues)s::text[] IS NULL OR queue = ANY(%(queues)s))
      AND sent_at < coalesce(%(sent_before)s, clock_timestamp() - make_interval(secs => %(resend_after_s)s))
    ORDER BY sent_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE agno.step SET sent_at = clock_timestamp() FROM lost WHERE step.id = lost.id
RETURNING step.id AS step_id, step.run_id, step.generation, step.kind, step.queue, step.priority;

-- name: take_overdue
-- Rule 4, for queues that are never empty: a step that has waited since it was sent for `patience_s`, and for as long as
-- it had waited before. So each time it is sent again the wait doubles, and a true backlog is not doubled.
WITH overdue AS (
    SELECT id FROM agno.step
    WHERE status = 'ready' AND not_before IS NULL AND sent_at < clock_timestamp() - make_interval(secs => %(patience_s)s)
      AND clock_timestamp() - sent_at > sent_at - created_at
    ORDER BY sent_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
)
UPDATE agno.step SET sent_at = clock_timestamp() FROM overdue WHERE step.id = overdue.id
RETURNING step.id AS step_id, step.run_id, step.generation, step.kind, step.queue, step.priority;

-- name: take_due
-- Rule 5: timers that have come.
WITH due AS (
    SELECT id FROM agno.step WHERE status = 'ready' AND not_before <= clock_timestamp()
    ORDER BY not_before LIMIT %(limit)s FOR UPDATE SKIP LOCKED
),
begun AS (
    UPDATE agno.step SET not_before = NULL, sent_at = clock_timestamp() FROM due WHERE step.id = due.id
    RETURNING step.id, step.run_id, step.generation, step.kind, step.queue, step.priority
),
owed AS (
    INSERT INTO agno.outbox (step_id, due_at) SELECT id, clock_timestamp() + make_interval(secs => %(again_s)s) FROM begun
    RETURNING id, step_id
)
SELECT owed.id AS outbox_id, begun.id AS step_id, begun.run_id, begun.generation, begun.kind, begun.queue, begun.priority
FROM begun JOIN owed ON owed.step_id = begun.id;

-- name: epoch
-- The value that Redis must repeat; made once.
INSERT INTO agno.meta AS m (key, value) VALUES ('epoch', %(fresh)s) ON CONFLICT (key) DO UPDATE SET value = m.value RETURNING value;
