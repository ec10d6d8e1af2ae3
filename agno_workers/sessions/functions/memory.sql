-- Memories: which of them a user allows.

-- Return true unless the user has switched off memory, or this kind of memories. Without a user, nobody has.
CREATE OR REPLACE FUNCTION agno.memory_allowed(in_tenant text, in_user text, in_kind text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT NOT EXISTS (SELECT FROM agno.consent c WHERE c.tenant = in_tenant AND c.user_id = in_user
        AND c.category IN ('memory', 'memory:' || in_kind) AND NOT c.allowed);
$$;
