-- Limits of a whole tree of runs; see functions/budget.sql.

-- name: hold
SELECT agno.hold_budget(%(step_id)s::uuid, %(limits)s, %(tokens)s::bigint, %(cost_usd)s::numeric) AS met;

-- name: put_off
-- Release a step until other calls of its tree have ended: this does not count as an attempt.
UPDATE agno.step SET status = 'ready', lease_until = NULL, sent_at = NULL, max_attempts = max_attempts + 1, error = %(error)s,
    not_before = least(clock_timestamp() + make_interval(secs => %(delay_s)s), (SELECT deadline_at FROM agno.run WHERE id = run_id))
WHERE id = %(step_id)s AND status = 'running' AND attempt = %(attempt)s;

-- name: tree_usage
-- The sums over a run and all runs below it.
SELECT count(*) AS runs, count(*) FILTER (WHERE run.ended_at IS NULL) AS open, coalesce(sum(run.input_tokens), 0)::bigint AS input_tokens,
    coalesce(sum(run.output_tokens), 0)::bigint AS output_tokens, coalesce(sum(run.cached_tokens), 0)::bigint AS cached_tokens,
    coalesce(sum(run.cache_write_tokens), 0)::bigint AS cache_write_tokens, coalesce(sum(run.reasoning_tokens), 0)::bigint AS reasoning_tokens,
    coalesce(sum(run.cost_usd), 0)::float8 AS cost_usd
FROM agno.run WHERE run.id = ANY((SELECT agno.family_of(%(run_id)s))::uuid[]);
