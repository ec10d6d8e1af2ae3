-- Record results; agno.finish_steps in functions/steps.sql does the work.

-- name: finish
-- The first result of a generation is recorded; a later one changes nothing.
SELECT recorded, messages, children FROM agno.finish_steps(%(results)s, %(waits)s);

-- name: ask_person
-- A `once` tool was interrupted, and its policy is to ask a person whether it took effect.
UPDATE agno.step SET status = 'waiting', waits_for = 'resolution', lease_until = NULL, error = %(error)s,
    expires_at = clock_timestamp() + make_interval(secs => (policy->>'within_s')::float8)
WHERE id = %(step_id)s AND status = 'running'
  AND (attempt = %(attempt)s AND NOT %(late_only)s OR lease_until < clock_timestamp())
RETURNING id;

-- name: end_waits
SELECT agno.end_waits(%(run_id)s, %(ends)s);

-- name: answer_approval
SELECT agno.answer_approval(%(step_id)s, %(verdict)s, %(by)s, %(note)s) AS is_answered;

-- name: answer
-- Make a waiting step ready with a person's answer, and send it at once.
WITH alive AS (
    SELECT run.id, run.generation FROM agno.run JOIN agno.step ON step.run_id = run.id
    WHERE step.id = %(step_id)s AND run.ended_at IS NULL FOR SHARE OF run
),
answered AS (
    UPDATE agno.step SET status = 'ready', waits_for = NULL, expires_at = NULL, sent_at = clock_timestamp(),
        resend_at = agno.resend_time(), reconciling = false,
        answer = %(answer)s || jsonb_build_object('at', statement_timestamp())
    FROM alive
    WHERE step.id = %(step_id)s AND step.run_id = alive.id AND step.generation = alive.generation AND step.waits_for = ANY(%(waits_for)s)
      AND (%(asked_after)s::int IS NULL OR step.attempt = %(asked_after)s)
    RETURNING step.id
),
pending AS (INSERT INTO agno.outbox (step_id, due_at) SELECT id, clock_timestamp() FROM answered)
SELECT id, pg_notify('agno_outbox', '') FROM answered;

-- name: begin_compaction
-- See sessions/functions/compaction.sql. No row: this worker has lost the turn.
SELECT * FROM agno.begin_compaction(%(run_id)s, %(step_id)s, %(attempt)s, %(step)s, %(publish_after_s)s);

-- name: offload_tokens
SELECT agno.offload_tokens(%(run_id)s) AS tokens;
