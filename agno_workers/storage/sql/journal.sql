-- The transactions that move a run. Each is one statement, so one round trip and all or nothing.
-- Locks are taken in the order run, step, barrier (see schema.py).

-- name: submit
-- See functions.sql; `due` is false for a run that exists already or waits for its time.
SELECT run_id, created, step_id, outbox_id, queue, priority, due FROM agno.submit_run(%(run)s);

-- name: claim_turn
-- The right to carry a turn for `lease_s`, with all that it needs. No row: somebody else has it, it is over, or the
-- run was cancelled. The commit need not reach the disk: a lost claim is a lease that nobody holds.
WITH no_wait AS (SELECT set_config('synchronous_commit', 'off', true)),
alive AS (
    SELECT run.* FROM agno.run, no_wait
    WHERE run.id = %(run_id)s AND run.generation = %(generation)s AND run.ended_at IS NULL
    FOR NO KEY UPDATE OF run
),
claimed AS (
    UPDATE agno.step SET status = 'running', attempt = step.attempt + 1, worker = %(worker)s,
        lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s),
        started_at = coalesce(step.started_at, clock_timestamp())
    FROM alive
    WHERE step.id = %(step_id)s AND step.run_id = alive.id AND step.generation = alive.generation
      AND (step.status = 'ready' AND (step.not_before IS NULL OR step.not_before <= clock_timestamp())
           OR step.status = 'running' AND step.lease_until < clock_timestamp() AND step.attempt - step.tries < step.max_attempts)
    RETURNING step.*
),
begun AS (
    UPDATE agno.run SET status = 'running', started_at = coalesce(run.started_at, claimed.started_at)
    FROM claimed WHERE run.id = claimed.run_id AND run.status <> 'running'
)
SELECT claimed.id AS step_id, claimed.run_id, claimed.generation, claimed.key, claimed.seq, claimed.attempt, claimed.max_attempts,
       claimed.tries, alive.agent, alive.priority, alive.session_id, alive.user_id, alive.metadata, alive.canvas,
       alive.turns, alive.tool_calls, alive.created_at,
       jsonb_build_object('input_tokens', alive.input_tokens, 'output_tokens', alive.output_tokens,
           'cached_tokens', alive.cached_tokens, 'cache_write_tokens', alive.cache_write_tokens,
           'reasoning_tokens', alive.reasoning_tokens) AS usage,
       (SELECT jsonb_agg(agno.inflate(m.content) ORDER BY m.seq) FROM agno.message m
        WHERE m.run_id = claimed.run_id AND m.seq < claimed.seq) AS transcript
FROM claimed, alive;

-- name: claim_tool
-- As claim_turn, for a tool call. The claim of a `once` tool is its recorded intent, and waits for the disk.
WITH claimed AS (
    UPDATE agno.step SET status = 'running', attempt = step.attempt + 1, worker = %(worker)s,
        lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s),
        started_at = coalesce(step.started_at, clock_timestamp())
    FROM agno.run
    WHERE step.id = %(step_id)s AND run.id = step.run_id AND run.generation = step.generation AND run.ended_at IS NULL
      AND step.generation = %(generation)s
      AND (step.status = 'ready' AND (step.not_before IS NULL OR step.not_before <= clock_timestamp())
           OR step.status = 'running' AND step.lease_until < clock_timestamp() AND step.attempt - step.tries < step.max_attempts
              AND step.effect <> 'once')
    RETURNING step.*, run.agent, run.session_id, run.user_id, run.metadata
)
SELECT claimed.id AS step_id, claimed.run_id, claimed.generation, claimed.key, claimed.seq, claimed.attempt, claimed.max_attempts,
       claimed.name, claimed.effect, agno.inflate(claimed.call) AS call, claimed.agent, claimed.session_id,
       claimed.user_id, claimed.metadata,
       set_config('synchronous_commit', CASE claimed.effect WHEN 'once' THEN 'on' ELSE 'off' END, true) AS wait
FROM claimed;

