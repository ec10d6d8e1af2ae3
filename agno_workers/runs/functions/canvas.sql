-- The user's canvas around runs: chords, and the continuation after the end of a run.

-- Count one header task of a user's chord. The part that completes the chord writes the outbox row for its body, once; a second
-- delivery of the same part changes nothing. Returns false for a chord that is not in this database.
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

-- Write the outbox row for the body of a user's chord when all parts have arrived. Called under the barrier's row lock.
CREATE OR REPLACE FUNCTION agno.close_chord(chord uuid) RETURNS void LANGUAGE sql AS $$
    WITH fired AS (
        UPDATE agno.barrier SET fired_at = clock_timestamp()
        WHERE id = chord AND fired_at IS NULL AND arrived >= size
        RETURNING id
    )
    INSERT INTO agno.outbox (chord_id, due_at) SELECT id, clock_timestamp() + interval '300 ms' FROM fired;
$$;

-- Set the size of a user's chord when its last header task is about to be sent; all parts may have arrived by then.
CREATE OR REPLACE FUNCTION agno.size_chord(chord uuid, parts int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE agno.barrier SET size = parts WHERE id = chord AND size IS NULL;
    PERFORM agno.close_chord(chord);
END $$;

-- End a run as another one ended.
CREATE OR REPLACE FUNCTION agno.end_alike(model agno.run, other uuid) RETURNS void LANGUAGE sql AS $$
    UPDATE agno.run SET status = model.status, content = model.content, reason = model.reason, error = model.error,
        ended_as = model.ended_as, ended_at = clock_timestamp()
    WHERE id = other AND ended_at IS NULL;
$$;

-- Return the tool calls of a run with their results, as text that follows its answer: the last twenty, without the rest of long ones; empty without any.
CREATE OR REPLACE FUNCTION agno.interactions_of(of_run uuid, name text) RETURNS text LANGUAGE sql STABLE AS $$
    WITH part AS (
        SELECT m.seq, p.place, p.part FROM agno.message m,
            jsonb_array_elements(agno.inflate(m.content)->'parts') WITH ORDINALITY AS p (part, place)
        WHERE m.run_id = $1 AND m.content->>'role' IN ('assistant', 'tool')
    ),
    call AS (
        SELECT c.*, count(*) OVER () AS calls FROM part c WHERE c.part->>'type' = 'tool_call' ORDER BY c.seq DESC, c.place DESC LIMIT 20
    ),
    line AS (
        SELECT c.seq, c.place, c.calls, format('%s(%s) -> %s', c.part->>'name', agno.cut_text(coalesce(c.part->>'arguments', '{}'), 300),
            coalesce(agno.cut_text(r.content, 1000), 'no result')) AS text
        FROM call c LEFT JOIN LATERAL (SELECT t.part->>'content' AS content FROM part t WHERE t.part->>'type' = 'tool_result'
            AND t.part->>'call_id' = c.part->>'id' AND t.seq > c.seq ORDER BY t.seq LIMIT 1) AS r ON true
    )
    SELECT coalesce(E'\n\n' || format('[Tool calls of %s%s]', $2, CASE WHEN max(calls) > 20 THEN format(': the last 20 of %s', max(calls)) END)
        || E'\n' || string_agg(text, E'\n' ORDER BY seq, place), '') FROM line;
$$;

-- Cut a text after so many characters.
CREATE OR REPLACE FUNCTION agno.cut_text(text text, most int) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN length($1) <= $2 THEN $1 ELSE left($1, $2) || format(' [... %s characters]', length($1) - $2) END;
$$;

-- End a delegation: the answer or the error of the child run is the result of the step that waits for it.
CREATE OR REPLACE FUNCTION agno.end_delegation(child agno.run) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    waiting agno.step;
    said text;
BEGIN
    PERFORM FROM agno.run r WHERE r.id = child.parent_run_id AND r.ended_at IS NULL FOR SHARE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE agno.step s SET status = 'done', ended_at = clock_timestamp(), waits_for = NULL, expires_at = NULL,
        error = CASE WHEN child.status <> 'done' THEN child.error END,
        result = CASE WHEN s.arrival = 0 AND child.status = 'done' THEN coalesce(child.content, 'null') END
    FROM agno.run r
    WHERE s.id = child.parent_step_id AND s.status = 'waiting' AND r.id = s.run_id AND r.generation = s.generation
    RETURNING s.* INTO waiting;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF waiting.arrival = 0 THEN
        PERFORM agno.arrive(waiting.barrier_id, 0.3);
        PERFORM agno.number_arrivals(ARRAY[waiting.id]);
        RETURN;
    END IF;
    said := CASE child.status WHEN 'done' THEN coalesce(agno.inflate(child.content) #>> '{}', '')
        ELSE format('The run of %s ended %s: %s', child.agent, child.status, child.error->>'message') END;
    IF (waiting.policy->>'shares_interactions')::boolean THEN
        said := said || agno.interactions_of(child.id, waiting.name);
    END IF;
    IF octet_length(said) > 4 * agno.offload_tokens(waiting.run_id) THEN
        PERFORM agno.store_result(waiting.run_id, waiting.seq, jsonb_build_object('call_id', waiting.call->'id', 'name', waiting.name, 'content', said,
            'is_error', child.status <> 'done'));
    ELSE
        INSERT INTO agno.message (run_id, seq, content)
        VALUES (waiting.run_id, waiting.seq, agno.tool_message(waiting.call->>'id', waiting.name, said, child.status <> 'done'));
    END IF;
    PERFORM agno.arrive(waiting.barrier_id, 0.3);
END $$;

-- Do what follows the end of a run, in the same commit: notify waiting callers, count its part of a user's chord, and write the outbox
-- row for the user's canvas after it (link, chain, link_error); let the next run of its session, or of its background work, begin.
CREATE OR REPLACE FUNCTION agno.run_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('agno_result', NEW.id::text);
    IF NEW.parent_step_id IS NOT NULL THEN
        PERFORM agno.end_delegation(NEW);
    END IF;
    IF NEW.session_position IS NOT NULL THEN
        PERFORM agno.leave_session(NEW);
    END IF;
    IF NEW.kind = 'background' THEN
        PERFORM agno.background_ended(NEW);
    END IF;
    IF NEW.canvas IS NULL THEN
        RETURN NULL;
    END IF;
    IF (NEW.canvas->>'chord')::boolean THEN
        PERFORM agno.chord_part((NEW.canvas->>'group_id')::uuid, NEW.id::text, (NEW.canvas->>'group_index')::int,
                                NEW.status, CASE NEW.status WHEN 'done' THEN NEW.content ELSE NEW.error END);
    END IF;
    PERFORM agno.end_alike(NEW, other::uuid) FROM jsonb_array_elements_text(NEW.canvas->'alike') other
        WHERE NOT EXISTS (SELECT FROM agno.steer t WHERE t.run_id = NEW.id AND t.status = 'returned' AND t.request->'alike' ? other);
    IF NEW.canvas ?| ARRAY['link', 'link_error', 'chain'] THEN
        INSERT INTO agno.outbox (ended_run_id, due_at) VALUES (NEW.id, clock_timestamp() + interval '300 ms');
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER run_ended AFTER UPDATE OF status ON agno.run FOR EACH ROW
    WHEN (OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL) EXECUTE FUNCTION agno.run_ended();
