-- Background work.

-- name: items
-- The oldest work that agents of this name were asked to do, up to the first request of another agent; see agno.request_background.
WITH asked AS (
    SELECT i.id, i.run_id, r.agent FROM agno.background_item i JOIN agno.run r ON r.id = i.run_id
    WHERE i.tenant = %(tenant)s AND i.kind = %(kind)s AND i.owner = %(owner)s
),
first AS (
    SELECT min(id) AS id FROM asked WHERE agent = %(agent)s
)
SELECT asked.id, asked.run_id::text FROM asked, first
WHERE asked.id >= first.id AND NOT EXISTS (SELECT FROM asked other WHERE other.id > first.id AND other.id < asked.id AND other.agent <> %(agent)s)
  AND asked.agent = %(agent)s
ORDER BY asked.id LIMIT %(limit)s;

-- name: take
-- Hold the run, before other locks, and delete the work that ends with it.
WITH held AS (
    SELECT FROM agno.run WHERE id = %(run_id)s FOR NO KEY UPDATE
)
DELETE FROM agno.background_item i USING held WHERE i.id = ANY(%(items)s);
