-- Queries for people and callers.

-- name: run
SELECT run.*, agno.inflate(run.content) AS answer FROM agno.run WHERE run.id = %(run_id)s;

-- name: runs
-- The newest first, with the beginning of the input. A condition whose parameter is NULL is left out, so that each list has a plan of
-- its own. Stuck: nothing has begun or ended for `quiet_s`, nothing runs, and nothing waits for a person, a timer or another run.
SELECT run.*, agno.inflate(run.content) AS answer, left(agno.inflate(m.content->'parts'->0)->>'text', 200) AS asked
FROM agno.run LEFT JOIN agno.message m ON m.run_id = run.id AND m.seq = 0
WHERE run.tenant = %(tenant)s
  AND (run.created_at, run.id) < (%(before_at)s, %(before)s::uuid)
  AND (run.created_at, run.id) > (%(after_at)s, %(after)s::uuid)
  AND run.status = %(status)s
  AND run.ended_as = %(ended_as)s
  AND (%(open)s AND run.ended_at IS NULL)
  AND (run.kind = 'background') = %(is_background)s
  AND run.kind = %(kind)s
  AND (%(roots)s AND run.parent_run_id IS NULL)
  AND run.agent = %(agent)s
  AND run.session_id = %(session_id)s
  AND run.user_id = %(user_id)s
  AND run.batch_id = %(batch_id)s::uuid
  AND (run.metadata @> %(metadata)s::jsonb AND run.metadata <> '{}')
  AND run.created_at >= %(since)s
  AND run.created_at >= clock_timestamp() - %(within)s::interval
  AND (run.paused_at IS NULL AND run.created_at < now() - make_interval(secs => %(quiet_s)s)
    AND EXISTS (SELECT FROM agno.step WHERE step.run_id = run.id OFFSET 0)
    AND NOT EXISTS (
        SELECT FROM agno.step WHERE step.run_id = run.id AND (
            step.generation = run.generation AND (
                step.status = 'running' AND step.lease_until > now() - make_interval(secs => %(quiet_s)s)
                OR step.status = 'waiting' AND step.waits_for NOT IN ('window', 'compaction') OR step.status = 'ready' AND step.not_before IS NOT NULL)
            OR step.ended_at > now() - make_interval(secs => %(quiet_s)s)
            OR step.status = 'ready' AND agno.ready_since(step) > now() - make_interval(secs => %(quiet_s)s)) OFFSET 0))
ORDER BY run.created_at DESC, run.id DESC LIMIT %(limit)s;

-- name: find_ids
-- Ids that begin or end with these hex digits, at most six. A beginning is found by the primary keys. An end, which is what lists
-- show (UUIDv7 ids of one hour share their beginning), is found among the newest rows that lists show.
SELECT DISTINCT id FROM (
    (SELECT 'run' AS kind, id FROM agno.run WHERE id BETWEEN %(first)s AND %(last)s ORDER BY id LIMIT 6)
    UNION ALL (SELECT 'step', id FROM agno.step WHERE id BETWEEN %(first)s AND %(last)s ORDER BY id LIMIT 6)
    UNION ALL (SELECT 'batch', id FROM agno.batch WHERE id BETWEEN %(first)s AND %(last)s ORDER BY id LIMIT 6)
    UNION ALL SELECT kind, id FROM (
        (SELECT 'run' AS kind, id FROM agno.run WHERE tenant = %(tenant)s ORDER BY created_at DESC LIMIT %(newest)s)
        UNION ALL (SELECT 'run', id FROM agno.run WHERE ended_as = 'failed' ORDER BY ended_at DESC LIMIT %(newest)s)
        UNION ALL (SELECT 'step', id FROM agno.step WHERE status IN ('dead', 'unknown') ORDER BY ended_at DESC LIMIT %(newest)s)
        UNION ALL (SELECT 'step', id FROM agno.step WHERE status = 'waiting' AND waits_for IN ('confirmation', 'answer', 'execution', 'resolution') ORDER BY created_at DESC LIMIT %(newest)s)
        UNION ALL (SELECT 'batch', id FROM agno.batch ORDER BY created_at DESC LIMIT %(newest)s)
    ) AS listed WHERE right(replace(id::text, '-', ''), length(%(digits)s)) = %(digits)s
) AS found WHERE kind = ANY(%(kinds)s) ORDER BY id LIMIT 6;

