CREATE EXTENSION IF NOT EXISTS vector SCHEMA public;

CREATE TABLE agno.task_result (
	task_id TEXT NOT NULL,
	status TEXT NOT NULL,
	meta JSONB NOT NULL,
	updated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	PRIMARY KEY (task_id)
);

CREATE TABLE agno.task_group (
	group_id TEXT NOT NULL,
	result JSONB NOT NULL,
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	PRIMARY KEY (group_id)
);

CREATE TABLE agno.knowledge (
	id INTEGER GENERATED ALWAYS AS IDENTITY,
	tenant TEXT DEFAULT 'default' NOT NULL,
	name TEXT NOT NULL,
	options JSONB DEFAULT '{}' NOT NULL,
	embedding_space_id INTEGER,
	version BIGINT DEFAULT '0' NOT NULL,
	chunk_count BIGINT DEFAULT '0' NOT NULL,
	avg_length DOUBLE PRECISION DEFAULT '0' NOT NULL,
	stats_chunks BIGINT DEFAULT '0' NOT NULL,
	vectors_missing BOOLEAN DEFAULT 'false' NOT NULL,
	stats_version BIGINT DEFAULT '0' NOT NULL,
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	PRIMARY KEY (id),
	CONSTRAINT knowledge_name UNIQUE (tenant, name)
);

CREATE TABLE agno.agent (
	tenant TEXT DEFAULT 'default' NOT NULL,
	name TEXT NOT NULL,
	kind TEXT DEFAULT 'agent' NOT NULL,
	description TEXT DEFAULT '' NOT NULL,
	queue TEXT NOT NULL,
	definition JSONB DEFAULT '{}' NOT NULL,
	tools JSONB DEFAULT '[]' NOT NULL,
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	seen_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	PRIMARY KEY (tenant, name)
);