-- name: finish_turn
-- Record a turn and what comes of it: the end, a fan-out, or another turn. The first result of the generation wins:
-- whoever comes second, with or without a lease, changes nothing and gets recorded = false.
WITH alive AS (
    SELECT run.* FROM agno.run
    WHERE run.id = %(run_id)s AND run.generation = %(generation)s AND run.ended_at IS NULL
    FOR NO KEY UPDATE
),
recorded AS (
    UPDATE agno.step SET status = %(step_status)s, ended_at = clock_timestamp(), lease_until = NULL,
        error = coalesce(%(error)s, step.error)
    FROM alive
    WHERE step.id = %(step_id)s AND step.run_id = alive.id AND step.generation = alive.generation
      AND step.status IN ('ready', 'running')
    RETURNING step.run_id, step.generation, step.queue, step.priority
),
kept AS (
    INSERT INTO agno.blob SELECT decode(b.key, 'hex'), b.value FROM recorded, jsonb_each(%(blobs)s) b ON CONFLICT DO NOTHING
),
said AS (
    INSERT INTO agno.message (run_id, seq, content)
    SELECT recorded.run_id, m.seq, m.content FROM recorded, jsonb_to_recordset(%(messages)s) AS m (seq int, content jsonb)
),
fan_in AS (
    INSERT INTO agno.barrier (id, run_id, generation, size, body)
    SELECT b.id, recorded.run_id, recorded.generation, b.size, b.body
    FROM recorded, jsonb_to_recordset(%(barrier)s) AS b (id uuid, size int, body jsonb)
),
written AS (
    INSERT INTO agno.step (id, run_id, generation, key, kind, queue, priority, name, seq, call, effect, barrier_id, max_attempts, sent_at)
    SELECT s.id, recorded.run_id, recorded.generation, s.key, s.kind, s.queue, recorded.priority, coalesce(s.name, ''), s.seq,
           s.call, s.effect, s.barrier_id, s.max_attempts, clock_timestamp()
    FROM recorded, jsonb_to_recordset(%(steps)s)
        AS s (id uuid, key text, kind text, queue text, name text, seq int, call jsonb, effect text, barrier_id uuid, max_attempts int)
    RETURNING id, seq
),
owed AS (
    INSERT INTO agno.outbox (step_id, due_at)
    SELECT id, clock_timestamp() + make_interval(secs => %(publish_after_s)s) FROM written ORDER BY seq
    RETURNING id
),
moved AS (
    UPDATE agno.run SET status = %(run_status)s,
        input_tokens = run.input_tokens + %(input_tokens)s, output_tokens = run.output_tokens + %(output_tokens)s,
        cached_tokens = run.cached_tokens + %(cached_tokens)s, cache_write_tokens = run.cache_write_tokens + %(cache_write_tokens)s,
        reasoning_tokens = run.reasoning_tokens + %(reasoning_tokens)s,
        turns = run.turns + %(turns)s, tool_calls = run.tool_calls + %(tool_calls)s,
        content = %(content)s, reason = %(reason)s, error = %(run_error)s,
        ended_at = CASE WHEN %(ended)s THEN clock_timestamp() END
    FROM recorded WHERE run.id = recorded.run_id
)
SELECT EXISTS (SELECT FROM recorded) AS recorded, ARRAY(SELECT id FROM owed) AS outbox_ids;

-- name: finish_tool
-- Record a tool's result, close its part of the barrier, and, if it was the last part, write the next turn: one commit.
-- Of two last ones that come together one sees the barrier full, since the row lock puts them in order.
WITH alive AS (
    SELECT run.id, run.generation FROM agno.run
    WHERE run.id = %(run_id)s AND run.generation = %(generation)s AND run.ended_at IS NULL
    FOR SHARE
),
recorded AS (
    UPDATE agno.step SET status = %(step_status)s, ended_at = clock_timestamp(), lease_until = NULL,
        error = coalesce(%(error)s, step.error)
    FROM alive
    WHERE step.id = %(step_id)s AND step.run_id = alive.id AND step.generation = alive.generation
      AND step.status IN ('ready', 'running')
    RETURNING step.run_id, step.generation, step.seq, step.barrier_id
),
kept AS (
    INSERT INTO agno.blob SELECT decode(b.key, 'hex'), b.value FROM recorded, jsonb_each(%(blobs)s) b ON CONFLICT DO NOTHING
),
said AS (
    INSERT INTO agno.message (run_id, seq, content) SELECT run_id, seq, %(message)s FROM recorded
),
arrived AS (
    UPDATE agno.barrier SET arrived = barrier.arrived + 1,
        fired_at = CASE WHEN barrier.arrived + 1 = barrier.size THEN clock_timestamp() END
    FROM recorded WHERE barrier.id = recorded.barrier_id
    RETURNING barrier.run_id, barrier.generation, barrier.body, barrier.fired_at
),
woken AS (
    INSERT INTO agno.step (id, run_id, generation, key, kind, queue, priority, seq, max_attempts, sent_at)
    SELECT b.id, arrived.run_id, arrived.generation, b.key, 'turn', b.queue, b.priority, b.seq, b.max_attempts, clock_timestamp()
    FROM arrived, jsonb_to_record(arrived.body) AS b (id uuid, key text, queue text, priority smallint, seq int, max_attempts int)
    WHERE arrived.fired_at IS NOT NULL
    RETURNING id, run_id, generation, queue, priority
),
owed AS (
    INSERT INTO agno.outbox (step_id, due_at)
    SELECT id, clock_timestamp() + make_interval(secs => %(publish_after_s)s) FROM woken RETURNING id
)
SELECT EXISTS (SELECT FROM recorded) AS recorded, woken.id AS step_id, woken.run_id, woken.generation, woken.queue,
       woken.priority, owed.id AS outbox_id
