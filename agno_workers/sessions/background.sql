-- Background work.

-- name: items
-- The oldest work that this agent was asked to do, up to the first request of another agent: agents have their own instructions, and work is done
-- in order.
WITH first AS (
    SELECT i.id FROM agno.background_item i JOIN agno.run r ON r.id = i.run_id
    WHERE i.tenant = %(tenant)s AND i.kind = %(kind)s AND i.owner = %(owner)s AND r.agent = %(agent)s ORDER BY i.id LIMIT 1
),
oldest AS (
    SELECT i.id, i.run_id, r.agent = %(agent)s AS is_own FROM first, agno.background_item i JOIN agno.run r ON r.id = i.run_id
    WHERE i.tenant = %(tenant)s AND i.kind = %(kind)s AND i.owner = %(owner)s AND i.id >= first.id ORDER BY i.id LIMIT %(limit)s
)
SELECT id, run_id::text FROM oldest WHERE id < coalesce((SELECT min(id) FROM oldest WHERE NOT is_own), 9223372036854775807) ORDER BY id;

-- name: take
-- Lock the run before anything else, and delete the requests that its end answers.
WITH held AS (
    SELECT FROM agno.run WHERE id = %(run_id)s FOR NO KEY UPDATE
)
DELETE FROM agno.background_item i USING held WHERE i.id = ANY(%(items)s);
