-- Reading only: what people and callers want to know.

-- name: run
SELECT run.*, agno.inflate(run.content) AS answer FROM agno.run WHERE run.id = %(run_id)s;

-- name: runs
-- The newest first, with the beginning of what was asked.
SELECT run.*, agno.inflate(run.content) AS answer, left(agno.inflate(m.content->'parts'->0)->>'text', 200) AS asked
FROM agno.run LEFT JOIN agno.message m ON m.run_id = run.id AND m.seq = 0
WHERE (%(status)s::text IS NULL OR run.status = %(status)s) AND (%(agent)s::text IS NULL OR run.agent = %(agent)s)
  AND (%(session_id)s::text IS NULL OR run.session_id = %(session_id)s)
ORDER BY run.created_at DESC LIMIT %(limit)s;

-- name: steps
SELECT id, run_id, key, kind, status, queue, name, attempt, worker, error, not_before, created_at, sent_at, started_at, ended_at
FROM agno.step WHERE run_id = %(run_id)s ORDER BY created_at, seq, id;

-- name: transcript
SELECT m.seq, agno.inflate(m.content) AS content FROM agno.message m WHERE m.run_id = %(run_id)s ORDER BY m.seq;

-- name: events
-- The structural events of a run are its rows: no second record that could disagree with the first. A step keeps the
-- error of a worker that died in it, though a later attempt brought it to a good end.
SELECT * FROM (
    SELECT 'RunStarted' AS event, run.id::text AS subject, '' AS name, 0 AS attempt, run.started_at AS at, NULL::jsonb AS error
    FROM agno.run WHERE id = %(run_id)s AND started_at IS NOT NULL
    UNION ALL
    SELECT CASE kind WHEN 'tool' THEN 'ToolCallStarted' ELSE 'ModelCallStarted' END, id::text, name, attempt, started_at, NULL
    FROM agno.step WHERE run_id = %(run_id)s AND started_at IS NOT NULL
    UNION ALL
    SELECT CASE WHEN kind = 'tool' AND status = 'done' AND (error IS NULL OR error @> '{"type": "LeaseExpired"}') THEN 'ToolCallCompleted'
                WHEN kind = 'tool' THEN 'ToolCallError'
                WHEN status = 'done' THEN 'ModelCallCompleted' ELSE 'ModelCallError' END, id::text, name, attempt, ended_at, error
    FROM agno.step WHERE run_id = %(run_id)s AND ended_at IS NOT NULL AND status <> 'cancelled'
    UNION ALL
    SELECT CASE status WHEN 'done' THEN 'RunCompleted' WHEN 'failed' THEN 'RunError' ELSE 'RunCancelled' END, id::text, '', 0,
           ended_at, error
    FROM agno.run WHERE id = %(run_id)s AND ended_at IS NOT NULL
) AS happened ORDER BY at, event DESC;

-- name: queues
-- What waits in each queue, and since when.
SELECT queue, count(*) AS ready, min(sent_at) AS oldest FROM agno.step WHERE status = 'ready' AND not_before IS NULL GROUP BY queue;

-- name: clock
SELECT clock_timestamp() AS now;
