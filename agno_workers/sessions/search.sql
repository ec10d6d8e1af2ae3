-- The exchanges of runs: what the user asked, and what the agent answered. Tools and thinking are left out.

-- name: exchanges
-- A run that was rolled back is not returned. Long texts are cut.
SELECT r.id::text AS run_id, r.session_id, r.user_id, r.agent, r.created_at AS at,
    left(coalesce((SELECT string_agg(said.text, E'\n' ORDER BY m.seq) FROM agno.message m, LATERAL (
        SELECT string_agg(part->>'text', '' ORDER BY nth) AS text FROM jsonb_array_elements(agno.inflate(m.content)->'parts') WITH ORDINALITY AS p (part, nth)
        WHERE part->>'type' = 'text') said
        WHERE m.run_id = r.id AND m.content->>'role' = 'user'), ''), %(chars)s) AS asked,
    left(coalesce(answer.content #>> '{}', ''), %(chars)s) AS answered
FROM agno.run r, LATERAL (SELECT agno.inflate(r.content) AS content OFFSET 0) AS answer
WHERE r.id = ANY (%(run_ids)s::uuid[]) AND r.tenant = %(tenant)s AND r.session_id IS NOT NULL AND r.rolled_back_at IS NULL
ORDER BY array_position(%(run_ids)s::uuid[], r.id);