CREATE TABLE agno.worker (
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

CREATE TABLE agno.quarantine (
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

CREATE INDEX quarantine_created ON agno.quarantine (created_at);

CREATE TABLE agno.meta (
	key TEXT NOT NULL,
	value TEXT NOT NULL,
	until TIMESTAMP WITH TIME ZONE,
	beat BIGINT DEFAULT '0' NOT NULL,
	PRIMARY KEY (key)
);

CREATE TABLE agno.run (
	id UUID NOT NULL,
	tenant TEXT DEFAULT 'default' NOT NULL,
	kind TEXT DEFAULT 'agent' NOT NULL,
	agent TEXT NOT NULL,
	status TEXT NOT NULL,
	generation INTEGER DEFAULT '0' NOT NULL,
	queue TEXT NOT NULL,
	priority SMALLINT,
	session_id TEXT,
	user_id TEXT,
	idempotency_key TEXT,
	parent_run_id UUID,
	parent_step_id UUID,
	depth SMALLINT DEFAULT '0' NOT NULL,
	forked_from UUID,
	batch_id UUID,
	batch_position INTEGER,
	definition BYTEA,
	metadata JSONB DEFAULT '{}' NOT NULL,
	canvas JSONB,
	content JSONB,
	reason TEXT,
	error JSONB,
	input_tokens BIGINT DEFAULT '0' NOT NULL,
	output_tokens BIGINT DEFAULT '0' NOT NULL,
	cached_tokens BIGINT DEFAULT '0' NOT NULL,
	cache_write_tokens BIGINT DEFAULT '0' NOT NULL,
	reasoning_tokens BIGINT DEFAULT '0' NOT NULL,
	cost_usd NUMERIC(14, 6) DEFAULT '0' NOT NULL,
	turns INTEGER DEFAULT '0' NOT NULL,
	tool_calls INTEGER DEFAULT '0' NOT NULL,
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	started_at TIMESTAMP WITH TIME ZONE,
	ended_at TIMESTAMP WITH TIME ZONE,
	deadline_at TIMESTAMP WITH TIME ZONE,
	paused_at TIMESTAMP WITH TIME ZONE,
	PRIMARY KEY (id),
	CONSTRAINT run_status CHECK (status IN ('queued', 'running', 'waiting', 'done', 'failed', 'cancelled')),
	CONSTRAINT run_kind CHECK (kind IN ('agent', 'team', 'workflow', 'ingestion')),
	CONSTRAINT run_ended CHECK ((status IN ('done', 'failed', 'cancelled')) = (ended_at IS NOT NULL))
);

CREATE INDEX run_batch ON agno.run (batch_id, ended_at) WHERE batch_id IS NOT NULL;

CREATE INDEX run_children ON agno.run (parent_run_id) WHERE ended_at IS NULL AND parent_run_id IS NOT NULL;

CREATE INDEX run_created ON agno.run (tenant, created_at);

CREATE INDEX run_deadline ON agno.run (deadline_at) WHERE ended_at IS NULL AND deadline_at IS NOT NULL;

CREATE INDEX run_failed ON agno.run (ended_at) WHERE status = 'failed';

CREATE INDEX run_ingesting ON agno.run (id) WHERE ended_at IS NULL AND kind = 'ingestion';

CREATE INDEX run_session ON agno.run (tenant, session_id, created_at) WHERE session_id IS NOT NULL;

CREATE UNIQUE INDEX run_idempotency ON agno.run (tenant, agent, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TABLE agno.outbox (
	id BIGINT GENERATED ALWAYS AS IDENTITY,
	step_id UUID,
	ended_run_id UUID,
	chord_id UUID,
	due_at TIMESTAMP WITH TIME ZONE NOT NULL,
	PRIMARY KEY (id),
	CONSTRAINT outbox_one CHECK (num_nonnulls(step_id, ended_run_id, chord_id) = 1)
);

CREATE INDEX outbox_chord ON agno.outbox (chord_id) WHERE chord_id IS NOT NULL;

CREATE INDEX outbox_due ON agno.outbox (due_at);

CREATE INDEX outbox_run ON agno.outbox (ended_run_id) WHERE ended_run_id IS NOT NULL;

CREATE INDEX outbox_step ON agno.outbox (step_id) WHERE step_id IS NOT NULL;

CREATE TABLE agno.blob (
	sha256 BYTEA NOT NULL,
	content JSONB NOT NULL,
	PRIMARY KEY (sha256)
);

CREATE TABLE agno.definition (
	sha256 BYTEA NOT NULL,
	content JSONB NOT NULL,
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	PRIMARY KEY (sha256)
);

CREATE TABLE agno.batch (
	id UUID NOT NULL,
	tenant TEXT DEFAULT 'default' NOT NULL,
	agent TEXT NOT NULL,
	size INTEGER NOT NULL,
	metadata JSONB DEFAULT '{}' NOT NULL,
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	cancelled_at TIMESTAMP WITH TIME ZONE,
	PRIMARY KEY (id)
);

CREATE INDEX batch_cancelled ON agno.batch (cancelled_at) WHERE cancelled_at IS NOT NULL;

CREATE TABLE agno.embedding_space (
	id INTEGER GENERATED ALWAYS AS IDENTITY,
	knowledge_id INTEGER NOT NULL,
	model TEXT NOT NULL,
	dimensions INTEGER NOT NULL,
	status TEXT DEFAULT 'building' NOT NULL,
	has_partition BOOLEAN DEFAULT 'false' NOT NULL,
	is_indexed BOOLEAN DEFAULT 'false' NOT NULL,
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	PRIMARY KEY (id),
	CONSTRAINT embedding_space_model UNIQUE (knowledge_id, model),
	CONSTRAINT embedding_space_status CHECK (status IN ('building', 'current', 'retired')),
	FOREIGN KEY(knowledge_id) REFERENCES agno.knowledge (id) ON DELETE CASCADE
);

CREATE TABLE agno.document (
	id BIGINT GENERATED ALWAYS AS IDENTITY,
	knowledge_id INTEGER NOT NULL,
	uri TEXT NOT NULL,
	origin TEXT DEFAULT '' NOT NULL,
	title TEXT,
	media_type TEXT,
	language TEXT,
	bytes BIGINT DEFAULT '0' NOT NULL,
	fingerprint TEXT,
	sha256 BYTEA,
	text_sha256 BYTEA,
	processing_hash BYTEA,
	metadata JSONB DEFAULT '{}' NOT NULL,
	version INTEGER DEFAULT '0' NOT NULL,
	chunks INTEGER DEFAULT '0' NOT NULL,
	pending JSONB,
	run_id UUID,
	duplicate_of BIGINT,
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	updated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	PRIMARY KEY (id),
	CONSTRAINT document_uri UNIQUE (knowledge_id, uri),
	FOREIGN KEY(knowledge_id) REFERENCES agno.knowledge (id) ON DELETE CASCADE
);

CREATE INDEX document_duplicates ON agno.document (duplicate_of) WHERE duplicate_of IS NOT NULL;

CREATE INDEX document_metadata ON agno.document USING gin (metadata jsonb_path_ops);

CREATE INDEX document_origin ON agno.document (knowledge_id, origin);

CREATE INDEX document_sha256 ON agno.document (knowledge_id, sha256);

CREATE INDEX document_text ON agno.document (knowledge_id, text_sha256);

CREATE TABLE agno.lexeme (
	knowledge_id INTEGER NOT NULL,
	lexeme TEXT NOT NULL,
	documents INTEGER NOT NULL,
	PRIMARY KEY (knowledge_id, lexeme),
	FOREIGN KEY(knowledge_id) REFERENCES agno.knowledge (id) ON DELETE CASCADE
);

CREATE TABLE agno.ingestion (
	run_id UUID NOT NULL,
	knowledge_id INTEGER NOT NULL,
	options JSONB NOT NULL,
	scanned_at TIMESTAMP WITH TIME ZONE,
	origins JSONB DEFAULT '[]' NOT NULL,
	total BIGINT DEFAULT '0' NOT NULL,
	total_bytes BIGINT DEFAULT '0' NOT NULL,
	PRIMARY KEY (run_id),
	FOREIGN KEY(run_id) REFERENCES agno.run (id) ON DELETE CASCADE,
	FOREIGN KEY(knowledge_id) REFERENCES agno.knowledge (id) ON DELETE CASCADE
);

CREATE INDEX ingestion_knowledge ON agno.ingestion (knowledge_id);

CREATE TABLE agno.review (
	id BIGINT GENERATED ALWAYS AS IDENTITY,
	knowledge_id INTEGER NOT NULL,
	title TEXT,
	content TEXT NOT NULL,
	source TEXT,
	confidence DOUBLE PRECISION NOT NULL,
	author TEXT NOT NULL,
	run_id UUID,
	metadata JSONB DEFAULT '{}' NOT NULL,
	status TEXT DEFAULT 'waiting' NOT NULL,
	decided_by TEXT,
	note TEXT,
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	decided_at TIMESTAMP WITH TIME ZONE,
	PRIMARY KEY (id),
	CONSTRAINT review_status CHECK (status IN ('waiting', 'approved', 'rejected')),
	FOREIGN KEY(knowledge_id) REFERENCES agno.knowledge (id) ON DELETE CASCADE
);

CREATE INDEX review_waiting ON agno.review (knowledge_id, created_at) WHERE status = 'waiting';

CREATE TABLE agno.gap (
	knowledge_id INTEGER NOT NULL,
	question TEXT NOT NULL,
	asked BIGINT DEFAULT '1' NOT NULL,
	best_score DOUBLE PRECISION,
	first_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	last_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	PRIMARY KEY (knowledge_id, question),
	FOREIGN KEY(knowledge_id) REFERENCES agno.knowledge (id) ON DELETE CASCADE
);

CREATE TABLE agno.grounding (
	run_id UUID NOT NULL,
	seq INTEGER NOT NULL,
	hits JSONB NOT NULL,
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	PRIMARY KEY (run_id, seq),
	FOREIGN KEY(run_id) REFERENCES agno.run (id) ON DELETE CASCADE
);

CREATE TABLE agno.step (
	id UUID NOT NULL,
	run_id UUID NOT NULL,
	generation INTEGER NOT NULL,
	key TEXT NOT NULL,
	kind TEXT NOT NULL,
	status TEXT DEFAULT 'ready' NOT NULL,
	queue TEXT NOT NULL,
	priority SMALLINT,
	name TEXT DEFAULT '' NOT NULL,
	seq INTEGER NOT NULL,
	call JSONB,
	effect TEXT,
	barrier_id UUID,
	attempt INTEGER DEFAULT '0' NOT NULL,
	max_attempts INTEGER NOT NULL,
	tries INTEGER DEFAULT '0' NOT NULL,
	worker TEXT,
	error JSONB,
	policy JSONB,
	waits_for TEXT,
	expires_at TIMESTAMP WITH TIME ZONE,
	answer JSONB,
	child_run_id UUID,
	reconciling BOOLEAN DEFAULT 'false' NOT NULL,
	not_before TIMESTAMP WITH TIME ZONE,
	due_at TIMESTAMP WITH TIME ZONE,
	lease_until TIMESTAMP WITH TIME ZONE,
	sent_at TIMESTAMP WITH TIME ZONE,
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	started_at TIMESTAMP WITH TIME ZONE,
	ended_at TIMESTAMP WITH TIME ZONE,
	PRIMARY KEY (id),
	CONSTRAINT step_key UNIQUE (run_id, generation, key),
	CONSTRAINT step_status CHECK (status IN ('ready', 'running', 'waiting', 'done', 'unknown', 'dead', 'cancelled')),
	CONSTRAINT step_kind CHECK (kind IN ('turn', 'tool', 'delegate', 'scan', 'ingest', 'embed', 'finalize')),
	CONSTRAINT step_waits_for CHECK (waits_for IN ('confirmation', 'answer', 'execution', 'resolution', 'run', 'window')),
	CONSTRAINT step_waiting CHECK ((status = 'waiting') = (waits_for IS NOT NULL)),
	CONSTRAINT step_lease CHECK ((status = 'running') = (lease_until IS NOT NULL)),
	FOREIGN KEY(run_id) REFERENCES agno.run (id) ON DELETE CASCADE
);

CREATE INDEX step_asks ON agno.step (created_at) WHERE status = 'waiting';

CREATE INDEX step_dead ON agno.step (ended_at) WHERE status IN ('dead', 'unknown');

CREATE INDEX step_expires ON agno.step (expires_at) WHERE status = 'waiting' AND expires_at IS NOT NULL;

CREATE INDEX step_ingesting ON agno.step (run_id) WHERE kind IN ('scan', 'ingest', 'embed', 'finalize') AND status IN ('ready', 'running', 'waiting');

CREATE INDEX step_running ON agno.step (lease_until) WHERE status = 'running';

CREATE INDEX step_sent ON agno.step (sent_at) WHERE status = 'ready' AND not_before IS NULL;

CREATE INDEX step_timer ON agno.step (not_before) WHERE status = 'ready' AND not_before IS NOT NULL;

CREATE TABLE agno.barrier (
	id UUID NOT NULL,
	run_id UUID,
	generation INTEGER DEFAULT '0' NOT NULL,
	size INTEGER,
	arrived INTEGER DEFAULT '0' NOT NULL,
	body JSONB NOT NULL,
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	fired_at TIMESTAMP WITH TIME ZONE,
	PRIMARY KEY (id),
	FOREIGN KEY(run_id) REFERENCES agno.run (id) ON DELETE CASCADE
);

CREATE TABLE agno.message (
	run_id UUID NOT NULL,
	seq INTEGER NOT NULL,
	content JSONB NOT NULL,
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	PRIMARY KEY (run_id, seq),
	FOREIGN KEY(run_id) REFERENCES agno.run (id) ON DELETE CASCADE
);

CREATE TABLE agno.run_event (
	run_id UUID NOT NULL,
	number INTEGER NOT NULL,
	event TEXT NOT NULL,
	subject UUID NOT NULL,
	attempt INTEGER NOT NULL,
	name TEXT NOT NULL,
	error JSONB,
	at TIMESTAMP WITH TIME ZONE NOT NULL,
	PRIMARY KEY (run_id, number),
	CONSTRAINT run_event_once UNIQUE (run_id, event, subject, attempt),
	FOREIGN KEY(run_id) REFERENCES agno.run (id) ON DELETE CASCADE
);

CREATE TABLE agno.chord_part (
	barrier_id UUID NOT NULL,
	task_id TEXT NOT NULL,
	position INTEGER,
	status TEXT NOT NULL,
	result JSONB,
	created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	PRIMARY KEY (barrier_id, task_id),
	FOREIGN KEY(barrier_id) REFERENCES agno.barrier (id) ON DELETE CASCADE
);

CREATE TABLE agno.near_band (
	knowledge_id INTEGER NOT NULL,
	band SMALLINT NOT NULL,
	hash BIGINT NOT NULL,
	document_id BIGINT NOT NULL,
	PRIMARY KEY (knowledge_id, band, hash, document_id),
	FOREIGN KEY(document_id) REFERENCES agno.document (id) ON DELETE CASCADE
);

CREATE INDEX near_band_document ON agno.near_band (document_id);

CREATE TABLE agno.chunk (
	id BIGINT GENERATED BY DEFAULT AS IDENTITY,
	knowledge_id INTEGER NOT NULL,
	document_id BIGINT NOT NULL,
	version INTEGER NOT NULL,
	position INTEGER NOT NULL,
	live BOOLEAN NOT NULL,
	hash BYTEA NOT NULL,
	content TEXT NOT NULL,
	heading TEXT DEFAULT '' NOT NULL,
	start_at INTEGER NOT NULL,
	end_at INTEGER NOT NULL,
	tokens INTEGER NOT NULL,
	language REGCONFIG NOT NULL,
	refused TEXT,
	tsv TSVECTOR GENERATED ALWAYS AS (to_tsvector(language, heading || E'\n' || content)) STORED,
	PRIMARY KEY (id),
	FOREIGN KEY(document_id) REFERENCES agno.document (id) ON DELETE CASCADE
);

CREATE INDEX chunk_document ON agno.chunk (document_id, position);

CREATE INDEX chunk_hash ON agno.chunk (hash);

CREATE INDEX chunk_knowledge ON agno.chunk (knowledge_id, language);

CREATE INDEX chunk_words ON agno.chunk USING gin (tsv);

CREATE TABLE agno.source (
	run_id UUID NOT NULL,
	position BIGINT NOT NULL,
	uri TEXT NOT NULL,
	bytes BIGINT DEFAULT '0' NOT NULL,
	given JSONB NOT NULL,
	processing_hash BYTEA NOT NULL,
	status TEXT DEFAULT 'pending' NOT NULL,
	step_id UUID,
	attempts INTEGER DEFAULT '0' NOT NULL,
	alone BOOLEAN DEFAULT 'false' NOT NULL,
	document_id BIGINT,
	error JSONB,
	PRIMARY KEY (run_id, position),
	CONSTRAINT source_status CHECK (status IN ('pending', 'taken', 'done', 'unchanged', 'duplicate', 'failed')),
	FOREIGN KEY(run_id) REFERENCES agno.ingestion (run_id) ON DELETE CASCADE
);

CREATE INDEX source_failed ON agno.source (run_id, position) WHERE status = 'failed';

CREATE INDEX source_pending ON agno.source (run_id, position) WHERE status = 'pending';

CREATE INDEX source_taken ON agno.source (step_id) WHERE status = 'taken';

CREATE TABLE agno.ingest_count (
	run_id UUID NOT NULL,
	shard SMALLINT NOT NULL,
	documents BIGINT DEFAULT '0' NOT NULL,
	unchanged BIGINT DEFAULT '0' NOT NULL,
	duplicates BIGINT DEFAULT '0' NOT NULL,
	failed BIGINT DEFAULT '0' NOT NULL,
	removed BIGINT DEFAULT '0' NOT NULL,
	chunks BIGINT DEFAULT '0' NOT NULL,
	embedded BIGINT DEFAULT '0' NOT NULL,
	to_embed BIGINT DEFAULT '0' NOT NULL,
	tokens BIGINT DEFAULT '0' NOT NULL,
	bytes BIGINT DEFAULT '0' NOT NULL,
	PRIMARY KEY (run_id, shard),
	FOREIGN KEY(run_id) REFERENCES agno.ingestion (run_id) ON DELETE CASCADE
);

CREATE TABLE agno.chunk_embedding (
	embedding_space_id INTEGER NOT NULL,
	chunk_id BIGINT NOT NULL,
	embedding HALFVEC NOT NULL,
	PRIMARY KEY (chunk_id, embedding_space_id),
	FOREIGN KEY(chunk_id) REFERENCES agno.chunk (id) ON DELETE CASCADE
)
 PARTITION BY LIST (embedding_space_id);

CREATE TABLE agno.chunk_embedding_small PARTITION OF agno.chunk_embedding DEFAULT;CREATE INDEX chunk_embedding_small_space ON agno.chunk_embedding_small (embedding_space_id);

CREATE TABLE agno.feedback (
	chunk_id BIGINT NOT NULL,
	used BIGINT DEFAULT '0' NOT NULL,
	cited BIGINT DEFAULT '0' NOT NULL,
	up BIGINT DEFAULT '0' NOT NULL,
	down BIGINT DEFAULT '0' NOT NULL,
	updated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
	PRIMARY KEY (chunk_id),
	FOREIGN KEY(chunk_id) REFERENCES agno.chunk (id) ON DELETE CASCADE
);
