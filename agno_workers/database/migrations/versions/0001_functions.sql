-- The functions that live in the database: submitting, and what follows when a run ends.
-- Safe to run twice; a migration runs this file as it stood at its number.

-- Put one run on the road: run, first message, first step and the message owed to Celery, all or nothing.
-- `run` holds id?, agent, queue?, input (parts of the first message), session_id?, user_id?, idempotency_key?,
-- metadata?, canvas?, priority?, not_before?, max_attempts?, parent_run_id?, publish_after_s?. An id or an (agent, idempotency_key)
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
    IF coalesce(run->>'agent', '') = '' THEN
        RAISE EXCEPTION 'agno.submit: agent is empty. Name the agent that is to do the work.' USING ERRCODE = '22023';
    END IF;
    INSERT INTO agno.run (id, agent, status, queue, priority, session_id, user_id, idempotency_key, parent_run_id, metadata, canvas)
    VALUES (new_id, run->>'agent', 'queued', run_queue, (run->>'priority')::smallint, run->>'session_id', run->>'user_id',
            run->>'idempotency_key', (run->>'parent_run_id')::uuid, coalesce(run->'metadata', '{}'), nullif(run->'canvas', 'null'))
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
    INSERT INTO agno.step (id, run_id, generation, key, kind, queue, priority, seq, max_attempts, not_before, sent_at)
    VALUES (first_step, new_id, 0, 'turn:1', 'turn', run_queue, (run->>'priority')::smallint, 1,
            coalesce((run->>'max_attempts')::int, 5), timer, CASE WHEN timer IS NULL THEN clock_timestamp() END);
    IF timer IS NULL THEN
        INSERT INTO agno.outbox (step_id, due_at) VALUES (first_step, clock_timestamp() + make_interval(secs => coalesce((run->>'publish_after_s')::float8, 0.3))) RETURNING id INTO owed;
    END IF;
    RETURN QUERY SELECT new_id, true, first_step, owed, run_queue, (run->>'priority')::smallint, timer IS NULL;
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
