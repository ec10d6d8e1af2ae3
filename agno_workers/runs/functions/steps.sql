-- Write, claim and end steps, of every kind. Locks are taken in the order run, step, barrier.

-- Write steps and the messages for those that are ready now. Each step holds id, key, kind, queue, seq, max_attempts, and optionally priority,
-- name, call, effect, policy, barrier_id, waits_for (then it is `waiting`), expires_at, child_run_id, not_before (a timer: the keeper sends it), due_at,
-- arrival (0 for a call of a program), and run_id and generation where these are not those of the first two parameters.
CREATE OR REPLACE FUNCTION agno.write_steps(of_run uuid, in_generation int, steps jsonb, publish_after_s float8)
RETURNS TABLE (outbox_id bigint, step_id uuid, run_id uuid, generation int, kind text, queue text, priority smallint) LANGUAGE sql AS $$
    WITH written AS (
        INSERT INTO agno.step AS s (id, run_id, generation, key, kind, status, queue, priority, name, seq, call, effect, barrier_id, max_attempts,
            policy, waits_for, expires_at, child_run_id, not_before, due_at, arrival, sent_at)
        SELECT n.id, coalesce(n.run_id, $1), coalesce(n.generation, $2), n.key, n.kind, CASE WHEN n.waits_for IS NULL THEN 'ready' ELSE 'waiting' END, n.queue, n.priority,
               coalesce(n.name, ''), n.seq, n.call, n.effect, n.barrier_id, n.max_attempts, n.policy, n.waits_for,
               coalesce(n.expires_at, clock_timestamp() + make_interval(secs => (n.policy->>'within_s')::float8)), n.child_run_id, n.not_before, n.due_at,
               n.arrival, CASE WHEN n.waits_for IS NULL AND n.not_before IS NULL THEN clock_timestamp() END
        FROM jsonb_to_recordset($3) AS n (id uuid, key text, kind text, queue text, priority smallint, name text, seq int, call jsonb, effect text,
            barrier_id uuid, max_attempts int, policy jsonb, waits_for text, child_run_id uuid, not_before timestamptz, due_at timestamptz,
            run_id uuid, generation int, expires_at timestamptz, arrival int)
        RETURNING s.id, s.run_id, s.generation, s.kind, s.queue, s.priority, s.seq, s.status, s.not_before
    ),
    pending AS (
        INSERT INTO agno.outbox AS o (step_id, due_at)
        SELECT w.id, clock_timestamp() + make_interval(secs => $4) FROM written w
        WHERE w.status = 'ready' AND w.not_before IS NULL ORDER BY w.seq RETURNING o.id, o.step_id
    )
    SELECT p.id, w.id, w.run_id, w.generation, w.kind, w.queue, w.priority FROM pending p JOIN written w ON w.id = p.step_id ORDER BY p.id;
$$;

