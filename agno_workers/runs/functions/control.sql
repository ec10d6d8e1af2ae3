-- Changes of a run from outside, by people and the keeper.

-- End a run from outside: cancelled, failed, or past its deadline. The generation is raised, so that late results of running steps are
-- refused; then all open steps end. Status `done` is for a deadline: see below. `how` holds status, reason,
-- error, overdue_only? (only past its deadline), if_waits? (only if that step still waits) and alone? (false for several runs in one transaction:
-- one that is locked, and one whose end locks its session or the background work of others, is left out). Returns false when it ended nothing.
CREATE OR REPLACE FUNCTION agno.stop_run(of_run uuid, how jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    stopped agno.run;
    ends_done boolean := false;
    last_text jsonb;
BEGIN
    -- Wait for a step that is being recorded, so that the statements below see the steps of that commit.
    IF how->>'alone' = 'false' THEN
        SELECT r.* INTO stopped FROM agno.run r WHERE r.id = of_run FOR NO KEY UPDATE SKIP LOCKED;
    ELSE
        SELECT r.* INTO stopped FROM agno.run r WHERE r.id = of_run FOR NO KEY UPDATE;
    END IF;
    IF stopped.id IS NULL OR stopped.ended_at IS NOT NULL
       OR how->>'alone' = 'false' AND (coalesce(stopped.session_status IN ('live', 'parallel'), false) OR stopped.kind = 'background')
       OR (how->>'overdue_only')::boolean AND (stopped.deadline_at > clock_timestamp() OR stopped.deadline_at IS NULL)
       OR how ? 'if_waits' AND NOT EXISTS (SELECT FROM agno.step s WHERE s.id = (how->>'if_waits')::uuid AND s.status = 'waiting') THEN
        RETURN false;
    END IF;
    -- A run that ends at its deadline stores its last text; its agent's limits decide whether that is an answer or a failure.
    IF how->>'status' = 'done' THEN
        SELECT text INTO last_text FROM agno.message m, jsonb_path_query_first(m.content, '$.parts[*] ? (@.type == "text").text') AS text
            WHERE m.run_id = of_run AND m.content->>'role' = 'assistant' AND text IS NOT NULL ORDER BY m.seq DESC LIMIT 1;
        SELECT d.content->'limits'->>'on_limit' = 'return' AND stopped.turns > 0 INTO ends_done FROM agno.definition d
            WHERE d.sha256 = stopped.definition;
    END IF;
    PERFORM agno.move_run(of_run, jsonb_build_object('ended', true, 'raise_generation', true, 'reason', how->'reason') || CASE WHEN ends_done
        THEN jsonb_build_object('status', 'done', 'content', coalesce(last_text, '""'))
        ELSE jsonb_build_object('status', CASE how->>'status' WHEN 'done' THEN 'failed' ELSE how->>'status' END, 'error', how->'error')
             || CASE WHEN last_text IS NULL THEN '{}' ELSE jsonb_build_object('content', last_text) END END);
    PERFORM agno.end_open_steps(of_run, how->>'reason');
    RETURN true;
END $$;

-- End all open steps of a run as cancelled, and delete their messages. Each open call gets a result: providers refuse a transcript with a
-- call without one, and the next run of the session may read this one. The caller holds the run.
CREATE OR REPLACE FUNCTION agno.end_open_steps(of_run uuid, reason text) RETURNS void LANGUAGE sql AS $$
    WITH ended AS (
        UPDATE agno.step s SET status = 'cancelled', ended_at = clock_timestamp(), lease_until = NULL, not_before = NULL, waits_for = NULL,
            expires_at = NULL
        WHERE s.run_id = $1 AND s.status IN ('ready', 'running', 'waiting')
        RETURNING s.id, s.run_id, s.kind, s.seq, s.name, s.arrival, s.call->>'id' AS call_id
    ),
    results AS (
        INSERT INTO agno.message (run_id, seq, content)
        SELECT run_id, seq, agno.tool_message(call_id, name, format('%s did not end: the run was stopped (%s).', name, $2), true)
        FROM ended WHERE kind IN ('tool', 'delegate') AND arrival IS NULL
    ),
    -- A locked row is being sent, and its sender deletes it.
    held AS (
        SELECT outbox.id FROM agno.outbox JOIN ended ON outbox.step_id = ended.id FOR UPDATE OF outbox SKIP LOCKED
    )
    DELETE FROM agno.outbox USING held WHERE outbox.id = held.id;
$$;

-- Return the name of a turn that was written, or is to follow the calls of the turn before it; see core/handoff.py.
CREATE OR REPLACE FUNCTION agno.name_of_turn(of_run uuid, of_key text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT s.name FROM agno.step s WHERE s.run_id = $1 AND s.key = $2 ORDER BY s.generation DESC LIMIT 1),
        (SELECT b.body->>'name' FROM agno.barrier b WHERE b.run_id = $1 AND b.body->>'key' = $2 ORDER BY b.generation DESC LIMIT 1), '');
