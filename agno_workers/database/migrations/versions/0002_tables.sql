-- 0001 -> 0002. Safe to run twice; everything that is added is empty, false or 0 for the code of 0001.

CREATE TABLE IF NOT EXISTS agno.definition (
	sha256 BYTEA NOT NULL, 
	content JSONB NOT NULL, 
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL, 
	PRIMARY KEY (sha256)
);
CREATE TABLE IF NOT EXISTS agno.batch (
	id UUID NOT NULL, 
	agent TEXT NOT NULL, 
	size INTEGER NOT NULL, 
	metadata JSONB DEFAULT '{}' NOT NULL, 
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL, 
	cancelled_at TIMESTAMP WITH TIME ZONE, 
	PRIMARY KEY (id)
);
CREATE TABLE IF NOT EXISTS agno.worker (
	name TEXT NOT NULL, 
	hostname TEXT NOT NULL, 
	pid INTEGER NOT NULL, 
	version TEXT NOT NULL, 
	pool TEXT NOT NULL, 
	concurrency INTEGER NOT NULL, 
	queues JSONB NOT NULL, 
	steps INTEGER DEFAULT '0' NOT NULL, 
	started_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL, 
	seen_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL, 
	stopped_at TIMESTAMP WITH TIME ZONE, 
	PRIMARY KEY (name)
);
CREATE TABLE IF NOT EXISTS agno.quarantine (
	id BIGINT GENERATED ALWAYS AS IDENTITY, 
	reason TEXT NOT NULL, 
	detail TEXT NOT NULL, 
	queue TEXT NOT NULL, 
	task TEXT, 
	message_id TEXT, 
	head TEXT NOT NULL, 
	bytes BIGINT NOT NULL, 
	worker TEXT NOT NULL, 
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL, 
	PRIMARY KEY (id)
);

ALTER TABLE agno.meta ADD COLUMN IF NOT EXISTS beat BIGINT DEFAULT '0' NOT NULL;

ALTER TABLE agno.run
    ADD COLUMN IF NOT EXISTS parent_step_id UUID,
    ADD COLUMN IF NOT EXISTS depth SMALLINT DEFAULT '0' NOT NULL,
    ADD COLUMN IF NOT EXISTS forked_from UUID,
    ADD COLUMN IF NOT EXISTS batch_id UUID,
    ADD COLUMN IF NOT EXISTS definition BYTEA,
    ADD COLUMN IF NOT EXISTS cost_usd NUMERIC(14, 6) DEFAULT '0' NOT NULL,
    ADD COLUMN IF NOT EXISTS deadline_at TIMESTAMP WITH TIME ZONE,
    ADD COLUMN IF NOT EXISTS paused_at TIMESTAMP WITH TIME ZONE;

ALTER TABLE agno.step
    ADD COLUMN IF NOT EXISTS policy JSONB,
    ADD COLUMN IF NOT EXISTS waits_for TEXT,
    ADD COLUMN IF NOT EXISTS expires_at TIMESTAMP WITH TIME ZONE,
    ADD COLUMN IF NOT EXISTS answer JSONB,
    ADD COLUMN IF NOT EXISTS child_run_id UUID,
    ADD COLUMN IF NOT EXISTS due_at TIMESTAMP WITH TIME ZONE,
    ADD COLUMN IF NOT EXISTS reconciling BOOLEAN DEFAULT 'false' NOT NULL;

ALTER TABLE agno.step DROP CONSTRAINT IF EXISTS step_status, DROP CONSTRAINT IF EXISTS step_kind,
    DROP CONSTRAINT IF EXISTS step_waits_for, DROP CONSTRAINT IF EXISTS step_waiting;
ALTER TABLE agno.step
    ADD CONSTRAINT step_status CHECK (status IN ('ready', 'running', 'waiting', 'done', 'unknown', 'dead', 'cancelled')),
    ADD CONSTRAINT step_kind CHECK (kind IN ('turn', 'tool', 'delegate')),
    ADD CONSTRAINT step_waits_for CHECK (waits_for IN ('confirmation', 'answer', 'execution', 'resolution', 'run')),
    ADD CONSTRAINT step_waiting CHECK ((status = 'waiting') = (waits_for IS NOT NULL));

CREATE INDEX IF NOT EXISTS quarantine_created ON agno.quarantine (created_at);
CREATE INDEX IF NOT EXISTS run_batch ON agno.run (batch_id, ended_at) WHERE batch_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS run_children ON agno.run (parent_run_id) WHERE ended_at IS NULL AND parent_run_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS run_deadline ON agno.run (deadline_at) WHERE ended_at IS NULL AND deadline_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS run_failed ON agno.run (ended_at) WHERE status = 'failed';
CREATE INDEX IF NOT EXISTS step_asks ON agno.step (created_at) WHERE status = 'waiting';
CREATE INDEX IF NOT EXISTS step_dead ON agno.step (ended_at) WHERE status IN ('dead', 'unknown');
CREATE INDEX IF NOT EXISTS step_expires ON agno.step (expires_at) WHERE status = 'waiting' AND expires_at IS NOT NULL;
CREATE INDEX IF NOT EXISTS outbox_step ON agno.outbox (step_id) WHERE step_id IS NOT NULL;
CREATE INDEX IF NOT EXISTS batch_cancelled ON agno.batch (cancelled_at) WHERE cancelled_at IS NOT NULL;
