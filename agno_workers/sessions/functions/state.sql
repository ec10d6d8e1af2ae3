-- State: values that tools share.

-- Change state, in the transaction that records a tool's result. `changes` is [{scope, owner, key, operation, value?, version?}].
CREATE OR REPLACE FUNCTION agno.change_state(of_run uuid, of_step uuid, changes jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RETURN;
END $$;
