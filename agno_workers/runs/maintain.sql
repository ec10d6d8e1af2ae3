-- Repairs of the keeper. Several keepers may execute each statement at once: it takes rows with SKIP LOCKED and moves their next due
-- time, so that a keeper that dies in between causes a delay and no loss.

-- name: lead
-- One keeper leads; the others wait until it has been silent for `lease_s`. A keeper of code for newer tables need not wait: the value of the
-- row ends with the revision of the leader's tables, and older code can't send steps of a kind that it does not know. The beat counts its renewals, at
-- half of the lease; see the epoch. It also returns which kinds of work are due, so that a round without work is this one statement, and mostly writes nothing. No
-- row: another keeper leads. `statement_timestamp` is a condition for an index, which the volatile `clock_timestamp` is not.
WITH led AS (
    UPDATE agno.meta SET value = %(leader)s, until = clock_timestamp() + make_interval(secs => %(lease_s)s), beat = beat + 1
    WHERE key = 'keeper' AND (until < clock_timestamp()
        OR value = %(leader)s AND until < clock_timestamp() + make_interval(secs => %(lease_s)s / 2)
        OR coalesce(substring(value FROM ' ([0-9]+)$'), '') < %(revision)s)
    RETURNING beat
),
begun AS (
    INSERT INTO agno.meta (key, value, until, beat)
    SELECT 'keeper', %(leader)s, clock_timestamp() + make_interval(secs => %(lease_s)s), 1
    WHERE NOT EXISTS (SELECT FROM agno.meta WHERE key = 'keeper') ON CONFLICT DO NOTHING RETURNING beat
),
leader AS (
    SELECT beat FROM led UNION ALL SELECT beat FROM begun
    UNION ALL SELECT beat FROM agno.meta WHERE key = 'keeper' AND value = %(leader)s AND until > statement_timestamp()
)
SELECT max(beat) AS beat, (SELECT value FROM agno.meta WHERE key = 'epoch') AS epoch, array_remove(ARRAY[  -- each ORDER BY forces its index
    CASE WHEN (SELECT true FROM agno.step WHERE status = 'running' AND coalesce(lease_until, expires_at) <= statement_timestamp()
               ORDER BY coalesce(lease_until, expires_at) LIMIT 1) THEN 'leases' END,
    CASE WHEN (SELECT true FROM agno.step WHERE status = 'waiting' AND coalesce(lease_until, expires_at) <= statement_timestamp()
               ORDER BY coalesce(lease_until, expires_at) LIMIT 1) THEN 'waits' END,
    CASE WHEN (SELECT true FROM agno.step WHERE status = 'waiting' AND not_before <= statement_timestamp() ORDER BY not_before LIMIT 1) THEN 'entries' END,
    CASE WHEN (SELECT true FROM agno.session WHERE ended_at IS NULL AND expires_at <= statement_timestamp() ORDER BY expires_at LIMIT 1) THEN 'sessions' END,
    CASE WHEN (SELECT true FROM agno.run WHERE ended_at IS NULL AND deadline_at <= statement_timestamp() ORDER BY deadline_at LIMIT 1) THEN 'deadlines' END,
    CASE WHEN (SELECT true FROM agno.run WHERE ended_at IS NULL AND parent_run_id IS NOT NULL ORDER BY parent_run_id LIMIT 1) THEN 'delegated' END,
    CASE WHEN (SELECT true FROM agno.batch WHERE cancelled_at > statement_timestamp() - interval '1 day' ORDER BY cancelled_at LIMIT 1) THEN 'cancelled' END,
    CASE WHEN (SELECT true FROM agno.run WHERE ended_at IS NULL AND kind = 'ingestion' ORDER BY id LIMIT 1) THEN 'ingestions' END,
    CASE WHEN (SELECT true FROM agno.step WHERE status = 'ready' AND not_before <= statement_timestamp() ORDER BY not_before LIMIT 1) THEN 'timers' END,
    CASE WHEN (SELECT true FROM agno.delayed_task WHERE due_at <= statement_timestamp() ORDER BY due_at LIMIT 1) THEN 'delayed' END,
    CASE WHEN (SELECT true FROM agno.outbox WHERE due_at <= statement_timestamp() ORDER BY due_at LIMIT 1) THEN 'outbox' END,
    CASE WHEN (SELECT true FROM agno.step WHERE status = 'ready' AND not_before IS NULL ORDER BY queue LIMIT 1) THEN 'sent' END
], NULL) AS due
FROM leader HAVING count(*) > 0;

-- name: abdicate
-- Stop leading, so that another keeper leads at once.
UPDATE agno.meta SET until = clock_timestamp() WHERE key = 'keeper' AND value = %(leader)s RETURNING beat;

