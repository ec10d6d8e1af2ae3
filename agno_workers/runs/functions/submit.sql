-- Submit a run.

-- Return the queue for a run of this agent: the caller's, or the one that the agent's workers registered, or `otherwise`. Raises
-- undefined_object for an agent that no worker ever registered, unless the caller allows it.
CREATE OR REPLACE FUNCTION agno.queue_for(in_tenant text, agent text, queue text, allow_unknown boolean, otherwise text)
RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
    registered text;
    known text;
BEGIN
    IF coalesce(agent, '') !~ '\S' THEN
        RAISE EXCEPTION 'agno.submit: agent is empty. Pass the name of an agent.' USING ERRCODE = '22023';
    END IF;
    IF queue !~ '\S' THEN
        RAISE EXCEPTION 'agno.submit: the queue for agent % is empty. Name a queue, or leave it out.',
            quote_literal(agent) USING ERRCODE = '22023';
    END IF;
    IF queue IS NOT NULL AND allow_unknown THEN
        RETURN queue;
    END IF;
    SELECT a.queue INTO registered FROM agno.agent a WHERE a.tenant = in_tenant AND a.name = agent;
    IF NOT FOUND AND NOT allow_unknown THEN
        SELECT coalesce(string_agg(near.name, ', '), 'none') INTO known
            FROM (SELECT a.name FROM agno.agent a WHERE a.tenant = in_tenant ORDER BY a.name LIMIT 10) near;
        RAISE EXCEPTION 'agno.submit: agent % is not registered by any worker. Registered: %. Start a worker that imports it, or pass allow_unknown.',
            quote_literal(agent), known USING ERRCODE = '42704';
    END IF;
    RETURN coalesce(queue, registered, otherwise, 'agents');
END $$;

