-- The runs of a session, one after another.

-- Record that messages joined a run at this turn. `ids` are those of agno.steer.
CREATE OR REPLACE FUNCTION agno.commit_steers(of_step uuid, ids jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RETURN;
END $$;

-- Let the next run of a session begin, if the session is active and no run of it is live.
CREATE OR REPLACE FUNCTION agno.wake_session(in_tenant text, in_session text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RETURN;
END $$;

-- Do what follows for its session when a run ends.
CREATE OR REPLACE FUNCTION agno.leave_session(ended agno.run) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RETURN;
END $$;
