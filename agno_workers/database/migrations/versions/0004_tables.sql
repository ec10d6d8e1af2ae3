-- Additions to the tables of 0002.

-- A string that a run has used lately is not deleted with other runs. Deleting a run finds its barriers.
ALTER TABLE agno.blob ADD COLUMN used_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL;
CREATE INDEX barrier_run ON agno.barrier (run_id) WHERE run_id IS NOT NULL;

ALTER TABLE agno.worker ADD COLUMN agents JSONB;
