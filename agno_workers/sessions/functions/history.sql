-- The earlier runs of a session, as the model sees them.

-- Return the ended runs of the same agent and user that come before a run in its session, the newest first, each with its messages as a JSON array.
-- Runs that were rolled back are left out, and unless `with_failed` those that failed or were cancelled, except by an interruption. Ends after
-- `at_least` runs and `max_octets` of JSON, after `at_most` runs, and in any case after 16 MiB: it reads what a history can hold and not the
-- session, run by run in the order of an index, among the last 1,000 runs of the session. Runs of earlier code have no position: they come
-- first, by time. (An Append reads its parts in turn.)
CREATE OR REPLACE FUNCTION agno.past_runs(of_run uuid, with_failed boolean, at_least int, at_most int, max_octets bigint)
RETURNS TABLE (run_id uuid, at timestamptz, status text, reason text, error text, messages text) LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_sort = off SET enable_bitmapscan = off SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    own agno.run;
    one record;
    unplaced_before timestamptz;
    place int := 0;
    octets bigint := 0;
BEGIN
    SELECT r.* INTO own FROM agno.run r WHERE r.id = of_run AND r.session_id IS NOT NULL;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT r.created_at INTO unplaced_before FROM agno.run r
        WHERE r.tenant = own.tenant AND r.session_id = own.session_id AND r.session_position IS NOT NULL ORDER BY r.session_position LIMIT 1;
    FOR one IN
        SELECT recent.* FROM (
            (SELECT r.id, r.created_at, r.agent, r.user_id, r.status, r.reason, r.error, r.rolled_back_at FROM agno.run r
             WHERE r.tenant = own.tenant AND r.session_id = own.session_id AND r.session_position < own.session_position
             ORDER BY r.session_position DESC LIMIT 1000)
            UNION ALL
            (SELECT r.id, r.created_at, r.agent, r.user_id, r.status, r.reason, r.error, r.rolled_back_at FROM agno.run r
             WHERE r.tenant = own.tenant AND r.session_id = own.session_id AND r.session_position IS NULL
               AND r.created_at < least(own.created_at, unplaced_before)
             ORDER BY r.created_at DESC LIMIT 1000)) AS recent
        WHERE recent.agent = own.agent AND recent.user_id IS NOT DISTINCT FROM own.user_id AND recent.rolled_back_at IS NULL
          AND (recent.status = 'done' OR recent.status = 'cancelled' AND recent.reason = 'interrupted'
               OR with_failed AND recent.status IN ('failed', 'cancelled'))
    LOOP
        EXIT WHEN place >= at_most OR octets > 16777216 OR place >= at_least AND octets > max_octets;
        SELECT t.transcript INTO messages FROM agno.transcript_of(one.id, 2147483647, NULL) t;
        place := place + 1;
        octets := octets + octet_length(messages);
        run_id := one.id;
        at := one.created_at;
        status := one.status;
        reason := one.reason;
        error := one.error->>'message';
        RETURN NEXT;
    END LOOP;
END $$;

-- Return what the history of a run is made of, and the runs in it as a JSON array, the oldest first. The first call decides it and stores it, so
-- that all turns of the run see the same, whatever ends meanwhile: {options, runs (ids), is_whole, summary, exchanges}. A run that was forked has
-- the history of the one that it was forked from. Without `options`, nothing is decided. The commit need not reach the disk: the next one of the
-- run does, and until then a repeated turn decides again.
CREATE OR REPLACE FUNCTION agno.history_of(of_run uuid, options jsonb, exchanges jsonb, older int, max_octets bigint, OUT recipe jsonb, OUT past text)
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    runs int := (options->>'runs')::int;
    ids jsonb;
BEGIN
    SELECT c.value INTO recipe FROM agno.run_context c WHERE c.run_id = of_run AND c.key = 'history';
    IF recipe IS NULL AND options IS NOT NULL THEN
        PERFORM set_config('synchronous_commit', 'off', true);
        SELECT c.value INTO recipe FROM agno.run r JOIN agno.run_context c ON c.run_id = r.forked_from AND c.key = 'history' WHERE r.id = of_run;
        IF recipe IS NULL THEN
            SELECT jsonb_agg(p.run_id ORDER BY p.place DESC), string_agg(agno.past_run(p.run_id, p.at, p.status, p.reason, p.error, p.messages), ',' ORDER BY p.place DESC)
            INTO ids, past
            FROM agno.past_runs(of_run, options->>'only' = 'all', runs, CASE WHEN runs = 0 THEN 0 ELSE runs + older END, max_octets)
                WITH ORDINALITY AS p (run_id, at, status, reason, error, messages, place);
            past := coalesce(past, '');
            recipe := jsonb_build_object('options', options, 'exchanges', exchanges, 'runs', coalesce(ids, '[]'),
                'is_whole', runs > 0 AND coalesce(jsonb_array_length(ids), 0) < runs + older AND octet_length(past) <= max_octets,
                'summary', (SELECT s.summary FROM agno.run r JOIN agno.session s ON s.tenant = r.tenant AND s.id = r.session_id
                            WHERE r.id = of_run AND s.user_id IS NOT DISTINCT FROM r.user_id AND (options->>'summary')::boolean));
        END IF;
        INSERT INTO agno.run_context (run_id, key, value) VALUES (of_run, 'history', recipe) ON CONFLICT DO NOTHING;
        IF NOT FOUND THEN
            past := NULL;
            SELECT c.value INTO recipe FROM agno.run_context c WHERE c.run_id = of_run AND c.key = 'history';
        END IF;
    END IF;
    IF past IS NULL THEN
        SELECT string_agg(agno.past_run(r.id, r.created_at, r.status, r.reason, r.error->>'message', t.transcript), ',' ORDER BY wanted.place) INTO past
        FROM jsonb_array_elements_text(recipe->'runs') WITH ORDINALITY AS wanted (id, place) JOIN agno.run r ON r.id = wanted.id::uuid,
            LATERAL agno.transcript_of(r.id, 2147483647, NULL) AS t;
    END IF;
    past := '[' || coalesce(past, '') || ']';
END $$;

-- Return a run of a history as a JSON object.
CREATE OR REPLACE FUNCTION agno.past_run(id uuid, at timestamptz, status text, reason text, error text, messages text)
RETURNS text LANGUAGE sql STABLE AS $$
    SELECT json_build_object('id', $1, 'at', $2, 'status', $3, 'reason', $4, 'error', $5, 'messages', $6::json)::text;
$$;
