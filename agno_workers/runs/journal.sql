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
    WHERE run.id = %(run_id)s AND run.generation = %(generation)s AND run.ended_at IS NULL AND run.paused_at IS NULL
    FOR NO KEY UPDATE OF run
),
claimed AS (
    UPDATE agno.step SET status = 'running', attempt = step.attempt + 1, worker = %(worker)s,
        lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s),
        started_at = coalesce(step.started_at, clock_timestamp())
    FROM alive
    WHERE step.id = %(step_id)s AND step.run_id = alive.id AND step.generation = alive.generation AND step.kind = 'turn'
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
       alive.turns, alive.tool_calls, alive.created_at, alive.cost_usd::float8, alive.depth, alive.deadline_at, alive.parent_run_id,
       encode(alive.definition, 'hex') AS definition,
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
      AND run.paused_at IS NULL AND step.generation = %(generation)s AND step.kind = 'tool'
      AND (step.status = 'ready' AND (step.not_before IS NULL OR step.not_before <= clock_timestamp())
           OR step.status = 'running' AND step.lease_until < clock_timestamp() AND step.attempt - step.tries < step.max_attempts
              AND step.effect <> 'once')
    RETURNING step.*, run.agent, run.session_id, run.user_id, run.metadata
)
SELECT claimed.id AS step_id, claimed.run_id, claimed.generation, claimed.key, claimed.seq, claimed.attempt, claimed.max_attempts,
       claimed.tries, claimed.name, claimed.effect, agno.inflate(claimed.call) AS call, coalesce(claimed.policy, '{}') AS policy,
       claimed.answer, claimed.reconciling, claimed.agent, claimed.session_id,
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
      AND step.kind = 'turn' AND step.status IN ('ready', 'running')
      AND (NOT %(late_only)s OR step.status = 'running' AND step.lease_until < clock_timestamp())
    RETURNING step.run_id, step.generation, step.queue, step.priority, alive.paused_at
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
    INSERT INTO agno.step (id, run_id, generation, key, kind, status, queue, priority, name, seq, call, effect, barrier_id, max_attempts,
        policy, waits_for, expires_at, child_run_id, sent_at)
    SELECT s.id, recorded.run_id, recorded.generation, s.key, s.kind, CASE WHEN s.waits_for IS NULL THEN 'ready' ELSE 'waiting' END, s.queue,
           recorded.priority, coalesce(s.name, ''), s.seq, s.call, s.effect, s.barrier_id, s.max_attempts, s.policy, s.waits_for,
           clock_timestamp() + make_interval(secs => (s.policy->>'within_s')::float8), s.child_run_id,
           CASE WHEN s.waits_for IS NULL THEN clock_timestamp() END
    FROM recorded, jsonb_to_recordset(%(steps)s)
        AS s (id uuid, key text, kind text, queue text, name text, seq int, call jsonb, effect text, barrier_id uuid, max_attempts int,
              policy jsonb, waits_for text, child_run_id uuid)
    RETURNING id, seq, status
),
owed AS (
    INSERT INTO agno.outbox (step_id, due_at)
    SELECT id, clock_timestamp() + make_interval(secs => %(publish_after_s)s) FROM written WHERE status = 'ready' ORDER BY seq
    RETURNING id
),
-- Delegations: the child runs, as submitted ones; they are paused if their parent was meanwhile.
children AS (
    SELECT child.* FROM recorded, jsonb_array_elements(%(children)s) AS asked (run),
        LATERAL agno.submit_run(asked.run || jsonb_build_object('paused_at', recorded.paused_at)) AS child
),
defined AS (
    INSERT INTO agno.definition (sha256, content)
    SELECT decode(d->>'sha256', 'hex'), d->'content' FROM recorded, (SELECT %(definition)s::jsonb) AS given (d) WHERE d IS NOT NULL
    ON CONFLICT DO NOTHING
),
moved AS (
    UPDATE agno.run SET status = %(run_status)s,
        input_tokens = run.input_tokens + %(input_tokens)s, output_tokens = run.output_tokens + %(output_tokens)s,
        cached_tokens = run.cached_tokens + %(cached_tokens)s, cache_write_tokens = run.cache_write_tokens + %(cache_write_tokens)s,
        reasoning_tokens = run.reasoning_tokens + %(reasoning_tokens)s,
        turns = run.turns + %(turns)s, tool_calls = run.tool_calls + %(tool_calls)s, cost_usd = run.cost_usd + %(cost_usd)s,
        definition = coalesce(run.definition, decode(%(definition)s::jsonb->>'sha256', 'hex')),
        content = %(content)s, reason = %(reason)s, error = %(run_error)s,
        ended_at = CASE WHEN %(ended)s THEN clock_timestamp() END
    FROM recorded WHERE run.id = recorded.run_id
)
SELECT EXISTS (SELECT FROM recorded) AS recorded, ARRAY(SELECT id FROM owed) AS outbox_ids,
       (SELECT coalesce(jsonb_agg(to_jsonb(children)), '[]') FROM children) AS children;

