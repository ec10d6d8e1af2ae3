-- Write, claim and end steps, of every kind. Locks are taken in the order run, step, barrier.

-- Write steps and the messages for those that are ready now. Each step holds id, key, kind, queue, seq, max_attempts, and optionally priority,
-- name, call, effect, policy, barrier_id, waits_for (then it is `waiting`), child_run_id, not_before (a timer: the keeper sends it), due_at.
CREATE OR REPLACE FUNCTION agno.write_steps(of_run uuid, in_generation int, steps jsonb, publish_after_s float8)
RETURNS TABLE (outbox_id bigint, step_id uuid, kind text, queue text, priority smallint) LANGUAGE sql AS $$
    WITH written AS (
        INSERT INTO agno.step AS s (id, run_id, generation, key, kind, status, queue, priority, name, seq, call, effect, barrier_id, max_attempts,
            policy, waits_for, expires_at, child_run_id, not_before, due_at, sent_at)
        SELECT n.id, $1, $2, n.key, n.kind, CASE WHEN n.waits_for IS NULL THEN 'ready' ELSE 'waiting' END, n.queue, n.priority,
               coalesce(n.name, ''), n.seq, n.call, n.effect, n.barrier_id, n.max_attempts, n.policy, n.waits_for,
               clock_timestamp() + make_interval(secs => (n.policy->>'within_s')::float8), n.child_run_id, n.not_before, n.due_at,
               CASE WHEN n.waits_for IS NULL AND n.not_before IS NULL THEN clock_timestamp() END
        FROM jsonb_to_recordset($3) AS n (id uuid, key text, kind text, queue text, priority smallint, name text, seq int, call jsonb, effect text,
            barrier_id uuid, max_attempts int, policy jsonb, waits_for text, child_run_id uuid, not_before timestamptz, due_at timestamptz)
        RETURNING s.id, s.kind, s.queue, s.priority, s.seq, s.status, s.not_before
    ),
    pending AS (
        INSERT INTO agno.outbox AS o (step_id, due_at)
        SELECT w.id, clock_timestamp() + make_interval(secs => $4) FROM written w
        WHERE w.status = 'ready' AND w.not_before IS NULL ORDER BY w.seq RETURNING o.id, o.step_id
    )
    SELECT p.id, w.id, w.kind, w.queue, w.priority FROM pending p JOIN written w ON w.id = p.step_id ORDER BY p.id;
$$;

