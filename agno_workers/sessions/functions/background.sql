-- Background work that follows the ends of runs. agno.background has a row for each kind and owner whose work has an open run: who writes or
-- deletes it decides alone, so what was asked while a run was open is seen by its end, and nothing runs twice at once. Items without such a row
-- are left by a run that failed; the next request, or a retry of that run, begins again.

-- Ask for background work after a run, in a transaction that ends it or that comes later. `asked` is [{kind, owner, after_position?, every?}];
-- the last two leave out what the run's position in its session does not ask for, see core.step.FollowUp.
CREATE OR REPLACE FUNCTION agno.request_background(of_run uuid, asked jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    asking agno.run;
    work record;
    new_run uuid;
    begins boolean;
BEGIN
    SELECT r.* INTO asking FROM agno.run r WHERE r.id = of_run;
    -- The order of locks.
    FOR work IN SELECT DISTINCT ON (w.kind, w.owner) w.* FROM jsonb_to_recordset(asked) AS w (kind text, owner text, after_position bigint, every int)
            WHERE asking.id IS NOT NULL AND (coalesce(w.every, 1) = 1 AND coalesce(w.after_position, 0) = 0
                OR asking.session_position > w.after_position AND (asking.session_position - w.after_position) % w.every = 0)
            ORDER BY w.kind, w.owner LOOP
        new_run := agno.uuid7();
        INSERT INTO agno.background AS b (tenant, kind, owner, run_id) VALUES (asking.tenant, work.kind, work.owner, new_run)
        ON CONFLICT (tenant, kind, owner) DO UPDATE SET run_id = b.run_id RETURNING b.run_id = new_run INTO begins;
        -- Under that lock, so that the order of ids is the order of commits.
        INSERT INTO agno.background_item (tenant, kind, owner, run_id) VALUES (asking.tenant, work.kind, work.owner, of_run);
        IF begins THEN
            PERFORM agno.begin_background(new_run, asking, work.kind, work.owner);
        END IF;
    END LOOP;
END $$;

-- Submit the run that does the work which `asking` asked for. The keeper sends it as soon as this is committed: the caller has other work to do.
CREATE OR REPLACE FUNCTION agno.begin_background(new_run uuid, asking agno.run, kind text, owner text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM agno.submit_run(jsonb_strip_nulls(jsonb_build_object('id', new_run, 'kind', 'background', 'tenant', asking.tenant, 'agent', asking.agent,
        'user_id', asking.user_id, 'queue', coalesce((SELECT a.background_queue FROM agno.agent a
            WHERE a.tenant = asking.tenant AND a.name = asking.agent), 'background'), 'metadata', jsonb_build_object('kind', kind, 'owner', owner),
        'first_step', jsonb_build_object('kind', 'background', 'key', 'background:1', 'name', kind, 'max_attempts', 5), 'publish_after_s', 0,
        'input', jsonb_build_object('role', 'user', 'parts', jsonb_build_array(jsonb_build_object('type', 'text', 'text',
            format('Background work: %s of %s.', kind, owner)))))));
    PERFORM pg_notify('agno_outbox', '');
END $$;

-- Let the next run of the same work begin when one has ended and more was asked meanwhile. A cancel gives up what its agent was asked to do; after
-- a failure nothing begins by itself, so that it does not repeat in a loop.
CREATE OR REPLACE FUNCTION agno.background_ended(ended agno.run) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    work agno.background;
    asking agno.run;
    new_run uuid := agno.uuid7();
BEGIN
    DELETE FROM agno.background b WHERE b.run_id = ended.id RETURNING b.* INTO work;
    IF NOT FOUND OR ended.status = 'failed' THEN
        RETURN;
    END IF;
    IF ended.status = 'cancelled' THEN
        DELETE FROM agno.background_item i USING agno.run r
        WHERE i.tenant = work.tenant AND i.kind = work.kind AND i.owner = work.owner AND r.id = i.run_id AND r.agent = ended.agent;
    END IF;
    SELECT r.* INTO asking FROM agno.background_item i JOIN agno.run r ON r.id = i.run_id
    WHERE i.tenant = work.tenant AND i.kind = work.kind AND i.owner = work.owner ORDER BY i.id LIMIT 1;
    IF FOUND THEN
        INSERT INTO agno.background (tenant, kind, owner, run_id) VALUES (work.tenant, work.kind, work.owner, new_run);
        PERFORM agno.begin_background(new_run, asking, work.kind, work.owner);
    END IF;
END $$;

-- Retry a failed run of background work, which the caller holds; false when a later run of the same work is open.
CREATE OR REPLACE FUNCTION agno.retry_background(failed agno.run, new_step uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO agno.background (tenant, kind, owner, run_id)
    VALUES (failed.tenant, failed.metadata->>'kind', failed.metadata->>'owner', failed.id) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE agno.run r SET status = 'queued', generation = r.generation + 1, ended_at = NULL, ended_as = NULL, reason = NULL, error = NULL,
        content = NULL, paused_at = NULL WHERE r.id = failed.id;
    PERFORM agno.write_steps(failed.id, failed.generation + 1, jsonb_build_array(jsonb_build_object('id', new_step, 'key', 'background:1',
        'kind', 'background', 'queue', failed.queue, 'priority', failed.priority, 'name', failed.metadata->>'kind', 'seq', 1, 'max_attempts', 5)), 0);
    PERFORM pg_notify('agno_outbox', '');
    RETURN true;
END $$;
