-- Calls of programs: their ends are counted and numbered in one barrier of their run, which starts the next turn.

-- Number the ends of calls, after their barrier has counted them, in the transaction that holds its lock. Later ends get higher numbers, and
-- are not visible before.
CREATE OR REPLACE FUNCTION agno.number_arrivals(ended uuid[]) RETURNS void LANGUAGE sql AS $$
    UPDATE agno.step s SET arrival = n.number FROM (
        SELECT e.id, b.arrived - count(*) OVER (PARTITION BY b.id) + row_number() OVER (PARTITION BY b.id ORDER BY e.seq, e.id) AS number
        FROM agno.step e JOIN agno.barrier b ON b.id = e.barrier_id WHERE e.id = ANY($1) AND e.arrival = 0) AS n
    WHERE s.id = n.id;
$$;

-- Let the next turn of a program follow when `size` of its calls have ended, or at once. `arm` holds id, size and body, as a barrier does.
-- Returns the steps to write now.
CREATE OR REPLACE FUNCTION agno.arm_barrier(of_run uuid, in_generation int, arm jsonb) RETURNS jsonb LANGUAGE sql AS $$
    INSERT INTO agno.barrier AS b (id, run_id, generation, size, body)
    VALUES (($3->>'id')::uuid, $1, $2, ($3->>'size')::int, $3->'body')
    ON CONFLICT (id) DO UPDATE SET size = excluded.size, body = excluded.body,
        fired_at = CASE WHEN b.arrived >= excluded.size THEN clock_timestamp() END
    RETURNING CASE WHEN b.fired_at IS NULL THEN '[]'::jsonb
        ELSE jsonb_build_array(b.body || jsonb_build_object('run_id', b.run_id, 'generation', b.generation)) END;
$$;