-- name: finish_tool
-- Record a tool's result, close its part of the barrier, and, if it was the last part, write the next turn: one commit.
-- `from_statuses` and `from_waits` say who comes: a worker with a step that it carries, or a person with one that waits, still
-- for what the person was asked, after the same attempt. A worker that was thought dead may still bring what became of a `once` tool, until a person
-- has said so. `late_only` is the keeper, for whom the lease must still be over.
WITH alive AS (
    SELECT run.id, run.generation FROM agno.run
    WHERE run.id = %(run_id)s AND run.generation = %(generation)s AND run.ended_at IS NULL
    FOR SHARE
),
recorded AS (
    UPDATE agno.step SET status = %(step_status)s, ended_at = clock_timestamp(), lease_until = NULL, not_before = NULL, waits_for = NULL,
        expires_at = NULL, error = coalesce(%(error)s, step.error), answer = coalesce(%(answer)s || jsonb_build_object('at', statement_timestamp()), step.answer)
    FROM alive
    WHERE step.id = %(step_id)s AND step.run_id = alive.id AND step.generation = alive.generation
      AND (step.status = ANY(%(from_statuses)s) OR step.waits_for = ANY(%(from_waits)s)) AND step.kind = 'tool'
      AND (%(asked_after)s::int IS NULL OR step.attempt = %(asked_after)s)
      AND (NOT %(late_only)s OR step.status = 'running' AND step.lease_until < clock_timestamp())
    RETURNING step.run_id, step.generation, step.seq, step.barrier_id
),
kept AS (
    INSERT INTO agno.blob SELECT decode(b.key, 'hex'), b.value FROM recorded, jsonb_each(%(blobs)s) b ON CONFLICT DO NOTHING
),
said AS (
    INSERT INTO agno.message (run_id, seq, content) SELECT run_id, seq, %(message)s FROM recorded
),
woken AS (SELECT next.* FROM recorded, agno.arrive(recorded.barrier_id, %(publish_after_s)s) AS next)
SELECT EXISTS (SELECT FROM recorded) AS recorded, woken.* FROM (VALUES (1)) AS one LEFT JOIN woken ON true;

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

-- name: is_held
-- The same question for one step, asked where no renewal runs (a child of a prefork worker).
SELECT id FROM agno.step WHERE id = %(step_id)s AND status = 'running' AND worker = %(worker)s;

-- name: retry
-- Give a step back, to be tried again after `delay_s`; only the attempt that holds it may. A `once` tool that failed may have
-- taken effect: its hook comes first.
UPDATE agno.step SET status = 'ready', lease_until = NULL, tries = tries + 1, error = %(error)s, sent_at = NULL,
    reconciling = effect IS NOT DISTINCT FROM 'once' AND (policy->>'reconcile')::boolean IS TRUE,
    not_before = clock_timestamp() + make_interval(secs => %(delay_s)s)
