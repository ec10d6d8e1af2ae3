-- The context of runs: values that are decided once a run, values that runs share until they are old, and who may see which.

-- name: begin
-- The context that the run has already, if its first turn began before, and the categories that its user denied.
SELECT (SELECT value FROM agno.run_context WHERE run_id = %(run_id)s AND key = %(context)s) AS kept,
       ARRAY(SELECT category FROM agno.consent WHERE tenant = %(tenant)s AND user_id = %(user_id)s AND NOT allowed) AS denied;

-- name: take
-- Return shared values, each with whether it is fresh. A value that is old or missing is claimed for `fetch_s`: the caller fetches it, and others
-- do not meanwhile. The first read leaves fresh rows without a lock.
WITH asked AS (
    SELECT a.*, v.value, v.expires_at > statement_timestamp() AS is_fresh
    FROM jsonb_to_recordset(%(asked)s) AS a (scope text, owner text, agent text, key text, fetch_s float8)
    LEFT JOIN agno.context_value v ON v.tenant = %(tenant)s AND v.scope = a.scope AND v.owner = a.owner AND v.agent = a.agent AND v.key = a.key
),
claimed AS (
    INSERT INTO agno.context_value AS v (tenant, scope, owner, agent, key, fetching_until)
    SELECT %(tenant)s, scope, owner, agent, key, clock_timestamp() + make_interval(secs => fetch_s) FROM asked WHERE is_fresh IS NOT TRUE
    ORDER BY scope, owner, agent, key
    ON CONFLICT (tenant, scope, owner, agent, key) DO UPDATE SET fetching_until = excluded.fetching_until
    WHERE coalesce(v.expires_at, '-infinity') <= clock_timestamp() AND coalesce(v.fetching_until, '-infinity') <= clock_timestamp()
    RETURNING v.key
)
SELECT a.key, a.value, a.is_fresh IS TRUE AS is_fresh, c.key IS NOT NULL AS is_mine FROM asked a LEFT JOIN claimed c USING (key);

-- name: put
-- Store fetched values. After a fetch that failed the old value stays, and nobody fetches it again for `pause_s`.
UPDATE agno.context_value v SET
    value = CASE WHEN f.has_failed THEN v.value ELSE f.value END,
    expires_at = CASE WHEN f.has_failed THEN v.expires_at ELSE clock_timestamp() + make_interval(secs => f.ttl_s) END,
    fetching_until = CASE WHEN f.has_failed THEN clock_timestamp() + make_interval(secs => %(pause_s)s) END
FROM (SELECT * FROM jsonb_to_recordset(%(fetched)s) AS f (scope text, owner text, agent text, key text, value jsonb, ttl_s float8, has_failed boolean)
      ORDER BY scope, owner, agent, key) f
WHERE v.tenant = %(tenant)s AND v.scope = f.scope AND v.owner = f.owner AND v.agent = f.agent AND v.key = f.key;

-- name: keep
-- Keep the context with the run, and record each use; the first caller wins. No row: another one was first, see `begin`.
WITH kept AS (
    INSERT INTO agno.run_context (run_id, key, value) VALUES (%(run_id)s, %(context)s, %(value)s) ON CONFLICT DO NOTHING RETURNING value
),
used AS (
    INSERT INTO agno.context_access (tenant, run_id, user_id, key, source, category, outcome, bytes, from_cache)
    SELECT %(tenant)s, %(run_id)s, %(user_id)s, u.key, u.source, u.category, u.outcome, u.bytes, u.from_cache
    FROM kept, jsonb_to_recordset(%(uses)s) AS u (key text, source text, category text, outcome text, bytes int, from_cache boolean)
)
SELECT value FROM kept;

-- name: of_run
SELECT value FROM agno.run_context WHERE run_id = %(run_id)s AND key = %(context)s;

-- name: seen
-- The values of a run, also of the agents that have taken it over.
SELECT value->'facts' AS facts FROM agno.run_context WHERE run_id = %(run_id)s AND (key = 'context' OR key LIKE 'context:%%') ORDER BY key;

-- name: accesses
-- Uses of context, the newest first: of a run, or of a user.
SELECT id, run_id::text, user_id, key, source, category, outcome, bytes, from_cache, at FROM agno.context_access
WHERE tenant = %(tenant)s AND (%(run_id)s::uuid IS NULL OR run_id = %(run_id)s::uuid) AND (%(user_id)s::text IS NULL OR user_id = %(user_id)s::text)
  AND (%(before)s::bigint IS NULL OR id < %(before)s::bigint)
ORDER BY id DESC LIMIT %(limit)s;

-- name: allow
-- Store what a user allows or denies; a repetition changes nothing.
INSERT INTO agno.consent AS c (tenant, user_id, category, allowed) VALUES (%(tenant)s, %(user_id)s, %(category)s, %(allowed)s)
ON CONFLICT (tenant, user_id, category) DO UPDATE SET allowed = excluded.allowed, at = clock_timestamp() WHERE c.allowed <> excluded.allowed;

-- name: consents
SELECT category, allowed FROM agno.consent WHERE tenant = %(tenant)s AND user_id = %(user_id)s ORDER BY category;