-- Claim steps for `lease_s` seconds, and return for each the data that its worker needs, by its place in `asked`: [{run_id, step_id, generation,
-- kind, known?}]. No row: another worker has it, it has ended, its run is cancelled or paused, or it is locked. Nothing waits for a lock unless
-- `waits`, which is for one step. The commit need not reach the disk, since a lost claim is only a lost lease; the claim of a `once` tool waits
-- for the disk, since it records that the call may begin. A run is locked only when its status changes, so that tools of one turn do not wait
-- for each other. `known` ({seq, at, since}) is the last message of the run that the worker has; `after` repeats its number where that is still so, and
-- `transcript` holds the messages after it: they are only added, and a retry deletes the last ones. A transcript that was compacted begins
-- with a summary; `compacted` in the claim says which messages it stands for.
CREATE OR REPLACE FUNCTION agno.claim_steps(asked jsonb, by_worker text, lease_s float8, waits boolean)
RETURNS TABLE (place int, claim text, transcript text, after int, last_at bigint) LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    held uuid[];
    claimed uuid[];
    places int[];
    has_once boolean;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    IF waits THEN
        PERFORM FROM agno.run r WHERE r.id = (asked->0->>'run_id')::uuid AND r.status <> 'running' AND asked->0->>'kind' <> 'tool' FOR NO KEY UPDATE;
        PERFORM FROM agno.step s WHERE s.id = (asked->0->>'step_id')::uuid FOR NO KEY UPDATE;
    END IF;
    IF asked @? '$[*] ? (@.kind != "tool")' THEN
        held := ARRAY(SELECT r.id FROM agno.run r WHERE r.status <> 'running'
            AND r.id = ANY(ARRAY(SELECT (item->>'run_id')::uuid FROM jsonb_array_elements(asked) item WHERE item->>'kind' <> 'tool'))
            FOR NO KEY UPDATE SKIP LOCKED);
    END IF;
    WITH mine AS (
        SELECT s.id, a.place FROM jsonb_array_elements(asked) WITH ORDINALITY AS a (item, place)
        JOIN agno.step s ON s.id = (a.item->>'step_id')::uuid AND s.run_id = (a.item->>'run_id')::uuid
            AND s.generation = (a.item->>'generation')::int AND s.kind = a.item->>'kind'
        JOIN agno.run r ON r.id = s.run_id AND r.generation = s.generation
        WHERE r.ended_at IS NULL AND r.paused_at IS NULL AND (s.kind = 'tool' OR r.status = 'running' OR r.id = ANY(held))
          AND (s.status = 'ready' AND (s.not_before IS NULL OR s.not_before <= clock_timestamp())
               OR s.status = 'running' AND s.lease_until < clock_timestamp() AND s.attempt - s.tries < s.max_attempts
                  AND s.effect IS DISTINCT FROM 'once')
        FOR NO KEY UPDATE OF s SKIP LOCKED
    ),
    taken AS (
        UPDATE agno.step s SET status = 'running', attempt = s.attempt + 1, worker = by_worker,
            lease_until = clock_timestamp() + make_interval(secs => lease_s), started_at = coalesce(s.started_at, clock_timestamp())
        FROM mine WHERE s.id = mine.id RETURNING s.id, mine.place, s.effect
    )
    SELECT array_agg(t.id), array_agg(t.place), bool_or(t.effect = 'once') INTO claimed, places, has_once FROM taken t;
    IF claimed IS NULL THEN
        RETURN;
    END IF;
    IF has_once THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    IF cardinality(held) > 0 THEN
        UPDATE agno.run r SET status = 'running', started_at = coalesce(r.started_at, s.started_at)
        FROM agno.step s WHERE s.id = ANY(claimed) AND s.kind <> 'tool' AND r.id = s.run_id AND r.id = ANY(held);
    END IF;
    RETURN QUERY
        SELECT c.place, json_build_object('step_id', s.id, 'run_id', r.id, 'generation', s.generation, 'kind', s.kind, 'key', s.key, 'name', s.name,
                'seq', s.seq, 'attempt', s.attempt, 'max_attempts', s.max_attempts, 'tries', s.tries, 'call', agno.inflate(s.call), 'effect', s.effect,
                'policy', coalesce(s.policy, '{}'), 'answer', s.answer, 'reconciling', s.reconciling, 'tenant', r.tenant, 'agent', r.agent,
                'priority', r.priority, 'arrival', s.arrival, 'lineage', coalesce(r.lineage, '{}'), 'session_id', r.session_id, 'user_id', r.user_id, 'metadata', r.metadata, 'canvas', r.canvas,
                'turns', r.turns, 'tool_calls', r.tool_calls, 'usage', json_build_object('input_tokens', r.input_tokens,
                    'output_tokens', r.output_tokens, 'cached_tokens', r.cached_tokens, 'cache_write_tokens', r.cache_write_tokens,
                    'reasoning_tokens', r.reasoning_tokens),
                'cost_usd', r.cost_usd::float8, 'depth', r.depth, 'created_at', r.created_at, 'deadline_at', r.deadline_at,
                'parent_run_id', r.parent_run_id, 'definition', encode(r.definition, 'hex'),
                'compacted', t.compacted,
                'steers', CASE WHEN s.kind = 'turn' AND r.session_status = 'live' THEN agno.pending_steers(r.id) ELSE '[]' END)::text,
            t.transcript, t.after, t.last_at
        FROM unnest(claimed, places) AS c (id, place) JOIN agno.step s ON s.id = c.id JOIN agno.run r ON r.id = s.run_id
            -- A condition on the join would call it for each tool, too.
            LEFT JOIN LATERAL agno.transcript_of(CASE WHEN s.kind IN ('turn', 'compact') THEN s.run_id END, s.seq, asked->(c.place - 1)->'known', true) AS t
                ON true;