WHERE id = %(step_id)s AND status = 'running' AND attempt = %(attempt)s
RETURNING id;

-- name: give_up
-- End the lease of a step whose process is known to be dead, so that the keeper need not wait for it. Only its own
-- worker may: a copy of its message that failed elsewhere says nothing about it. Of an ingestion's step it counts double, since the
-- process died by itself, and not with all of its machine.
UPDATE agno.step SET lease_until = clock_timestamp(),
    max_attempts = CASE WHEN kind IN ('ingest', 'embed') THEN greatest(attempt - tries, max_attempts - 1) ELSE max_attempts END
WHERE id = %(step_id)s AND status = 'running' AND worker = %(worker)s RETURNING id;

-- name: ask_person
-- A `once` tool was cut short, and its policy is that a person finds out what happened.
UPDATE agno.step SET status = 'waiting', waits_for = 'resolution', lease_until = NULL, error = %(error)s,
    expires_at = clock_timestamp() + make_interval(secs => (policy->>'within_s')::float8)
WHERE id = %(step_id)s AND status = 'running'
  AND (attempt = %(attempt)s AND NOT %(late_only)s OR lease_until < clock_timestamp())
RETURNING id;

-- name: answer
-- What a person said lets a waiting step be carried: sent at once, with the answer.
WITH alive AS (
    SELECT run.id, run.generation FROM agno.run JOIN agno.step ON step.run_id = run.id
    WHERE step.id = %(step_id)s AND run.ended_at IS NULL FOR SHARE OF run
),
answered AS (
    UPDATE agno.step SET status = 'ready', waits_for = NULL, expires_at = NULL, sent_at = clock_timestamp(), reconciling = false,
        answer = %(answer)s || jsonb_build_object('at', statement_timestamp())
    FROM alive
    WHERE step.id = %(step_id)s AND step.run_id = alive.id AND step.generation = alive.generation AND step.waits_for = ANY(%(waits_for)s)
      AND (%(asked_after)s::int IS NULL OR step.attempt = %(asked_after)s)
    RETURNING step.id
),
owed AS (INSERT INTO agno.outbox (step_id, due_at) SELECT id, clock_timestamp() FROM answered)
SELECT id, pg_notify('agno_outbox', '') FROM answered;

-- name: pause
-- No step of the run is claimed any more; those under way end. The status stays what it is.
UPDATE agno.run SET paused_at = clock_timestamp() WHERE id = %(run_id)s AND ended_at IS NULL AND paused_at IS NULL RETURNING id;

-- name: resume
-- What was ready meanwhile is sent; its messages of before met a paused run.
WITH resumed AS (
    UPDATE agno.run SET paused_at = NULL WHERE id = %(run_id)s AND ended_at IS NULL AND paused_at IS NOT NULL RETURNING id
),
sent AS (
    UPDATE agno.step SET sent_at = clock_timestamp() FROM resumed
    WHERE step.run_id = resumed.id AND step.status = 'ready' AND step.not_before IS NULL
    RETURNING step.id
),
owed AS (INSERT INTO agno.outbox (step_id, due_at) SELECT id, clock_timestamp() FROM sent)
SELECT id, pg_notify('agno_outbox', '') FROM resumed;

-- name: open_children
SELECT id::text FROM agno.run WHERE parent_run_id = %(run_id)s AND ended_at IS NULL;

-- name: open_children_of
SELECT id::text FROM agno.run WHERE parent_run_id = ANY(%(run_ids)s::uuid[]) AND ended_at IS NULL;

-- name: redrive
SELECT step_id::text, generation FROM agno.redrive_run(%(run_id)s);

-- name: fork
SELECT run_id::text, created FROM agno.fork_run(%(fork)s);

