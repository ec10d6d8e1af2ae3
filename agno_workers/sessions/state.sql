-- Read and change state; the functions are in functions/state.sql.

-- name: read
-- All keys of an owner, by the index, in one statement, or only the one that is asked for when the owner has too many. Large values are read alone, when they are used.
WITH few AS MATERIALIZED (
    SELECT count(*) <= %(few)s AS is_whole FROM (
        SELECT FROM agno.state WHERE tenant = %(tenant)s AND scope = %(scope)s AND owner = %(owner)s ORDER BY key LIMIT %(few)s + 1) AS counted
),
found AS (
    (SELECT key, version, value FROM agno.state
    WHERE tenant = %(tenant)s AND scope = %(scope)s AND owner = %(owner)s AND (%(key)s::text IS NULL OR (SELECT is_whole FROM few))
    ORDER BY key LIMIT %(most)s)
    UNION ALL
    SELECT key, version, value FROM agno.state
    WHERE tenant = %(tenant)s AND scope = %(scope)s AND owner = %(owner)s AND key = %(key)s AND NOT (SELECT is_whole FROM few)
)
SELECT few.is_whole, s.key, s.version, s.value IS NOT NULL AS exists, small.is_read, CASE WHEN small.is_read THEN agno.inflate(s.value) END AS value
FROM few LEFT JOIN found s ON true
LEFT JOIN LATERAL (SELECT s.value IS NULL OR s.key = %(key)s OR pg_column_size(s.value) <= %(small)s AND NOT s.value ? '$blob' AS is_read) AS small ON true;

-- name: all
SELECT key, agno.inflate(value) AS value FROM agno.state
WHERE tenant = %(tenant)s AND scope = %(scope)s AND owner = %(owner)s AND value IS NOT NULL ORDER BY key LIMIT %(most)s;

-- name: one
SELECT agno.inflate(value) AS value, version, value IS NOT NULL AS exists FROM agno.state
WHERE tenant = %(tenant)s AND scope = %(scope)s AND owner = %(owner)s AND key = %(key)s;

-- name: write
SELECT value, version, value IS NOT NULL AS exists FROM agno.write_state(%(tenant)s, %(changes)s, NULL, NULL, %(actor)s);

-- name: history
-- The newest changes of a key first.
SELECT version, operation, agno.inflate(value) AS value, run_id, step_id, actor, at FROM agno.state_change
WHERE tenant = %(tenant)s AND scope = %(scope)s AND owner = %(owner)s AND key = %(key)s ORDER BY version DESC LIMIT %(limit)s;

-- name: at
SELECT key, value FROM agno.state_at(%(tenant)s, %(scope)s, %(owner)s, %(as_of)s);

-- name: end_of_run
SELECT ended_at FROM agno.run WHERE id = %(run_id)s;

-- name: restore
SELECT agno.restore_state(%(tenant)s, %(scope)s, %(owner)s, %(as_of)s, %(actor)s) AS changed;
