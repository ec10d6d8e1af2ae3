-- The events of a run, numbered when they are first read.

-- Return the events of a run from its rows. A step stores the error of a worker that died in it, also when a later attempt succeeded.
CREATE OR REPLACE FUNCTION agno.happened(of_run uuid)
RETURNS TABLE (event text, subject uuid, attempt int, name text, error jsonb, at timestamptz) LANGUAGE sql STABLE AS $$
    SELECT 'RunStarted', id, 0, '', NULL::jsonb, started_at FROM agno.run WHERE id = $1 AND started_at IS NOT NULL
    UNION ALL
    SELECT CASE kind WHEN 'turn' THEN 'ModelCallStarted' ELSE 'ToolCallStarted' END, id, attempt, name, NULL, started_at
    FROM agno.step WHERE run_id = $1 AND started_at IS NOT NULL AND kind IN ('turn', 'tool', 'delegate')
    UNION ALL
    SELECT 'CompactionStarted', id, attempt, name, NULL, started_at FROM agno.step WHERE run_id = $1 AND started_at IS NOT NULL AND kind = 'compact'
    UNION ALL
    SELECT CASE WHEN error IS NULL OR error->>'type' = 'LeaseExpired' THEN 'CompactionCompleted' ELSE 'CompactionError' END, id, attempt, name, error, ended_at
    FROM agno.step WHERE run_id = $1 AND ended_at IS NOT NULL AND status <> 'cancelled' AND kind = 'compact'
    UNION ALL
    SELECT 'ToolCallWaiting', id, 0, CASE kind WHEN 'wait' THEN coalesce(nullif(name, ''), key) ELSE name END, NULL, created_at FROM agno.step
    WHERE run_id = $1 AND kind IN ('tool', 'delegate', 'wait') AND (kind = 'wait' OR waits_for IS NOT NULL OR answer IS NOT NULL OR child_run_id IS NOT NULL)
    UNION ALL
    SELECT 'ToolCallAnswered', id, 0, CASE kind WHEN 'wait' THEN coalesce(nullif(name, ''), key) ELSE name END, NULL, (answer->>'at')::timestamptz FROM agno.step WHERE run_id = $1 AND answer ? 'at'
    UNION ALL
    SELECT CASE WHEN kind <> 'turn' AND status = 'done' AND (error IS NULL OR error->>'type' = ANY('{LeaseExpired,OutcomeUnknown}')) THEN 'ToolCallCompleted'
                WHEN kind <> 'turn' THEN 'ToolCallError'
                WHEN status = 'done' THEN 'ModelCallCompleted' ELSE 'ModelCallError' END, id, attempt,
        CASE kind WHEN 'wait' THEN coalesce(nullif(name, ''), key) ELSE name END, error, ended_at
    FROM agno.step WHERE run_id = $1 AND ended_at IS NOT NULL AND status <> 'cancelled' AND kind IN ('turn', 'tool', 'delegate', 'wait')
    UNION ALL
    SELECT 'MessageReceived', id, 0, '', NULL, created_at FROM agno.steer WHERE run_id = $1
    UNION ALL
    SELECT 'MessageSteered', t.id, s.generation, s.key, NULL, t.decided_at FROM agno.steer t JOIN agno.step s ON s.id = t.step_id WHERE t.run_id = $1
    UNION ALL
    SELECT 'MessageReturned', id, 0, next_run_id::text, NULL, decided_at FROM agno.steer WHERE run_id = $1 AND status = 'returned'
    UNION ALL
    SELECT CASE status WHEN 'done' THEN 'RunCompleted' WHEN 'failed' THEN 'RunError' ELSE 'RunCancelled' END, id, generation, '', error, ended_at
    FROM agno.run WHERE id = $1 AND ended_at IS NOT NULL;
$$;

-- Return the events of a run after number `after_number`. An event gets its number when it is first read, and keeps it: a reader that has
-- seen n gets exactly n+1, n+2 ... from any process. A run without readers costs nothing. A call has one end: a retry of the run marks its
-- last turn dead, which is not a second end.
--
-- A run keeps its newest 500 reports, and its first 5,000 are events.
CREATE OR REPLACE FUNCTION agno.read_events(of_run uuid, after_number int) RETURNS SETOF agno.run_event LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(of_run::text, 1701));
    INSERT INTO agno.run_event (run_id, number, event, subject, attempt, name, error, at, data)
    SELECT of_run, last.number + row_number() OVER (ORDER BY h.at, h.event DESC, h.subject), h.event, h.subject, h.attempt, h.name, h.error, h.at, h.data
    FROM (SELECT *, NULL::jsonb AS data FROM agno.happened(of_run) UNION ALL SELECT * FROM agno.reported(of_run)) h,
        (SELECT coalesce(max(e.number), 0) AS number FROM agno.run_event e WHERE e.run_id = of_run) last
    WHERE NOT EXISTS (SELECT FROM agno.run_event e
                      WHERE e.run_id = of_run AND e.subject = h.subject AND e.attempt = h.attempt
                        AND replace(e.event, 'Error', 'Completed') = replace(h.event, 'Error', 'Completed'));
    RETURN QUERY SELECT e.* FROM agno.run_event e WHERE e.run_id = of_run AND e.number > after_number ORDER BY e.number;
END $$;

-- Store what a call that is under way reports of its progress, for the events of its run and of other runs above it. It waits for no lock of a run.
CREATE OR REPLACE FUNCTION agno.report(of_step uuid, in_attempt int, above uuid[], text text, fraction float8) RETURNS void LANGUAGE sql
SET lock_timeout = '200ms' AS $$
    WITH added AS (
        INSERT INTO agno.report (id, run_id, number, from_run_id, step_id, text, fraction)
        SELECT agno.uuid7(), r.id, coalesce((SELECT max(e.number) FROM agno.report e WHERE e.run_id = r.id), 0) + 1, s.run_id, s.id, $4, $5
        FROM agno.step s JOIN agno.run r ON r.id = s.run_id OR r.id = ANY($3)
        WHERE s.id = $1 AND s.status = 'running' AND s.attempt = $2 AND r.ended_at IS NULL
        RETURNING run_id, number
    )
    DELETE FROM agno.report e USING added WHERE e.run_id = added.run_id AND e.number <= added.number - 500;
$$;

-- Return the reports among the events of a run.
CREATE OR REPLACE FUNCTION agno.reported(of_run uuid)
RETURNS TABLE (event text, subject uuid, attempt int, name text, error jsonb, at timestamptz, data jsonb) LANGUAGE sql STABLE AS $$
    SELECT 'Report', e.id, 0, coalesce(s.name, ''), NULL::jsonb, e.at, jsonb_strip_nulls(jsonb_build_object('text', e.text, 'fraction', e.fraction,
        'run_id', e.from_run_id, 'agent', coalesce(s.policy->>'agent', r.agent), 'step_id', e.step_id))
    FROM agno.report e LEFT JOIN agno.step s ON s.id = e.step_id LEFT JOIN agno.run r ON r.id = e.from_run_id
    WHERE e.run_id = $1 AND e.number <= 5000;
$$;
