-- Sessions, and what agents remember.

-- The same order of locks as in workers and clients, see 0004.
LOCK TABLE agno.run IN EXCLUSIVE MODE;

ALTER TABLE agno.run ADD COLUMN session_position BIGINT;
ALTER TABLE agno.run ADD COLUMN session_status TEXT;
ALTER TABLE agno.run ADD COLUMN rolled_back_at TIMESTAMP WITH TIME ZONE;
CREATE UNIQUE INDEX run_session_live ON agno.run (tenant, session_id) WHERE session_status = 'live' AND ended_at IS NULL;
CREATE INDEX run_session_waiting ON agno.run (tenant, session_id, session_position) WHERE session_status = 'waiting' AND ended_at IS NULL;
CREATE INDEX run_session_position ON agno.run (tenant, session_id, session_position) WHERE session_position IS NOT NULL;

ALTER TABLE agno.agent ADD COLUMN background_queue TEXT;

-- New kinds of runs, steps and waits.
ALTER TABLE agno.run DROP CONSTRAINT run_kind,
    ADD CONSTRAINT run_kind CHECK (kind IN ('agent', 'team', 'workflow', 'ingestion', 'background'));
ALTER TABLE agno.step DROP CONSTRAINT step_kind, DROP CONSTRAINT step_waits_for,
    ADD CONSTRAINT step_kind CHECK (kind IN ('turn', 'tool', 'delegate', 'scan', 'ingest', 'embed', 'finalize', 'compact', 'background')),
    ADD CONSTRAINT step_waits_for CHECK (waits_for IN ('confirmation', 'answer', 'execution', 'resolution', 'run', 'window', 'session', 'compaction'));
-- Keepers of the code before look at other timers, and leave these alone.
CREATE INDEX step_entry ON agno.step (not_before) WHERE status = 'waiting' AND not_before IS NOT NULL;
DROP INDEX agno.step_person;
CREATE INDEX step_person ON agno.step (created_at, seq) WHERE status = 'waiting' AND waits_for NOT IN ('run', 'window', 'session', 'compaction');

-- It has another parameter now.
DROP FUNCTION IF EXISTS agno.transcript_of(uuid, int, jsonb);

CREATE TABLE agno.session (
	tenant TEXT DEFAULT 'default' NOT NULL,
	id TEXT NOT NULL,
	user_id TEXT,
	agent TEXT,
	title TEXT DEFAULT '' NOT NULL,
	status TEXT DEFAULT 'created' NOT NULL,
	next_position BIGINT DEFAULT '1' NOT NULL,
	begun_position BIGINT DEFAULT '0' NOT NULL,
	summary TEXT,
	summary_until BIGINT DEFAULT '0' NOT NULL,
	metadata JSONB DEFAULT '{}' NOT NULL,
	forked_from TEXT,
	idle_timeout_s DOUBLE PRECISION,
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	last_active_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	expires_at TIMESTAMP WITH TIME ZONE,
	ended_at TIMESTAMP WITH TIME ZONE,
	PRIMARY KEY (tenant, id),
	CONSTRAINT session_status CHECK (status IN ('created', 'active', 'paused', 'ended', 'timed_out'))
);
CREATE INDEX session_active ON agno.session (tenant, last_active_at);
CREATE INDEX session_expires ON agno.session (expires_at) WHERE ended_at IS NULL AND expires_at IS NOT NULL;
CREATE INDEX session_of_user ON agno.session (tenant, user_id, last_active_at) WHERE user_id IS NOT NULL;

