-- Sessions for people: lists, one with its runs and messages, and what takes more than one transaction; functions/lifecycle.sql does the rest.

-- name: session
SELECT s.*, r.* FROM agno.known_session(%(tenant)s, %(id)s, %(as_user)s) s, agno.runs_of_session(s) r;

-- name: sessions
-- The last active first. A condition whose parameter is NULL is left out, so that each list has a plan of its own.
SELECT s.*, r.* FROM agno.session s, agno.runs_of_session(s) r
WHERE s.tenant = %(tenant)s
  AND (s.last_active_at, s.id) < (%(before_at)s, %(before)s)
  AND s.user_id = %(user_id)s
  AND s.agent = %(agent)s
  AND s.status = %(status)s
  AND s.last_active_at >= %(since)s
  AND s.last_active_at >= clock_timestamp() - %(within)s::interval
ORDER BY s.last_active_at DESC, s.id DESC LIMIT %(limit)s;

-- name: find_ids
-- This id, or those among the last active sessions that begin or end with this text, at most six.
SELECT id FROM agno.session WHERE tenant = %(tenant)s AND id = %(id)s
UNION
SELECT id FROM (
    SELECT id FROM (SELECT id FROM agno.session WHERE tenant = %(tenant)s ORDER BY last_active_at DESC LIMIT 100000) AS active
    WHERE length(%(id)s) >= 4 AND (starts_with(id, %(id)s) OR right(id, length(%(id)s)) = %(id)s) ORDER BY id LIMIT 6) AS near;

-- name: ids
SELECT id FROM agno.session WHERE tenant = %(tenant)s ORDER BY last_active_at DESC LIMIT 200;

-- name: create
-- No row: it exists.
INSERT INTO agno.session (tenant, id, user_id, title, metadata, idle_timeout_s, expires_at)
VALUES (%(tenant)s, %(id)s, %(user_id)s, %(title)s, %(metadata)s, %(idle_timeout_s)s, clock_timestamp() + make_interval(secs => %(idle_timeout_s)s::float8))
ON CONFLICT DO NOTHING RETURNING id;

-- name: owner
SELECT user_id FROM agno.known_session(%(tenant)s, %(id)s, %(as_user)s);

-- name: update
UPDATE agno.session SET title = coalesce(%(title)s, session.title), metadata = coalesce(%(metadata)s, session.metadata)
FROM agno.known_session(%(tenant)s, %(id)s, %(as_user)s) known WHERE session.tenant = known.tenant AND session.id = known.id;

-- name: pause
SELECT agno.pause_session(%(tenant)s, %(id)s, %(as_user)s) AS done;

-- name: resume
SELECT agno.resume_session(%(tenant)s, %(id)s, %(as_user)s) AS done;

-- name: end
SELECT agno.end_session(%(tenant)s, %(id)s, %(as_user)s) AS cancelled;

-- name: fork
SELECT agno.fork_session(%(tenant)s, %(id)s, %(as_user)s, %(new_id)s, %(at)s, %(actor)s) AS created;

-- name: roll_back
SELECT rolled_back, cancelled::text[] FROM agno.roll_back_session(%(tenant)s, %(id)s, %(as_user)s, %(to)s, %(actor)s);