-- Claim a step for `lease_s` seconds, and return the data that its worker needs. No row: another worker has it, it has ended, or its run is
-- cancelled or paused. The commit need not reach the disk, since a lost claim is only a lost lease; the claim of a `once` tool waits for the
-- disk, since it records that the call may begin. The run is locked only when its status changes, so that tools of one turn do not wait for
-- each other.
CREATE OR REPLACE FUNCTION agno.claim(of_run uuid, of_step uuid, in_generation int, of_kind text, by_worker text, lease_s float8)
RETURNS TABLE (step_id uuid, run_id uuid, generation int, kind text, key text, name text, seq int, attempt int, max_attempts int, tries int,
    call jsonb, effect text, policy jsonb, answer jsonb, reconciling boolean, tenant text, agent text, priority smallint, session_id text, user_id text,
    metadata jsonb, canvas jsonb, turns int, tool_calls int, usage jsonb, cost_usd float8, depth smallint, created_at timestamptz,
    deadline_at timestamptz, parent_run_id uuid, definition text, transcript jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    claimed agno.step;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    IF of_kind <> 'tool' THEN
        PERFORM FROM agno.run r WHERE r.id = of_run AND r.status <> 'running' FOR NO KEY UPDATE;
    END IF;
    UPDATE agno.step s SET status = 'running', attempt = s.attempt + 1, worker = by_worker,
        lease_until = clock_timestamp() + make_interval(secs => lease_s), started_at = coalesce(s.started_at, clock_timestamp())
    FROM agno.run r
    WHERE s.id = of_step AND s.run_id = of_run AND s.generation = in_generation AND s.kind = of_kind
      AND r.id = s.run_id AND r.generation = s.generation AND r.ended_at IS NULL AND r.paused_at IS NULL
      AND (s.status = 'ready' AND (s.not_before IS NULL OR s.not_before <= clock_timestamp())
           OR s.status = 'running' AND s.lease_until < clock_timestamp() AND s.attempt - s.tries < s.max_attempts
              AND s.effect IS DISTINCT FROM 'once')
    RETURNING s.* INTO claimed;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF claimed.effect = 'once' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    IF of_kind <> 'tool' THEN
        UPDATE agno.run r SET status = 'running', started_at = coalesce(r.started_at, claimed.started_at)
        WHERE r.id = of_run AND r.status <> 'running';
    END IF;
    RETURN QUERY
        SELECT claimed.id, r.id, claimed.generation, claimed.kind, claimed.key, claimed.name, claimed.seq, claimed.attempt, claimed.max_attempts,
            claimed.tries, agno.inflate(claimed.call), claimed.effect, coalesce(claimed.policy, '{}'), claimed.answer, claimed.reconciling,
            r.tenant, r.agent, r.priority, r.session_id, r.user_id, r.metadata, r.canvas, r.turns, r.tool_calls,
            jsonb_build_object('input_tokens', r.input_tokens, 'output_tokens', r.output_tokens, 'cached_tokens', r.cached_tokens,
                'cache_write_tokens', r.cache_write_tokens, 'reasoning_tokens', r.reasoning_tokens),
            r.cost_usd::float8, r.depth, r.created_at, r.deadline_at, r.parent_run_id, encode(r.definition, 'hex'),
            CASE WHEN of_kind = 'turn' THEN (SELECT jsonb_agg(agno.inflate(m.content) ORDER BY m.seq) FROM agno.message m
                WHERE m.run_id = r.id AND m.seq < claimed.seq) END
        FROM agno.run r WHERE r.id = of_run;
END $$;

-- End a step with the first result of its generation. No row: another result came first, or the run is over.
-- `result` holds status? (done), error?, answer?, late_only? (the keeper: the lease must still be over), and for a step that waited for a person
-- waits_for and attempt (the question, and the attempt after which it was asked). A worker that was thought dead may still end a `once` tool
-- until a person has answered. `moves_run`: the caller changes the run, and locks it exclusively.
CREATE OR REPLACE FUNCTION agno.end_step(of_run uuid, of_step uuid, in_generation int, of_kind text, result jsonb, moves_run boolean)
RETURNS SETOF agno.step LANGUAGE plpgsql AS $$
BEGIN
    IF moves_run THEN
        PERFORM FROM agno.run r WHERE r.id = of_run AND r.generation = in_generation AND r.ended_at IS NULL FOR NO KEY UPDATE;
    ELSE
        PERFORM FROM agno.run r WHERE r.id = of_run AND r.generation = in_generation AND r.ended_at IS NULL FOR SHARE;
    END IF;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    RETURN QUERY
        UPDATE agno.step s SET status = coalesce(result->>'status', 'done'), ended_at = clock_timestamp(), lease_until = NULL, not_before = NULL,
            waits_for = NULL, expires_at = NULL, error = coalesce(result->'error', s.error),
            answer = coalesce(result->'answer' || jsonb_build_object('at', statement_timestamp()), s.answer)
        WHERE s.id = of_step AND s.run_id = of_run AND s.generation = in_generation AND s.kind = of_kind
          AND CASE WHEN result ? 'waits_for' THEN s.waits_for = result->>'waits_for' AND s.attempt = (result->>'attempt')::int
              ELSE s.status IN ('ready', 'running') OR s.waits_for = 'resolution' END
          AND (NOT coalesce((result->>'late_only')::boolean, false) OR s.status = 'running' AND s.lease_until < clock_timestamp())
        RETURNING s.*;
END $$;

-- Change a run: its status, what it has used, and its end. `change` holds status?, usage?, turns?, tool_calls?, cost_usd?, definition?
-- ({sha256, content}), and for an end content?, reason?, error?, ended; raise_generation? makes late results come too late.
CREATE OR REPLACE FUNCTION agno.move_run(of_run uuid, change jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    used jsonb := coalesce(change->'usage', '{}');
BEGIN
    IF change ? 'definition' THEN
        INSERT INTO agno.definition (sha256, content) VALUES (decode(change->'definition'->>'sha256', 'hex'), change->'definition'->'content')
            ON CONFLICT DO NOTHING;
    END IF;
    UPDATE agno.run r SET status = coalesce(change->>'status', r.status),
        generation = r.generation + coalesce((change->>'raise_generation')::boolean, false)::int,
        input_tokens = r.input_tokens + coalesce((used->>'input_tokens')::bigint, 0),
        output_tokens = r.output_tokens + coalesce((used->>'output_tokens')::bigint, 0),
        cached_tokens = r.cached_tokens + coalesce((used->>'cached_tokens')::bigint, 0),
        cache_write_tokens = r.cache_write_tokens + coalesce((used->>'cache_write_tokens')::bigint, 0),
        reasoning_tokens = r.reasoning_tokens + coalesce((used->>'reasoning_tokens')::bigint, 0),
        turns = r.turns + coalesce((change->>'turns')::int, 0), tool_calls = r.tool_calls + coalesce((change->>'tool_calls')::int, 0),
        cost_usd = r.cost_usd + coalesce((change->>'cost_usd')::numeric, 0),
        definition = coalesce(r.definition, decode(change->'definition'->>'sha256', 'hex')),
        content = change->'content', reason = change->>'reason', error = change->'error',
        ended_at = CASE WHEN change ? 'ended' THEN clock_timestamp() END,
        ended_as = CASE WHEN change ? 'ended' THEN nullif(change->>'status', 'done') END,
        paused_at = CASE WHEN NOT change ? 'ended' THEN r.paused_at END
    WHERE r.id = of_run;
END $$;

-- Record the result of a step and all that follows from it: its messages, the next steps, its part of a barrier, the change of its run.
-- `result` is as in agno.end_step, and also holds messages? ([{seq, content}]), blobs?, steps? (see agno.write_steps), barrier? ({id, size,
-- body}), children? (see agno.submit_run), run? (see agno.move_run) and publish_after_s. Returns the messages to publish now.
CREATE OR REPLACE FUNCTION agno.finish(of_run uuid, of_step uuid, in_generation int, of_kind text, result jsonb)
RETURNS TABLE (recorded boolean, messages jsonb, children jsonb) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    ended agno.step;
    publish_after_s float8 := (result->>'publish_after_s')::float8;
    pending jsonb := '[]';
    submitted jsonb := '[]';
BEGIN
    SELECT s.* INTO ended FROM agno.end_step(of_run, of_step, in_generation, of_kind, result, result ? 'run') s;
    IF NOT FOUND THEN
        RETURN QUERY SELECT false, pending, submitted;
        RETURN;
    END IF;
    IF result ? 'blobs' THEN
        PERFORM agno.store_blobs(result->'blobs');
    END IF;
    INSERT INTO agno.message (run_id, seq, content)
    SELECT of_run, m.seq, m.content FROM jsonb_to_recordset(result->'messages') AS m (seq int, content jsonb);
    IF result ? 'barrier' THEN
        INSERT INTO agno.barrier (id, run_id, generation, size, body)
        VALUES ((result->'barrier'->>'id')::uuid, of_run, in_generation, (result->'barrier'->>'size')::int, result->'barrier'->'body');
    END IF;
    IF result ? 'steps' THEN
        SELECT coalesce(jsonb_agg(w), '[]') INTO pending FROM agno.write_steps(of_run, in_generation, result->'steps', publish_after_s) w;
    END IF;
    IF result ? 'children' THEN
        -- Child runs are submitted as any other run; they are paused where their parent is.
        SELECT coalesce(jsonb_agg(c), '[]') INTO submitted
        FROM agno.run r, jsonb_array_elements(result->'children') AS asked (run),
            LATERAL agno.submit_run(asked.run || jsonb_build_object('paused_at', r.paused_at)) AS c
        WHERE r.id = of_run;
    END IF;
    IF ended.barrier_id IS NOT NULL THEN
        SELECT pending || coalesce(jsonb_agg(a), '[]') INTO pending FROM agno.arrive(ended.barrier_id, publish_after_s) a;
    END IF;
    IF result ? 'run' THEN
        PERFORM agno.move_run(of_run, result->'run');
    END IF;
    RETURN QUERY SELECT true, pending, submitted;
END $$;

-- Count one part of a run's barrier. The last part writes the step in the barrier's body. The row lock orders concurrent parts, so that
-- exactly one of them sees the barrier full.
CREATE OR REPLACE FUNCTION agno.arrive(barrier uuid, publish_after_s float8)
RETURNS TABLE (outbox_id bigint, step_id uuid, kind text, queue text, priority smallint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    at agno.barrier;
BEGIN
    UPDATE agno.barrier b SET arrived = b.arrived + 1, fired_at = CASE WHEN b.arrived + 1 = b.size THEN clock_timestamp() END
    WHERE b.id = barrier RETURNING b.* INTO at;
    IF at.fired_at IS NOT NULL THEN
        RETURN QUERY SELECT * FROM agno.write_steps(at.run_id, at.generation, jsonb_build_array(at.body), publish_after_s);
    END IF;
END $$;

-- Return the time since when a step has been ready, which the keeper's sends do not change. What was interrupted, answered or held back
-- before counts from its last send.
CREATE OR REPLACE FUNCTION agno.ready_since(step agno.step) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN step.sent_at IS NULL OR step.attempt > 0 OR step.answer IS NOT NULL OR step.kind IN ('ingest', 'embed') THEN step.sent_at
        ELSE greatest(step.created_at, step.due_at) END;
$$;