CREATE TABLE agno.steer (
	id UUID NOT NULL,
	position BIGINT GENERATED ALWAYS AS IDENTITY,
	run_id UUID NOT NULL,
	idempotency_key TEXT,
	content JSONB NOT NULL,
	request JSONB NOT NULL,
	status TEXT DEFAULT 'pending' NOT NULL,
	step_id UUID,
	next_run_id UUID,
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	decided_at TIMESTAMP WITH TIME ZONE,
	PRIMARY KEY (id),
	CONSTRAINT steer_status CHECK (status IN ('pending', 'committed', 'returned')),
	FOREIGN KEY(run_id) REFERENCES agno.run (id) ON DELETE CASCADE
);
CREATE INDEX steer_run ON agno.steer (run_id, position);
CREATE INDEX steer_key ON agno.steer (idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE agno.background (
	tenant TEXT DEFAULT 'default' NOT NULL,
	kind TEXT NOT NULL,
	owner TEXT NOT NULL,
	run_id UUID NOT NULL,
	PRIMARY KEY (tenant, kind, owner),
	FOREIGN KEY(run_id) REFERENCES agno.run (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED
);
CREATE INDEX background_run ON agno.background (run_id);

CREATE TABLE agno.background_item (
	id BIGINT GENERATED ALWAYS AS IDENTITY,
	tenant TEXT DEFAULT 'default' NOT NULL,
	kind TEXT NOT NULL,
	owner TEXT NOT NULL,
	run_id UUID NOT NULL,
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	PRIMARY KEY (id),
	FOREIGN KEY(run_id) REFERENCES agno.run (id) ON DELETE CASCADE
);
CREATE INDEX background_item_owner ON agno.background_item (tenant, kind, owner, id);
CREATE INDEX background_item_run ON agno.background_item (run_id);

CREATE TABLE agno.run_context (
	run_id UUID NOT NULL,
	key TEXT NOT NULL,
	value JSONB NOT NULL,
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	PRIMARY KEY (run_id, key),
	FOREIGN KEY(run_id) REFERENCES agno.run (id) ON DELETE CASCADE
);
CREATE INDEX run_context_proposal ON agno.run_context ((value ->> 'owner')) WHERE key = 'proposal';

CREATE TABLE agno.compaction (
	run_id UUID NOT NULL,
	until_seq INTEGER NOT NULL,
	at_seq INTEGER NOT NULL,
	keeps_first BOOLEAN NOT NULL,
	summary TEXT NOT NULL,
	tokens_before INTEGER NOT NULL,
	tokens_after INTEGER NOT NULL,
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	PRIMARY KEY (run_id, until_seq),
	FOREIGN KEY(run_id) REFERENCES agno.run (id) ON DELETE CASCADE
);

CREATE TABLE agno.stored_result (
	run_id UUID NOT NULL,
	seq INTEGER NOT NULL,
	id TEXT NOT NULL,
	content TEXT NOT NULL,
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	PRIMARY KEY (run_id, seq),
	FOREIGN KEY(run_id) REFERENCES agno.run (id) ON DELETE CASCADE
);
CREATE INDEX stored_result_id ON agno.stored_result (id);

CREATE TABLE agno.state (
	tenant TEXT DEFAULT 'default' NOT NULL,
	scope TEXT NOT NULL,
	owner TEXT NOT NULL,
	key TEXT NOT NULL,
	value JSONB,
	version BIGINT DEFAULT '1' NOT NULL,
	updated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	PRIMARY KEY (tenant, scope, owner, key)
);

CREATE TABLE agno.state_change (
	id BIGINT GENERATED ALWAYS AS IDENTITY,
	tenant TEXT DEFAULT 'default' NOT NULL,
	scope TEXT NOT NULL,
	owner TEXT NOT NULL,
	key TEXT NOT NULL,
	version BIGINT NOT NULL,
	operation TEXT NOT NULL,
	value JSONB,
	before JSONB,
	run_id UUID,
	step_id UUID,
	actor TEXT,
	at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	PRIMARY KEY (id)
);
CREATE UNIQUE INDEX state_change_key ON agno.state_change (tenant, scope, owner, key, version);
CREATE INDEX state_change_run ON agno.state_change (run_id) WHERE run_id IS NOT NULL;

CREATE TABLE agno.memory (
	id UUID NOT NULL,
	tenant TEXT DEFAULT 'default' NOT NULL,
	scope TEXT NOT NULL,
	owner TEXT NOT NULL,
	kind TEXT DEFAULT 'fact' NOT NULL,
	text TEXT,
	digest BYTEA,
	words TSVECTOR GENERATED ALWAYS AS (to_tsvector('english'::regconfig, text) || to_tsvector('simple'::regconfig, text)) STORED,
	confidence DOUBLE PRECISION DEFAULT '1' NOT NULL,
	version INTEGER DEFAULT '1' NOT NULL,
	source_run_id UUID,
	valid_from TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	valid_to TIMESTAMP WITH TIME ZONE,
	replaced_by UUID,
	contradicts UUID,
	uses BIGINT DEFAULT '0' NOT NULL,
	used_at TIMESTAMP WITH TIME ZONE,
	recorded_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	PRIMARY KEY (id)
);
CREATE INDEX memory_closed ON agno.memory (valid_to) WHERE valid_to IS NOT NULL;
CREATE UNIQUE INDEX memory_digest ON agno.memory (tenant, scope, owner, digest) WHERE valid_to IS NULL;
CREATE INDEX memory_owner ON agno.memory (tenant, scope, owner);
CREATE INDEX memory_replaced_by ON agno.memory (replaced_by) WHERE replaced_by IS NOT NULL;

CREATE TABLE agno.memory_version (
	memory_id UUID NOT NULL,
	version INTEGER NOT NULL,
	change TEXT NOT NULL,
	text TEXT,
	kind TEXT NOT NULL,
	confidence DOUBLE PRECISION NOT NULL,
	is_open BOOLEAN NOT NULL,
	replaced_by UUID,
	contradicts UUID,
	restores INTEGER,
	actor TEXT NOT NULL,
	run_id UUID,
	at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	PRIMARY KEY (memory_id, version),
	FOREIGN KEY(memory_id) REFERENCES agno.memory (id) ON DELETE CASCADE
);

CREATE TABLE agno.context_value (
	tenant TEXT DEFAULT 'default' NOT NULL,
	scope TEXT NOT NULL,
	owner TEXT NOT NULL,
	agent TEXT NOT NULL,
	key TEXT NOT NULL,
	value JSONB,
	expires_at TIMESTAMP WITH TIME ZONE,
	fetching_until TIMESTAMP WITH TIME ZONE,
	PRIMARY KEY (tenant, scope, owner, agent, key)
);

CREATE TABLE agno.context_access (
	id BIGINT GENERATED ALWAYS AS IDENTITY,
	tenant TEXT DEFAULT 'default' NOT NULL,
	run_id UUID NOT NULL,
	user_id TEXT,
	key TEXT NOT NULL,
	source TEXT NOT NULL,
	category TEXT,
	outcome TEXT NOT NULL,
	bytes INTEGER DEFAULT '0' NOT NULL,
	from_cache BOOLEAN DEFAULT 'false' NOT NULL,
	at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	PRIMARY KEY (id),
	FOREIGN KEY(run_id) REFERENCES agno.run (id) ON DELETE CASCADE
);
CREATE INDEX context_access_run ON agno.context_access (run_id);
CREATE INDEX context_access_user ON agno.context_access (tenant, user_id, at) WHERE user_id IS NOT NULL;

CREATE TABLE agno.consent (
	tenant TEXT DEFAULT 'default' NOT NULL,
	user_id TEXT NOT NULL,
	category TEXT NOT NULL,
	allowed BOOLEAN NOT NULL,
	at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	PRIMARY KEY (tenant, user_id, category)
);

-- Messages of past sessions among the chunks of knowledge. Both columns are NULL in all rows, so nothing is read or written here.
ALTER TABLE agno.chunk ADD COLUMN run_id UUID REFERENCES agno.run (id) ON DELETE CASCADE;
ALTER TABLE agno.chunk ADD COLUMN said_at TIMESTAMP WITH TIME ZONE;
CREATE INDEX chunk_run ON agno.chunk (run_id) WHERE run_id IS NOT NULL;

-- The sessions of the runs so far. One that several users shared belongs to the first of them.
INSERT INTO agno.session (tenant, id, user_id, agent, status, created_at, last_active_at)
SELECT DISTINCT ON (r.tenant, r.session_id) r.tenant, r.session_id, r.user_id, r.agent, 'active', r.created_at,
    max(r.created_at) OVER (PARTITION BY r.tenant, r.session_id)
FROM agno.run r WHERE r.session_id <> '' ORDER BY r.tenant, r.session_id, r.created_at;

-- Its new version has one more parameter, `if_busy`.
DROP FUNCTION IF EXISTS agno.submit(text, text, text, text, text, jsonb, text, uuid, timestamptz, text, boolean);