-- name: runs
-- A page of runs in the order of their session, with the beginning of each input; `first` from its begin, or `last` from its end. A line whose
-- parameter is NULL is left out. Runs without a position are read by themselves: those of earlier code, which may be of other users, and those
-- that are scheduled. A run that was made of messages to another one, and cancelled before it began, has the position of that one.
SELECT run.*, agno.inflate(run.content) AS answer, left(agno.inflate(m.content->'parts'->0)->>'text', 200) AS asked
FROM agno.run LEFT JOIN agno.message m ON m.run_id = run.id AND m.seq = 0
WHERE run.tenant = %(tenant)s AND run.session_id = %(id)s AND run.kind <> 'background'
  AND (SELECT s.user_id FROM agno.session s WHERE s.tenant = %(tenant)s AND s.id = %(id)s) = %(as_user)s AND run.user_id = %(as_user)s
  AND (%(in_history)s AND run.rolled_back_at IS NULL)
  AND run.session_position >= %(after_position)s
  AND run.session_position <= %(before_position)s
  AND (run.session_position IS NULL AND (run.session_status IS NOT NULL) = %(is_scheduled)s)
  AND (coalesce(run.session_position, 0), run.created_at, run.id) > (%(after_place)s::bigint, %(after_at)s, %(after)s::uuid)
  AND (coalesce(run.session_position, 0), run.created_at, run.id) < (%(before_place)s::bigint, %(before_at)s, %(before)s::uuid)
ORDER BY run.session_position, run.created_at, run.id LIMIT %(first)s
ORDER BY run.session_position DESC, run.created_at DESC, run.id DESC LIMIT %(last)s;

-- name: messages
SELECT m.run_id, m.seq, agno.inflate(m.content) AS content FROM agno.message m WHERE m.run_id = ANY(%(run_ids)s::uuid[]) ORDER BY m.run_id, m.seq;

-- name: begin_delete
SELECT agno.begin_delete_session(%(tenant)s, %(id)s, %(as_user)s, %(cancel)s)::text[] AS cancelled;

-- name: forget_background
-- Nobody does background work on a session that is being deleted.
DELETE FROM agno.background_item WHERE tenant = %(tenant)s AND owner = CASE WHEN kind IN ('learn', 'consolidate') THEN 'session:' || %(id)s::text ELSE %(id)s END;

-- name: stop_background
SELECT agno.stop_run(run_id, jsonb_build_object('status', 'cancelled', 'reason', 'session_deleted', 'error', jsonb_build_object('type', 'RunCancelled',
    'message', format('run %%s was cancelled: its session is deleted', run_id), 'ids', jsonb_build_object('run_id', run_id))))
FROM agno.background WHERE tenant = %(tenant)s AND owner = CASE WHEN kind IN ('learn', 'consolidate') THEN 'session:' || %(id)s::text ELSE %(id)s END;

-- name: delete_runs
-- The next runs of a session, each with those that it delegated to, unless one of them is open, or a callback after its end is not sent.
-- A message for a step of these is not needed any more.
WITH RECURSIVE next AS MATERIALIZED (
    SELECT id FROM agno.run WHERE tenant = %(tenant)s AND session_id = %(id)s AND ended_at IS NOT NULL LIMIT %(limit)s
),
family AS (
    SELECT id AS root, id FROM next
    UNION SELECT family.root, step.child_run_id FROM family JOIN agno.step ON step.run_id = family.id WHERE step.child_run_id IS NOT NULL
),
staying AS (
    SELECT family.root FROM family JOIN agno.run ON run.id = family.id
    WHERE run.ended_at IS NULL OR EXISTS (SELECT FROM agno.outbox WHERE outbox.ended_run_id = run.id)
),
gone AS (
    DELETE FROM agno.run USING family WHERE run.id = family.id AND family.root NOT IN (SELECT root FROM staying) AND run.ended_at IS NOT NULL
    RETURNING run.id, run.tenant, run.batch_id
),
states AS (
    DELETE FROM agno.state s USING gone WHERE s.tenant = gone.tenant AND s.scope IN ('run', 'team') AND s.owner = gone.id::text
      AND agno.is_of_run(s.tenant, s.scope, s.owner)
),
changes AS (
    DELETE FROM agno.state_change c USING gone WHERE c.tenant = gone.tenant AND c.scope IN ('run', 'team') AND c.owner = gone.id::text
      AND agno.is_of_run(c.tenant, c.scope, c.owner)
),
sends AS (DELETE FROM agno.outbox USING gone, agno.step WHERE step.run_id = gone.id AND outbox.step_id = step.id),
batches AS (
    UPDATE agno.batch SET size = size - lost.runs FROM (SELECT batch_id, count(*) AS runs FROM gone GROUP BY batch_id) lost WHERE batch.id = lost.batch_id
)
SELECT count(*) AS deleted, agno.forget_exchanges(%(tenant)s, array_agg(id)) FROM gone;

