-- Dead letters: failed runs, and tool calls that ended without a result (`dead`) or with an unknown outcome (`unknown`).
-- A dead turn is not a letter of its own: it failed its run. `within_s` counts back from now.

-- name: groups
-- Grouped by error: every word with a digit in it (ids, numbers, names of workers) is taken out of the message.
SELECT letter.status, letter.agent, letter.tool, cause.type, cause.message, count(*) AS letters, max(letter.ended_at) AS newest,
       max(letter.id::text) AS sample
FROM (
    SELECT run.id, run.status, run.agent, 'turn' AS tool, run.error, run.ended_at FROM agno.run WHERE run.ended_as = 'failed'
    UNION ALL
    SELECT step.id, step.status, run.agent, step.name, step.error, step.ended_at
    FROM agno.step JOIN agno.run ON run.id = step.run_id
    WHERE step.status IN ('dead', 'unknown') AND step.kind IN ('tool', 'delegate')
) AS letter,
LATERAL (SELECT coalesce(letter.error->>'type', '') AS type,
    left(regexp_replace(left(letter.error->>'message', 1000), '[[:alnum:]_@#-]*[0-9][[:alnum:]_@#-]*', '…', 'g'), 300) AS message) AS cause
WHERE (%(agent)s::text IS NULL OR letter.agent = %(agent)s) AND (%(tool)s::text IS NULL OR letter.tool = %(tool)s)
  AND (%(error)s::text IS NULL OR cause.type = %(error)s)
  AND letter.ended_at > coalesce(now() - make_interval(secs => %(within_s)s::float8), '-infinity')
GROUP BY 1, 2, 3, 4, 5 ORDER BY letters DESC, newest DESC LIMIT %(limit)s;

-- name: letter
-- A run or a step, dead or not.
SELECT run.id, run.id AS run_id, run.agent, 'turn' AS tool, '' AS key, run.status, run.status AS run_status, run.reason, run.error,
       run.ended_at, run.parent_run_id, NULL AS call
FROM agno.run WHERE run.id = %(id)s
UNION ALL
SELECT step.id, run.id, run.agent, CASE step.kind WHEN 'turn' THEN 'turn' ELSE step.name END, step.key, step.status, run.status, NULL,
       step.error, step.ended_at, run.parent_run_id, agno.inflate(step.call)->>'arguments'
FROM agno.step JOIN agno.run ON run.id = step.run_id WHERE step.id = %(id)s;

-- name: count
-- Failed runs that can be retried, and failed runs that another run delegated: their parent already has the failure as a result. A run
-- without a turn stands for another run and is not counted.
SELECT count(*) FILTER (WHERE parent_run_id IS NULL) AS runs, count(parent_run_id) AS delegated
FROM agno.run
WHERE ended_as = 'failed' AND EXISTS (SELECT FROM agno.step WHERE step.run_id = run.id AND step.kind IN ('turn', 'background')) AND (%(agent)s::text IS NULL OR agent = %(agent)s) AND (%(tool)s::text IS NULL OR %(tool)s = 'turn')
  AND (%(error)s::text IS NULL OR coalesce(error->>'type', '') = %(error)s)
  AND ended_at > coalesce(now() - make_interval(secs => %(within_s)s::float8), '-infinity');

-- name: failed
-- A page of those runs, the oldest first, after a place in that order. Runs that failed after `until` are left out, so that a run
-- that is retried and fails again is not returned twice.
SELECT id, ended_at FROM agno.run
WHERE ended_as = 'failed' AND parent_run_id IS NULL AND EXISTS (SELECT FROM agno.step WHERE step.run_id = run.id AND step.kind IN ('turn', 'background')) AND ended_at <= %(until)s::timestamptz
  AND ended_at >= coalesce(%(after)s::timestamptz, '-infinity') AND (ended_at, id) > (coalesce(%(after)s::timestamptz, '-infinity'), %(after_id)s::uuid)
  AND (%(agent)s::text IS NULL OR agent = %(agent)s) AND (%(tool)s::text IS NULL OR %(tool)s = 'turn')
  AND (%(error)s::text IS NULL OR coalesce(error->>'type', '') = %(error)s)
  AND ended_at > coalesce(%(until)s::timestamptz - make_interval(secs => %(within_s)s::float8), '-infinity')
ORDER BY ended_at, id LIMIT %(limit)s;