-- name: set_deadline
-- The agent's own, where the submit gave none; the agent is known once a worker has its first turn. A delegated run has the
-- deadline of its parent, too: the earlier one counts.
UPDATE agno.run SET deadline_at = least(deadline_at, agno.began(id, generation) + make_interval(secs => %(deadline_s)s))
WHERE id = %(run_id)s AND (deadline_at IS NULL OR parent_run_id IS NOT NULL) RETURNING deadline_at;

-- name: definition
SELECT content FROM agno.definition WHERE sha256 = decode(%(sha256)s, 'hex');

-- name: owed_sends
-- Steps of a run that are owed and not sent yet: the turn that the end of a delegation has woken.
SELECT outbox.id AS outbox_id, step.id AS step_id, step.run_id, step.generation, step.kind, step.queue, step.priority
FROM agno.outbox JOIN agno.step ON step.id = outbox.step_id
WHERE step.run_id = %(run_id)s AND step.status = 'ready';

-- name: hold_run
-- Stop and resume, first half: wait for a step that is being recorded. The second half is a statement of its own, so that it
-- sees the steps which that wrote.
SELECT FROM agno.run WHERE id = %(run_id)s FOR NO KEY UPDATE;

-- name: stop
-- End a run from outside: cancelled, or over its deadline. The generation goes up, so that whatever is still under way comes
-- too late; then all its open steps end. `done` ends it with the last that it said, and fails it where it said nothing at all.
-- `overdue_only`: if its deadline is still
-- over; `if_waits`: if that step still waits (an answer takes a lock on the run, which is held here).
WITH stopped AS (
    UPDATE agno.run SET status = CASE WHEN %(status)s = 'done' AND run.turns = 0 THEN 'failed' ELSE %(status)s END,
        generation = run.generation + 1, ended_at = clock_timestamp(), reason = %(reason)s, paused_at = NULL,
        input_tokens = run.input_tokens + coalesce((SELECT sum(tokens) FROM agno.ingest_count WHERE run_id = run.id), 0),
        error = CASE WHEN %(status)s = 'done' AND run.turns > 0 THEN NULL ELSE %(error)s::jsonb END,
        content = CASE WHEN %(status)s = 'done' AND run.turns > 0 THEN coalesce((
            SELECT text FROM agno.message m, jsonb_path_query_first(m.content, '$.parts[*] ? (@.type == "text").text') AS text
            WHERE m.run_id = run.id AND m.content->>'role' = 'assistant' AND text IS NOT NULL ORDER BY m.seq DESC LIMIT 1), '""') END
    WHERE run.id = %(run_id)s AND run.ended_at IS NULL AND (NOT %(overdue_only)s OR run.deadline_at <= clock_timestamp())
      AND (%(if_waits)s::uuid IS NULL OR EXISTS (SELECT FROM agno.step WHERE id = %(if_waits)s::uuid AND status = 'waiting'))
    RETURNING run.id
),
ended AS (
    UPDATE agno.step SET status = 'cancelled', ended_at = clock_timestamp(), lease_until = NULL, not_before = NULL, waits_for = NULL,
        expires_at = NULL
    FROM stopped WHERE step.run_id = stopped.id AND step.status IN ('ready', 'running', 'waiting')
    RETURNING step.id, step.run_id, step.kind, step.seq, step.name, step.call->>'id' AS call_id
),
vectors_missing AS (
    UPDATE agno.knowledge SET vectors_missing = true FROM stopped JOIN agno.ingestion ON ingestion.run_id = stopped.id
    WHERE knowledge.id = ingestion.knowledge_id
),
-- No provider takes a transcript with a call that has no result, and the next run of the session may read this one.
said AS (
    INSERT INTO agno.message (run_id, seq, content)
    SELECT run_id, seq, agno.tool_said(call_id, name, format('%%s did not end: the run was stopped (%%s).', name, %(reason)s::text), true)
    FROM ended WHERE kind IN ('tool', 'delegate')
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
