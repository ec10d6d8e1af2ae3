-- Agents by name, as workers register them when they start.

-- name: register
INSERT INTO agno.agent AS known (tenant, name, kind, description, queue, definition, tools)
SELECT %(tenant)s, a.name, a.kind, a.description, a.queue, a.definition, a.tools
FROM jsonb_to_recordset(%(agents)s) AS a (name text, kind text, description text, queue text, definition jsonb, tools jsonb)
ON CONFLICT (tenant, name) DO UPDATE SET kind = excluded.kind, description = excluded.description, queue = excluded.queue,
    definition = excluded.definition, tools = excluded.tools, seen_at = clock_timestamp();

-- name: all
SELECT name, kind, description, queue, definition, tools, seen_at FROM agno.agent WHERE tenant = %(tenant)s ORDER BY name;
