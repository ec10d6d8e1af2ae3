-- The functions that live in the database: submitting, and what follows when a run ends.
-- Safe to run twice; a migration runs this file as it stood at its number.

-- Put one run on the road: run, first message, first step and the message owed to Celery, all or nothing.
-- `run` holds id?, agent, queue?, input (parts of the first message), session_id?, user_id?, idempotency_key?,
-- metadata?, canvas?, priority?, not_before?, max_attempts?, publish_after_s?, deadline_s? or deadline_at?, and of a delegation
-- parent_run_id?, parent_step_id?, depth?, paused_at?; of an ingestion (its agent is `knowledge:<name>`) ingestion: its options,
-- and its first step is a scan. An id or an (agent, idempotency_key)
-- that exists already returns the run that exists, and stores nothing. Except where a canvas waits for its own id while the key
-- is that of another run: then a run of that id is stored which does no work, and ends as, and when, the other one does.
CREATE OR REPLACE FUNCTION agno.submit_run(run jsonb)
RETURNS TABLE (run_id uuid, created boolean, step_id uuid, outbox_id bigint, queue text, priority smallint, due boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    new_id uuid := coalesce((run->>'id')::uuid, agno.uuid7());
    first_step uuid := agno.uuid7();
    run_queue text := coalesce(run->>'queue', 'agents');
    timer timestamptz := (run->>'not_before')::timestamptz;
    owed bigint;
    known agno.run;
BEGIN
    IF coalesce(run->>'agent', '') !~ '\S' THEN
        RAISE EXCEPTION 'agno.submit: agent is empty. Name the agent that is to do the work.' USING ERRCODE = '22023';
    END IF;
    IF run_queue !~ '\S' THEN
        RAISE EXCEPTION 'agno.submit: the queue of agent % is empty, and no worker serves such a one. Name a queue, or leave it out.',
            quote_literal(run->>'agent') USING ERRCODE = '22023';
    END IF;
    INSERT INTO agno.run (id, agent, status, queue, priority, session_id, user_id, idempotency_key, parent_run_id, parent_step_id, depth,
        metadata, canvas, paused_at, deadline_at)
    VALUES (new_id, run->>'agent', 'queued', run_queue, (run->>'priority')::smallint, run->>'session_id', run->>'user_id',
            run->>'idempotency_key', (run->>'parent_run_id')::uuid, (run->>'parent_step_id')::uuid, coalesce((run->>'depth')::smallint, 0),
            coalesce(run->'metadata', '{}'), nullif(run->'canvas', 'null'), (run->>'paused_at')::timestamptz,
            coalesce((run->>'deadline_at')::timestamptz,
                     coalesce(timer, clock_timestamp()) + make_interval(secs => (run->>'deadline_s')::float8)))
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT r.* INTO known FROM agno.run r
            WHERE r.id = new_id OR (r.agent = run->>'agent' AND r.idempotency_key = run->>'idempotency_key')
            ORDER BY r.id <> new_id LIMIT 1;
        IF known.id <> new_id AND run ? 'id' AND run ? 'canvas' THEN
            PERFORM agno.stand_in(run, new_id, known.id);
            known.id := new_id;
        END IF;
        RETURN QUERY SELECT known.id, false, NULL::uuid, NULL::bigint, known.queue, known.priority, false;
        RETURN;
    END IF;
    PERFORM agno.first_message(run, new_id);
    IF run ? 'ingestion' THEN
        INSERT INTO agno.ingestion (run_id, knowledge_id, options)
        SELECT new_id, k.id, agno.inflate(run->'ingestion') FROM agno.knowledge k WHERE 'knowledge:' || k.name = run->>'agent';
        IF NOT FOUND THEN
            RAISE EXCEPTION 'there is no %.', run->>'agent' USING ERRCODE = 'P0002';
        END IF;
    END IF;
    INSERT INTO agno.step (id, run_id, generation, key, kind, queue, priority, seq, max_attempts, not_before, due_at, sent_at)
    VALUES (first_step, new_id, 0, CASE WHEN run ? 'ingestion' THEN 'scan' ELSE 'turn:1' END,
            CASE WHEN run ? 'ingestion' THEN 'scan' ELSE 'turn' END, run_queue, (run->>'priority')::smallint, 1,
            coalesce((run->>'max_attempts')::int, 5), timer, timer, CASE WHEN timer IS NULL THEN clock_timestamp() END);
    IF timer IS NULL THEN
        INSERT INTO agno.outbox (step_id, due_at) VALUES (first_step, clock_timestamp() + make_interval(secs => coalesce((run->>'publish_after_s')::float8, 0.3))) RETURNING id INTO owed;
    END IF;
    RETURN QUERY SELECT new_id, true, first_step, owed, run_queue, (run->>'priority')::smallint, timer IS NULL;
END $$;

-- One part of a run's barrier is in. The last one writes the turn that it wakes, and what is owed for it; of two last ones
-- that come together one sees the barrier full, since the row lock puts them in order.
CREATE OR REPLACE FUNCTION agno.arrive(barrier_id uuid, publish_after_s float8)
RETURNS TABLE (step_id uuid, run_id uuid, generation int, queue text, priority smallint, outbox_id bigint) LANGUAGE sql AS $$
    WITH arrived AS (
        UPDATE agno.barrier b SET arrived = b.arrived + 1,
            fired_at = CASE WHEN b.arrived + 1 = b.size THEN clock_timestamp() END
        WHERE b.id = $1
        RETURNING b.run_id, b.generation, b.body, b.fired_at
    ),
    woken AS (
        INSERT INTO agno.step AS s (id, run_id, generation, key, kind, queue, priority, seq, max_attempts, sent_at)
        SELECT n.id, a.run_id, a.generation, n.key, 'turn', n.queue, n.priority, n.seq, n.max_attempts, clock_timestamp()
        FROM arrived a, jsonb_to_record(a.body) AS n (id uuid, key text, queue text, priority smallint, seq int, max_attempts int)
        WHERE a.fired_at IS NOT NULL
        RETURNING s.id, s.run_id, s.generation, s.queue, s.priority
    ),
    owed AS (
        INSERT INTO agno.outbox AS o (step_id, due_at)
        SELECT w.id, clock_timestamp() + make_interval(secs => $2) FROM woken w RETURNING o.id
    )
    SELECT w.id, w.run_id, w.generation, w.queue, w.priority, o.id FROM woken w, owed o;
$$;

-- The end of a delegation: the child's answer, or why there is none, is the result of the step that waits for it.
CREATE OR REPLACE FUNCTION agno.end_delegation(child agno.run) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    waiting agno.step;
    whole jsonb := agno.inflate(child.content);
    said text := CASE child.status WHEN 'done' THEN coalesce(whole #>> '{}', '')
        ELSE format('The run of %s ended %s: %s', child.agent, child.status, child.error->>'message') END;
BEGIN
    PERFORM FROM agno.run r WHERE r.id = child.parent_run_id AND r.ended_at IS NULL FOR SHARE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE agno.step s SET status = 'done', ended_at = clock_timestamp(), waits_for = NULL, expires_at = NULL,
        error = CASE WHEN child.status <> 'done' THEN child.error END
    FROM agno.run r
    WHERE s.id = child.parent_step_id AND s.status = 'waiting' AND r.id = s.run_id AND r.generation = s.generation
    RETURNING s.* INTO waiting;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    INSERT INTO agno.message (run_id, seq, content)
    VALUES (waiting.run_id, waiting.seq, agno.tool_said(waiting.call->>'id', waiting.name, said, child.status <> 'done'));
    PERFORM agno.arrive(waiting.barrier_id, 0.3);
END $$;

-- A tool's message, as core/messages.py writes it.
CREATE OR REPLACE FUNCTION agno.tool_said(call_id text, name text, content text, is_error boolean) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object('role', 'tool', 'parts', jsonb_build_array(jsonb_build_object(
        'type', 'tool_result', 'call_id', call_id, 'name', name, 'content', content) ||
        CASE WHEN is_error THEN '{"is_error": true}'::jsonb ELSE '{}' END));
$$;

-- From when the time of a run counts: when its first step was due, in a generation that was submitted or sent again.
CREATE OR REPLACE FUNCTION agno.began(run_id uuid, generation int) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT coalesce(s.due_at, s.created_at) FROM agno.step s
    WHERE s.run_id = $1 AND s.generation = $2 ORDER BY s.created_at LIMIT 1;
$$;

-- A failed run goes on from its last good turn, in the next generation: what its last turn said, if anything, is forgotten.
-- It has as long as it had from its submit to its deadline.
-- A run that did not fail gives no row, and neither does a delegated one: the run that waited for it was told.
CREATE OR REPLACE FUNCTION agno.redrive_run(run_id uuid)
RETURNS TABLE (step_id uuid, generation int) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    failed agno.run;
    last_turn agno.step;
    new_step uuid := agno.uuid7();
    place int;
    turn int;
    forgotten int;
BEGIN
    SELECT r.* INTO failed FROM agno.run r WHERE r.id = $1 AND r.status = 'failed' AND r.parent_run_id IS NULL
        FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT s.* INTO last_turn FROM agno.step s WHERE s.run_id = $1 AND s.kind = 'turn' ORDER BY s.seq DESC, s.generation DESC LIMIT 1;
    IF NOT FOUND THEN
        RETURN; -- it stands for another run, and did no work, or is an ingestion, of which what failed is ingested anew
    END IF;
    turn := split_part(last_turn.key, ':', 2)::int;
    IF EXISTS (SELECT FROM agno.step s WHERE s.run_id = $1 AND s.kind <> 'turn' AND s.seq > last_turn.seq) THEN
        SELECT max(m.seq) + 1, turn + 1 INTO place, turn FROM agno.message m WHERE m.run_id = $1;
        forgotten := 0;
    ELSE
        place := last_turn.seq;
        WITH gone AS (DELETE FROM agno.message m WHERE m.run_id = $1 AND m.seq >= place RETURNING m.content->>'role' AS role)
        SELECT count(*) FILTER (WHERE role = 'assistant') INTO forgotten FROM gone;
        UPDATE agno.step s SET status = 'dead' WHERE s.id = last_turn.id AND s.status = 'done';
    END IF;
    UPDATE agno.run r SET status = 'queued', generation = r.generation + 1, ended_at = NULL, reason = NULL, error = NULL, content = NULL,
        paused_at = NULL, turns = r.turns - forgotten,
        deadline_at = clock_timestamp() + (r.deadline_at - agno.began(r.id, last_turn.generation))
    WHERE r.id = $1;
    INSERT INTO agno.step (id, run_id, generation, key, kind, queue, priority, seq, max_attempts, sent_at)
    VALUES (new_step, $1, failed.generation + 1, 'turn:' || turn, 'turn', last_turn.queue, last_turn.priority, place, last_turn.max_attempts,
            clock_timestamp());
    INSERT INTO agno.outbox (step_id, due_at) VALUES (new_step, clock_timestamp());
    PERFORM pg_notify('agno_outbox', '');
    RETURN QUERY SELECT new_step, failed.generation + 1;
END $$;

-- A new run that begins in the middle of an old one: what came before the step is copied, results included; the step is new, and so
-- is the run that it waits for, where it delegates.
-- `fork` holds id, step_id, blobs, and what is edited: input? (the user's message; of a delegation: what its run is asked), messages?
-- ([{seq, content}]), call?, idempotency_key?, metadata?, deadline_s?. The old run stays as it was. Raises where a tool beside the step is
-- still open.
CREATE OR REPLACE FUNCTION agno.fork_run(fork jsonb) RETURNS TABLE (run_id uuid, created boolean) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    new_id uuid := (fork->>'id')::uuid;
    at agno.step;
    old agno.run;
    asking agno.step;
    heard agno.run;
    round text;
    new_gate uuid := agno.uuid7();
    new_step uuid := agno.uuid7();
    new_child uuid;
    below int;
    place int;
    known uuid;
BEGIN
    SELECT s.* INTO at FROM agno.step s WHERE s.id = (fork->>'step_id')::uuid;
    IF at.kind NOT IN ('turn', 'tool', 'delegate') THEN
        RAISE EXCEPTION 'an ingestion has no transcript to be forked: ingest again, what is unchanged costs nothing.' USING ERRCODE = '22023';
    END IF;
    SELECT r.* INTO old FROM agno.run r WHERE r.id = at.run_id FOR SHARE;
    place := at.seq;
    below := at.seq;
    IF at.kind <> 'turn' THEN
        -- By the keys, since calls that were copied from another run have no barrier here.
        round := split_part(at.key, ':', 2);
        SELECT s.* INTO asking FROM agno.step s WHERE s.run_id = old.id AND s.key = 'turn:' || round ORDER BY s.generation DESC LIMIT 1;
        SELECT max(s.seq) + 1 INTO below FROM agno.step s WHERE s.run_id = old.id AND s.kind <> 'turn' AND split_part(s.key, ':', 2) = round;
        IF EXISTS (SELECT FROM agno.step s WHERE s.run_id = old.id AND s.kind <> 'turn' AND split_part(s.key, ':', 2) = round AND s.id <> at.id
                   AND s.status IN ('ready', 'running', 'waiting')) THEN
            RAISE EXCEPTION 'a tool call beside % is still open: fork once it has ended, or from the turn before.', at.key USING ERRCODE = '22023';
        END IF;
    END IF;
    IF at.kind = 'delegate' THEN
        new_child := agno.uuid7();
        -- The run that it delegated to the last time: of a delegation that was copied, that of a run that this one was forked from.
        WITH RECURSIVE line AS (
            SELECT old.id AS id, old.forked_from AS origin, 0 AS back
            UNION ALL SELECT r.id, r.forked_from, line.back + 1 FROM line JOIN agno.run r ON r.id = line.origin
        )
        SELECT c.* INTO heard FROM line JOIN agno.step s ON s.run_id = line.id AND s.key = at.key JOIN agno.run c ON c.id = s.child_run_id
            ORDER BY line.back, s.generation DESC LIMIT 1;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'the run that % delegated to is gone: fork from the turn before.', at.key USING ERRCODE = '22023';
        END IF;
    END IF;
    INSERT INTO agno.run (id, agent, status, queue, priority, session_id, user_id, idempotency_key, forked_from, metadata, deadline_at, turns, tool_calls)
    SELECT new_id, old.agent, CASE at.kind WHEN 'turn' THEN 'queued' ELSE 'waiting' END, old.queue, old.priority, old.session_id, old.user_id,
        fork->>'idempotency_key', old.id, coalesce(fork->'metadata', old.metadata),
        clock_timestamp() + make_interval(secs => (fork->>'deadline_s')::float8),
        (SELECT count(*) FROM agno.message m WHERE m.run_id = old.id AND m.seq < below AND m.content->>'role' = 'assistant'),
        (SELECT count(DISTINCT s.key) FROM agno.step s WHERE s.run_id = old.id AND s.kind <> 'turn' AND s.seq < below)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT r.id INTO known FROM agno.run r WHERE r.agent = old.agent AND r.idempotency_key = fork->>'idempotency_key';
        IF known IS NULL THEN
            RAISE EXCEPTION 'the run % ended while it was forked: try again', old.id USING ERRCODE = '40001';
        END IF;
        RETURN QUERY SELECT known, false;
        RETURN;
    END IF;
    INSERT INTO agno.blob SELECT decode(b.key, 'hex'), b.value FROM jsonb_each(coalesce(fork->'blobs', '{}')) b ON CONFLICT DO NOTHING;
    INSERT INTO agno.message (run_id, seq, content)
    SELECT new_id, m.seq, coalesce(e.content, m.content)
    FROM agno.message m LEFT JOIN jsonb_to_recordset(coalesce(fork->'messages', '[]')) AS e (seq int, content jsonb) ON e.seq = m.seq
    WHERE m.run_id = old.id AND m.seq < below AND (at.kind = 'turn' OR m.seq <> at.seq);
    INSERT INTO agno.step (id, run_id, generation, key, kind, status, queue, priority, name, seq, call, effect, max_attempts, policy, answer,
        error, started_at, ended_at)
    SELECT DISTINCT ON (s.key) agno.uuid7(), new_id, 0, s.key, s.kind, s.status, s.queue, s.priority, s.name, s.seq, s.call, s.effect,
        s.max_attempts, s.policy, s.answer, s.error, s.started_at, s.ended_at
    FROM agno.step s WHERE s.run_id = old.id AND s.seq < below AND s.id <> at.id AND s.key <> at.key AND s.ended_at IS NOT NULL
    ORDER BY s.key, s.generation DESC;
    IF at.kind = 'turn' THEN
        IF fork ? 'input' AND at.seq > 1 THEN
            INSERT INTO agno.message (run_id, seq, content) VALUES (new_id, at.seq, fork->'input');
            place := at.seq + 1;
        ELSIF fork ? 'input' THEN
            UPDATE agno.message m SET content = fork->'input' WHERE m.run_id = new_id AND m.seq = 0;
        END IF;
    ELSE
        INSERT INTO agno.barrier (id, run_id, generation, size, body)
        VALUES (new_gate, new_id, 0, 1, jsonb_build_object('id', agno.uuid7(), 'key', 'turn:' || round::int + 1, 'queue', asking.queue,
            'priority', asking.priority, 'seq', below, 'max_attempts', asking.max_attempts));
    END IF;
    INSERT INTO agno.step (id, run_id, generation, key, kind, status, queue, priority, name, seq, call, effect, barrier_id, max_attempts, policy,
        waits_for, expires_at, child_run_id, sent_at)
    SELECT new_step, new_id, 0, at.key, at.kind, CASE WHEN waits.whom IS NULL THEN 'ready' ELSE 'waiting' END, at.queue, at.priority, at.name,
        place, coalesce(fork->'call', at.call), at.effect, CASE WHEN at.kind <> 'turn' THEN new_gate END, at.max_attempts, at.policy,
        waits.whom, clock_timestamp() + make_interval(secs => (at.policy->>'within_s')::float8), new_child,
        CASE WHEN waits.whom IS NULL THEN clock_timestamp() END
    FROM (VALUES (CASE at.kind WHEN 'delegate' THEN 'run' ELSE at.policy->>'needs' END)) AS waits (whom);
    IF at.kind = 'delegate' THEN
        PERFORM FROM agno.run r, agno.submit_run(jsonb_strip_nulls(jsonb_build_object(
            'id', new_child, 'agent', at.name, 'queue', heard.queue, 'user_id', r.user_id, 'priority', r.priority, 'parent_run_id', new_id,
            'parent_step_id', new_step, 'depth', r.depth + 1, 'deadline_at', r.deadline_at, 'max_attempts', asking.max_attempts,
            'publish_after_s', 0)) || jsonb_build_object('metadata', r.metadata, 'input', coalesce(fork->'input',
                (SELECT m.content FROM agno.message m WHERE m.run_id = heard.id AND m.seq = 0)))) AS child
        WHERE r.id = new_id;
    ELSIF NOT coalesce(at.policy ? 'needs', false) THEN
        INSERT INTO agno.outbox (step_id, due_at) VALUES (new_step, clock_timestamp());
    END IF;
    PERFORM pg_notify('agno_outbox', '');
    RETURN QUERY SELECT new_id, true;
END $$;

-- The first message of a new run, and the large strings in it.
CREATE OR REPLACE FUNCTION agno.first_message(run jsonb, new_id uuid) RETURNS void LANGUAGE sql AS $$
    INSERT INTO agno.blob SELECT decode(key, 'hex'), value FROM jsonb_each(coalesce(run->'blobs', '{}')) ON CONFLICT DO NOTHING;
    INSERT INTO agno.message (run_id, seq, content) VALUES (new_id, 0, run->'input');
$$;

-- A run that does no work, and ends as, and when, the one does that has its key. Locks that one until the commit.
CREATE OR REPLACE FUNCTION agno.stand_in(run jsonb, new_id uuid, known_id uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    known agno.run;
BEGIN
    SELECT r.* INTO known FROM agno.run r WHERE r.id = known_id FOR NO KEY UPDATE;
    INSERT INTO agno.run (id, agent, status, queue, priority, session_id, user_id, metadata, canvas)
    VALUES (new_id, known.agent, 'waiting', known.queue, known.priority, run->>'session_id', run->>'user_id',
            coalesce(run->'metadata', '{}'), run->'canvas');
    PERFORM agno.first_message(run, new_id);
    IF known.ended_at IS NOT NULL THEN
        PERFORM agno.end_alike(known, new_id);
    ELSE
        UPDATE agno.run r SET canvas = coalesce(r.canvas, '{}') || jsonb_build_object('alike',
                coalesce(r.canvas->'alike', '[]') || to_jsonb(new_id))
            WHERE r.id = known_id;
    END IF;
END $$;

-- The same for SQL callers, inside their own transaction: SELECT agno.submit('researcher', 'What is new?');
CREATE OR REPLACE FUNCTION agno.submit(
    agent text, input text, session_id text DEFAULT NULL, user_id text DEFAULT NULL, idempotency_key text DEFAULT NULL,
    metadata jsonb DEFAULT '{}', queue text DEFAULT 'agents', id uuid DEFAULT NULL, not_before timestamptz DEFAULT NULL
) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    submitted uuid;
BEGIN
    IF coalesce(btrim(input), '') = '' THEN
        RAISE EXCEPTION 'agno.submit: the input of agent % is empty. Say what it is to do.', quote_literal(agent) USING ERRCODE = '22023';
    END IF;
    SELECT s.run_id INTO submitted FROM agno.submit_run(jsonb_strip_nulls(jsonb_build_object(
        'id', id, 'agent', agent, 'queue', queue, 'session_id', session_id, 'user_id', user_id,
        'idempotency_key', idempotency_key, 'not_before', not_before
    )) || jsonb_build_object('metadata', coalesce(metadata, '{}'), 'publish_after_s', 0,
        'input', jsonb_build_object('role', 'user', 'parts', jsonb_build_array(jsonb_build_object('type', 'text', 'text', input)))
    )) s;
    -- Nobody here holds a connection to Redis: wake the keeper, which publishes what was committed.
    PERFORM pg_notify('agno_outbox', '');
    RETURN submitted;
END $$;

-- Time-ordered ids, by the server's own function where it has one (18 and later).
CREATE OR REPLACE FUNCTION agno.uuid7() RETURNS uuid LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('server_version_num')::int >= 180000 THEN
        RETURN uuidv7();
    END IF;
    RETURN gen_random_uuid();
END $$;

-- JSON whose large strings were stored apart, whole again. A reference is {"$blob": "<sha256>"} in a string's place;
-- inside a string its quotes are escaped, so text that looks like one stays text.
CREATE OR REPLACE FUNCTION agno.inflate(content jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE STRICT AS $$
DECLARE
    whole text;
    found record;
BEGIN
    IF NOT content @? '$.**."$blob"' THEN
        RETURN content;
    END IF;
    whole := content::text;
    FOR found IN
        SELECT DISTINCT '{"$blob": "' || match[1] || '"}' AS reference, b.content::text AS stored
        FROM regexp_matches(whole, '\{"\$blob": "([0-9a-f]{64})"\}', 'g') match
        JOIN agno.blob b ON b.sha256 = decode(match[1], 'hex')
    LOOP
        whole := replace(whole, found.reference, found.stored);
    END LOOP;
    RETURN whole::jsonb;
END $$;

-- One header task of a user's chord came back. The part that completes it owes the body, once; a second
-- delivery of the same part changes nothing. A chord that is unknown here returns false.
CREATE OR REPLACE FUNCTION agno.chord_part(chord uuid, task text, place int, state text, outcome jsonb) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM agno.barrier b WHERE b.id = chord FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO agno.chord_part (barrier_id, task_id, position, status, result)
        VALUES (chord, task, place, state, outcome) ON CONFLICT DO NOTHING;
    IF FOUND THEN
        UPDATE agno.barrier b SET arrived = arrived + 1 WHERE b.id = chord;
        PERFORM agno.close_chord(chord);
    END IF;
    RETURN true;
END $$;

-- Owe the body of a user's chord whose parts are all in. Called under the barrier's row lock.
CREATE OR REPLACE FUNCTION agno.close_chord(chord uuid) RETURNS void LANGUAGE sql AS $$
    WITH fired AS (
        UPDATE agno.barrier SET fired_at = clock_timestamp()
        WHERE id = chord AND fired_at IS NULL AND arrived >= size
        RETURNING id
    )
    INSERT INTO agno.outbox (chord_id, due_at) SELECT id, clock_timestamp() + interval '300 ms' FROM fired;
$$;

-- A user's chord learns its size when its last header task is about to be sent; the parts may all be in by then.
CREATE OR REPLACE FUNCTION agno.size_chord(chord uuid, parts int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE agno.barrier SET size = parts WHERE id = chord AND size IS NULL;
    PERFORM agno.close_chord(chord);
END $$;

-- End a run as another one ended.
CREATE OR REPLACE FUNCTION agno.end_alike(model agno.run, other uuid) RETURNS void LANGUAGE sql AS $$
    UPDATE agno.run SET status = model.status, content = model.content, reason = model.reason, error = model.error,
        ended_at = clock_timestamp()
    WHERE id = other AND ended_at IS NULL;
$$;

-- Whatever ends a run, in the same commit: whoever waits is woken, its part of a user's chord is in, and what
-- the user's canvas has behind it (link, chain, link_error) is owed.
CREATE OR REPLACE FUNCTION agno.run_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('agno_result', NEW.id::text);
    IF NEW.parent_step_id IS NOT NULL THEN
        PERFORM agno.end_delegation(NEW);
    END IF;
    IF NEW.canvas IS NULL THEN
        RETURN NULL;
    END IF;
    IF (NEW.canvas->>'chord')::boolean THEN
        PERFORM agno.chord_part((NEW.canvas->>'group_id')::uuid, NEW.id::text, (NEW.canvas->>'group_index')::int,
                                NEW.status, CASE NEW.status WHEN 'done' THEN NEW.content ELSE NEW.error END);
    END IF;
    PERFORM agno.end_alike(NEW, other::uuid) FROM jsonb_array_elements_text(NEW.canvas->'alike') other;
    IF NEW.canvas ?| ARRAY['link', 'link_error', 'chain'] THEN
        INSERT INTO agno.outbox (ended_run_id, due_at) VALUES (NEW.id, clock_timestamp() + interval '300 ms');
    END IF;
    RETURN NULL;
END $$;

DROP TRIGGER IF EXISTS run_ended ON agno.run;
CREATE TRIGGER run_ended AFTER UPDATE OF status ON agno.run FOR EACH ROW
    WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL) EXECUTE FUNCTION agno.run_ended();

-- Create the next steps of an ingestion: those of its windows, or, when nothing is open, the finalize step. `how` holds ingest_window,
-- embed_window, batch_bytes, batch_documents, unknown_bytes (for a source of unknown size), attempts and publish_after_s. Called after
-- the commit of each step, because only then is the last step known, and by the keeper after a crash. Two concurrent calls create at
-- most one step too many; sources that the other call has locked are skipped.
CREATE OR REPLACE FUNCTION agno.schedule_next(ingestion uuid, how jsonb)
RETURNS TABLE (outbox_id bigint, step_id uuid, run_id uuid, generation int, kind text, queue text, priority smallint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    alive agno.run;
    scan agno.step;
    room int;
    embeds int;
    is_over boolean;
    opened uuid[] := '{}';
    called uuid[];
    new_step uuid;
    taken int;
    rounds bigint;
BEGIN
    SELECT r.* INTO alive FROM agno.run r JOIN agno.ingestion i ON i.run_id = r.id
        WHERE r.id = ingestion AND r.ended_at IS NULL AND i.scanned_at IS NOT NULL FOR SHARE OF r;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT s.* INTO scan FROM agno.step s WHERE s.run_id = alive.id AND s.kind = 'scan' ORDER BY s.generation DESC LIMIT 1;
    SELECT (how->>'ingest_window')::int - count(*) FILTER (WHERE s.kind = 'ingest'),
           (how->>'embed_window')::int - count(*) FILTER (WHERE s.kind = 'embed' AND s.status <> 'waiting'), count(*) = 0
        INTO room, embeds, is_over
        FROM agno.step s WHERE s.run_id = alive.id AND s.generation = alive.generation
            AND s.kind IN ('scan', 'ingest', 'embed', 'finalize') AND s.status IN ('ready', 'running', 'waiting');
    WHILE room > 0 LOOP
        new_step := agno.uuid7();
        WITH free AS (
            SELECT p.position, p.alone, CASE p.bytes WHEN 0 THEN (how->>'unknown_bytes')::bigint ELSE p.bytes END AS bytes
            FROM agno.source p WHERE p.run_id = alive.id AND p.status = 'pending'
            ORDER BY p.position LIMIT (how->>'batch_documents')::int FOR UPDATE SKIP LOCKED
        ),
        ranked AS (
            SELECT free.position, row_number() OVER place AS nth, sum(free.bytes) OVER place AS total, bool_or(free.alone) OVER place AS alone
            FROM free WINDOW place AS (ORDER BY free.position)
        )
        UPDATE agno.source p SET status = 'taken', step_id = new_step FROM ranked
        WHERE p.run_id = alive.id AND p.position = ranked.position
          AND (ranked.nth = 1 OR ranked.total <= (how->>'batch_bytes')::bigint AND NOT ranked.alone);
        GET DIAGNOSTICS taken = ROW_COUNT;
        EXIT WHEN taken = 0;
        INSERT INTO agno.step (id, run_id, generation, key, kind, queue, priority, seq, max_attempts, sent_at)
        VALUES (new_step, alive.id, alive.generation, 'ingest:' || right(new_step::text, 12), 'ingest', scan.queue, scan.priority, 2,
                (how->>'attempts')::int * CASE taken WHEN 1 THEN 2 ELSE 1 END, clock_timestamp());
        opened := opened || new_step;
        room := room - 1;
    END LOOP;
    IF embeds > 0 THEN
        WITH next AS (
            SELECT s.id FROM agno.step s
            WHERE s.run_id = alive.id AND s.generation = alive.generation AND s.kind = 'embed' AND s.status = 'waiting'
            ORDER BY s.created_at LIMIT embeds FOR UPDATE SKIP LOCKED
        ),
        sent AS (
            UPDATE agno.step s SET status = 'ready', waits_for = NULL, sent_at = clock_timestamp() FROM next WHERE s.id = next.id
            RETURNING s.id
        )
        SELECT coalesce(array_agg(sent.id), '{}') INTO called FROM sent;
        opened := opened || called;
    END IF;
    IF is_over AND cardinality(opened) = 0
       AND NOT EXISTS (SELECT FROM agno.source p WHERE p.run_id = alive.id AND p.status IN ('pending', 'taken')) THEN
        SELECT count(*) INTO rounds FROM agno.step s WHERE s.run_id = alive.id AND s.generation = alive.generation AND s.kind = 'finalize';
        INSERT INTO agno.step (id, run_id, generation, key, kind, queue, priority, seq, call, max_attempts, sent_at)
        VALUES (agno.uuid7(), alive.id, alive.generation, 'finalize:' || rounds, 'finalize', scan.queue, scan.priority, 4,
                jsonb_build_object('rounds', rounds), (how->>'attempts')::int * 4, clock_timestamp())
        ON CONFLICT DO NOTHING RETURNING id INTO new_step;
        IF FOUND THEN
            opened := opened || new_step;
        END IF;
    END IF;
    RETURN QUERY
        WITH owed AS (
            INSERT INTO agno.outbox (step_id, due_at)
            SELECT o.id, clock_timestamp() + make_interval(secs => (how->>'publish_after_s')::float8) FROM unnest(opened) WITH ORDINALITY AS o (id, place)
            ORDER BY o.place RETURNING id, step_id
        )
        SELECT owed.id, s.id, s.run_id, s.generation, s.kind, s.queue, s.priority FROM owed JOIN agno.step s ON s.id = owed.step_id ORDER BY owed.id;
END $$;

-- Switch documents to their pending version, if all its chunks have a vector in the current embedding space, or were rejected. One
-- transaction: a search sees the old or the new version. `pending` holds version, keep ([{id, position, start_at, end_at, tokens}],
-- unchanged chunks) and row (columns of the document). The caller has locked the documents. Returns the change in searched chunks.
CREATE OR REPLACE FUNCTION agno.switch_documents(documents bigint[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    next agno.document;
    row agno.document;
    more bigint := 0;
    changed bigint;
BEGIN
    FOR next IN
        SELECT d.* FROM agno.document d JOIN agno.knowledge k ON k.id = d.knowledge_id
        WHERE d.id = ANY(documents) AND d.pending IS NOT NULL
          AND NOT EXISTS (SELECT FROM agno.chunk c WHERE c.document_id = d.id AND NOT c.live AND c.refused IS NULL AND k.embedding_space_id IS NOT NULL
                          AND NOT EXISTS (SELECT FROM agno.chunk_embedding e WHERE e.chunk_id = c.id AND e.embedding_space_id = k.embedding_space_id))
    LOOP
        DELETE FROM agno.chunk c WHERE c.document_id = next.id AND c.live
            AND NOT EXISTS (SELECT FROM jsonb_array_elements(next.pending->'keep') kept WHERE (kept->>'id')::bigint = c.id);
        GET DIAGNOSTICS changed = ROW_COUNT;
        more := more - changed;
        UPDATE agno.chunk c SET version = (next.pending->>'version')::int, position = kept.position, start_at = kept.start_at, end_at = kept.end_at,
            tokens = kept.tokens
        FROM jsonb_to_recordset(next.pending->'keep') AS kept (id bigint, position int, start_at int, end_at int, tokens int) WHERE c.id = kept.id;
        UPDATE agno.chunk c SET live = true WHERE c.document_id = next.id AND NOT c.live;
        GET DIAGNOSTICS changed = ROW_COUNT;
        more := more + changed;
        row := jsonb_populate_record(next, next.pending->'row');
        UPDATE agno.document d SET (origin, title, media_type, language, bytes, fingerprint, sha256, text_sha256, processing_hash, metadata, run_id) =
            (coalesce(nullif(row.origin, ''), next.origin), row.title, row.media_type, row.language, row.bytes, row.fingerprint, row.sha256, row.text_sha256, row.processing_hash,
             row.metadata, row.run_id),
            version = (next.pending->>'version')::int, chunks = (next.pending->>'chunks')::int, pending = NULL, updated_at = clock_timestamp()
        WHERE d.id = next.id;
    END LOOP;
    RETURN more;
END $$;

-- Reassign the chunks of a document that is about to change or be removed to a duplicate. Returns false, without any change, if a
-- duplicate is locked elsewhere: retry later. The caller has locked the document; nothing waits here.
CREATE OR REPLACE FUNCTION agno.reassign_chunks(leaving bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    heirs bigint[];
BEGIN
    SELECT array_agg(h.id) INTO heirs FROM (
        SELECT d.id FROM agno.document d WHERE d.duplicate_of = leaving ORDER BY d.uri FOR NO KEY UPDATE SKIP LOCKED) h;
    IF EXISTS (SELECT FROM agno.document d WHERE d.duplicate_of = leaving AND d.id <> ALL(coalesce(heirs, '{}'))) THEN
        RETURN false;
    END IF;
    IF heirs IS NULL THEN
        RETURN true;
    END IF;
    UPDATE agno.chunk c SET document_id = heirs[1] WHERE c.document_id = leaving AND c.live;
    UPDATE agno.near_band b SET document_id = heirs[1] WHERE b.document_id = leaving;
    UPDATE agno.document d SET duplicate_of = NULL, version = l.version, chunks = l.chunks, updated_at = clock_timestamp()
        FROM agno.document l WHERE d.id = heirs[1] AND l.id = leaving;
    UPDATE agno.document d SET duplicate_of = heirs[1] WHERE d.id = ANY(heirs[2:]);
    UPDATE agno.document d SET version = 0, chunks = 0 WHERE d.id = leaving;
    RETURN true;
END $$;

-- Merge documents of an ingestion that got the same text concurrently, such as two edited ones: one keeps its chunks. Locked documents
-- are skipped; nothing waits here. Returns the number of removed chunks.
CREATE OR REPLACE FUNCTION agno.merge_duplicates(ingestion uuid, base int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    held bigint[];
    pair record;
    gone bigint;
    less bigint := 0;
BEGIN
    SELECT array_agg(h.id) INTO held FROM (
        SELECT d.id FROM agno.document d
        WHERE d.knowledge_id = base AND d.duplicate_of IS NULL AND d.pending IS NULL AND d.text_sha256 IN (
            SELECT e.text_sha256 FROM agno.source s JOIN agno.document e ON e.id = s.document_id
            WHERE s.run_id = ingestion AND s.status = 'done' AND EXISTS (
                SELECT FROM agno.document o WHERE o.knowledge_id = base AND o.text_sha256 = e.text_sha256 AND o.id <> e.id AND o.duplicate_of IS NULL))
        ORDER BY d.uri FOR NO KEY UPDATE SKIP LOCKED) h;
    FOR pair IN
        SELECT same.id, same.original FROM (
            SELECT d.id, d.has_heirs, first_value(d.id) OVER (PARTITION BY d.text_sha256 ORDER BY d.has_heirs DESC, d.id) AS original
            FROM (SELECT e.id, e.text_sha256, EXISTS (SELECT FROM agno.document h WHERE h.duplicate_of = e.id) AS has_heirs
                  FROM agno.document e WHERE e.id = ANY(held)) d) same
        WHERE same.id <> same.original AND NOT same.has_heirs
    LOOP
        DELETE FROM agno.chunk c WHERE c.document_id = pair.id;
        GET DIAGNOSTICS gone = ROW_COUNT;
        less := less + gone;
        DELETE FROM agno.near_band b WHERE b.document_id = pair.id;
        UPDATE agno.document d SET duplicate_of = pair.original, chunks = 0, updated_at = clock_timestamp() WHERE d.id = pair.id;
    END LOOP;
    RETURN less;
END $$;