$$;

-- Retry a failed run after its last good turn, in the next generation; the failed turn's messages are deleted. The run gets as much time as
-- it had from its submit to its deadline. A program keeps its calls that are done, see agno.keep_calls. No row for a run that did not fail, and for a
-- delegated one: its parent has the error already.
CREATE OR REPLACE FUNCTION agno.retry_run(run_id uuid)
RETURNS TABLE (step_id uuid, generation int) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    failed agno.run;
    last_turn agno.step;
    new_step uuid := agno.uuid7();
    place int;
    turn int;
    forgotten int;
    its_place jsonb;
BEGIN
    SELECT r.* INTO failed FROM agno.run r WHERE r.id = $1 AND r.status = 'failed' AND r.parent_run_id IS NULL AND r.rolled_back_at IS NULL
        FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF failed.kind = 'background' THEN
        IF agno.retry_background(failed, new_step) THEN
            RETURN QUERY SELECT new_step, failed.generation + 1;
        END IF;
        RETURN;
    END IF;
    SELECT s.* INTO last_turn FROM agno.step s WHERE s.run_id = $1 AND s.kind = 'turn' ORDER BY s.seq DESC, s.generation DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN; -- it stands for another run and did no work, or is a run of another kind, which has its own retry
    END IF;
    its_place := agno.reenter_session(failed);
    turn := split_part(last_turn.key, ':', 2)::int;
    IF agno.generation_of_calls($1) IS NOT NULL THEN
        SELECT max(s.seq) + 1, failed.turns + 1, 0 INTO place, turn, forgotten FROM agno.step s WHERE s.run_id = $1;
        PERFORM agno.keep_calls($1, failed.generation + 1, failed.error->'ids'->>'step', new_step);
    ELSIF EXISTS (SELECT FROM agno.step s WHERE s.run_id = $1 AND s.kind IN ('tool', 'delegate') AND s.seq > last_turn.seq) THEN
        SELECT max(m.seq) + 1, turn + 1 INTO place, turn FROM agno.message m WHERE m.run_id = $1;
        forgotten := 0;
    ELSE
        -- Messages that joined at that turn stay: they are before the turn that takes its place.
        place := last_turn.seq + (SELECT count(*) FROM agno.steer t WHERE t.step_id = last_turn.id);
        WITH gone AS (DELETE FROM agno.message m WHERE m.run_id = $1 AND m.seq >= place RETURNING m.content->>'role' AS role)
        SELECT count(*) FILTER (WHERE role = 'assistant') INTO forgotten FROM gone;
        UPDATE agno.step s SET status = 'dead' WHERE s.id = last_turn.id AND s.status = 'done';
    END IF;
    UPDATE agno.run r SET status = 'queued', generation = r.generation + 1, ended_at = NULL, ended_as = NULL, reason = NULL, error = NULL, content = NULL,
        paused_at = NULL, turns = r.turns - forgotten, session_status = its_place->>'status', session_position = (its_place->>'position')::bigint,
        deadline_at = clock_timestamp() + (r.deadline_at - agno.began(r.id, last_turn.generation))
    WHERE r.id = $1;
    PERFORM agno.write_steps($1, failed.generation + 1, jsonb_build_array(jsonb_build_object('id', new_step, 'key', 'turn:' || turn, 'kind', 'turn',
        'name', agno.name_of_turn($1, 'turn:' || turn), 'queue', last_turn.queue, 'priority', last_turn.priority, 'seq', place,
        'max_attempts', last_turn.max_attempts,
        'waits_for', CASE its_place->>'status' WHEN 'waiting' THEN 'session' END)), 0);
    IF its_place->>'status' = 'waiting' THEN
        PERFORM agno.wake_session(failed.tenant, failed.session_id);
    END IF;
    PERFORM pg_notify('agno_outbox', '');
    RETURN QUERY SELECT new_step, failed.generation + 1;
