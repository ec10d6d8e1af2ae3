-- Counts for a monitor: one read-only statement per scrape. It reads the indexes of open and failed rows and of the last hour, never
-- the whole past.

-- name: counts
-- One row per value, with its labels. A paused run has the status `paused`; a step with a timer has the status `timer`.
WITH RECURSIVE tenant AS (  -- one index lookup per tenant
    (SELECT tenant AS name FROM agno.run ORDER BY tenant LIMIT 1)
    UNION ALL
    SELECT (SELECT run.tenant FROM agno.run WHERE run.tenant > tenant.name ORDER BY run.tenant LIMIT 1) FROM tenant WHERE tenant.name IS NOT NULL
),
open_step AS MATERIALIZED (
    SELECT run_id, kind, queue, 'ready' AS status, agno.ready_since(step) AS ready_at FROM agno.step WHERE status = 'ready' AND not_before IS NULL
    UNION ALL
    SELECT run_id, kind, queue, 'timer', NULL FROM agno.step WHERE status = 'ready' AND not_before IS NOT NULL
    UNION ALL
    SELECT run_id, kind, queue, status, NULL FROM agno.step WHERE status IN ('running', 'waiting')
),
open_run AS MATERIALIZED (
    SELECT r.* FROM (
        SELECT run_id FROM open_step
        UNION SELECT id FROM agno.run WHERE ended_at IS NULL AND kind = 'ingestion'  -- which may be between two steps
    ) AS moving,
    LATERAL (  -- OFFSET 0 forces lookups by key; a join would read all past runs
        SELECT id, left(agent, 100) AS agent, CASE WHEN paused_at IS NULL THEN status ELSE 'paused' END AS status
        FROM agno.run WHERE id = moving.run_id OFFSET 0
    ) AS r
),
ingesting AS (
    SELECT k.name, i.total, n.settled FROM open_run r JOIN agno.ingestion i ON i.run_id = r.id JOIN agno.knowledge k ON k.id = i.knowledge_id,
        LATERAL (SELECT coalesce(sum(c.documents + c.unchanged + c.duplicates + c.failed), 0) AS settled
                 FROM agno.ingest_count c WHERE c.run_id = i.run_id) AS n
)
SELECT 'open_runs' AS what, ARRAY[agent, status] AS labels, count(*)::float8 AS value FROM open_run GROUP BY agent, status
UNION ALL
SELECT 'recent_runs', ARRAY[left(agent, 100), status], count(*) FROM tenant JOIN agno.run ON run.tenant = tenant.name
WHERE created_at > now() - make_interval(secs => %(recent_s)s) GROUP BY 2
UNION ALL
SELECT 'failed_runs', ARRAY[left(agent, 100)], count(*) FROM agno.run WHERE ended_as = 'failed' GROUP BY 2
UNION ALL
SELECT 'open_steps', ARRAY[queue, kind, status], count(*) FROM open_step GROUP BY queue, kind, status
UNION ALL
SELECT 'oldest_ready', ARRAY[s.queue], greatest(0, extract(epoch FROM now() - min(s.ready_at))) FROM open_step s JOIN open_run r ON r.id = s.run_id
WHERE s.status = 'ready' AND r.status <> 'paused' GROUP BY s.queue
UNION ALL
SELECT 'expired_leases', '{}', count(*) FROM agno.step WHERE status = 'running' AND coalesce(lease_until, expires_at) < now()
UNION ALL
SELECT 'dead_calls', ARRAY[status], count(*) FROM agno.step WHERE status IN ('dead', 'unknown') AND kind IN ('tool', 'delegate') GROUP BY status
UNION ALL
SELECT 'overdue', '{}', count(*) FROM agno.outbox WHERE due_at < now()
UNION ALL
SELECT 'quarantined', ARRAY[reason], count(*) FROM agno.quarantine GROUP BY reason
UNION ALL
SELECT 'quarantined_ever', '{}', coalesce(max(last_value), 0) FROM pg_sequences WHERE schemaname = 'agno' AND sequencename = 'quarantine_id_seq'
UNION ALL
SELECT 'ingestions', ARRAY[name], count(*) FROM ingesting GROUP BY name
UNION ALL
SELECT 'documents', ARRAY[name], sum(total) FROM ingesting GROUP BY name
UNION ALL
SELECT 'settled', ARRAY[name], sum(settled) FROM ingesting GROUP BY name;
