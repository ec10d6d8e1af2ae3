-- The tables as they stood at this number. `storage/schema.py` is how they stand now.

CREATE TABLE IF NOT EXISTS agno.blob (
    sha256 BYTEA NOT NULL, 
    content JSONB NOT NULL, 
    PRIMARY KEY (sha256)
);

CREATE TABLE IF NOT EXISTS agno.meta (
    key TEXT NOT NULL, 
    value TEXT NOT NULL, 
    until TIMESTAMP WITH TIME ZONE, 
    PRIMARY KEY (key)
);

CREATE TABLE IF NOT EXISTS agno.outbox (
    id BIGINT GENERATED ALWAYS AS IDENTITY, 
    step_id UUID, 
    ended_run_id UUID, 
    chord_id UUID, 
    due_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    PRIMARY KEY (id), 
    CONSTRAINT outbox_one CHECK (num_nonnulls(step_id, ended_run_id, chord_id) = 1)
);

CREATE INDEX IF NOT EXISTS outbox_chord ON agno.outbox (chord_id) WHERE chord_id IS NOT NULL;

CREATE INDEX IF NOT EXISTS outbox_due ON agno.outbox (due_at);

CREATE INDEX IF NOT EXISTS outbox_run ON agno.outbox (ended_run_id) WHERE ended_run_id IS NOT NULL;

CREATE TABLE IF NOT EXISTS agno.run (
    id UUID NOT NULL, 
    agent TEXT NOT NULL, 
    status TEXT NOT NULL, 
    generation INTEGER DEFAULT '0' NOT NULL, 
    queue TEXT NOT NULL, 
    priority SMALLINT, 
    session_id TEXT, 
    user_id TEXT, 
    idempotency_key TEXT, 
    parent_run_id UUID, 
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
    turns INTEGER DEFAULT '0' NOT NULL, 
    tool_calls INTEGER DEFAULT '0' NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL, 
    started_at TIMESTAMP WITH TIME ZONE, 
    ended_at TIMESTAMP WITH TIME ZONE, 
    PRIMARY KEY (id), 
    CONSTRAINT run_status CHECK (status IN ('queued', 'running', 'waiting', 'done', 'failed', 'cancelled')), 
    CONSTRAINT run_ended CHECK ((status IN ('done', 'failed', 'cancelled')) = (ended_at IS NOT NULL))
);

CREATE INDEX IF NOT EXISTS run_created ON agno.run (created_at);

CREATE UNIQUE INDEX IF NOT EXISTS run_idempotency ON agno.run (agent, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE INDEX IF NOT EXISTS run_session ON agno.run (session_id, created_at) WHERE session_id IS NOT NULL;

CREATE TABLE IF NOT EXISTS agno.task_group (
    group_id TEXT NOT NULL, 
    result JSONB NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL, 
    PRIMARY KEY (group_id)
);

CREATE TABLE IF NOT EXISTS agno.task_result (
    task_id TEXT NOT NULL, 
    status TEXT NOT NULL, 
    meta JSONB NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL, 
    PRIMARY KEY (task_id)
);

CREATE TABLE IF NOT EXISTS agno.barrier (
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

CREATE TABLE IF NOT EXISTS agno.message (
    run_id UUID NOT NULL, 
    seq INTEGER NOT NULL, 
    content JSONB NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL, 
    PRIMARY KEY (run_id, seq), 
    FOREIGN KEY(run_id) REFERENCES agno.run (id) ON DELETE CASCADE
);

CREATE TABLE IF NOT EXISTS agno.step (
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
    not_before TIMESTAMP WITH TIME ZONE, 
    lease_until TIMESTAMP WITH TIME ZONE, 
    sent_at TIMESTAMP WITH TIME ZONE, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL, 
    started_at TIMESTAMP WITH TIME ZONE, 
    ended_at TIMESTAMP WITH TIME ZONE, 
    PRIMARY KEY (id), 
    CONSTRAINT step_key UNIQUE (run_id, generation, key), 
    CONSTRAINT step_status CHECK (status IN ('ready', 'running', 'done', 'unknown', 'dead', 'cancelled')), 
    CONSTRAINT step_kind CHECK (kind IN ('turn', 'tool')), 
    CONSTRAINT step_lease CHECK ((status = 'running') = (lease_until IS NOT NULL)), 
    FOREIGN KEY(run_id) REFERENCES agno.run (id) ON DELETE CASCADE
);

CREATE INDEX IF NOT EXISTS step_running ON agno.step (lease_until) WHERE status = 'running';

CREATE INDEX IF NOT EXISTS step_sent ON agno.step (sent_at) WHERE status = 'ready' AND not_before IS NULL;

CREATE INDEX IF NOT EXISTS step_timer ON agno.step (not_before) WHERE status = 'ready' AND not_before IS NOT NULL;

CREATE TABLE IF NOT EXISTS agno.chord_part (
    barrier_id UUID NOT NULL, 
    task_id TEXT NOT NULL, 
    position INTEGER, 
    status TEXT NOT NULL, 
    result JSONB, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL, 
    PRIMARY KEY (barrier_id, task_id), 
    FOREIGN KEY(barrier_id) REFERENCES agno.barrier (id) ON DELETE CASCADE
);
