-- Claim, renew and release steps.

-- name: claim
-- See functions/steps.sql. No row for a step: nothing to do, or not unless it waits for a lock.
SELECT * FROM agno.claim_steps(%(asked)s, %(worker)s, %(lease_s)s, %(waits)s);

-- name: renew
-- Renew the leases of all steps of a worker process; the returned steps are lost: cancelled, ended or taken over.
-- A ready step is about to be claimed or was just released: it is neither renewed nor lost. A locked step is being recorded or
-- cancelled and needs no lease; waiting for it while holding others would deadlock.
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

-- name: renew_all
-- Renew all leases of a worker whose own threads do not run, for as long as they have not expired. As above, locked steps are skipped.
WITH held AS (
    SELECT id FROM agno.step WHERE status = 'running' AND worker = %(worker)s AND coalesce(lease_until, expires_at) > statement_timestamp()
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE agno.step SET lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s) FROM held WHERE step.id = held.id;

-- name: is_held
-- Ask the same for one step, in a process without a lease renewer (a child of a prefork worker).
SELECT id FROM agno.step WHERE id = %(step_id)s AND status = 'running' AND worker = %(worker)s;

-- name: retry
-- Release a step for another attempt after `delay_s`, or at the run's deadline if that is sooner; only the attempt that holds it may. A `once` tool that failed may have
-- taken effect: its reconcile hook comes first.
UPDATE agno.step SET status = 'ready', lease_until = NULL, tries = tries + 1, error = %(error)s, sent_at = NULL,
    reconciling = effect IS NOT DISTINCT FROM 'once' AND (policy->>'reconcile')::boolean IS TRUE,
    not_before = least(clock_timestamp() + make_interval(secs => %(delay_s)s), (SELECT deadline_at FROM agno.run WHERE id = run_id))
WHERE id = %(step_id)s AND status = 'running' AND attempt = %(attempt)s
RETURNING id;

-- name: return_step
-- Return a step that this worker can't begin: it does not know the agent (`attempt` is then its claim), or it raised before the step
-- began. Neither is an attempt of the step. Each return waits for longer, so that another worker takes it and no loop is hot; the error
-- counts the returns and names their workers. An unknown agent is waited for without an end, and `soon_s` at most if a living worker knows it. What was raised is given up after
-- `max_returns` from every living worker of the queue, or after five times as many: the keeper then ends the step (see `exhausted`).
WITH held AS (
    SELECT id, run_id, queue, attempt - (status = 'running')::int AS attempt, coalesce(same.ids->'workers', '[]') - %(worker)s::text || to_jsonb(%(worker)s::text) AS workers,
           coalesce((same.ids->>'returns')::int, 0) + 1 AS returns
    FROM agno.step LEFT JOIN LATERAL (
        SELECT step.error->'ids' AS ids WHERE step.error->'ids' ? 'given_up' = (%(attempt)s::int IS NULL)) same ON true
    WHERE id = %(step_id)s AND (%(attempt)s::int IS NULL AND status = 'ready' AND not_before IS NULL
        OR status = 'running' AND worker = %(worker)s AND lease_until > clock_timestamp()
           AND (attempt = %(attempt)s OR %(attempt)s::int IS NULL AND effect IS DISTINCT FROM 'once'))
    FOR UPDATE OF step
),
others AS (
    SELECT w.name, w.agents IS NULL OR w.agents ? run.agent AS knows FROM held JOIN agno.run ON run.id = held.run_id JOIN agno.worker w
        ON w.stopped_at IS NULL AND w.seen_at > clock_timestamp() - make_interval(secs => %(lease_s)s) AND w.queues ? held.queue
),
judged AS (
    SELECT held.*, %(attempt)s::int IS NULL AND returns >= %(max_returns)s
               AND (returns >= 5 * %(max_returns)s OR NOT EXISTS (SELECT FROM others WHERE NOT held.workers ? others.name)) AS given_up,
           CASE WHEN %(attempt)s::int IS NOT NULL AND EXISTS (SELECT FROM others WHERE knows) THEN %(soon_s)s::float8 ELSE %(max_s)s END AS max_s
    FROM held
)
UPDATE agno.step SET status = CASE WHEN given_up THEN 'running' ELSE 'ready' END,
    worker = %(worker)s || CASE WHEN given_up THEN ' (gave it up)' ELSE '' END, -- no longer this worker's, as in end_lease
    attempt = judged.attempt, started_at = CASE WHEN judged.attempt > 0 THEN started_at END, sent_at = NULL,
    lease_until = CASE WHEN given_up THEN clock_timestamp() END,
    not_before = CASE WHEN NOT given_up THEN clock_timestamp() + make_interval(secs =>
        least(judged.max_s, %(first_s)s * 2 ^ least(returns - 1, 20)) * (0.75 + 0.5 * random())) END,
    tries = CASE WHEN given_up THEN judged.attempt - max_attempts ELSE tries END, -- no attempt is left, and retries and forks keep max_attempts
    error = jsonb_set(%(error)s, '{ids}', %(error)s::jsonb->'ids' || jsonb_build_object('returns', returns, 'workers', workers)
        || CASE WHEN %(attempt)s::int IS NULL THEN jsonb_build_object('given_up', given_up) ELSE '{}' END)
