-- The life of a session, as people change it: pause, resume, end, fork, roll back, delete. Refusals are the errors of RAISED in
-- database/pool.py. `as_user` is the user who asks; NULL for an operator, who may change all sessions.

-- Return a session. Raises SessionNotFound, and SessionForbidden for a session of another user.
CREATE OR REPLACE FUNCTION agno.known_session(in_tenant text, in_session text, as_user text) RETURNS agno.session LANGUAGE plpgsql STABLE AS $$
DECLARE
    known agno.session;
BEGIN
    SELECT s.* INTO known FROM agno.session s WHERE s.tenant = in_tenant AND s.id = in_session;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no session % in this database. `agno-workers sessions ls` lists the newest sessions.', quote_literal(in_session)
            USING ERRCODE = 'AG104', DETAIL = jsonb_build_object('session_id', in_session);
    END IF;
    IF as_user IS NOT NULL AND known.user_id IS DISTINCT FROM as_user THEN
        RAISE EXCEPTION 'session % belongs to another user than %: use a session of that user.', quote_literal(in_session), quote_literal(as_user)
            USING ERRCODE = 'AG101', DETAIL = jsonb_build_object('session_id', in_session);
    END IF;
    RETURN known;
END $$;

-- Count the runs of a session and those that wait for their turn, and name the live one.
CREATE OR REPLACE FUNCTION agno.runs_of_session(s agno.session) RETURNS TABLE (runs bigint, waiting bigint, live_run_id uuid) LANGUAGE sql STABLE AS $$
    SELECT (SELECT count(*) FROM agno.run r WHERE r.tenant = s.tenant AND r.session_id = s.id),
        (SELECT count(*) FROM agno.run r WHERE r.tenant = s.tenant AND r.session_id = s.id AND r.session_status = 'waiting' AND r.ended_at IS NULL),
        (SELECT r.id FROM agno.run r WHERE r.tenant = s.tenant AND r.session_id = s.id AND r.session_status = 'live' AND r.ended_at IS NULL);
$$;

-- Lock a session, after those of its runs that another transaction may hold while it waits for the session: the open ones, but not those that
-- wait for their turn, nor those without a place, such as one that stands for another and is locked after that; with `all_runs` also those that
-- have ended. Only runs after `last` (NULL: all). When a run changed between the two, it tries again.
CREATE OR REPLACE FUNCTION agno.lock_session(in_tenant text, in_session text, as_user text, all_runs boolean DEFAULT false, last agno.run DEFAULT NULL)
RETURNS agno.session LANGUAGE plpgsql AS $$
DECLARE
    held agno.session;
    is_whole boolean;
BEGIN
    LOOP
        PERFORM agno.known_session(in_tenant, in_session, as_user);
        PERFORM FROM agno.run r WHERE r.tenant = in_tenant AND r.session_id = in_session AND agno.is_held_first(r, all_runs, last)
            ORDER BY r.id FOR NO KEY UPDATE;
        BEGIN
            SELECT s.* INTO held FROM agno.session s WHERE s.tenant = in_tenant AND s.id = in_session FOR NO KEY UPDATE;
            SELECT count(*) = (SELECT count(*) FROM (SELECT FROM agno.run r WHERE r.tenant = in_tenant AND r.session_id = in_session
                AND agno.is_held_first(r, all_runs, last) FOR NO KEY UPDATE SKIP LOCKED) locked) INTO is_whole
            FROM agno.run r WHERE r.tenant = in_tenant AND r.session_id = in_session AND agno.is_held_first(r, all_runs, last);
            IF is_whole AND held.id IS NOT NULL THEN
                RETURN held;
            END IF;
            RAISE serialization_failure;
        EXCEPTION WHEN serialization_failure THEN
            NULL; -- the lock of the session is released
        END;
    END LOOP;
END $$;