-- Store a run, its first message, its first step and its outbox row, all or nothing.
-- `run` holds id?, tenant?, kind? (agent), agent, queue?, default_queue?, allow_unknown?, input (the first message), blobs?, first_step? ({kind, key, max_attempts}),
-- session_id?, if_busy? (queue; see agno.enter_session), user_id?, idempotency_key?, metadata?, canvas?, priority?, not_before? or countdown_s?, publish_after_s?, deadline_s? or deadline_at?,
-- options? (then `agno.begin_<kind>(run_id, options)` is called), and for a delegation parent_run_id?, parent_step_id?, depth?, lineage?, paused_at?.
-- A known id or (tenant, agent, user, idempotency_key) returns the existing run, and stores nothing; a key whose run has another input
-- raises unique_violation. One exception: when a canvas waits for its own id while the key belongs to another run, a run with that id is stored
-- which does no work and ends as the other one does. A message that joins the live run of its session returns that run; `step_id` is then the
-- id of the message, and `kind` is `steer`.
CREATE OR REPLACE FUNCTION agno.submit_run(run jsonb)
RETURNS TABLE (run_id uuid, created boolean, step_id uuid, outbox_id bigint, kind text, queue text, priority smallint, due boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    new_id uuid := coalesce((run->>'id')::uuid, agno.uuid7());
    in_tenant text := coalesce(run->>'tenant', 'default');
    run_kind text := coalesce(nullif(run->>'kind', 'agent'),
        (SELECT a.kind FROM agno.agent a WHERE a.tenant = coalesce(run->>'tenant', 'default') AND a.name = run->>'agent'), 'agent');
    run_queue text := agno.queue_for(in_tenant, run->>'agent', run->>'queue',
        coalesce((run->>'allow_unknown')::boolean, false) OR run_kind NOT IN ('agent', 'team', 'workflow') OR run ? 'parent_run_id'
        OR run ? 'id' AND EXISTS (SELECT FROM agno.run r WHERE r.id = new_id)
        OR run ? 'idempotency_key' AND EXISTS (SELECT FROM agno.run r
            WHERE r.tenant = in_tenant AND r.agent = run->>'agent' AND r.idempotency_key = run->>'idempotency_key'
              AND r.user_id IS NOT DISTINCT FROM run->>'user_id'), run->>'default_queue');
    first_step jsonb := coalesce(run->'first_step', '{"kind": "turn", "key": "turn:1", "max_attempts": 5}');
    timer timestamptz := coalesce((run->>'not_before')::timestamptz, clock_timestamp() + make_interval(secs => (run->>'countdown_s')::float8));
    known agno.run;
    place jsonb;
    waits boolean;
BEGIN
    IF run->>'session_id' <> '' AND run_kind IN ('agent', 'team', 'workflow') AND NOT run ? 'parent_run_id' THEN
        place := agno.enter_session(run, new_id, timer);
    END IF;
    IF place ? 'steer_id' THEN
        new_id := (place->>'run_id')::uuid;
        IF run ? 'id' AND run ? 'canvas' THEN
            new_id := (run->>'id')::uuid;
            PERFORM agno.stand_in(run, new_id, (place->>'run_id')::uuid);
            UPDATE agno.steer t SET request = jsonb_set(t.request, '{alike}', coalesce(t.request->'alike', '[]') || to_jsonb(new_id))
                WHERE t.id = (place->>'steer_id')::uuid AND t.status = 'pending';
            PERFORM agno.cancel_if_revoked(new_id);
        END IF;
        RETURN QUERY SELECT new_id, false, (place->>'steer_id')::uuid, NULL::bigint, 'steer', run_queue, NULL::smallint, false;
        RETURN;
    END IF;
    waits := coalesce(place->>'status' IN ('waiting', 'scheduled'), false);
    INSERT INTO agno.run (id, tenant, kind, agent, status, queue, priority, session_id, session_position, session_status, user_id, idempotency_key,
        parent_run_id, parent_step_id, depth, lineage, metadata, canvas, paused_at, deadline_at)
    VALUES (new_id, in_tenant, run_kind, run->>'agent', 'queued', run_queue, (run->>'priority')::smallint, run->>'session_id',
            (place->>'position')::bigint, place->>'status', run->>'user_id',
            run->>'idempotency_key', (run->>'parent_run_id')::uuid, (run->>'parent_step_id')::uuid, coalesce((run->>'depth')::smallint, 0),
            run->'lineage', coalesce(run->'metadata', '{}'), nullif(run->'canvas', 'null'), (run->>'paused_at')::timestamptz,
            coalesce((run->>'deadline_at')::timestamptz,
                     coalesce(timer, clock_timestamp()) + make_interval(secs => (run->>'deadline_s')::float8)))
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT r.* INTO known FROM agno.run r
            WHERE r.id = new_id OR (r.tenant = in_tenant AND r.agent = run->>'agent' AND r.idempotency_key = run->>'idempotency_key'
                AND r.user_id IS NOT DISTINCT FROM run->>'user_id')
            ORDER BY r.id <> new_id LIMIT 1;
        IF place IS NOT NULL THEN
            PERFORM agno.wake_session(in_tenant, run->>'session_id'); -- the place that it does not need
        END IF;
        IF known.id <> new_id AND run_kind IN ('agent', 'team', 'workflow') THEN
            PERFORM agno.refuse_other_input(known, run->'input');
        END IF;
        IF known.id <> new_id AND run ? 'id' AND run ? 'canvas' THEN
            PERFORM agno.stand_in(run, new_id, known.id);
            known.id := new_id;
            PERFORM agno.cancel_if_revoked(new_id);
        END IF;
        RETURN QUERY SELECT known.id, false, NULL::uuid, NULL::bigint, NULL::text, known.queue, known.priority, false;
        RETURN;
    END IF;
    PERFORM agno.store_blobs(run->'blobs');
    INSERT INTO agno.message (run_id, seq, content) VALUES (new_id, 0, run->'input');
    IF run ? 'options' THEN
        EXECUTE format('SELECT agno.begin_%I($1, $2)', run_kind) USING new_id, agno.inflate(run->'options');
    END IF;
    first_step := first_step || jsonb_build_object('id', agno.uuid7(), 'queue', run_queue, 'priority', run->'priority', 'seq', 1,
        'not_before', timer, 'due_at', timer, 'waits_for', CASE WHEN waits THEN 'session' END);
    RETURN QUERY
        SELECT new_id, true, (first_step->>'id')::uuid, w.outbox_id, first_step->>'kind', run_queue, (run->>'priority')::smallint, timer IS NULL AND NOT waits
        FROM (VALUES (1)) AS one LEFT JOIN agno.write_steps(new_id, 0, jsonb_build_array(first_step),
            coalesce((run->>'publish_after_s')::float8, 0.3)) AS w ON true;
    IF run ? 'id' THEN
        PERFORM agno.cancel_if_revoked(new_id);
    END IF;
END $$;

-- Raise unique_violation, with the id of the run as its detail, when the run that has a key was submitted with another input.
CREATE OR REPLACE FUNCTION agno.refuse_other_input(known agno.run, input jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM agno.message m WHERE m.run_id = known.id AND m.seq = 0 AND m.content <> input) THEN
        RAISE EXCEPTION 'agno.submit: the idempotency key % of agent % belongs to run %, which has another input. Use another key, or submit the same input.',
            quote_literal(known.idempotency_key), quote_literal(known.agent), known.id USING ERRCODE = '23505', DETAIL = known.id::text;
    END IF;
END $$;

-- Cancel a run that was revoked before it was submitted, as a later part of a canvas.
CREATE OR REPLACE FUNCTION agno.cancel_if_revoked(run_id uuid) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM agno.revoked r WHERE r.task_id = $1::text;
    IF FOUND THEN
        PERFORM agno.stop_run($1, jsonb_build_object('status', 'cancelled', 'reason', 'cancelled', 'error', jsonb_build_object(
            'type', 'RunCancelled', 'message', format('run %s was cancelled', $1), 'ids', jsonb_build_object('run_id', $1))));
    END IF;
END $$;

-- Store the runs of a user's canvas and its chords, all or nothing, and return as `submit_run` does. A chord that exists stays as it is.
-- `canvas` holds runs (each as for `submit_run`), chords ([{id, body, size?, header?}]) and blobs?.
CREATE OR REPLACE FUNCTION agno.submit_canvas(canvas jsonb)
RETURNS TABLE (run_id uuid, created boolean, step_id uuid, outbox_id bigint, kind text, queue text, priority smallint, due boolean)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    PERFORM agno.store_blobs(canvas->'blobs');
    -- In one order, so that two canvases cannot deadlock.
    PERFORM agno.hold_session(asked.run) FROM (
        SELECT DISTINCT ON (s.run->>'tenant', s.run->>'session_id') s.run FROM jsonb_array_elements(canvas->'runs') WITH ORDINALITY AS s (run, place)
        WHERE s.run->>'session_id' <> '' AND NOT EXISTS (SELECT FROM agno.run r WHERE r.id = (s.run->>'id')::uuid)
        ORDER BY s.run->>'tenant', s.run->>'session_id', coalesce(s.run->>'if_busy' IN ('interrupt', 'rollback', 'steer'), false) DESC, s.place OFFSET 0) AS asked;
    -- Nothing waits for the chords of a canvas that is repeated with the ids of its runs: Celery gives inner ones another id each time.
    IF canvas->'runs' = '[]' OR EXISTS (SELECT FROM jsonb_array_elements(canvas->'runs') AS asked (run)
            WHERE NOT EXISTS (SELECT FROM agno.run r WHERE r.id = (asked.run->>'id')::uuid)) THEN
        INSERT INTO agno.barrier (id, size, body)
        SELECT c.id, c.size, c.body FROM jsonb_to_recordset(canvas->'chords') AS c (id uuid, size int, body jsonb)
        ON CONFLICT (id) DO NOTHING;
        INSERT INTO agno.task_group (group_id, result)
        SELECT c.id, c.header FROM jsonb_to_recordset(canvas->'chords') AS c (id text, header jsonb) WHERE c.header IS NOT NULL
        ON CONFLICT (group_id) DO NOTHING;
    END IF;
    RETURN QUERY SELECT s.* FROM jsonb_array_elements(canvas->'runs') AS asked (run), LATERAL agno.submit_run(asked.run) AS s;
END $$;

-- Store a run that does no work and ends with the run that has its key. Locks that run until the commit.
CREATE OR REPLACE FUNCTION agno.stand_in(run jsonb, new_id uuid, known_id uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    known agno.run;
BEGIN
    SELECT r.* INTO known FROM agno.run r WHERE r.id = known_id FOR NO KEY UPDATE;
    INSERT INTO agno.run (id, tenant, kind, agent, status, queue, priority, session_id, user_id, metadata, canvas)
    VALUES (new_id, known.tenant, known.kind, known.agent, 'waiting', known.queue, known.priority, run->>'session_id', run->>'user_id',
            coalesce(run->'metadata', '{}'), run->'canvas');
    PERFORM agno.store_blobs(run->'blobs');
    INSERT INTO agno.message (run_id, seq, content) VALUES (new_id, 0, run->'input');
    IF known.ended_at IS NOT NULL THEN
        PERFORM agno.end_alike(known, new_id);
    ELSE
        UPDATE agno.run r SET canvas = coalesce(r.canvas, '{}') || jsonb_build_object('alike',
                coalesce(r.canvas->'alike', '[]') || to_jsonb(new_id))
            WHERE r.id = known_id;
    END IF;
END $$;

-- Submit a run inside the caller's own transaction: SELECT agno.submit('researcher', 'What is new?');
CREATE OR REPLACE FUNCTION agno.submit(
    agent text, input text, session_id text DEFAULT NULL, user_id text DEFAULT NULL, idempotency_key text DEFAULT NULL,
    metadata jsonb DEFAULT '{}', queue text DEFAULT NULL, id uuid DEFAULT NULL, not_before timestamptz DEFAULT NULL,
    tenant text DEFAULT 'default', allow_unknown boolean DEFAULT false, if_busy text DEFAULT 'queue'
) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
    submitted uuid;
BEGIN
    IF coalesce(btrim(input), '') = '' THEN
        RAISE EXCEPTION 'agno.submit: the input for agent % is empty. Describe its task.', quote_literal(agent) USING ERRCODE = '22023';
    END IF;
    IF user_id !~ '\S' OR idempotency_key !~ '\S' THEN
        RAISE EXCEPTION 'agno.submit: user_id or idempotency_key for agent % is blank. Pass text, or NULL.',
            quote_literal(agent) USING ERRCODE = '22023';
    END IF;
    IF octet_length(metadata::text) > 65536 THEN
        RAISE EXCEPTION 'agno.submit: metadata takes % bytes, and the most is 65536: store large values elsewhere, and pass their keys.',
            octet_length(metadata::text) USING ERRCODE = '22023';
    END IF;
    SELECT s.run_id INTO submitted FROM agno.submit_run(jsonb_strip_nulls(jsonb_build_object(
        'id', id, 'tenant', tenant, 'agent', agent, 'queue', queue, 'session_id', session_id, 'user_id', user_id,
        'idempotency_key', idempotency_key, 'not_before', not_before, 'allow_unknown', allow_unknown, 'if_busy', if_busy
    )) || jsonb_build_object('metadata', coalesce(metadata, '{}'), 'publish_after_s', 0,
        'input', jsonb_build_object('role', 'user', 'parts', jsonb_build_array(jsonb_build_object('type', 'text', 'text', input)))
    )) s;
    -- This session has no connection to Redis: wake the keeper, which publishes what was committed.
    PERFORM pg_notify('agno_outbox', '');
    RETURN submitted;
END $$;
