-- No statement used it.
DROP INDEX IF EXISTS agno.document_sha256;

-- Words of chunks come from knowledge/words.py; the trigger chunk_words derives tsv from them. Earlier code goes on: the trigger derives
-- tsv of its rows from their text, as the expression did. Existing chunks keep their words until the next ingestion into their
-- knowledge base.
ALTER TABLE agno.chunk ALTER COLUMN tsv DROP EXPRESSION IF EXISTS;
ALTER TABLE agno.chunk ADD COLUMN words TEXT;
ALTER TABLE agno.chunk ADD COLUMN weight REAL DEFAULT '1' NOT NULL;
ALTER TABLE agno.knowledge ADD COLUMN words_version SMALLINT DEFAULT '2' NOT NULL;
UPDATE agno.knowledge SET words_version = 1;

-- Chunks without a vector are counted with the progress of an ingestion.
CREATE INDEX chunk_refused ON agno.chunk (knowledge_id) WHERE refused IS NOT NULL;

-- An idempotency key belongs to a user.
DROP INDEX agno.run_idempotency;
CREATE UNIQUE INDEX run_idempotency ON agno.run (tenant, agent, idempotency_key, coalesce(user_id, '')) WHERE idempotency_key IS NOT NULL;

-- Chords of users that wait, and the open runs of canvases, among which `leftovers` searches.
CREATE INDEX barrier_open ON agno.barrier (created_at) WHERE run_id IS NULL AND fired_at IS NULL;
CREATE INDEX run_canvas ON agno.run (id) WHERE ended_at IS NULL AND canvas IS NOT NULL;

-- Ids of tasks that were revoked: one may be a run of a canvas that is submitted later, or a task that is not due.
CREATE TABLE agno.revoked (
	task_id TEXT NOT NULL,
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	PRIMARY KEY (task_id)
);

-- Users' own tasks that workers have received and that are not due yet.
CREATE TABLE agno.delayed_task (
	id BIGINT GENERATED ALWAYS AS IDENTITY,
	task_id TEXT NOT NULL,
	queue TEXT NOT NULL,
	message JSONB NOT NULL,
	due_at TIMESTAMP WITH TIME ZONE NOT NULL,
	PRIMARY KEY (id)
);
CREATE INDEX delayed_task_due ON agno.delayed_task (due_at);

-- The calls that wait for a person, in the order in which they are shown.
CREATE INDEX IF NOT EXISTS step_person ON agno.step (created_at, seq) WHERE status = 'waiting' AND waits_for NOT IN ('run', 'window');