-- End open calls of a program that it needs no more, in the transaction of its turn. Child runs end after it: see `orphans` in maintain.sql.
CREATE OR REPLACE FUNCTION agno.cancel_calls(of_run uuid, in_generation int, keys jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    ended uuid[];
    barriers uuid[];
BEGIN
    WITH cancelled AS (
        UPDATE agno.step s SET status = 'cancelled', ended_at = clock_timestamp(), lease_until = NULL, not_before = NULL, waits_for = NULL, expires_at = NULL
        WHERE s.run_id = $1 AND s.generation = $2 AND s.key IN (SELECT jsonb_array_elements_text($3)) AND s.arrival = 0
          AND s.status IN ('ready', 'running', 'waiting')
        RETURNING s.id, s.barrier_id
    )
    SELECT array_agg(c.id), array_agg(c.barrier_id) INTO ended, barriers FROM cancelled c;
    IF ended IS NOT NULL THEN
        PERFORM agno.count_parts(barriers);  -- it has fired, and is armed again after this
        PERFORM agno.number_arrivals(ended);
    END IF;
END $$;

-- End waiting calls of a run, and let its next turn follow: a signal, an answer, or a time limit. `ends` is [{step_id, value?,
-- answer?, error?}]; those that have ended stay as they are. Returns the ids of the others.
CREATE OR REPLACE FUNCTION agno.end_waits(of_run uuid, ends jsonb) RETURNS uuid[] LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM agno.run r WHERE r.id = of_run AND r.ended_at IS NULL FOR SHARE;
    IF NOT FOUND THEN
        RETURN '{}';
    END IF;
    RETURN agno.end_held_waits(ARRAY[of_run], ends);
END $$;

-- The same for several runs, which the caller holds.
CREATE OR REPLACE FUNCTION agno.end_held_waits(of_runs uuid[], ends jsonb) RETURNS uuid[] LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    ended uuid[];
    barriers uuid[];
BEGIN
    WITH done AS (
        UPDATE agno.step s SET status = 'done', ended_at = clock_timestamp(), waits_for = NULL, expires_at = NULL,
            result = CASE WHEN e.error IS NULL THEN coalesce(e.value, 'null') END,
            answer = e.answer || jsonb_build_object('at', statement_timestamp()), error = e.error
        FROM jsonb_to_recordset(ends) AS e (step_id uuid, value jsonb, answer jsonb, error jsonb), agno.run r
        WHERE s.id = e.step_id AND s.run_id = ANY(of_runs) AND s.status = 'waiting' AND s.arrival = 0 AND r.id = s.run_id
          AND r.generation = s.generation AND r.ended_at IS NULL
        RETURNING s.id, s.barrier_id
    )
    SELECT array_agg(d.id), array_agg(d.barrier_id) INTO ended, barriers FROM done d;
    IF ended IS NULL THEN
        RETURN '{}';
    END IF;
    PERFORM agno.write_steps(NULL, NULL, agno.count_parts(barriers), 0);
    PERFORM agno.number_arrivals(ended);
    PERFORM pg_notify('agno_outbox', '');
    RETURN ended;
END $$;

-- End timers that are due, the oldest first and at most `most`, and return their number. Thousands may be due at once. Rows that are locked are left for
-- the next round: nothing here waits while it holds rows of other runs.
CREATE OR REPLACE FUNCTION agno.end_due_timers(most int) RETURNS int LANGUAGE plpgsql
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    due uuid[];
BEGIN
    due := ARRAY(SELECT s.id FROM agno.step s JOIN agno.run r ON r.id = s.run_id
        WHERE s.status = 'waiting' AND coalesce(s.lease_until, s.expires_at) <= statement_timestamp() AND s.waits_for = 'timer'
          AND r.ended_at IS NULL AND r.generation = s.generation
        ORDER BY coalesce(s.lease_until, s.expires_at) LIMIT most FOR SHARE OF r SKIP LOCKED);
    due := ARRAY(SELECT s.id FROM agno.step s WHERE s.id = ANY(due) AND s.status = 'waiting' FOR NO KEY UPDATE SKIP LOCKED);
    due := ARRAY(SELECT s.id FROM agno.step s JOIN agno.barrier b ON b.id = s.barrier_id WHERE s.id = ANY(due) FOR NO KEY UPDATE OF b SKIP LOCKED);
    IF due = '{}' THEN
        RETURN 0;
    END IF;
    RETURN cardinality(agno.end_held_waits(
        ARRAY(SELECT DISTINCT s.run_id FROM agno.step s WHERE s.id = ANY(due)),
        (SELECT jsonb_agg(jsonb_build_object('step_id', id)) FROM unnest(due) AS id)));
END $$;

-- Answer the approval of a workflow, `flow.approve`: `verdict` is 'approved' or 'rejected'. Returns false when the step does not wait for an approval (any more).
CREATE OR REPLACE FUNCTION agno.answer_approval(of_step uuid, verdict text, by_whom text DEFAULT NULL, note text DEFAULT NULL)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    its_run uuid;
    answer jsonb := jsonb_build_object('verdict', verdict, 'by', by_whom, 'note', note);
BEGIN
    IF (verdict IN ('approved', 'rejected')) IS NOT TRUE THEN
        RAISE EXCEPTION 'verdict must be ''approved'' or ''rejected'', got %.', coalesce(quote_literal(verdict), 'NULL') USING ERRCODE = 'AG002';
    END IF;
    SELECT s.run_id INTO its_run FROM agno.step s WHERE s.id = of_step AND s.kind = 'wait' AND s.waits_for = 'confirmation';
    RETURN its_run IS NOT NULL
        AND agno.end_waits(its_run, jsonb_build_array(jsonb_build_object('step_id', of_step, 'value', answer, 'answer', answer))) <> '{}';
END $$;

-- Send a signal to a run: its oldest wait for that name ends with the payload, or the signal is kept for the next one. A key is sent once for a
-- name: false means that it was sent before, also where the run has ended meanwhile.
CREATE OR REPLACE FUNCTION agno.send_signal(of_run uuid, name text, payload jsonb DEFAULT NULL, key text DEFAULT NULL) RETURNS boolean LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    receiver agno.run;
BEGIN
    IF (btrim($2) <> '' AND length($2) <= 200) IS NOT TRUE THEN
        RAISE EXCEPTION 'the name of a signal must be text of 1 to 200 characters, got %.', coalesce(quote_literal(left($2, 50)), 'NULL') USING ERRCODE = 'AG002';
    ELSIF NOT (btrim($4) <> '' AND length($4) <= 500) THEN
        RAISE EXCEPTION 'the key of signal % must be text of 1 to 500 characters, got %.', quote_literal($2), quote_literal(left($4, 50)) USING ERRCODE = 'AG002';
    ELSIF octet_length($3::text) > 262144 THEN
        RAISE EXCEPTION 'the payload of signal % takes % bytes as JSON, and the most is 262,144: store it elsewhere, and send its key.', quote_literal($2),
            octet_length($3::text) USING ERRCODE = 'AG002';
    ELSIF $3 @? '$.**."$blob"' THEN  -- it would be read as a reference to a large string
        RAISE EXCEPTION 'the payload of signal % has the key "$blob", which is reserved: use another one.', quote_literal($2) USING ERRCODE = 'AG002';
    END IF;
    SELECT r.* INTO receiver FROM agno.run r WHERE r.id = of_run FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no run % in this database: check the id.', of_run USING ERRCODE = 'AG003', DETAIL = jsonb_build_object('run_id', of_run);
    ELSIF EXISTS (SELECT FROM agno.signal g WHERE g.run_id = of_run AND g.name = $2 AND g.key = $4) THEN
        RETURN false;
    ELSIF receiver.ended_at IS NOT NULL THEN
        RAISE EXCEPTION 'run % is % and takes no signal: % was not sent.', of_run, receiver.status, quote_literal($2)
            USING ERRCODE = 'AG004', DETAIL = jsonb_build_object('run_id', of_run);
    END IF;
    INSERT INTO agno.signal (id, run_id, name, payload, key) VALUES (agno.uuid7(), of_run, $2, $3, $4);
    PERFORM agno.take_signals(of_run);
    RETURN true;
END $$;

-- Let the waits of a run, the oldest first, take the signals that are kept for it, the oldest first. The caller holds the run.
CREATE OR REPLACE FUNCTION agno.take_signals(of_run uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    waiting record;
    taken jsonb;
    ends jsonb := '[]';
BEGIN
    FOR waiting IN SELECT s.id, s.name FROM agno.step s JOIN agno.run r ON r.id = s.run_id
        WHERE s.run_id = of_run AND s.generation = r.generation AND s.arrival = 0 AND s.status = 'waiting' AND s.waits_for = 'signal' ORDER BY s.seq, s.id
    LOOP
        UPDATE agno.signal g SET step_id = waiting.id WHERE g.id = (SELECT k.id FROM agno.signal k
            WHERE k.run_id = of_run AND k.name = waiting.name AND k.step_id IS NULL ORDER BY k.sent_at, k.id LIMIT 1)
        RETURNING g.payload INTO taken;
        IF FOUND THEN
            ends := ends || jsonb_build_object('step_id', waiting.id, 'value', taken);
        END IF;
    END LOOP;
    IF ends <> '[]' THEN
        PERFORM agno.end_waits(of_run, ends);
    END IF;
END $$;

-- Return what a program sees of its calls: all that are open, and those that ended after the first `known` ends. These are read again unless
-- the last of them ended at `known_at` (microseconds since 1970): the database may have been restored. One statement, so that `arrived` and the
-- calls are of one moment.
CREATE OR REPLACE FUNCTION agno.progress_of(of_run uuid, in_generation int, known int, known_at bigint) RETURNS json LANGUAGE sql STABLE AS $$
    SELECT json_build_object('now', clock_timestamp(), 'barrier_id', b.id, 'arrived', coalesce(b.arrived, 0), 'known', k.known, 'calls', coalesce((
        SELECT json_agg(json_build_object('key', s.key, 'kind', s.call->'kind', 'name', s.name, 'status', s.status, 'arrival', s.arrival,
            'at', (extract(epoch FROM s.ended_at) * 1000000)::bigint, 'is_done', s.status = 'done' AND s.result IS NOT NULL,
            'value', agno.inflate(s.result), 'error', s.error))
        FROM (SELECT * FROM agno.step WHERE run_id = $1 AND generation = $2 AND arrival = 0
            UNION ALL SELECT * FROM agno.step WHERE run_id = $1 AND generation = $2 AND arrival > k.known) AS s), '[]'))
    FROM (SELECT coalesce(max(s.arrival), 0) AS known FROM agno.step s WHERE s.run_id = $1 AND s.generation = $2 AND s.arrival = nullif($3, 0)
            AND (extract(epoch FROM s.ended_at) * 1000000)::bigint = $4) AS k
        LEFT JOIN agno.barrier b ON b.run_id = $1 AND b.generation = $2;
$$;

-- The generation of a run's calls; NULL: it has none.
CREATE OR REPLACE FUNCTION agno.generation_of_calls(of_run uuid) RETURNS int LANGUAGE sql STABLE AS $$
    SELECT max(s.generation) FROM agno.step s WHERE s.run_id = $1 AND s.arrival IS NOT NULL;
$$;

-- Return whether a retry keeps a call that has ended. A `once` call that had begun is kept, whatever its end: only a fork makes it again.
CREATE OR REPLACE FUNCTION agno.is_kept(call agno.step) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT $1.ended_at IS NOT NULL AND ($1.status = 'done' AND $1.result IS NOT NULL OR $1.effect = 'once' AND $1.attempt > 0);
$$;

-- Return the error of a call that a retry keeps: a `once` call may have been cut off without one.
CREATE OR REPLACE FUNCTION agno.kept_error(call agno.step) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce($1.error, CASE WHEN $1.result IS NULL THEN jsonb_build_object('type', 'OutcomeUnknown', 'ids', '{}'::jsonb, 'message',
        format('it is not known whether %s took effect, since the run ended while it ran: fork the run at it to make it again', $1.name)) END);
$$;

-- Keep calls of a failed program, in the order of their ends, for the generation of its retry. The others are made again, and so is the one that
-- it failed with.
CREATE OR REPLACE FUNCTION agno.keep_calls(of_run uuid, for_generation int, failed_key text, turn uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    kept uuid[];
    new_barrier uuid := agno.uuid7();
BEGIN
    kept := ARRAY(SELECT s.id FROM agno.step s
        WHERE s.run_id = of_run AND s.generation = agno.generation_of_calls(of_run) AND s.arrival IS NOT NULL AND agno.is_kept(s)
          AND (s.key IS DISTINCT FROM failed_key OR s.effect = 'once')
        ORDER BY nullif(s.arrival, 0) NULLS LAST, s.seq);
    IF kept <> '{}' THEN
        INSERT INTO agno.barrier (id, run_id, generation, size, arrived, body, fired_at)
        VALUES (new_barrier, of_run, for_generation, cardinality(kept), cardinality(kept), jsonb_build_object('id', turn), clock_timestamp());
        UPDATE agno.step s SET generation = for_generation, barrier_id = new_barrier, arrival = k.place, error = agno.kept_error(s)
        FROM unnest(kept) WITH ORDINALITY AS k (id, place) WHERE s.id = k.id;
    END IF;
END $$;

-- Copy the calls of a program that ended and were made before `below`, but for one, to a new run, in the order of their ends.
CREATE OR REPLACE FUNCTION agno.copy_calls(of_run uuid, in_generation int, below int, but text, to_run uuid, turn uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    new_barrier uuid := agno.uuid7();
    copied int;
BEGIN
    INSERT INTO agno.step (id, run_id, generation, key, kind, status, queue, priority, name, seq, call, effect, max_attempts, policy, answer,
        error, started_at, ended_at, barrier_id, result, arrival)
    SELECT agno.uuid7(), to_run, 0, s.key, s.kind, s.status, s.queue, s.priority, s.name, s.seq, s.call, s.effect, s.max_attempts, s.policy, s.answer,
        s.error, s.started_at, s.ended_at, new_barrier, s.result, row_number() OVER (ORDER BY s.arrival)
    FROM agno.step s WHERE s.run_id = of_run AND s.generation = in_generation AND s.arrival > 0 AND s.seq < below AND s.key <> but;
    GET DIAGNOSTICS copied = ROW_COUNT;
    IF copied > 0 THEN
        INSERT INTO agno.barrier (id, run_id, size, arrived, body, fired_at)
        VALUES (new_barrier, to_run, copied, copied, jsonb_build_object('id', turn), clock_timestamp());
    END IF;
END $$;