FROM (VALUES (1)) AS one LEFT JOIN woken ON true LEFT JOIN owed ON true;

-- name: renew
-- One statement for all steps that a worker process carries; what comes back was lost: cancelled, ended or taken over.
-- A step that is ready is about to be claimed, or was just given back, and neither renewed nor lost. A step that is locked
-- is being recorded or cancelled: to wait for it with others in hand would deadlock, and it needs no lease.
WITH held AS (
    SELECT step.id FROM agno.step JOIN agno.run ON run.id = step.run_id
    WHERE step.id = ANY(%(step_ids)s::uuid[]) AND step.worker = %(worker)s AND step.status = 'running'
      AND run.generation = step.generation AND run.ended_at IS NULL
    FOR NO KEY UPDATE OF step SKIP LOCKED
),
renewed AS (
    UPDATE agno.step SET lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
    FROM held WHERE step.id = held.id
)
SELECT id::text FROM agno.step
WHERE id = ANY(%(step_ids)s::uuid[]) AND (status NOT IN ('ready', 'running') OR status = 'running' AND worker <> %(worker)s);

-- name: retry
-- Give a step back, to be tried again after `delay_s`; only the attempt that holds it may.
UPDATE agno.step SET status = 'ready', lease_until = NULL, tries = tries + 1, error = %(error)s, sent_at = NULL,
    not_before = clock_timestamp() + make_interval(secs => %(delay_s)s)
WHERE id = %(step_id)s AND status = 'running' AND attempt = %(attempt)s
RETURNING id;

-- name: give_up
-- End the lease of a step whose process is known to be dead, so that the keeper need not wait for it. Only its own
-- worker may: a copy of its message that failed elsewhere says nothing about it.
UPDATE agno.step SET lease_until = clock_timestamp() WHERE id = %(step_id)s AND status = 'running' AND worker = %(worker)s RETURNING id;

-- name: hold_run
-- Cancel, first half: wait for a step that is being recorded. The second half is a statement of its own, so that it
-- sees the steps which that wrote.
SELECT FROM agno.run WHERE id = %(run_id)s FOR NO KEY UPDATE;

-- name: cancel
-- The generation goes up, so that whatever is still under way comes too late; then all its open steps end.
WITH stopped AS (
    UPDATE agno.run SET status = 'cancelled', generation = run.generation + 1, ended_at = clock_timestamp(), reason = 'cancelled',
        error = jsonb_build_object('type', 'RunCancelled', 'message', format('run %%s was cancelled', run.id),
                                   'ids', jsonb_build_object('run_id', run.id))
    WHERE run.id = %(run_id)s AND run.ended_at IS NULL
    RETURNING run.id
),
ended AS (
    UPDATE agno.step SET status = 'cancelled', ended_at = clock_timestamp(), lease_until = NULL, not_before = NULL
    FROM stopped WHERE step.run_id = stopped.id AND step.status IN ('ready', 'running')
    RETURNING step.id
),
-- A row that is locked is being sent, and struck out by who sends it.
held AS (
    SELECT outbox.id FROM agno.outbox JOIN ended ON outbox.step_id = ended.id FOR UPDATE OF outbox SKIP LOCKED
),
unsent AS (
    DELETE FROM agno.outbox USING held WHERE outbox.id = held.id
)
SELECT id::text FROM stopped;

-- name: published
-- The commit need not reach the disk: a row that comes back is published twice, which is harmless.
-- In the order of the ids, since the keeper may be striking out the same ones.
WITH no_wait AS (SELECT set_config('synchronous_commit', 'off', true)),
held AS (SELECT outbox.id FROM agno.outbox, no_wait WHERE outbox.id = ANY(%(outbox_ids)s) ORDER BY outbox.id FOR UPDATE OF outbox)
DELETE FROM agno.outbox USING held WHERE outbox.id = held.id;

-- name: history
-- What was said in the last finished runs of a session, oldest first.
SELECT agno.inflate(m.content) AS content
FROM (SELECT id, created_at FROM agno.run WHERE session_id = %(session_id)s AND agent = %(agent)s AND status = 'done'
      AND created_at < %(before)s ORDER BY created_at DESC LIMIT %(runs)s) past
JOIN agno.message m ON m.run_id = past.id
ORDER BY past.created_at, past.id, m.seq;
