-- Maps; see functions/map.sql.

-- name: store
WITH stored AS (SELECT agno.store_blobs(%(blobs)s))
INSERT INTO agno.map_item (run_id, list_id, position, content)
SELECT %(run_id)s, %(list_id)s, %(first)s::int + given.place - 1, given.content
FROM stored, jsonb_array_elements(%(items)s) WITH ORDINALITY AS given (content, place);

-- name: take_over
SELECT agno.take_over_items(%(run_id)s, %(list_id)s);

-- name: page
SELECT agno.map_page(%(run_id)s, %(generation)s, %(list_id)s, %(next)s::int, %(window)s::int)::text AS page;

-- name: summary
-- `is_small`: the results have at most so many bytes; large strings, which are stored apart, are not small.
SELECT count(*) FILTER (WHERE (status = 'done' AND result IS NOT NULL) IS NOT TRUE) AS failed,
    coalesce(sum(pg_column_size(result)), 0) <= %(bytes)s AND NOT bool_or(coalesce(result @? '$.**."$blob"', false)) AS is_small
FROM agno.step WHERE run_id = %(run_id)s AND generation = %(generation)s AND arrival > 0;

-- name: results
-- The results of a part of the items, by their keys.
SELECT asked.position, step.status = 'done' AND step.result IS NOT NULL AS is_done, agno.inflate(step.result) AS value, step.error
FROM generate_series(%(first)s::int, %(last)s::int) AS asked (position), agno.run, agno.step
WHERE run.id = %(run_id)s AND step.run_id = run.id AND step.generation = run.generation AND step.key = 'item:' || asked.position AND step.ended_at IS NOT NULL
ORDER BY asked.position;
