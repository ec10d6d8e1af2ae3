-- Helper functions.

-- Return a time-ordered UUID on Postgres 18 and later, and a random one on older servers.
CREATE OR REPLACE FUNCTION agno.uuid7() RETURNS uuid LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('server_version_num')::int >= 180000 THEN
        RETURN uuidv7();
    END IF;
    RETURN gen_random_uuid();
END $$;

-- Put large strings, which are stored separately, back into JSON. A reference is {"$blob": "<sha256>"} in place of a string;
-- quotes inside a string are escaped, so text that looks like a reference stays text.
CREATE OR REPLACE FUNCTION agno.inflate(content jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE STRICT AS $$
DECLARE
    whole text;
    found record;
BEGIN
    IF NOT content @? '$.**."$blob"' THEN
        RETURN content;
    END IF;
    whole := content::text;
    FOR found IN
        SELECT DISTINCT '{"$blob": "' || match[1] || '"}' AS reference, b.content::text AS stored
        FROM regexp_matches(whole, '\{"\$blob": "([0-9a-f]{64})"\}', 'g') match
        JOIN agno.blob b ON b.sha256 = decode(match[1], 'hex')
    LOOP
        whole := replace(whole, found.reference, found.stored);
    END LOOP;
    RETURN whole::jsonb;
END $$;

-- The update comes first: a string that `prune` deletes meanwhile is inserted again, and one that was used lately is not deleted.
-- Every submit calls this, mostly without strings. The array keeps the planner from reading the whole table, and the order of the locks
-- is the same for all.
CREATE OR REPLACE FUNCTION agno.store_blobs(blobs jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF blobs IS NULL OR blobs = '{}' THEN
        RETURN;
    END IF;
    UPDATE agno.blob b SET used_at = clock_timestamp() FROM (
        SELECT sha256 FROM agno.blob WHERE used_at < clock_timestamp() - interval '1 day'
          AND sha256 = ANY(ARRAY(SELECT decode(key, 'hex') FROM jsonb_object_keys(blobs) key))
        ORDER BY sha256 FOR UPDATE) AS old WHERE b.sha256 = old.sha256;
    INSERT INTO agno.blob SELECT decode(key, 'hex'), value FROM jsonb_each(blobs) ON CONFLICT DO NOTHING;
END $$;

-- The message with a tool's result, as core/messages.py writes it.
CREATE OR REPLACE FUNCTION agno.tool_message(call_id text, name text, content text, is_error boolean) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT jsonb_build_object('role', 'tool', 'parts', jsonb_build_array(jsonb_build_object(
        'type', 'tool_result', 'call_id', call_id, 'name', name, 'content', content) ||
        CASE WHEN is_error THEN '{"is_error": true}'::jsonb ELSE '{}' END));
$$;

-- Return the start of a run's generation: the due time of its first step.
CREATE OR REPLACE FUNCTION agno.began(run_id uuid, generation int) RETURNS timestamptz LANGUAGE sql STABLE AS $$
    SELECT coalesce(s.due_at, s.created_at) FROM agno.step s
    WHERE s.run_id = $1 AND s.generation = $2 ORDER BY s.created_at LIMIT 1;
$$;
