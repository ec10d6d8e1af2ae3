-- The runs of a session, one after another, and the messages that join a live run.
-- Locks are taken in the order run, session. A session is held while a run enters or leaves it, and then only its waiting runs are locked:
-- nothing that holds a waiting run waits for a session.

-- Hold a session for a run that is submitted to it, until the commit, and return it; the first run makes it. A submit that may cancel the live
-- run, or make a run that stands for it, locks the live run first. When another run is live by then, it releases both locks and tries again.
CREATE OR REPLACE FUNCTION agno.hold_session(run jsonb) RETURNS agno.session LANGUAGE plpgsql AS $$
DECLARE
    in_tenant text := coalesce(run->>'tenant', 'default');
    in_session text := run->>'session_id';
    own agno.session;
    held uuid;
BEGIN
    LOOP
        IF run->>'if_busy' IN ('interrupt', 'rollback') OR run->>'if_busy' = 'steer' AND run ? 'canvas' THEN
            BEGIN
                SELECT r.id INTO held FROM agno.run r
                WHERE r.tenant = in_tenant AND r.session_id = in_session AND r.session_status = 'live' AND r.ended_at IS NULL FOR NO KEY UPDATE;
                SELECT s.* INTO own FROM agno.session s WHERE s.tenant = in_tenant AND s.id = in_session FOR NO KEY UPDATE;
                IF (agno.live_run(in_tenant, in_session)).id IS DISTINCT FROM held THEN
                    RAISE EXCEPTION 'another run is live' USING ERRCODE = 'AG100';
                END IF;
            EXCEPTION WHEN SQLSTATE 'AG100' THEN
                CONTINUE;
            END;
        ELSE
            SELECT s.* INTO own FROM agno.session s WHERE s.tenant = in_tenant AND s.id = in_session FOR NO KEY UPDATE;
        END IF;
        IF own.id IS NOT NULL THEN
            RETURN own;
        END IF;
        INSERT INTO agno.session (tenant, id, user_id, agent) VALUES (in_tenant, in_session, run->>'user_id', run->>'agent') ON CONFLICT DO NOTHING;
    END LOOP;
END $$;

-- Hold the session of a run, as agno.hold_session does.
CREATE OR REPLACE FUNCTION agno.hold_session_of(run agno.run) RETURNS agno.session LANGUAGE sql AS $$
    SELECT agno.hold_session(jsonb_build_object('tenant', run.tenant, 'session_id', run.session_id, 'user_id', run.user_id, 'agent', run.agent));
$$;

-- Return the live run of a session; no run is live without a row here. For callers who hold the session, or need no certainty.
CREATE OR REPLACE FUNCTION agno.live_run(in_tenant text, in_session text) RETURNS agno.run LANGUAGE sql STABLE AS $$
    SELECT r.* FROM agno.run r WHERE r.tenant = $1 AND r.session_id = $2 AND r.session_status = 'live' AND r.ended_at IS NULL;
$$;

