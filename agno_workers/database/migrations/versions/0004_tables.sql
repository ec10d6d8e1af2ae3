-- Additions to the tables of 0002.

-- Workers and clients lock agno.run before other tables. This migration takes its locks in the same order, so that the two can't
-- deadlock. Reads of agno.run continue.
LOCK TABLE agno.run IN EXCLUSIVE MODE;

-- A string that a run has used lately is not deleted with other runs. Deleting a run finds its barriers.
ALTER TABLE agno.blob ADD COLUMN used_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL;
CREATE INDEX barrier_run ON agno.barrier (run_id) WHERE run_id IS NOT NULL;

ALTER TABLE agno.worker ADD COLUMN agents JSONB;

-- Lists of runs, the newest first, by what they are filtered by.
CREATE INDEX run_agent ON agno.run (tenant, agent, created_at);
CREATE INDEX run_user ON agno.run (tenant, user_id, created_at) WHERE user_id IS NOT NULL;
CREATE INDEX run_open ON agno.run (tenant, created_at) WHERE ended_at IS NULL;
CREATE INDEX run_cancelled ON agno.run (tenant, created_at) WHERE status = 'cancelled';
CREATE INDEX run_metadata ON agno.run USING gin (metadata jsonb_path_ops) WHERE metadata <> '{}'::jsonb;

ALTER TABLE agno.embedding_space ADD COLUMN IF NOT EXISTS error JSONB;
ALTER TABLE agno.document ADD COLUMN IF NOT EXISTS given_metadata JSONB;
ALTER TABLE agno.ingestion ADD COLUMN IF NOT EXISTS skipped JSONB NOT NULL DEFAULT '[]';
ALTER TABLE agno.ingestion ADD COLUMN IF NOT EXISTS unmatched JSONB NOT NULL DEFAULT '[]';
ALTER TABLE agno.ingest_count ADD COLUMN IF NOT EXISTS changed BIGINT NOT NULL DEFAULT '0';

ALTER TABLE agno.chunk ADD COLUMN place JSONB;

-- Delayed tasks that can't be sent are given up in the end.
ALTER TABLE agno.delayed_task ADD COLUMN IF NOT EXISTS failures integer NOT NULL DEFAULT 0;