END $$;

-- Start a new run in the middle of an old one: the transcript and the steps before the forked step are copied, with their results; the
-- forked step is new, and so is the child run of a delegation. The old run does not change. Of a program, the calls that ended are copied which
-- were made before the forked one, or beside it in the same turn; its code makes that one, and all later ones.
-- `fork` holds id, step_id, blobs, and the edits: input? (the user's message; for a delegation: the input of its run), messages?
-- ([{seq, content}]), call?, idempotency_key?, metadata?, deadline_s?. Raises where a tool call beside the step is still open.
CREATE OR REPLACE FUNCTION agno.fork_run(fork jsonb) RETURNS TABLE (run_id uuid, created boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    new_id uuid := (fork->>'id')::uuid;
    at agno.step;
    old agno.run;
    calling_turn agno.step;
    last_child agno.run;
    round text;
    new_barrier uuid := agno.uuid7();
    new_step uuid := agno.uuid7();
    new_child uuid;
    below int;
    place int;
    known uuid;
    its_place jsonb;
    calls_in int;
    as_turn boolean;
BEGIN
    SELECT s.* INTO at FROM agno.step s WHERE s.id = (fork->>'step_id')::uuid;
    IF at.kind NOT IN ('turn', 'tool', 'delegate') AND at.arrival IS NULL THEN
        RAISE EXCEPTION 'step % cannot be forked: choose a turn or a tool call.', at.key USING ERRCODE = '22023';
    END IF;
    SELECT r.* INTO old FROM agno.run r WHERE r.id = at.run_id;
    IF (old.session_status = 'waiting' AND old.ended_at IS NULL) IS NOT TRUE THEN -- the holder of a run that waits for its turn waits for no session
        SELECT r.* INTO old FROM agno.run r WHERE r.id = at.run_id FOR SHARE;
    END IF;
    calls_in := agno.generation_of_calls(old.id);  -- a retry moves them
    as_turn := at.kind = 'turn' OR calls_in IS NOT NULL;
    place := at.seq;
    below := at.seq;
    IF at.kind <> 'turn' AND calls_in IS NOT NULL THEN
        SELECT coalesce(min(s.seq), at.seq + 1000000) INTO below FROM agno.step s WHERE s.run_id = old.id AND s.kind = 'turn' AND s.seq > at.seq;
    END IF;
    IF EXISTS (SELECT FROM agno.step s WHERE s.run_id = old.id AND s.generation = calls_in AND s.arrival = 0 AND s.seq < below AND s.effect = 'once'
               AND s.attempt > 0 AND s.ended_at IS NULL AND s.id <> at.id) THEN
        RAISE EXCEPTION 'a call of effect once beside % is still open: fork once it has ended.', at.key USING ERRCODE = '22023';
    END IF;
    IF NOT as_turn THEN
        -- By the keys: calls that were copied from another run have no barrier here.
        round := split_part(at.key, ':', 2);
        SELECT s.* INTO calling_turn FROM agno.step s WHERE s.run_id = old.id AND s.key = 'turn:' || round ORDER BY s.generation DESC LIMIT 1;
        SELECT max(s.seq) + 1 INTO below FROM agno.step s WHERE s.run_id = old.id AND s.kind IN ('tool', 'delegate') AND split_part(s.key, ':', 2) = round;
        IF EXISTS (SELECT FROM agno.step s WHERE s.run_id = old.id AND s.kind IN ('tool', 'delegate') AND split_part(s.key, ':', 2) = round AND s.id <> at.id
                   AND s.status IN ('ready', 'running', 'waiting')) THEN
            RAISE EXCEPTION 'a tool call beside % is still open: fork once it has ended, or from the turn before.', at.key USING ERRCODE = '22023';
        END IF;
    END IF;
    IF at.kind = 'delegate' AND NOT as_turn THEN
        new_child := agno.uuid7();
        -- The last child run of this delegation; a copied delegation has it in the run that this one was forked from.
        WITH RECURSIVE line AS (
            SELECT old.id AS id, old.forked_from AS origin, 0 AS back
            UNION ALL SELECT r.id, r.forked_from, line.back + 1 FROM line JOIN agno.run r ON r.id = line.origin
        )
        SELECT c.* INTO last_child FROM line JOIN agno.step s ON s.run_id = line.id AND s.key = at.key JOIN agno.run c ON c.id = s.child_run_id
            ORDER BY line.back, s.generation DESC LIMIT 1;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the child run of % was deleted: fork from the turn before.', at.key USING ERRCODE = '22023';
        END IF;
    END IF;
    IF NOT EXISTS (SELECT FROM agno.run r WHERE r.tenant = old.tenant AND r.agent = old.agent AND r.idempotency_key = fork->>'idempotency_key'
            AND r.user_id IS NOT DISTINCT FROM old.user_id) THEN
        its_place := agno.enter_beside(old);
    END IF;
    INSERT INTO agno.run (id, tenant, kind, agent, status, queue, priority, session_id, session_position, session_status, user_id, idempotency_key,
        forked_from, metadata, deadline_at, turns, tool_calls)
    SELECT new_id, old.tenant, old.kind, old.agent, CASE WHEN as_turn THEN 'queued' ELSE 'waiting' END, old.queue, old.priority, old.session_id,
        (its_place->>'position')::bigint, its_place->>'status', old.user_id,
        fork->>'idempotency_key', old.id, coalesce(fork->'metadata', old.metadata),
        clock_timestamp() + make_interval(secs => (fork->>'deadline_s')::float8),
        CASE WHEN calls_in IS NULL THEN (SELECT count(*) FROM agno.message m WHERE m.run_id = old.id AND m.seq < below AND m.content->>'role' = 'assistant')
            ELSE (SELECT count(DISTINCT s.key) FROM agno.step s WHERE s.run_id = old.id AND s.kind = 'turn' AND s.seq < below) END,
        (SELECT count(DISTINCT s.key) FROM agno.step s WHERE s.run_id = old.id AND s.kind IN ('tool', 'delegate') AND s.seq < below)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT r.id INTO known FROM agno.run r WHERE r.tenant = old.tenant AND r.agent = old.agent AND r.idempotency_key = fork->>'idempotency_key'
            AND r.user_id IS NOT DISTINCT FROM old.user_id;
        IF known IS NULL THEN
            RAISE EXCEPTION 'the run % ended while it was forked: try again', old.id USING ERRCODE = '40001';
        END IF;
        RETURN QUERY SELECT known, false;
        RETURN;
    END IF;
    PERFORM agno.store_blobs(fork->'blobs');
    INSERT INTO agno.message (run_id, seq, content)
    SELECT new_id, m.seq, coalesce(e.content, m.content)
    FROM agno.message m LEFT JOIN jsonb_to_recordset(coalesce(fork->'messages', '[]')) AS e (seq int, content jsonb) ON e.seq = m.seq
    WHERE m.run_id = old.id AND m.seq < below AND (at.kind = 'turn' OR m.seq <> at.seq);
    INSERT INTO agno.stored_result (run_id, seq, id, content)
    SELECT new_id, r.seq, r.id, r.content FROM agno.stored_result r
    WHERE r.run_id = old.id AND r.seq < below AND (at.kind = 'turn' OR r.seq <> at.seq);
    INSERT INTO agno.compaction (run_id, until_seq, at_seq, keeps_first, summary, tokens_before, tokens_after)
    SELECT new_id, c.until_seq, c.at_seq, c.keeps_first, c.summary, c.tokens_before, c.tokens_after FROM agno.compaction c
    WHERE c.run_id = old.id AND (c.at_seq < below OR c.at_seq = below AND at.kind = 'turn');
    INSERT INTO agno.step (id, run_id, generation, key, kind, status, queue, priority, name, seq, call, effect, max_attempts, policy, answer,
        error, started_at, ended_at)
    SELECT DISTINCT ON (s.key) agno.uuid7(), new_id, 0, s.key, s.kind, s.status, s.queue, s.priority, s.name, s.seq, s.call, s.effect,
        s.max_attempts, s.policy, s.answer, s.error, s.started_at, s.ended_at
    FROM agno.step s WHERE s.run_id = old.id AND s.seq < below AND s.id <> at.id AND s.key <> at.key AND s.ended_at IS NOT NULL AND calls_in IS NULL
    ORDER BY s.key, s.generation DESC;
    IF calls_in IS NOT NULL THEN
        PERFORM agno.copy_calls(old.id, calls_in, below, at.key, new_id, new_step);
    END IF;
    PERFORM agno.copy_state(old.tenant, scope, old.id::text, new_id::text, at.created_at, 'fork') FROM unnest('{run,team}'::text[]) scope;
    IF as_turn THEN
        IF fork ? 'input' AND at.seq > 1 AND calls_in IS NULL THEN
            INSERT INTO agno.message (run_id, seq, content) VALUES (new_id, at.seq, fork->'input');
            place := at.seq + 1;
        ELSIF fork ? 'input' THEN
            UPDATE agno.message m SET content = fork->'input' WHERE m.run_id = new_id AND m.seq = 0;
        END IF;
    ELSE
        INSERT INTO agno.barrier (id, run_id, generation, size, body)
        VALUES (new_barrier, new_id, 0, 1, jsonb_build_object('id', agno.uuid7(), 'kind', 'turn', 'key', 'turn:' || round::int + 1,
            'name', agno.name_of_turn(old.id, 'turn:' || round::int + 1), 'queue', calling_turn.queue,
            'priority', calling_turn.priority, 'seq', below, 'max_attempts', calling_turn.max_attempts));
    END IF;
    IF calls_in IS NOT NULL THEN
        SELECT 'turn:' || r.turns + 1, 'turn', r.queue, '', NULL, NULL, NULL INTO at.key, at.kind, at.queue, at.name, at.effect, at.policy, at.arrival
        FROM agno.run r WHERE r.id = new_id;
        SELECT coalesce(max(s.seq) + 1, place), NULL INTO place, round FROM agno.step s WHERE s.run_id = new_id;
        SELECT s.max_attempts INTO at.max_attempts FROM agno.step s WHERE s.run_id = old.id AND s.kind = 'turn' LIMIT 1;
    END IF;
    PERFORM agno.write_steps(new_id, 0, jsonb_build_array(jsonb_build_object('id', new_step, 'key', at.key, 'kind', at.kind, 'queue', at.queue,
        'priority', at.priority, 'name', at.name, 'seq', place, 'call', CASE WHEN at.kind <> 'turn' THEN coalesce(fork->'call', at.call) END, 'effect', at.effect,
        'barrier_id', CASE WHEN at.kind <> 'turn' THEN new_barrier END, 'max_attempts', at.max_attempts, 'policy', at.policy,
        'waits_for', CASE at.kind WHEN 'delegate' THEN 'run' ELSE at.policy->>'needs' END, 'child_run_id', new_child)), 0);
    IF at.kind = 'delegate' THEN
        PERFORM FROM agno.run r, agno.submit_run(jsonb_strip_nulls(jsonb_build_object(
            'id', new_child, 'tenant', r.tenant, 'kind', last_child.kind, 'agent', last_child.agent, 'queue', last_child.queue, 'user_id', r.user_id, 'priority', r.priority, 'parent_run_id', new_id,
            'lineage', jsonb_set(replace(last_child.lineage::text, last_child.parent_run_id::text, new_id::text)::jsonb, '{root}', to_jsonb(new_id)),
            'parent_step_id', new_step, 'depth', r.depth + 1, 'deadline_at', r.deadline_at, 'first_step',
            jsonb_build_object('kind', 'turn', 'key', 'turn:1', 'max_attempts', calling_turn.max_attempts), 'publish_after_s', 0)) || jsonb_build_object('metadata', r.metadata, 'input', coalesce(fork->'input',
                (SELECT m.content FROM agno.message m WHERE m.run_id = last_child.id AND m.seq = 0)))) AS child
        WHERE r.id = new_id;
    END IF;
    PERFORM pg_notify('agno_outbox', '');
    RETURN QUERY SELECT new_id, true;
END $$;