-- name: steps
SELECT id, run_id, key, kind, status, queue, name, seq, arrival, effect, attempt, worker, error, waits_for, expires_at, answer, child_run_id,
       not_before, created_at, sent_at, agno.ready_since(step) AS ready_at, started_at, ended_at
FROM agno.step WHERE run_id = ANY(%(run_ids)s::uuid[]) ORDER BY run_id, generation, seq, created_at, id;

-- name: tree
-- A run and those below it, level by level.
WITH RECURSIVE below AS (
    SELECT run.id, 0 AS level, 0 AS seq FROM agno.run WHERE run.id = %(run_id)s
    UNION ALL SELECT child.id, below.level + 1, step.seq FROM below JOIN agno.step ON step.run_id = below.id
        JOIN agno.run child ON child.id = step.child_run_id AND child.parent_run_id = below.id  -- a retried map names those of the one before it
)
SELECT run.*, agno.inflate(run.content) AS answer FROM below JOIN agno.run ON run.id = below.id ORDER BY below.level, below.seq, run.id LIMIT %(limit)s;

-- name: waiting
-- Steps that wait for a person or an outside system, of one run or of all, the oldest first.
SELECT step.id AS step_id, step.run_id, step.generation, step.key, step.kind, step.seq, step.arrival, step.attempt, step.name, step.waits_for,
       step.created_at, step.expires_at,
       coalesce(step.policy, '{}') AS policy, agno.inflate(step.call) AS call, step.error, run.agent
FROM agno.step, LATERAL (  -- OFFSET 0 forces lookups by key, and the index gives the order, also where statistics are out of date
    SELECT agent FROM agno.run WHERE id = step.run_id AND generation = step.generation AND ended_at IS NULL OFFSET 0) AS run
WHERE step.status = 'waiting' AND step.waits_for IN ('confirmation', 'answer', 'execution', 'resolution')
  AND (%(run_id)s::uuid IS NULL OR step.run_id = %(run_id)s::uuid) AND (%(step_id)s::uuid IS NULL OR step.id = %(step_id)s::uuid)
ORDER BY step.created_at, step.seq LIMIT %(limit)s;

-- name: call
SELECT agno.inflate(call) AS call FROM agno.step WHERE id = %(step_id)s;

-- name: record
-- JSON that the last turn of a program stored beside its answer.
SELECT agno.inflate(step.result) AS record FROM agno.run JOIN agno.step ON step.run_id = run.id AND step.generation = run.generation
WHERE run.id = %(run_id)s AND step.kind = 'turn' AND step.result IS NOT NULL ORDER BY step.seq DESC LIMIT 1;

-- name: transcript
SELECT m.seq, agno.inflate(m.content) AS content FROM agno.message m WHERE m.run_id = %(run_id)s ORDER BY m.seq;

-- name: compactions
SELECT until_seq, keeps_first, summary, tokens_before, tokens_after FROM agno.compaction WHERE run_id = %(run_id)s ORDER BY until_seq;

-- name: stored_result
SELECT agno.read_result(%(run_id)s, %(id)s) AS content;

-- name: events
-- The structural events of a run come from its rows; the first reader numbers them: see functions/events.sql.
SELECT number, event, subject::text, name, attempt, at, error, data FROM agno.read_events(%(run_id)s, %(after)s);