-- name: take_outbox
-- Rule 2: messages that were not published in time.
WITH due AS (
    SELECT id FROM agno.outbox WHERE due_at <= statement_timestamp() ORDER BY due_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
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
    WHERE status = 'running' AND coalesce(lease_until, expires_at) < statement_timestamp() AND attempt - tries < max_attempts
      AND (effect IS DISTINCT FROM 'once' OR (policy->>'reconcile')::boolean)
    ORDER BY coalesce(lease_until, expires_at) LIMIT %(limit)s FOR UPDATE SKIP LOCKED
),
released AS (
    UPDATE agno.step SET status = 'ready', lease_until = NULL, sent_at = clock_timestamp(), resend_at = agno.resend_time(),
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
       step.arrival, (SELECT agent FROM agno.run WHERE run.id = step.run_id) AS agent
FROM agno.step
WHERE status = 'running' AND coalesce(lease_until, expires_at) < statement_timestamp()
  AND (attempt - tries >= max_attempts OR effect = 'once' AND (policy->>'reconcile')::boolean IS NOT TRUE)
ORDER BY coalesce(lease_until, expires_at) LIMIT %(limit)s;

-- name: sent_queues
-- Rule 4, first part: the queues with sent steps, by one index lookup for each.
WITH RECURSIVE sent AS (
    (SELECT queue FROM agno.step WHERE status = 'ready' AND not_before IS NULL ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT step.queue FROM agno.step WHERE status = 'ready' AND not_before IS NULL AND step.queue > sent.queue ORDER BY step.queue LIMIT 1)
    FROM sent WHERE sent.queue IS NOT NULL
)
SELECT queue FROM sent WHERE queue IS NOT NULL;

-- name: take_lost
-- Rule 4, second part, for empty queues: messages that were sent a while ago and not claimed were lost. OFFSET 0 forces lookups by key.
WITH lost AS (
    SELECT late.id FROM unnest(%(queues)s::text[]) AS empty (queue), LATERAL (
        SELECT step.id FROM agno.step, LATERAL (
            SELECT FROM agno.run WHERE id = step.run_id AND paused_at IS NULL AND ended_at IS NULL OFFSET 0) AS run
        WHERE step.status = 'ready' AND step.not_before IS NULL AND step.queue = empty.queue
          AND step.sent_at < statement_timestamp() - make_interval(secs => %(resend_after_s)s)
        ORDER BY step.resend_at LIMIT %(limit)s FOR UPDATE OF step SKIP LOCKED
    ) AS late
)
UPDATE agno.step SET sent_at = clock_timestamp(), resend_at = agno.resend_time(step.created_at)
FROM lost WHERE step.id = lost.id
RETURNING step.id AS step_id, step.run_id, step.generation, step.kind, step.queue, step.priority;

-- name: take_overdue
-- Rule 4, for queues that are never empty: steps that were not claimed in time after they were sent; see agno.resend_time. Steps of paused
-- runs are put off too.
WITH overdue AS (
    SELECT late.id, late.run_id FROM unnest(%(queues)s::text[]) AS sent (queue), LATERAL (
        SELECT step.id, step.run_id FROM agno.step
        WHERE status = 'ready' AND not_before IS NULL AND step.queue = sent.queue AND resend_at <= statement_timestamp()
        ORDER BY resend_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
    ) AS late
),
put_off AS (
    UPDATE agno.step SET sent_at = CASE WHEN is_active THEN clock_timestamp() ELSE sent_at END,
        resend_at = agno.resend_time(step.created_at)
    FROM overdue, LATERAL (
        SELECT run.paused_at IS NULL AND run.ended_at IS NULL AS is_active FROM agno.run WHERE run.id = overdue.run_id OFFSET 0) AS run
    WHERE step.id = overdue.id
    RETURNING step.id AS step_id, step.run_id, step.generation, step.kind, step.queue, step.priority, is_active
)
SELECT step_id, run_id, generation, kind, queue, priority FROM put_off WHERE is_active;

-- name: take_forgotten
-- Rule 1: a page of all sent steps, from a place in the order of the index. A step that is sent again moves to a later place, where
-- `sent_before` leaves it out.
WITH lost AS (
    SELECT step.id, step.queue, step.resend_at FROM agno.step, LATERAL (
        SELECT FROM agno.run WHERE id = step.run_id AND paused_at IS NULL AND ended_at IS NULL OFFSET 0) AS run
    WHERE step.status = 'ready' AND step.not_before IS NULL AND (step.queue, step.resend_at) >= (%(queue)s, %(resend_at)s::timestamptz)
      AND step.sent_at < %(sent_before)s
    ORDER BY step.queue, step.resend_at LIMIT %(limit)s FOR UPDATE OF step SKIP LOCKED
),
sent AS (
    UPDATE agno.step SET sent_at = clock_timestamp(), resend_at = agno.resend_time(step.created_at)
    FROM lost WHERE step.id = lost.id
    RETURNING step.id AS step_id, step.run_id, step.generation, step.kind, step.queue, step.priority, lost.resend_at
)
SELECT * FROM sent ORDER BY queue, resend_at;

-- name: take_due
-- Rule 5: timers that are due.
WITH due AS (
    SELECT id FROM agno.step WHERE status = 'ready' AND not_before <= statement_timestamp()
    ORDER BY not_before LIMIT %(limit)s FOR UPDATE SKIP LOCKED
),
begun AS (
    UPDATE agno.step SET not_before = NULL, sent_at = clock_timestamp(), resend_at = agno.resend_time()
    FROM due WHERE step.id = due.id
    RETURNING step.id, step.run_id, step.generation, step.kind, step.queue, step.priority
),
pending AS (
    INSERT INTO agno.outbox (step_id, due_at) SELECT id, clock_timestamp() + make_interval(secs => %(again_s)s) FROM begun
    RETURNING id, step_id
)
SELECT pending.id AS outbox_id, begun.id AS step_id, begun.run_id, begun.generation, begun.kind, begun.queue, begun.priority
FROM begun JOIN pending ON pending.step_id = begun.id;

-- name: end_due_timers
-- Rule 5: the timers of programs; see functions/programs.sql.
SELECT agno.end_due_timers(%(limit)s) AS ended;

-- name: expired_waits
-- Rule 5: waits that nobody answered in time; their policy decides what follows.
SELECT step.id AS step_id, step.run_id, step.generation, step.kind, step.name, step.attempt, step.seq,
       step.call->>'id' AS call_id, coalesce(step.policy, '{}') AS policy, step.waits_for, step.arrival, run.agent
FROM agno.step JOIN agno.run ON run.id = step.run_id
WHERE step.status = 'waiting' AND coalesce(step.lease_until, step.expires_at) < statement_timestamp() AND step.waits_for <> 'timer'
  AND run.ended_at IS NULL AND run.generation = step.generation
ORDER BY coalesce(step.lease_until, step.expires_at) LIMIT %(limit)s;

-- name: due_in_session
-- Rule 5: runs whose timer is due, and that get their places in their sessions now.
SELECT run_id::text FROM agno.step
WHERE status = 'waiting' AND not_before <= statement_timestamp() ORDER BY not_before LIMIT %(limit)s;

-- name: take_place
SELECT agno.take_place(%(run_id)s);

-- name: time_out_sessions
-- Rule 5: sessions that were idle for too long. One with an open run is not idle: it is looked at again later.
WITH idle AS (
    SELECT tenant, id FROM agno.session WHERE ended_at IS NULL AND expires_at <= statement_timestamp()
    ORDER BY expires_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE agno.session SET status = CASE WHEN busy.is_busy THEN status ELSE 'timed_out' END, ended_at = CASE WHEN NOT busy.is_busy THEN clock_timestamp() END,
    expires_at = CASE WHEN busy.is_busy THEN clock_timestamp() + make_interval(secs => session.idle_timeout_s) ELSE session.expires_at END
FROM idle, LATERAL (SELECT EXISTS (SELECT FROM agno.run WHERE run.tenant = idle.tenant AND run.session_id = idle.id AND run.ended_at IS NULL) AS is_busy OFFSET 0) AS busy
WHERE session.tenant = idle.tenant AND session.id = idle.id
RETURNING session.id, session.status, CASE WHEN NOT busy.is_busy THEN agno.ask_last_summary(session.tenant, session.id) END;

-- name: overdue_runs
-- Rule 5: open runs past their deadline.
SELECT id::text FROM agno.run WHERE ended_at IS NULL AND deadline_at <= statement_timestamp() ORDER BY deadline_at LIMIT %(limit)s;

-- name: orphans
-- Rule 5: delegated runs that no step waits for: their parent has ended, was retried since, or needs them no more.
SELECT child.id::text FROM agno.run child JOIN agno.step ON step.id = child.parent_step_id JOIN agno.run parent ON parent.id = child.parent_run_id
WHERE child.ended_at IS NULL AND child.parent_run_id IS NOT NULL AND (step.status <> 'waiting' OR parent.ended_at IS NOT NULL)
LIMIT %(limit)s;

-- name: deployment
-- The id of this database, which never changes. The update makes RETURNING return the row that exists.
INSERT INTO agno.meta AS m (key, value) VALUES ('deployment', %(fresh)s) ON CONFLICT (key) DO UPDATE SET value = m.value
RETURNING value, current_database() AS database;

-- name: new_epoch
UPDATE agno.meta SET value = %(fresh)s WHERE key = 'epoch' RETURNING value;

-- name: epoch
-- The value that Redis stores; it is made once.
INSERT INTO agno.meta AS m (key, value) VALUES ('epoch', %(fresh)s) ON CONFLICT (key) DO UPDATE SET value = m.value RETURNING value;
