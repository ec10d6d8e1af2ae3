-- Background work that follows the ends of runs: one open run for each kind and owner, which does all that was asked so far.

-- Ask for background work after a run, in the transaction that ends it. `asked` is [{kind, owner}].
CREATE OR REPLACE FUNCTION agno.request_background(of_run uuid, asked jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RETURN;
END $$;

-- Begin the next run of the same work when one of them ends and more was asked meanwhile.
CREATE OR REPLACE FUNCTION agno.background_ended(ended agno.run) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RETURN;
END $$;