-- name: follow
-- The status and the new events of several runs; none of the events where `after` is negative. The statuses are read before all events.
-- `read_events` locks each run until the end of the statement: in the order of the ids, for all readers.
SELECT asked.place, asked.status, found.number, found.event, found.subject::text, found.name, found.attempt, found.at, found.error, found.data
FROM (SELECT given.id, given.after, given.place, run.status
      FROM unnest(%(ids)s::uuid[], %(after)s::int[]) WITH ORDINALITY AS given (id, after, place) JOIN agno.run ON run.id = given.id
      ORDER BY given.id) AS asked
LEFT JOIN LATERAL (SELECT * FROM agno.read_events(asked.id, asked.after) WHERE asked.after >= 0) AS found ON true;

-- name: queues
-- The ready steps of each queue, and the time since when the oldest has waited.
SELECT queue, count(*) AS ready, min(agno.ready_since(step)) AS oldest FROM agno.step WHERE status = 'ready' AND not_before IS NULL GROUP BY queue;

-- name: returned
-- Steps that workers returned, by their error: what they lack is an agent, or they raised before the step began.
SELECT returned.error->>'type' AS type, min(returned.error->>'message') AS message, run.agent, returned.queue, count(*) AS count,
       min(returned.created_at) AS since, max(run.id::text) AS sample
FROM (SELECT * FROM agno.step WHERE status = 'ready' AND not_before IS NOT NULL
      UNION ALL SELECT * FROM agno.step WHERE status = 'ready' AND not_before IS NULL) AS returned JOIN agno.run ON run.id = returned.run_id
WHERE returned.error->'ids' ? 'returns' GROUP BY 1, 3, 4 ORDER BY 5 DESC;

-- name: clock
SELECT clock_timestamp() AS now;

-- name: diagnostics
-- The facts outside a run's row that explain why it has not ended: leases, delegated runs, the keeper, the agent's limits.
-- `last`: no attempt follows this lease (as in maintain.sql, exhausted).
SELECT clock_timestamp() AS now,
    (SELECT coalesce(jsonb_object_agg(step.id, jsonb_build_object('until', step.lease_until, 'last', step.attempt - step.tries >= step.max_attempts
            OR step.effect IS NOT DISTINCT FROM 'once' AND (step.policy->>'reconcile')::boolean IS NOT TRUE)), '{}')
     FROM agno.step WHERE step.run_id = asked.id AND step.status = 'running') AS leases,
    (SELECT coalesce(jsonb_agg(jsonb_build_object('id', child.id, 'agent', child.agent, 'status', child.status) ORDER BY child.id), '[]')
     FROM agno.step JOIN agno.run child ON child.id = step.child_run_id WHERE step.run_id = asked.id) AS children,
    (SELECT until FROM agno.meta WHERE key = 'keeper') AS keeper_until,
    (SELECT definition.content->'limits' FROM agno.run JOIN agno.definition ON definition.sha256 = run.definition
     WHERE run.id = asked.id) AS limits,
    (SELECT jsonb_build_object('status', session.status, 'run_status', run.session_status, 'live', (SELECT live.id FROM agno.run live
        WHERE live.tenant = run.tenant AND live.session_id = run.session_id AND live.session_status = 'live' AND live.ended_at IS NULL), 'before', (
        SELECT count(*) FROM agno.run other WHERE other.tenant = run.tenant AND other.session_id = run.session_id
          AND other.session_status = 'waiting' AND other.ended_at IS NULL AND other.session_position < run.session_position))
     FROM agno.run JOIN agno.session ON session.tenant = run.tenant AND session.id = run.session_id WHERE run.id = asked.id) AS session
FROM (VALUES (%(run_id)s::uuid)) AS asked (id);

-- name: keeper
SELECT clock_timestamp() AS now, (SELECT until FROM agno.meta WHERE key = 'keeper') AS until;

