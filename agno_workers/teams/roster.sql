-- The roster of a team.

-- name: busy
-- The open runs that work for a run of a team, the oldest first: the agent, its task, and what it reported last. They are found from parent to
-- child by the index of open runs.
WITH RECURSIVE busy AS (
    SELECT r.id, r.agent, r.created_at FROM agno.run r WHERE r.parent_run_id = %(run_id)s::uuid AND r.ended_at IS NULL
    UNION ALL
    SELECT r.id, r.agent, r.created_at FROM busy b JOIN agno.run r ON r.parent_run_id = b.id AND r.ended_at IS NULL
    WHERE r.lineage->'team'->>'run_id' = %(run_id)s::text
)
SELECT b.id::text AS run_id, b.agent, left(agno.inflate(m.content->'parts'->0)->>'text', 300) AS task, said.text AS report, said.fraction,
    round(extract(epoch FROM clock_timestamp() - b.created_at))::int AS for_s
FROM busy b LEFT JOIN agno.message m ON m.run_id = b.id AND m.seq = 0
LEFT JOIN LATERAL (SELECT e.text, e.fraction FROM agno.report e WHERE e.run_id = b.id ORDER BY e.number DESC LIMIT 1) AS said ON true
ORDER BY b.created_at, b.id LIMIT %(limit)s;
