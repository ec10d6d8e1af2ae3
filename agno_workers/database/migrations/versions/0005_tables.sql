-- Changes for speed.

-- The same order of locks as in workers and clients, see 0004.
LOCK TABLE agno.run IN EXCLUSIVE MODE;

-- Two indexes in place of four for open steps. Keepers of the code before use them too, as these hold the same rows. A backlog that was
-- sent already keeps its time.
ALTER TABLE agno.step ADD COLUMN resend_at TIMESTAMP WITH TIME ZONE DEFAULT now() + '00:01:00'::interval NOT NULL;
UPDATE agno.step SET resend_at = greatest(sent_at + interval '1 minute', sent_at + (sent_at - created_at))
WHERE status = 'ready' AND not_before IS NULL AND sent_at < now() - interval '1 minute';
DROP INDEX agno.step_sent, agno.step_running, agno.step_expires, agno.step_asks;
CREATE INDEX step_sent ON agno.step (queue, resend_at) WHERE status = 'ready' AND not_before IS NULL;
CREATE INDEX step_due ON agno.step (coalesce(lease_until, expires_at)) WHERE status IN ('running', 'waiting');

-- No index of a run names its status, so that its turns write no index.
ALTER TABLE agno.run ADD COLUMN ended_as TEXT;
UPDATE agno.run SET ended_as = status WHERE status = 'failed';
UPDATE agno.run SET ended_as = status WHERE status = 'cancelled';
DROP INDEX agno.run_failed, agno.run_cancelled, agno.run_canvas;
CREATE INDEX run_failed ON agno.run (ended_at) WHERE ended_as = 'failed';
CREATE INDEX run_ended_as ON agno.run (tenant, ended_as, created_at) WHERE ended_as IS NOT NULL;

-- The bands of a document in its own row, instead of sixteen rows with two indexes.
ALTER TABLE agno.document ADD COLUMN bands bigint[];

-- It returns more columns now.
DROP FUNCTION IF EXISTS agno.write_steps(uuid, int, jsonb, float8);
