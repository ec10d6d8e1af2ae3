-- Teams and workflows.

-- The same order of locks as in workers and clients, see 0004.
LOCK TABLE agno.run IN EXCLUSIVE MODE;

ALTER TABLE agno.run ADD COLUMN lineage JSONB;
ALTER TABLE agno.step ADD COLUMN arrival INTEGER;
ALTER TABLE agno.step ADD COLUMN result JSONB;
CREATE INDEX step_arrival ON agno.step (run_id, generation, arrival) WHERE arrival IS NOT NULL;
DROP INDEX agno.step_person;
CREATE INDEX step_person ON agno.step (created_at, seq) WHERE status = 'waiting' AND waits_for IN ('confirmation', 'answer', 'execution', 'resolution');
-- NOT VALID: the rows are not read, since those that were written under the old constraints keep the new ones.
ALTER TABLE agno.step DROP CONSTRAINT step_kind, DROP CONSTRAINT step_waits_for,
    ADD CONSTRAINT step_kind CHECK (kind IN ('turn', 'tool', 'delegate', 'scan', 'ingest', 'embed', 'finalize', 'compact', 'background', 'wait')) NOT VALID,
    ADD CONSTRAINT step_waits_for CHECK (waits_for IN ('confirmation', 'answer', 'execution', 'resolution', 'run', 'window', 'session', 'compaction', 'timer', 'signal')) NOT VALID,
    ADD CONSTRAINT step_wait CHECK (kind <> 'wait' OR status <> 'ready' AND status <> 'running') NOT VALID;

CREATE TABLE agno.signal (
	id UUID NOT NULL, 
	run_id UUID NOT NULL, 
	name TEXT NOT NULL, 
	payload JSONB, 
	key TEXT, 
	step_id UUID, 
	sent_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL, 
	PRIMARY KEY (id), 
	CONSTRAINT signal_key UNIQUE (run_id, name, key), 
	FOREIGN KEY(run_id) REFERENCES agno.run (id) ON DELETE CASCADE
);
CREATE INDEX signal_kept ON agno.signal (run_id, name, sent_at) WHERE step_id IS NULL;

CREATE TABLE agno.report (
	id UUID NOT NULL, 
	run_id UUID NOT NULL, 
	number INTEGER NOT NULL, 
	from_run_id UUID NOT NULL, 
	step_id UUID NOT NULL, 
	text TEXT NOT NULL, 
	fraction DOUBLE PRECISION, 
	at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(run_id) REFERENCES agno.run (id) ON DELETE CASCADE
);
CREATE INDEX report_run ON agno.report (run_id, number);
ALTER TABLE agno.run_event ADD COLUMN data JSONB;

CREATE TABLE agno.map_item (
	run_id UUID NOT NULL, 
	list_id UUID NOT NULL, 
	position INTEGER NOT NULL, 
	content JSONB NOT NULL, 
	PRIMARY KEY (run_id, list_id, position), 
	FOREIGN KEY(run_id) REFERENCES agno.run (id) ON DELETE CASCADE
);

CREATE TABLE agno.budget (
	run_id UUID NOT NULL, 
	tokens BIGINT, 
	cost_usd NUMERIC(14, 6), 
	used_tokens BIGINT DEFAULT '0' NOT NULL, 
	used_usd NUMERIC(14, 6) DEFAULT '0' NOT NULL, 
	PRIMARY KEY (run_id), 
	FOREIGN KEY(run_id) REFERENCES agno.run (id) ON DELETE CASCADE
);

CREATE TABLE agno.budget_hold (
	step_id UUID NOT NULL, 
	run_id UUID NOT NULL, 
	tokens BIGINT NOT NULL, 
	cost_usd NUMERIC(14, 6) NOT NULL, 
	PRIMARY KEY (step_id, run_id), 
	FOREIGN KEY(run_id) REFERENCES agno.budget (run_id) ON DELETE CASCADE
);
CREATE INDEX budget_hold_run ON agno.budget_hold (run_id);