FROM judged WHERE step.id = judged.id RETURNING judged.returns;

-- name: end_lease
-- End the lease of a step whose process is known to be dead, so that the keeper need not wait for it. Only the step's own worker
-- may: a copy of its message may have failed elsewhere. The note after its name means that the step is no longer this worker's: a renewal
-- that listed its steps before must not renew the lease, and another lease that is over may be renewed, as after an outage of Postgres.
-- `death_attempts` in the policy of a step is the number of attempts that such a death counts for, since the process died alone and not
-- with its whole machine.
UPDATE agno.step SET lease_until = clock_timestamp(), worker = worker || ' (its process died)',
    max_attempts = greatest(attempt - tries, max_attempts - coalesce((policy->>'death_attempts')::int, 1) + 1)
WHERE id = %(step_id)s AND status = 'running' AND worker = %(worker)s RETURNING id;

-- name: set_deadline
-- Set the agent's deadline when the submit set none. A delegated run also has the deadline of its parent: the earlier one counts.
UPDATE agno.run SET deadline_at = least(deadline_at, agno.began(id, generation) + make_interval(secs => %(deadline_s)s))
WHERE id = %(run_id)s AND (deadline_at IS NULL OR parent_run_id IS NOT NULL) RETURNING deadline_at;

-- name: continue_with
-- Name a turn after the agent that takes it, once: a turn that is executed again has the same. See Claims.continue_with.
UPDATE agno.step s SET name = CASE WHEN s.name <> '' THEN s.name ELSE coalesce((
    SELECT last.name FROM agno.run own
    JOIN LATERAL (SELECT r.id FROM agno.run r WHERE r.tenant = own.tenant AND r.session_id = own.session_id AND r.session_position < own.session_position
        AND r.agent = own.agent AND r.ended_at IS NOT NULL AND r.rolled_back_at IS NULL ORDER BY r.session_position DESC LIMIT 1) AS earlier ON true
    JOIN LATERAL (SELECT t.name FROM agno.step t WHERE t.run_id = earlier.id AND t.kind = 'turn' ORDER BY t.seq DESC, t.generation DESC LIMIT 1) AS last ON true
    WHERE own.id = s.run_id AND last.name = ANY(%(known)s)), (%(known)s::text[])[1]) END
WHERE s.id = %(step_id)s RETURNING s.name;

-- name: definition
SELECT content FROM agno.definition WHERE sha256 = decode(%(sha256)s, 'hex');

-- name: progress
SELECT agno.progress_of(%(run_id)s, %(generation)s, %(known)s, %(known_at)s)::text AS progress;
