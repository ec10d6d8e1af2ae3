-- Agents by name, as workers register them when they start.

-- name: register
-- Steps that other workers returned, since they do not know these agents, need wait no longer.
WITH asked AS (
    SELECT a.* FROM jsonb_to_recordset(%(agents)s) AS a (name text, kind text, description text, queue text, background_queue text, definition jsonb, tools jsonb)
),
due AS (
    SELECT step.id FROM agno.step JOIN agno.run ON run.id = step.run_id JOIN asked ON asked.name = run.agent
    WHERE run.tenant = %(tenant)s AND step.status = 'ready' AND step.not_before > clock_timestamp() AND step.error->>'type' = 'UnknownAgent'
    FOR UPDATE OF step SKIP LOCKED
),
woken AS (UPDATE agno.step SET not_before = clock_timestamp() FROM due WHERE step.id = due.id)
INSERT INTO agno.agent AS known (tenant, name, kind, description, queue, background_queue, definition, tools)
SELECT %(tenant)s, a.name, a.kind, a.description, a.queue, a.background_queue, a.definition, a.tools FROM asked a
ON CONFLICT (tenant, name) DO UPDATE SET kind = excluded.kind, description = excluded.description, queue = excluded.queue,
    background_queue = excluded.background_queue, definition = excluded.definition, tools = excluded.tools, seen_at = clock_timestamp();

-- name: all
SELECT name, kind, description, queue, background_queue, definition, tools, seen_at FROM agno.agent WHERE tenant = %(tenant)s ORDER BY name;