-- name: stuck
-- Work that makes no progress: its number, the time since when, and one id. Not stuck are steps with a timer, steps of paused runs,
-- recent questions to people and recent waits for a signal, signals with a time limit, runs without any step (they end when another run ends), and slow steps. OFFSET 0 forces lookups by
-- key: a join would read all past steps.
SELECT * FROM (
    SELECT 'no_step' AS what, '' AS queue, count(*) AS count, min(run.created_at) AS since, max(run.id::text) AS sample
    FROM agno.run WHERE run.ended_at IS NULL
      AND (id, generation) NOT IN (  -- read from the indexes of open steps, and hashed
          SELECT run_id, generation FROM agno.step WHERE status = 'ready' AND not_before IS NULL
          UNION ALL SELECT run_id, generation FROM agno.step WHERE status = 'ready' AND not_before IS NOT NULL
          UNION ALL SELECT run_id, generation FROM agno.step WHERE status IN ('running', 'waiting'))
      AND EXISTS (SELECT FROM agno.step WHERE step.run_id = run.id OFFSET 0)
      AND NOT EXISTS (  -- between two steps of an ingestion the keeper may be about to schedule the next one
          SELECT FROM agno.step WHERE step.run_id = run.id AND step.ended_at > now() - make_interval(secs => %(overdue_s)s) OFFSET 0)
    UNION ALL
    SELECT 'unclaimed', step.queue, count(*), min(agno.ready_since(step)), max(step.run_id::text)
    FROM agno.step JOIN agno.run ON run.id = step.run_id
    WHERE step.status = 'ready' AND step.not_before IS NULL AND run.paused_at IS NULL
      AND agno.ready_since(step) < now() - make_interval(secs => %(unclaimed_s)s)
    GROUP BY step.queue
    UNION ALL
    SELECT 'lease', '', count(*), min(lease_until), max(run_id::text)
    FROM agno.step WHERE status = 'running' AND coalesce(lease_until, expires_at) < now() - make_interval(secs => %(overdue_s)s)
    UNION ALL
    SELECT 'outbox', '', count(*), min(due_at), NULL FROM agno.outbox WHERE due_at < now() - make_interval(secs => %(overdue_s)s)
    UNION ALL
    SELECT 'person', '', count(*), min(step.created_at), max(step.id::text)
    FROM agno.step, LATERAL (
        SELECT FROM agno.run WHERE id = step.run_id AND generation = step.generation AND ended_at IS NULL OFFSET 0) AS run
    WHERE step.status = 'waiting' AND step.waits_for IN ('confirmation', 'answer', 'execution', 'resolution')
      AND step.created_at < now() - make_interval(secs => %(person_s)s)
    UNION ALL
    SELECT 'signal', '', count(*), min(step.created_at), max(step.run_id::text)
    FROM agno.step, LATERAL (
        SELECT FROM agno.run WHERE id = step.run_id AND generation = step.generation AND ended_at IS NULL OFFSET 0) AS run
    WHERE step.status = 'waiting' AND step.waits_for = 'signal' AND step.expires_at IS NULL
      AND step.created_at < now() - make_interval(secs => %(person_s)s)
    UNION ALL
    (WITH abandoned AS (
        SELECT tenant, kind, owner, count(*) AS items, min(created_at) AS since FROM agno.background_item item
        WHERE NOT EXISTS (SELECT FROM agno.background b WHERE (b.tenant, b.kind, b.owner) = (item.tenant, item.kind, item.owner))
        GROUP BY 1, 2, 3
    )
    SELECT 'background', '', coalesce(sum(items), 0)::bigint, min(since), (
        SELECT run.id::text FROM (SELECT * FROM abandoned ORDER BY since LIMIT 1) AS oldest JOIN agno.run ON run.tenant = oldest.tenant
            AND run.ended_as = 'failed' AND run.kind = 'background' AND run.metadata @> jsonb_build_object('kind', oldest.kind, 'owner', oldest.owner)
        ORDER BY run.ended_at DESC LIMIT 1)
    FROM abandoned)
) AS found WHERE count > 0 ORDER BY what, queue;