CREATE OR REPLACE FUNCTION agno.is_held_first(run agno.run, all_runs boolean, last agno.run) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN run.ended_at IS NULL THEN coalesce(run.session_status <> 'waiting', false) ELSE all_runs END AND agno.is_after(run, last);
$$;

-- Pause a session: the runs of new messages wait, and a live run continues. False when it is paused or has ended.
CREATE OR REPLACE FUNCTION agno.pause_session(in_tenant text, in_session text, as_user text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM agno.known_session(in_tenant, in_session, as_user);
    UPDATE agno.session s SET status = 'paused' WHERE s.tenant = in_tenant AND s.id = in_session AND s.status IN ('created', 'active');
    RETURN FOUND;
END $$;

-- Resume a session: its next run begins. False when it is not paused.
CREATE OR REPLACE FUNCTION agno.resume_session(in_tenant text, in_session text, as_user text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM agno.known_session(in_tenant, in_session, as_user);
    UPDATE agno.session s SET status = CASE WHEN EXISTS (SELECT FROM agno.run r
            WHERE r.tenant = in_tenant AND r.session_id = in_session) THEN 'active' ELSE 'created' END
        WHERE s.tenant = in_tenant AND s.id = in_session AND s.status = 'paused';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM agno.wake_session(in_tenant, in_session);
    RETURN true;
END $$;

-- Return true for a run that comes after another one in their session. Runs of earlier code come first, and those that are scheduled last; both
-- have no position. NULL: after the beginning.
CREATE OR REPLACE FUNCTION agno.is_after(run agno.run, other agno.run) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT other.id IS NULL OR (agno.session_place(run), run.created_at, run.id) > (agno.session_place(other), other.created_at, other.id);
$$;

CREATE OR REPLACE FUNCTION agno.session_place(run agno.run) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(run.session_position, CASE WHEN run.session_status IS NULL THEN 0 ELSE 9223372036854775807 END);
$$;

-- Cancel the open runs of a session that come after a run, the last first, so that none begins meanwhile; also those that begin in place of
-- messages to a cancelled run. Returns their ids. The caller holds the session. `only_status`: those with such a session_status.
CREATE OR REPLACE FUNCTION agno.cancel_session_runs(in_tenant text, in_session text, after agno.run, only_status text[], reason text)
RETURNS uuid[] LANGUAGE plpgsql AS $$
DECLARE
    cancelled uuid[] := '{}';
    open_runs uuid[];
    next uuid;
BEGIN
    LOOP
        open_runs := ARRAY(SELECT r.id FROM agno.run r
            WHERE r.tenant = in_tenant AND r.session_id = in_session AND r.ended_at IS NULL AND agno.is_after(r, after)
              AND (only_status IS NULL OR r.session_status = ANY(only_status))
            ORDER BY r.session_position DESC NULLS LAST, r.created_at DESC, r.id DESC);
        IF open_runs = '{}' THEN
            RETURN cancelled;
        END IF;
        FOREACH next IN ARRAY open_runs LOOP
            PERFORM agno.stop_run(next, jsonb_build_object('status', 'cancelled', 'reason', reason, 'error', jsonb_build_object(
                'type', 'RunCancelled', 'message', format('run %s was cancelled (%s) in session %L', next, reason, in_session),
                'ids', jsonb_build_object('run_id', next, 'session_id', in_session))));
        END LOOP;
        cancelled := cancelled || open_runs;
    END LOOP;
END $$;

-- End a session: it takes no message, a live run ends as usual, and the waiting ones are cancelled. Returns the number of these; NULL when it
-- had ended before.
CREATE OR REPLACE FUNCTION agno.end_session(in_tenant text, in_session text, as_user text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    held agno.session := agno.lock_session(in_tenant, in_session, as_user);
    cancelled uuid[];
BEGIN
    IF held.ended_at IS NOT NULL THEN
        RETURN NULL;
    END IF;
    UPDATE agno.session s SET status = 'ended', ended_at = clock_timestamp() WHERE s.tenant = in_tenant AND s.id = in_session;
    cancelled := agno.cancel_session_runs(in_tenant, in_session, NULL, '{waiting,scheduled}', 'session_ended');
    PERFORM agno.ask_last_summary(in_tenant, in_session);
    RETURN cardinality(cancelled);
END $$;

-- Ask for a last summary of a session that has ended, if the agent of its last run keeps summaries. Memories and the index follow each run.
CREATE OR REPLACE FUNCTION agno.ask_last_summary(in_tenant text, in_session text) RETURNS void LANGUAGE sql AS $$
    SELECT agno.request_background(last.id, jsonb_build_array(jsonb_build_object('kind', 'summary', 'owner', $2)))
    FROM (
        SELECT r.id, r.definition FROM agno.run r
        WHERE r.tenant = $1 AND r.session_id = $2 AND r.session_position IS NOT NULL AND r.ended_at IS NOT NULL AND r.rolled_back_at IS NULL
        ORDER BY r.session_position DESC LIMIT 1) last
    JOIN agno.definition d ON d.sha256 = last.definition WHERE (d.content->'history'->>'summary')::boolean;
$$;

-- Make a session with the past of another one, up to and with a run (NULL: all that has ended): copies of its runs with new ids, without their
-- costs and keys; of its state as that run left it; and of its summary, unless it covers later runs. Failed runs are not copied, since a retry
-- would execute their calls twice. Returns false when this fork was made before. One statement copies it all, so that it sees one moment.
CREATE OR REPLACE FUNCTION agno.fork_session(in_tenant text, in_session text, as_user text, new_id text, at uuid, actor text)
RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    source agno.session := agno.known_session(in_tenant, in_session, as_user);
    known agno.session;
    last agno.run;
BEGIN
    SELECT s.* INTO source FROM agno.session s WHERE s.tenant = in_tenant AND s.id = in_session FOR SHARE; -- a rollback waits
    IF at IS NOT NULL THEN
        last := agno.ended_run_of(source, at);
        IF last.status = 'failed' THEN
            RAISE EXCEPTION 'run % failed, and failed runs are not copied: fork at an earlier run.', at USING ERRCODE = 'AG002';
        END IF;
    END IF;
    INSERT INTO agno.session AS s (tenant, id, user_id, agent, title, status, next_position, summary, summary_until, metadata, forked_from,
        idle_timeout_s, expires_at)
    SELECT in_tenant, new_id, source.user_id, source.agent, source.title, 'created', coalesce(last.session_position + 1, source.next_position),
        CASE WHEN summary_fits THEN source.summary END, CASE WHEN summary_fits THEN source.summary_until ELSE 0 END, source.metadata, in_session,
        source.idle_timeout_s, clock_timestamp() + make_interval(secs => source.idle_timeout_s)
    FROM (SELECT at IS NULL OR source.summary_until <= coalesce(last.session_position, 0)) AS summary (summary_fits)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT s.* INTO known FROM agno.session s WHERE s.tenant = in_tenant AND s.id = new_id;
        IF known.forked_from IS DISTINCT FROM in_session OR known.user_id IS DISTINCT FROM source.user_id THEN
            RAISE EXCEPTION 'session % exists, and is not a fork of %: use another new_id.', quote_literal(new_id), quote_literal(in_session)
                USING ERRCODE = 'AG002';
        END IF;
        RETURN false;
    END IF;
    WITH copied AS MATERIALIZED (
        SELECT r.*, agno.uuid7() AS new_id FROM agno.run r
        WHERE r.tenant = in_tenant AND r.session_id = in_session AND r.kind <> 'background' AND r.status IN ('done', 'cancelled')
          AND r.rolled_back_at IS NULL AND (at IS NULL OR NOT agno.is_after(r, last))
    ),
    runs AS (
        INSERT INTO agno.run (id, tenant, kind, agent, status, queue, priority, session_id, session_position, session_status, user_id, forked_from,
            definition, metadata, content, reason, error, turns, tool_calls, created_at, started_at, ended_at, ended_as)
        SELECT c.new_id, c.tenant, c.kind, c.agent, c.status, c.queue, c.priority, fork_session.new_id, c.session_position, c.session_status,
            c.user_id, c.id, c.definition, c.metadata, c.content, c.reason, c.error, c.turns, c.tool_calls, c.created_at, c.started_at, c.ended_at,
            c.ended_as
        FROM copied c RETURNING 1
    ),
    messages AS (
        INSERT INTO agno.message (run_id, seq, content, created_at)
        SELECT c.new_id, m.seq, m.content, m.created_at FROM copied c JOIN agno.message m ON m.run_id = c.id
    ),
    results AS (
        INSERT INTO agno.stored_result (run_id, seq, id, content)
        SELECT c.new_id, r.seq, r.id, r.content FROM copied c JOIN agno.stored_result r ON r.run_id = c.id
    ),
    steps AS (
        INSERT INTO agno.step (id, run_id, generation, key, kind, status, queue, priority, name, seq, call, effect, attempt, max_attempts, policy,
            answer, error, created_at, started_at, ended_at)
        SELECT DISTINCT ON (c.new_id, s.key) agno.uuid7(), c.new_id, 0, s.key, s.kind, s.status, s.queue, s.priority, s.name, s.seq, s.call,
            s.effect, s.attempt, s.max_attempts, s.policy, s.answer, s.error, s.created_at, s.started_at, s.ended_at
        FROM copied c JOIN agno.step s ON s.run_id = c.id WHERE s.ended_at IS NOT NULL ORDER BY c.new_id, s.key, s.generation DESC
    ),
    changes AS (
        INSERT INTO agno.state_change (tenant, scope, owner, key, version, operation, value, before, run_id, actor, at)
        SELECT t.tenant, t.scope, fork_session.new_id, t.key, t.version, t.operation, t.value, t.before, c.new_id, t.actor, t.at
        FROM agno.state_change t LEFT JOIN copied c ON c.id = t.run_id
        WHERE t.tenant = in_tenant AND t.scope IN ('session', 'team') AND t.owner = in_session ORDER BY t.id
    ),
    state AS (
        INSERT INTO agno.state (tenant, scope, owner, key, value, version, updated_at)
        SELECT s.tenant, s.scope, fork_session.new_id, s.key, s.value, s.version, s.updated_at
        FROM agno.state s WHERE s.tenant = in_tenant AND s.scope IN ('session', 'team') AND s.owner = in_session
    )
    UPDATE agno.session s SET status = 'active' WHERE s.tenant = in_tenant AND s.id = fork_session.new_id AND EXISTS (SELECT FROM runs);
    IF at IS NOT NULL THEN
        PERFORM agno.restore_state(in_tenant, scope, new_id, last.ended_at, actor) FROM unnest('{session,team}'::text[]) scope;
    END IF;
    RETURN true;
END $$;

-- Return a run of a session's past. Raises InvalidInput for a run of another session, an open one, and one that was rolled back.
CREATE OR REPLACE FUNCTION agno.ended_run_of(in_session agno.session, wanted uuid) RETURNS agno.run LANGUAGE plpgsql STABLE AS $$
DECLARE
    known agno.run;
BEGIN
    SELECT r.* INTO known FROM agno.run r
        WHERE r.id = wanted AND r.tenant = in_session.tenant AND r.session_id = in_session.id AND r.kind <> 'background';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'run % is not a run of session %: `agno-workers sessions show` lists its runs.', wanted, quote_literal(in_session.id)
            USING ERRCODE = 'AG002';
    END IF;
    IF known.ended_at IS NULL THEN
        RAISE EXCEPTION 'run % of session % has not ended: wait for it, or use an earlier run.', wanted, quote_literal(in_session.id)
            USING ERRCODE = 'AG002';
    END IF;
    IF known.rolled_back_at IS NOT NULL THEN
        RAISE EXCEPTION 'run % of session % was rolled back: use an earlier run.', wanted, quote_literal(in_session.id) USING ERRCODE = 'AG002';
    END IF;
    RETURN known;
END $$;

-- Roll a session back to the end of a run, or to its beginning (NULL): later runs are cancelled and leave the history, and its state is as it was.
CREATE OR REPLACE FUNCTION agno.roll_back_session(in_tenant text, in_session text, as_user text, to_run uuid, actor text)
RETURNS TABLE (rolled_back int, cancelled uuid[]) LANGUAGE plpgsql AS $$
DECLARE
    held agno.session;
    last agno.run;
    gone_runs uuid[];
    as_of timestamptz;
BEGIN
    SELECT r.* INTO last FROM agno.run r WHERE r.id = to_run;
    held := agno.lock_session(in_tenant, in_session, as_user, true, last);
    IF to_run IS NOT NULL THEN
        last := agno.ended_run_of(held, to_run);
        as_of := last.ended_at;
    ELSE
        SELECT min(r.created_at) INTO as_of FROM agno.run r WHERE r.tenant = in_tenant AND r.session_id = in_session;
    END IF;
    cancelled := agno.cancel_session_runs(in_tenant, in_session, last, NULL, 'rolled_back');
    WITH gone AS (
        UPDATE agno.run r SET rolled_back_at = clock_timestamp()
        WHERE r.tenant = in_tenant AND r.session_id = in_session AND r.rolled_back_at IS NULL AND r.kind <> 'background' AND agno.is_after(r, last)
        RETURNING r.id
    )
    SELECT array_agg(id) INTO gone_runs FROM gone;
    rolled_back := coalesce(cardinality(gone_runs), 0);
    PERFORM agno.forget_exchanges(in_tenant, gone_runs);
    IF as_of IS NOT NULL THEN
        PERFORM agno.restore_state(in_tenant, scope, in_session, as_of, actor) FROM unnest('{session,team}'::text[]) scope;
    END IF;
    UPDATE agno.session s SET last_active_at = clock_timestamp(),
        summary = CASE WHEN s.summary_until <= coalesce(last.session_position, 0) THEN s.summary END,
        summary_until = CASE WHEN s.summary_until <= coalesce(last.session_position, 0) THEN s.summary_until ELSE 0 END
    WHERE s.tenant = in_tenant AND s.id = in_session;
    RETURN NEXT;
END $$;

-- Begin to delete a session: it takes no message any more. `cancel`: its open runs are cancelled, and their ids returned; else one of them is a
-- refusal, SessionBusy. Then no run of it can end, and ask for background work.
CREATE OR REPLACE FUNCTION agno.begin_delete_session(in_tenant text, in_session text, as_user text, cancel boolean) RETURNS uuid[] LANGUAGE plpgsql AS $$
DECLARE
    held agno.session := agno.lock_session(in_tenant, in_session, as_user);
    open_runs int;
BEGIN
    SELECT count(*) INTO open_runs FROM agno.run r WHERE r.tenant = in_tenant AND r.session_id = in_session AND r.ended_at IS NULL;
    IF open_runs > 0 AND NOT cancel THEN
        RAISE EXCEPTION 'session % has % open run(s): wait for them, or delete it with cancel=True.', quote_literal(in_session), open_runs
            USING ERRCODE = 'AG103', DETAIL = jsonb_build_object('session_id', in_session);
    END IF;
    UPDATE agno.session s SET status = 'ended', ended_at = coalesce(s.ended_at, clock_timestamp()) WHERE s.tenant = in_tenant AND s.id = in_session;
    RETURN agno.cancel_session_runs(in_tenant, in_session, NULL, NULL, 'session_deleted');
END $$;
