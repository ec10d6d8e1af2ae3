-- The histories of runs, and the rows that history tools of agents read. Each statement takes its user, its agent and its session from the
-- row of the run that asks.

-- name: history
SELECT recipe, past FROM agno.history_of(%(run_id)s, %(options)s, %(exchanges)s, %(older)s, %(max_octets)s);

-- name: exchanges
-- The last runs; fewer if they are larger than agno.past_runs reads in any case.
SELECT run_id AS id, at, status, reason, error, messages FROM agno.past_runs(%(run_id)s, false, %(runs)s, %(runs)s, 0);

-- name: asker
SELECT tenant, user_id, agent, session_id FROM agno.run WHERE id = %(run_id)s;

-- name: calls
-- The newest ended calls of a tool, or of all tools, with the number of calls and of those that worked: of the last runs of the same user and agent,
-- or of the session where the run has no user. The lists of runs are read in the order of their indexes.
WITH own AS (SELECT * FROM agno.run WHERE id = %(run_id)s),
runs AS (
    (SELECT r.id, r.agent FROM own JOIN agno.run r ON r.tenant = own.tenant AND r.user_id = own.user_id AND r.rolled_back_at IS NULL
     WHERE r.created_at > clock_timestamp() - make_interval(days => %(days)s) ORDER BY r.created_at DESC LIMIT %(runs)s)
    UNION ALL
    (SELECT r.id, r.agent FROM own JOIN agno.run r ON r.tenant = own.tenant AND r.session_id = own.session_id
     WHERE own.user_id IS NULL AND r.user_id IS NULL AND r.rolled_back_at IS NULL AND r.created_at > clock_timestamp() - make_interval(days => %(days)s)
     ORDER BY r.created_at DESC LIMIT %(runs)s)
),
calls AS (
    SELECT s.*, count(*) OVER () AS calls, count(*) FILTER (WHERE s.status = 'done' AND s.error IS NULL) OVER () AS worked
    FROM own, runs JOIN agno.step s ON s.run_id = runs.id
    WHERE runs.agent = own.agent AND s.kind = 'tool' AND s.ended_at IS NOT NULL AND (%(tool)s::text IS NULL OR s.name = %(tool)s)
)
SELECT c.name, c.ended_at AS at, agno.inflate(c.call)->>'arguments' AS arguments, c.error->>'message' AS error, c.calls, c.worked,
       extract(epoch FROM c.ended_at - c.started_at)::float8 AS seconds, agno.inflate(m.content)->'parts'->0->>'content' AS result
FROM (SELECT * FROM calls ORDER BY ended_at DESC LIMIT %(limit)s) c LEFT JOIN agno.message m ON m.run_id = c.run_id AND m.seq = c.seq
ORDER BY c.ended_at DESC;