END $$;

-- Return the messages of a run before `below` as a JSON array, without those up to `known`; see agno.claim_steps. If `compacts`, its newest
-- summary takes the place of those that it stands for, and `compacted` says which. Text is added to text: an aggregate of jsonb would parse and
-- write the whole transcript once more. No row without a run.
CREATE OR REPLACE FUNCTION agno.transcript_of(of_run uuid, below int, known jsonb, compacts boolean DEFAULT false)
RETURNS TABLE (transcript text, after int, last_at bigint, compacted json) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    known_seq int := (known->>'seq')::int;
    last_known int := -1;
    since int := 0;
    keeps_first boolean;
    front text := '';
BEGIN
    IF of_run IS NULL THEN
        RETURN;
    END IF;
    IF compacts THEN
        SELECT c.until_seq, c.keeps_first INTO since, keeps_first FROM agno.compaction c
        WHERE c.run_id = of_run AND c.at_seq <= below ORDER BY c.until_seq DESC LIMIT 1;
        since := coalesce(since, 0);
    END IF;
    IF known_seq < below AND coalesce((known->>'since')::int, 0) = since AND (known->>'at')::bigint = agno.message_at(of_run, known_seq) THEN
        last_known := known_seq;
    ELSIF since > 0 THEN
        front := agno.summary_before(of_run, since, since < below);
    END IF;
    RETURN QUERY
        SELECT '[' || front || coalesce(string_agg(CASE WHEN strpos(m.plain, '"$blob"') = 0 THEN m.plain ELSE agno.inflate(m.content)::text END,
                ',' ORDER BY m.seq), '') || ']', last_known, agno.message_at(of_run, below - 1),
            CASE WHEN since > 0 THEN json_build_object('until_seq', since, 'keeps_first', keeps_first) END
        FROM (SELECT seq, content, content::text AS plain FROM agno.message
              WHERE run_id = of_run AND seq > greatest(last_known, since - 1) AND seq < below OFFSET 0) m;
END $$;

-- Return when a message was written, in microseconds since 1970: another message in its place has another time.
CREATE OR REPLACE FUNCTION agno.message_at(of_run uuid, at_seq int) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT (extract(epoch FROM created_at) * 1000000)::bigint FROM agno.message WHERE run_id = $1 AND seq = $2;
$$;

-- Claim one step, for workers of earlier code.
CREATE OR REPLACE FUNCTION agno.claim(of_run uuid, of_step uuid, in_generation int, of_kind text, by_worker text, lease_s float8)
RETURNS TABLE (step_id uuid, run_id uuid, generation int, kind text, key text, name text, seq int, attempt int, max_attempts int, tries int,
    call jsonb, effect text, policy jsonb, answer jsonb, reconciling boolean, tenant text, agent text, priority smallint, session_id text, user_id text,
    metadata jsonb, canvas jsonb, turns int, tool_calls int, usage jsonb, cost_usd float8, depth smallint, created_at timestamptz,
    deadline_at timestamptz, parent_run_id uuid, definition text, transcript jsonb) LANGUAGE sql AS $$
    SELECT one.* FROM agno.claim_steps(jsonb_build_array(jsonb_build_object('run_id', $1, 'step_id', $2, 'generation', $3, 'kind', $4)), $5, $6, true) c,
        jsonb_to_record(c.claim::jsonb || jsonb_build_object('transcript', c.transcript::jsonb)) AS one (step_id uuid, run_id uuid, generation int,
            kind text, key text, name text, seq int, attempt int, max_attempts int, tries int, call jsonb, effect text, policy jsonb, answer jsonb,
            reconciling boolean, tenant text, agent text, priority smallint, session_id text, user_id text, metadata jsonb, canvas jsonb, turns int,
            tool_calls int, usage jsonb, cost_usd float8, depth smallint, created_at timestamptz, deadline_at timestamptz, parent_run_id uuid,
            definition text, transcript jsonb);