-- Find the place of a new run in its session, as `if_busy` says (see core/session.py), and return {status, position?}; a `scheduled`
-- run gets its position when its timer is due. A message that joined the live run is {run_id, steer_id}. NULL for a run that exists already. A
-- batch enters with all its `runs`: the position is that of the first, and they wait to be woken.
-- Raises AG101 (another user's session), AG102 (it has ended) and AG103 (it is busy); the detail is {session_id, run_id?}.
CREATE OR REPLACE FUNCTION agno.enter_session(run jsonb, new_id uuid, timer timestamptz, runs bigint DEFAULT NULL) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    if_busy text := coalesce(run->>'if_busy', 'queue');
    own agno.session;
    live agno.run;
    known jsonb;
    its_status text;
BEGIN
    IF if_busy NOT IN ('queue', 'reject', 'interrupt', 'rollback', 'steer', 'parallel') THEN
        RAISE EXCEPTION 'agno.submit: if_busy is %, and must be queue, reject, interrupt, rollback, steer or parallel.', quote_literal(if_busy)
            USING ERRCODE = '22023';
    ELSIF timer IS NOT NULL AND if_busy NOT IN ('queue', 'parallel') THEN
        RAISE EXCEPTION 'agno.submit: if_busy is %, which is decided now, and the run has a time of its own: use queue or parallel, or submit it then.',
            quote_literal(if_busy) USING ERRCODE = '22023';
    END IF;
    -- A known key returns its run whatever the session does; it is looked for again once no other submit to the session is under way.
    FOR again IN 0..1 LOOP
        IF run ? 'id' AND EXISTS (SELECT FROM agno.run r WHERE r.id = new_id)
           OR run ? 'idempotency_key' AND EXISTS (SELECT FROM agno.run r
                WHERE r.tenant = coalesce(run->>'tenant', 'default') AND r.agent = run->>'agent' AND r.idempotency_key = run->>'idempotency_key'
                  AND r.user_id IS NOT DISTINCT FROM run->>'user_id') THEN
            RETURN NULL;
        END IF;
        IF run ? 'idempotency_key' THEN
            known := agno.known_steer(run);
            IF known IS NOT NULL THEN
                RETURN known;
            END IF;
        END IF;
        IF again = 0 THEN
            own := agno.hold_session(run);
        END IF;
    END LOOP;
    IF own.user_id IS DISTINCT FROM run->>'user_id' THEN
        RAISE EXCEPTION 'session % belongs to %.', quote_literal(own.id), CASE
            WHEN own.user_id IS NULL THEN 'nobody, and this submit names a user: leave the user_id out, or use another session_id'
            WHEN run->>'user_id' IS NULL THEN 'a user, and this submit names none: pass the user_id'
            ELSE 'another user: use a session_id of this user' END
            USING ERRCODE = 'AG101', DETAIL = jsonb_build_object('session_id', own.id);
    ELSIF own.status IN ('ended', 'timed_out') THEN
        RAISE EXCEPTION 'session % % at % UTC and takes no message: use another session_id, or fork the session.', quote_literal(own.id),
            CASE own.status WHEN 'ended' THEN 'was ended' ELSE 'timed out' END, to_char(own.ended_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI')
            USING ERRCODE = 'AG102', DETAIL = jsonb_build_object('session_id', own.id);
    END IF;
    live := agno.live_run(own.tenant, own.id);
    IF if_busy = 'reject' AND (live.id IS NOT NULL OR own.status = 'paused') THEN
        RAISE EXCEPTION 'session % is busy: %.', quote_literal(own.id), CASE WHEN live.id IS NULL THEN 'it is paused; resume it, or use if_busy="queue"'
            ELSE format('its run %s has not ended; try again later, or use another if_busy', live.id) END
            USING ERRCODE = 'AG103', DETAIL = jsonb_strip_nulls(jsonb_build_object('session_id', own.id, 'run_id', live.id));
    ELSIF if_busy = 'steer' AND live.agent = run->>'agent' THEN
        RETURN agno.add_steer(run, live);
    ELSIF if_busy IN ('interrupt', 'rollback') AND live.id IS NOT NULL THEN
        PERFORM agno.replace_run(live, if_busy = 'rollback');
        live := NULL;
    END IF;
    its_status := CASE WHEN if_busy = 'parallel' AND own.status <> 'paused' THEN 'parallel' WHEN timer IS NOT NULL THEN 'scheduled'
        WHEN live.id IS NOT NULL OR own.status = 'paused' OR runs IS NOT NULL THEN 'waiting' ELSE 'live' END;
    UPDATE agno.session s SET next_position = s.next_position + CASE its_status WHEN 'scheduled' THEN 0 ELSE coalesce(runs, 1) END,
        begun_position = CASE WHEN its_status IN ('live', 'parallel') THEN s.next_position + coalesce(runs, 1) - 1 ELSE s.begun_position END, status = CASE s.status WHEN 'created' THEN 'active' ELSE s.status END, agent = coalesce(s.agent, run->>'agent'),
        title = CASE s.title WHEN '' THEN agno.title_of(run) ELSE s.title END, last_active_at = clock_timestamp(),
        expires_at = clock_timestamp() + make_interval(secs => s.idle_timeout_s)
    WHERE s.tenant = own.tenant AND s.id = own.id;
    RETURN jsonb_build_object('status', its_status, 'position', CASE WHEN its_status <> 'scheduled' THEN own.next_position END);
END $$;

-- Return the beginning of a run's input as a title: some 60 characters, at the end of a word. Empty where it begins with something else than text.
CREATE OR REPLACE FUNCTION agno.title_of(run jsonb) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN length(line) <= 60 THEN line ELSE coalesce(substring(left(line, 61) FROM '^(.{20,60})\s'), left(line, 60)) || '…' END
    FROM (SELECT coalesce(btrim(regexp_replace(left(first #>> '{}', 500), '\s+', ' ', 'g')), '') AS line
          FROM (SELECT CASE jsonb_typeof(text) WHEN 'string' THEN text ELSE run->'blobs'->(text->>'$blob') END AS first
                FROM (SELECT run->'input'->'parts'->0->'text' AS text) part) whole) words;
$$;

-- Cancel the live run of a session, since the next message takes its place; with `leaves_no_trace` it is not in the history, and its changes
-- of state are undone. Messages that were to join it wait for their turn. The caller holds the run and the session.
CREATE OR REPLACE FUNCTION agno.replace_run(live agno.run, leaves_no_trace boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM agno.return_steers(live);
    UPDATE agno.run r SET session_status = 'replaced', rolled_back_at = CASE WHEN leaves_no_trace THEN clock_timestamp() END WHERE r.id = live.id;
    PERFORM agno.stop_run(live.id, jsonb_build_object('status', 'cancelled', 'reason', 'interrupted', 'error', jsonb_build_object('type', 'RunCancelled',
        'message', format('run %s was interrupted by the next message of session %s', live.id, quote_literal(live.session_id)),
        'ids', jsonb_build_object('run_id', live.id))));
    IF leaves_no_trace THEN
        PERFORM agno.undo_state(live.id);
    END IF;
END $$;

-- Let the next run of a session begin, unless the session is paused or a run of it is live. A run that never began, and that others have
-- overtaken, gets another position: positions are the order in which runs begin. The wait was not a part of the time that the agent has.
CREATE OR REPLACE FUNCTION agno.wake_session(in_tenant text, in_session text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    own agno.session;
    next agno.run;
    is_overtaken boolean;
BEGIN
    SELECT s.* INTO own FROM agno.session s WHERE s.tenant = in_tenant AND s.id = in_session FOR NO KEY UPDATE;
    IF NOT FOUND OR own.status = 'paused' OR (agno.live_run(in_tenant, in_session)).id IS NOT NULL THEN
        RETURN;
    END IF;
    LOOP
        SELECT r.* INTO next FROM agno.run r
        WHERE r.tenant = in_tenant AND r.session_id = in_session AND r.session_status = 'waiting' AND r.ended_at IS NULL
        ORDER BY r.session_position, r.id LIMIT 1;
        IF NOT FOUND THEN
            RETURN;
        END IF;
        is_overtaken := next.started_at IS NULL AND next.session_position <= own.begun_position;
        IF is_overtaken THEN
            next.session_position := own.next_position;
        END IF;
        UPDATE agno.run r SET session_status = 'live', session_position = next.session_position WHERE r.id = next.id AND r.ended_at IS NULL;
        EXIT WHEN FOUND; -- else it was cancelled meanwhile
    END LOOP;
    UPDATE agno.session s SET begun_position = greatest(s.begun_position, next.session_position), next_position = s.next_position + is_overtaken::int
    WHERE s.tenant = in_tenant AND s.id = in_session;
    WITH ready AS (
        UPDATE agno.step s SET status = 'ready', waits_for = NULL, sent_at = clock_timestamp(), resend_at = agno.resend_time(),
            due_at = CASE WHEN next.deadline_at IS NULL THEN clock_timestamp() ELSE s.due_at END
        WHERE s.run_id = next.id AND s.generation = next.generation AND s.waits_for = 'session' RETURNING s.id
    )
    INSERT INTO agno.outbox (step_id, due_at) SELECT id, clock_timestamp() FROM ready;
    PERFORM pg_notify('agno_outbox', '');
END $$;

-- Do what follows for its session when a run ends: messages that were to join it are returned, and the next run begins. A run that was waiting
-- blocked no other, and a transaction that holds it must not wait for a session.
CREATE OR REPLACE FUNCTION agno.leave_session(ended agno.run) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    has_ended boolean;
BEGIN
    IF ended.session_status NOT IN ('live', 'parallel') THEN
        RETURN;
    END IF;
    UPDATE agno.session s SET last_active_at = clock_timestamp(), expires_at = clock_timestamp() + make_interval(secs => s.idle_timeout_s)
    WHERE s.tenant = ended.tenant AND s.id = ended.session_id RETURNING s.ended_at IS NOT NULL INTO has_ended;
    IF ended.session_status = 'live' THEN
        PERFORM agno.return_steers(ended);
        PERFORM agno.wake_session(ended.tenant, ended.session_id);
    END IF;
    IF has_ended THEN
        PERFORM agno.ask_last_summary(ended.tenant, ended.session_id);
    END IF;
END $$;

-- Return the {status, position} of a failed run that is retried, which the caller holds. It waits at its old position, before all others, and the
-- caller wakes the session.
CREATE OR REPLACE FUNCTION agno.reenter_session(failed agno.run) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    own agno.session;
    place bigint := failed.session_position;
BEGIN
    IF failed.session_status IS NULL OR failed.session_status = 'parallel' THEN
        RETURN jsonb_build_object('status', failed.session_status, 'position', place);
    END IF;
    own := agno.hold_session_of(failed);
    IF place IS NULL THEN
        UPDATE agno.session s SET next_position = s.next_position + 1 WHERE s.tenant = own.tenant AND s.id = own.id RETURNING s.next_position - 1 INTO place;
    END IF;
    RETURN jsonb_build_object('position', place, 'status', 'waiting');
END $$;

-- Find the place of a fork, and return {status, position}; NULL without a session. It begins at once: as the live run where the session is free, and
-- beside the live run where it is not.
CREATE OR REPLACE FUNCTION agno.enter_beside(old agno.run) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    own agno.session;
BEGIN
    IF coalesce(old.session_id, '') = '' THEN
        RETURN NULL;
    END IF;
    own := agno.hold_session_of(old);
    UPDATE agno.session s SET next_position = s.next_position + 1, begun_position = s.next_position, last_active_at = clock_timestamp(),
        expires_at = clock_timestamp() + make_interval(secs => s.idle_timeout_s) WHERE s.tenant = own.tenant AND s.id = own.id;
    RETURN jsonb_build_object('position', own.next_position, 'status', CASE WHEN own.status IN ('created', 'active')
        AND (agno.live_run(own.tenant, own.id)).id IS NULL THEN 'live' ELSE 'parallel' END);
END $$;

-- Let a run whose timer is due enter its session.
CREATE OR REPLACE FUNCTION agno.take_place(of_run uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    due agno.run;
    own agno.session;
BEGIN
    SELECT r.* INTO due FROM agno.run r WHERE r.id = of_run AND r.session_status = 'scheduled' AND r.ended_at IS NULL FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    own := agno.hold_session_of(due);
    UPDATE agno.session s SET next_position = s.next_position + 1 WHERE s.tenant = own.tenant AND s.id = own.id;
    UPDATE agno.run r SET session_status = 'waiting', session_position = own.next_position WHERE r.id = of_run;
    UPDATE agno.step s SET not_before = NULL WHERE s.run_id = of_run AND s.waits_for = 'session';
    PERFORM agno.wake_session(own.tenant, own.id);
END $$;

-- Messages that join a live run.

-- Store a message for the next turn of the live run, and return {run_id, steer_id}. The caller holds the session.
CREATE OR REPLACE FUNCTION agno.add_steer(run jsonb, live agno.run) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    new_id uuid := agno.uuid7();
BEGIN
    PERFORM agno.store_blobs(run->'blobs');
    INSERT INTO agno.steer (id, run_id, idempotency_key, content, request)
    VALUES (new_id, live.id, run->>'idempotency_key', run->'input', run - '{blobs,input,canvas,id,idempotency_key,if_busy}'::text[]);
    UPDATE agno.session s SET last_active_at = clock_timestamp(), expires_at = clock_timestamp() + make_interval(secs => s.idle_timeout_s)
    WHERE s.tenant = live.tenant AND s.id = live.session_id;
    RETURN jsonb_build_object('run_id', live.id, 'steer_id', new_id);
END $$;

-- Return the message with the idempotency key of this submit, as agno.add_steer does; NULL if there is none. Raises unique_violation where it has
-- another text.
CREATE OR REPLACE FUNCTION agno.known_steer(run jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    known agno.steer;
BEGIN
    SELECT t.* INTO known FROM agno.steer t JOIN agno.run r ON r.id = t.run_id
    WHERE t.idempotency_key = run->>'idempotency_key' AND r.tenant = coalesce(run->>'tenant', 'default') AND r.agent = run->>'agent'
      AND r.user_id IS NOT DISTINCT FROM run->>'user_id' LIMIT 1;
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF known.content <> run->'input' THEN
        RAISE EXCEPTION 'agno.submit: the idempotency key % of agent % belongs to a message to run %, which has another text. Use another key, or submit the same text.',
            quote_literal(known.idempotency_key), quote_literal(run->>'agent'), known.run_id USING ERRCODE = '23505', DETAIL = known.run_id::text;
    END IF;
    RETURN jsonb_build_object('run_id', coalesce(known.next_run_id, known.run_id), 'steer_id', known.id);
END $$;

-- Return the messages that join a live run at its next turn, in order: [{id, message}].
CREATE OR REPLACE FUNCTION agno.pending_steers(of_run uuid) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT coalesce(json_agg(json_build_object('id', t.id, 'message', agno.inflate(t.content)) ORDER BY t.position), '[]')
    FROM agno.steer t WHERE t.run_id = $1 AND t.status = 'pending';
$$;

-- Record that messages joined a run at this turn. `ids` are those of agno.steer. The caller holds the run.
CREATE OR REPLACE FUNCTION agno.commit_steers(of_step uuid, ids jsonb) RETURNS void LANGUAGE sql AS $$
    UPDATE agno.steer SET status = 'committed', step_id = $1, decided_at = clock_timestamp()
    WHERE id = ANY(ARRAY(SELECT jsonb_array_elements_text($2)::uuid)) AND status = 'pending';
$$;

-- Make the messages that did not join a run before its end one run, the next of the session: with their texts in order, and the options of the
-- first of them. Tasks that stand for these messages end with it. The caller holds the run and the session, and wakes it.
CREATE OR REPLACE FUNCTION agno.return_steers(ended agno.run) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    new_id uuid := agno.uuid7();
    asked jsonb;
    messages int;
    alike jsonb;
BEGIN
    SELECT (array_agg(t.request ORDER BY t.position))[1], count(*),
        jsonb_path_query_array(jsonb_agg(t.request ORDER BY t.position), '$[*].alike[*]') INTO asked, messages, alike
    FROM agno.steer t WHERE t.run_id = ended.id AND t.status = 'pending';
    IF messages = 0 THEN
        RETURN;
    END IF;
    INSERT INTO agno.run (id, tenant, agent, status, queue, priority, session_id, session_position, session_status, user_id, metadata, canvas, deadline_at)
    VALUES (new_id, ended.tenant, ended.agent, 'queued', coalesce(asked->>'queue', ended.queue), (asked->>'priority')::smallint, ended.session_id,
            ended.session_position, 'waiting', ended.user_id, coalesce(asked->'metadata', '{}'), CASE WHEN alike <> '[]' THEN jsonb_build_object('alike', alike) END,
            clock_timestamp() + make_interval(secs => (asked->>'deadline_s')::float8));
    INSERT INTO agno.message (run_id, seq, content)
    SELECT new_id, row_number() OVER (ORDER BY t.position) - 1, t.content FROM agno.steer t WHERE t.run_id = ended.id AND t.status = 'pending';
    PERFORM agno.write_steps(new_id, 0, jsonb_build_array(coalesce(asked->'first_step', '{"kind": "turn", "key": "turn:1", "max_attempts": 5}')
        || jsonb_build_object('id', agno.uuid7(), 'queue', coalesce(asked->>'queue', ended.queue), 'priority', asked->'priority',
            'seq', messages, 'waits_for', 'session')), 0);
    -- Before the end of the run, which is the last of its events.
    UPDATE agno.steer t SET status = 'returned', next_run_id = new_id, decided_at = coalesce(ended.ended_at - interval '1 microsecond', clock_timestamp())
    WHERE t.run_id = ended.id AND t.status = 'pending';
END $$;
