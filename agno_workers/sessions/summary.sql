-- The rolling summary of a session. Locks: the session, after the run.

-- name: session
-- The summary of a session, the last position that it covers, and the last one that it may cover: before the newest `keep` runs of the
-- history (none once the session has ended), and before any run that has not ended, since a later summary would leave it out.
SELECT s.summary, s.summary_until, greatest(s.summary_until, least(
        (SELECT r.session_position - 1 FROM agno.run r WHERE r.tenant = s.tenant AND r.session_id = s.id AND r.session_position > s.summary_until
            AND r.ended_at IS NULL ORDER BY r.session_position LIMIT 1),
        coalesce((SELECT r.session_position FROM agno.run r WHERE r.tenant = s.tenant AND r.session_id = s.id
            AND r.session_position > s.summary_until AND r.rolled_back_at IS NULL AND (r.status = 'done' OR r.reason = 'interrupted')
            ORDER BY r.session_position DESC OFFSET CASE WHEN s.ended_at IS NULL THEN %(keep)s ELSE 0 END LIMIT 1), 0))) AS last
FROM agno.session s WHERE s.tenant = %(tenant)s AND s.id = %(session_id)s AND s.user_id IS NOT DISTINCT FROM %(user_id)s;

-- name: exchanges
-- The words of users in runs of a session, and the answers; without tool calls, their results and reasoning. `done` is false for an interrupted run.
SELECT r.id::text, r.session_position AS position, r.status = 'done' AS done, said.messages
FROM agno.run r, LATERAL (
    SELECT coalesce(jsonb_agg(jsonb_build_array(m.role, m.text) ORDER BY m.seq), '[]') AS messages FROM (
        SELECT m.seq, whole.content->>'role' AS role, (SELECT string_agg(left(p->>'text', %(chars)s), E'\n')
            FROM jsonb_array_elements(whole.content->'parts') p WHERE p->>'type' = 'text') AS text
        FROM agno.message m, LATERAL (SELECT agno.inflate(m.content) AS content OFFSET 0) AS whole
        WHERE m.run_id = r.id AND m.content->>'role' IS DISTINCT FROM 'tool') AS m
    WHERE m.role IN ('user', 'assistant') AND m.text ~ '\S') AS said
WHERE r.tenant = %(tenant)s AND r.session_id = %(session_id)s AND r.user_id IS NOT DISTINCT FROM %(user_id)s
  AND r.session_position > %(after)s AND r.session_position <= %(last)s
  AND r.rolled_back_at IS NULL AND (r.status = 'done' OR r.reason = 'interrupted')
ORDER BY r.session_position LIMIT %(limit)s;

-- name: hold
SELECT FROM agno.session s WHERE s.tenant = %(tenant)s AND s.id = %(session_id)s AND s.user_id IS NOT DISTINCT FROM %(user_id)s FOR NO KEY UPDATE;

-- name: write
UPDATE agno.session s SET summary = %(summary)s, summary_until = %(until)s
WHERE s.tenant = %(tenant)s AND s.id = %(session_id)s AND s.user_id IS NOT DISTINCT FROM %(user_id)s AND s.summary_until = %(after)s AND s.summary IS NOT DISTINCT FROM %(before)s
  AND NOT EXISTS (SELECT FROM agno.run r WHERE r.id = ANY(%(run_ids)s::uuid[]) AND r.rolled_back_at IS NOT NULL)
RETURNING s.id;