$$;

-- End one step with the first result of its generation, in a transaction that holds its run; see agno.end_steps. `moves_run`: the caller changes
-- the run, and locks it exclusively.
CREATE OR REPLACE FUNCTION agno.end_step(of_run uuid, of_step uuid, in_generation int, of_kind text, result jsonb, moves_run boolean)
RETURNS SETOF agno.step LANGUAGE plpgsql AS $$
BEGIN
    IF moves_run THEN
        PERFORM FROM agno.run r WHERE r.id = of_run FOR NO KEY UPDATE;
    ELSE
        PERFORM FROM agno.run r WHERE r.id = of_run FOR SHARE;
    END IF;
    RETURN QUERY SELECT * FROM agno.end_steps(jsonb_build_array(result || jsonb_build_object('run_id', of_run, 'step_id', of_step,
        'generation', in_generation, 'kind', of_kind)), ARRAY[of_step]);
END $$;

-- End steps, of runs that the caller holds, with the first results of their generations. No row: another result came first, or the run is over.
-- A result holds run_id, step_id, generation, kind, status? (done), error?, answer?, value? (of a program's call), late_only? (the keeper: the lease must still be over), and
-- for a step that waited for a person waits_for and attempt (the question, and the attempt after which it was asked). A worker that was thought
-- dead may still end a `once` tool until a person has answered.
CREATE OR REPLACE FUNCTION agno.end_steps(results jsonb, only_steps uuid[]) RETURNS SETOF agno.step LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY
        UPDATE agno.step s SET status = coalesce(e.status, 'done'), ended_at = clock_timestamp(), lease_until = NULL, not_before = NULL,
            waits_for = NULL, expires_at = NULL, error = coalesce(e.error, s.error),
            answer = coalesce(e.answer || jsonb_build_object('at', statement_timestamp()), s.answer),
            result = CASE WHEN s.arrival = 0 AND e.error IS NULL AND coalesce(e.status, 'done') = 'done' THEN coalesce(e.value, 'null')
                WHEN s.kind = 'turn' THEN e.value END
        FROM jsonb_to_recordset(results) AS e (run_id uuid, step_id uuid, generation int, kind text, status text, error jsonb, answer jsonb, value jsonb,
            late_only boolean, waits_for text, attempt int), agno.run r
        WHERE e.step_id = ANY(only_steps) AND s.id = e.step_id AND s.kind = e.kind
          AND (s.run_id = e.run_id AND s.generation = e.generation) IS TRUE  -- no condition of an index: that of the run would be read whole
          AND r.id = e.run_id AND r.generation = e.generation AND r.ended_at IS NULL
          AND CASE WHEN e.waits_for IS NOT NULL THEN s.waits_for = e.waits_for AND s.attempt = e.attempt
              ELSE s.status IN ('ready', 'running') OR s.waits_for = 'resolution' END
          AND (NOT coalesce(e.late_only, false) OR s.status = 'running' AND s.lease_until < clock_timestamp())
        RETURNING s.*;
END $$;

-- Change a run; see agno.move_runs.
CREATE OR REPLACE FUNCTION agno.move_run(of_run uuid, change jsonb) RETURNS void LANGUAGE sql AS $$
    SELECT agno.move_runs(jsonb_build_array(jsonb_build_object('run_id', $1, 'run', $2)));
$$;

-- Change runs: their status, what they have used, and their end. `changes` is [{run_id, run}], where `run` holds status?, usage?, turns?,
-- tool_calls?, cost_usd?, definition? ({sha256, content}), and for an end content?, reason?, error?, ended; raise_generation? makes late results
-- come too late.
CREATE OR REPLACE FUNCTION agno.move_runs(changes jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF changes @? '$[*].run.definition' THEN
        INSERT INTO agno.definition (sha256, content)
        SELECT decode(new->>'sha256', 'hex'), new->'content' FROM jsonb_path_query(changes, '$[*].run.definition') new ON CONFLICT DO NOTHING;
    END IF;
    UPDATE agno.run r SET status = coalesce(c.run->>'status', r.status),
        generation = r.generation + coalesce((c.run->>'raise_generation')::boolean, false)::int,
        input_tokens = r.input_tokens + coalesce((c.run->'usage'->>'input_tokens')::bigint, 0),
        output_tokens = r.output_tokens + coalesce((c.run->'usage'->>'output_tokens')::bigint, 0),
        cached_tokens = r.cached_tokens + coalesce((c.run->'usage'->>'cached_tokens')::bigint, 0),
        cache_write_tokens = r.cache_write_tokens + coalesce((c.run->'usage'->>'cache_write_tokens')::bigint, 0),
        reasoning_tokens = r.reasoning_tokens + coalesce((c.run->'usage'->>'reasoning_tokens')::bigint, 0),
        turns = r.turns + coalesce((c.run->>'turns')::int, 0), tool_calls = r.tool_calls + coalesce((c.run->>'tool_calls')::int, 0),
        cost_usd = r.cost_usd + coalesce((c.run->>'cost_usd')::numeric, 0),
        definition = coalesce(r.definition, decode(c.run->'definition'->>'sha256', 'hex')),
        content = c.run->'content', reason = c.run->>'reason', error = c.run->'error',
        ended_at = CASE WHEN c.run ? 'ended' THEN clock_timestamp() END,
        ended_as = CASE WHEN c.run ? 'ended' THEN nullif(c.run->>'status', 'done') END,
        paused_at = CASE WHEN NOT c.run ? 'ended' THEN r.paused_at END
    FROM jsonb_to_recordset(changes) AS c (run_id uuid, run jsonb) WHERE c.run IS NOT NULL AND r.id = c.run_id;
END $$;

-- Record the results of steps and all that follows from them: their messages, the next steps, their parts of barriers, the changes of their runs.
-- A result is as in agno.end_steps, and also holds messages? ([{seq, content}]), blobs?, steps? (see agno.write_steps), barrier? ({id, size,
-- body}), children? (see agno.submit_run), run? (see agno.move_runs), state? (see agno.change_state), steered? (see agno.commit_steers),
-- background? (see agno.request_background), counted_by? (runs, see agno.settle_budget), cancel? and arm? (see agno.cancel_calls and agno.arm_barrier), stored_results? ([{seq, result}], see agno.store_result), compaction? (see agno.end_compaction)
-- and publish_after_s. Returns the steps that were recorded, and the messages to publish now. Unless `waits`, which is for one result, nothing waits for another transaction that may wait for this one: a result is left out
-- when its run is locked, and when it may lock more than its run, as the end of a run that another run or a canvas waits for does.
CREATE OR REPLACE FUNCTION agno.finish_steps(results jsonb, waits boolean, OUT recorded uuid[], OUT messages jsonb, OUT children jsonb)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    one jsonb := results->0;
    runs uuid[];
    barriers uuid[];
    steps jsonb;
    has_calls boolean;
BEGIN
    IF waits THEN
        PERFORM FROM agno.run r WHERE r.id = (one->>'run_id')::uuid FOR NO KEY UPDATE;
        recorded := ARRAY[(one->>'step_id')::uuid];
    ELSE
        recorded := ARRAY(SELECT (item->>'step_id')::uuid FROM jsonb_array_elements(results) item JOIN agno.run r ON r.id = (item->>'run_id')::uuid
            WHERE NOT item ?| '{blobs,children,state,steered,background,compaction,arm,ends_calls,counted_by}'
              AND (r.canvas IS NULL AND r.parent_run_id IS NULL AND r.session_id IS NULL AND r.kind <> 'background' OR (item->'run' ? 'ended') IS NOT TRUE)
              AND (item->'run'->'definition' IS NULL OR jsonb_array_length(results) = 1
                   OR EXISTS (SELECT FROM agno.definition d WHERE d.sha256 = decode(item->'run'->'definition'->>'sha256', 'hex')))
            FOR NO KEY UPDATE OF r SKIP LOCKED);
    END IF;
    SELECT array_agg(s.id), array_agg(s.run_id), array_agg(s.barrier_id) FILTER (WHERE s.barrier_id IS NOT NULL), bool_or(s.arrival = 0)
        INTO recorded, runs, barriers, has_calls
    FROM agno.end_steps(results, recorded) s;
    IF recorded IS NULL THEN
        RETURN;
    END IF;
    IF cardinality(recorded) < jsonb_array_length(results) THEN
        SELECT jsonb_agg(item) INTO results FROM jsonb_array_elements(results) item WHERE (item->>'step_id')::uuid = ANY(recorded);
        one := results->0;
    END IF;
    PERFORM agno.store_blobs(one->'blobs');
    INSERT INTO agno.message (run_id, seq, content)
    SELECT e.run_id, m.seq, m.content FROM jsonb_to_recordset(results) AS e (run_id uuid, messages jsonb),
        jsonb_to_recordset(e.messages) AS m (seq int, content jsonb);
    IF results @? '$[*].stored_results' THEN
        PERFORM agno.store_result(e.run_id, s.seq, s.result) FROM jsonb_to_recordset(results) AS e (run_id uuid, stored_results jsonb),
            jsonb_to_recordset(e.stored_results) AS s (seq int, result jsonb);
    END IF;
    IF one ? 'state' THEN
        PERFORM agno.change_state(runs[1], recorded[1], one->'state');
    END IF;
    IF one ? 'steered' THEN
        PERFORM agno.commit_steers(recorded[1], one->'steered');
    END IF;
    IF one ? 'compaction' THEN
        messages := agno.end_compaction(runs[1], one->'compaction', (one->>'publish_after_s')::float8);
    END IF;
    steps := jsonb_path_query_array(results, '$[*].steps[*]');
    IF results @? '$[*].barrier' THEN
        INSERT INTO agno.barrier (id, run_id, generation, size, body)
        SELECT b.id, e.run_id, e.generation, b.size, b.body FROM jsonb_to_recordset(results) AS e (run_id uuid, generation int, barrier jsonb),
            jsonb_to_record(e.barrier) AS b (id uuid, size int, body jsonb) WHERE e.barrier IS NOT NULL;
    END IF;
    IF barriers IS NOT NULL THEN
        steps := steps || agno.count_parts(barriers);
        IF has_calls THEN
            PERFORM agno.number_arrivals(recorded);
        END IF;
    END IF;
    IF one ? 'cancel' THEN
        PERFORM agno.cancel_calls(runs[1], (one->>'generation')::int, one->'cancel');
    END IF;
    IF one ? 'arm' THEN
        steps := steps || agno.arm_barrier(runs[1], (one->>'generation')::int, one->'arm');
    END IF;
    IF steps <> '[]' THEN
        SELECT jsonb_agg(w) INTO messages FROM agno.write_steps(runs[1], (one->>'generation')::int, steps, (one->>'publish_after_s')::float8) w;
    END IF;
    IF one ? 'arm' THEN
        PERFORM agno.take_signals(runs[1]);  -- those that came before their waits
    END IF;
    IF one ? 'children' THEN
        -- Child runs are submitted as any other run; they are paused where their parent is.
        SELECT jsonb_agg(c) INTO children
        FROM agno.run r, jsonb_array_elements(one->'children') AS asked (run),
            LATERAL agno.submit_run(asked.run || jsonb_build_object('paused_at', r.paused_at)) AS c
        WHERE r.id = runs[1];
    END IF;
    IF results @? '$[*].run' THEN
        PERFORM agno.move_runs(results);
    END IF;
    IF one ? 'ends_calls' THEN
        PERFORM agno.end_open_steps(r.id, r.reason) FROM agno.run r WHERE r.id = runs[1];
    END IF;
    IF one ? 'background' THEN -- after the end, which locks the session
        PERFORM agno.request_background(runs[1], one->'background');
    END IF;
    IF one ? 'counted_by' THEN -- after all locks of runs
        PERFORM agno.settle_budget(recorded[1], one->'counted_by', one->'run');
    END IF;
END $$;

-- Record one result, for workers of earlier code.
CREATE OR REPLACE FUNCTION agno.finish(of_run uuid, of_step uuid, in_generation int, of_kind text, result jsonb)
RETURNS TABLE (recorded boolean, messages jsonb, children jsonb) LANGUAGE sql AS $$
    SELECT f.recorded IS NOT NULL, coalesce(f.messages, '[]'), coalesce(f.children, '[]') FROM agno.finish_steps(
        jsonb_build_array($5 || jsonb_build_object('run_id', $1, 'step_id', $2, 'generation', $3, 'kind', $4)), true) f;
$$;

-- Count a part of a run's barrier. The last part writes the step in the barrier's body.
CREATE OR REPLACE FUNCTION agno.arrive(barrier uuid, publish_after_s float8)
RETURNS TABLE (outbox_id bigint, step_id uuid, kind text, queue text, priority smallint) LANGUAGE sql AS $$
    SELECT w.outbox_id, w.step_id, w.kind, w.queue, w.priority FROM agno.write_steps(NULL, NULL, agno.count_parts(ARRAY[$1]), $2) w;
$$;

-- Count parts of runs' barriers, each as often as it is named, and return the steps in the bodies of those that are full now. The row lock orders
-- concurrent parts, so that exactly one of them sees a barrier full.
CREATE OR REPLACE FUNCTION agno.count_parts(barriers uuid[]) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    steps jsonb;
BEGIN
    WITH counted AS (
        UPDATE agno.barrier b SET arrived = b.arrived + p.parts, fired_at = CASE WHEN b.arrived + p.parts >= b.size THEN coalesce(b.fired_at, clock_timestamp()) END
        FROM (SELECT id, count(*)::int AS parts FROM unnest(barriers) id GROUP BY id) p
        WHERE b.id = p.id RETURNING b.run_id, b.generation, b.body, b.arrived >= b.size AND b.arrived - p.parts < b.size AS is_full
    )
    SELECT jsonb_agg(c.body || jsonb_build_object('run_id', c.run_id, 'generation', c.generation)) INTO steps FROM counted c WHERE c.is_full;
    RETURN coalesce(steps, '[]');
END $$;

-- Return when a step that is sent now is sent again if nobody claims it, although its queue is not empty: after a minute, or after as long as
-- it has existed, which doubles the wait each time, so that a real backlog is not sent twice. A new step has the same in the column's default.
CREATE OR REPLACE FUNCTION agno.resend_time(created_at timestamptz DEFAULT NULL) RETURNS timestamptz LANGUAGE sql AS $$
    SELECT clock_timestamp() + greatest(interval '1 minute', clock_timestamp() - $1);
$$;

-- Return the time since when a step has been ready, which the keeper's sends do not change. What was interrupted, answered or held back
-- before counts from its last send.
CREATE OR REPLACE FUNCTION agno.ready_since(step agno.step) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN step.sent_at IS NULL OR step.attempt > 0 OR step.answer IS NOT NULL OR step.kind IN ('ingest', 'embed') THEN step.sent_at
        ELSE greatest(step.created_at, step.due_at) END;
$$;