-- name: delete
-- The session, once it has no run, with all that has no run of its own.
WITH gone AS (
    DELETE FROM agno.session WHERE tenant = %(tenant)s AND id = %(id)s
      AND NOT EXISTS (SELECT FROM agno.run WHERE run.tenant = %(tenant)s AND run.session_id = %(id)s) RETURNING tenant, id
),
states AS (DELETE FROM agno.state USING gone WHERE state.tenant = gone.tenant AND scope IN ('session', 'team') AND owner = gone.id),
changes AS (DELETE FROM agno.state_change USING gone WHERE state_change.tenant = gone.tenant AND scope IN ('session', 'team') AND owner = gone.id),
memories AS (DELETE FROM agno.memory USING gone WHERE memory.tenant = gone.tenant AND scope = 'session' AND owner = gone.id),
fetched AS (DELETE FROM agno.context_value USING gone WHERE context_value.tenant = gone.tenant AND scope = 'session' AND owner = gone.id),
works AS (
    DELETE FROM agno.run USING gone WHERE run.tenant = gone.tenant AND run.kind = 'background' AND run.ended_at IS NOT NULL AND run.metadata <> '{}'
      AND (run.metadata @> jsonb_build_object('owner', 'session:' || gone.id) AND run.metadata->>'kind' IN ('learn', 'consolidate')
           OR run.metadata @> jsonb_build_object('owner', gone.id) AND run.metadata->>'kind' NOT IN ('learn', 'consolidate'))
)
SELECT count(*) AS deleted FROM gone;

-- name: prunable
-- Sessions that ended so long ago, the longest first; with `idle` also those that were not active since and have no open run. Those with a
-- retention class only where it is named.
SELECT * FROM agno.session s
WHERE tenant = %(tenant)s AND metadata->>'retention' IS NOT DISTINCT FROM %(retention)s
  AND (ended_at < clock_timestamp() - %(older_than)s::interval
       OR %(idle)s AND ended_at IS NULL AND last_active_at < clock_timestamp() - %(older_than)s::interval
          AND NOT EXISTS (SELECT FROM agno.run r WHERE r.tenant = s.tenant AND r.session_id = s.id AND r.ended_at IS NULL))
ORDER BY coalesce(ended_at, last_active_at), id LIMIT %(limit)s;

-- name: state_keys
SELECT key FROM agno.state WHERE tenant = %(tenant)s AND scope = 'session' AND owner = %(id)s AND value IS NOT NULL ORDER BY key;

-- name: state
SELECT key, agno.inflate(value) AS value, version, updated_at FROM agno.state
WHERE tenant = %(tenant)s AND scope = %(scope)s AND owner = %(id)s AND value IS NOT NULL ORDER BY key;

-- name: context
SELECT c.run_id, c.key, c.source, c.category, c.outcome, c.bytes, c.from_cache, c.at
FROM agno.run r JOIN agno.context_access c ON c.run_id = r.id WHERE r.tenant = %(tenant)s AND r.session_id = %(id)s ORDER BY c.id;

-- name: memories
-- Memories of the session, and those of its user that its runs have made.
SELECT m.id FROM agno.memory m
WHERE m.tenant = %(tenant)s AND (m.scope = 'session' AND m.owner = %(id)s
    OR m.scope = 'user' AND m.owner = %(user_id)s AND m.source_run_id IN (SELECT id FROM agno.run WHERE tenant = %(tenant)s AND session_id = %(id)s))
ORDER BY m.recorded_at, m.id;
