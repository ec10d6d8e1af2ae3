-- State: values that tools and clients share, one row a key. A row's version is that of its newest change, also after the key was deleted. Every
-- transaction locks rows in the order of scope, owner and key, so that none waits for one that waits for it.
--
-- A change keeps `value`, what the operation was given, and `before`, what is enough to go back from the value after it: the whole value, for
-- append, extend and union the number of items, for update the fields that were replaced. NULL: the key did not exist.

-- Change state, in the transaction that records a tool's result and holds its run. `changes` is [{scope, owner, key, operation, value?, version?}];
-- `version` is the one that was read. Raises AG001 when a version is another one now, AG002 when an operation does not fit its value.
CREATE OR REPLACE FUNCTION agno.change_state(of_run uuid, of_step uuid, changes jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    in_tenant text;
    foreign_scope text;
    team_run uuid;
    acting text := (SELECT s.policy->>'agent' FROM agno.step s WHERE s.id = of_step);  -- the agent whose tool it is, where one has taken the run over
BEGIN
    SELECT r.tenant, (SELECT c->>'scope' FROM jsonb_array_elements(changes) c WHERE c->>'owner' IS DISTINCT FROM CASE c->>'scope'
        WHEN 'session' THEN r.session_id WHEN 'user' THEN r.user_id WHEN 'agent' THEN coalesce(acting, r.agent) WHEN 'run' THEN r.id::text WHEN 'global' THEN ''
        WHEN 'team' THEN agno.team_of(r) END LIMIT 1)
    INTO in_tenant, foreign_scope FROM agno.run r WHERE r.id = of_run;
    IF foreign_scope IS NOT NULL THEN
        RAISE EXCEPTION 'the state of another % cannot be changed by run %.', foreign_scope, of_run USING ERRCODE = 'AG002';
    END IF;
    IF changes @> '[{"scope": "team"}]' THEN
        -- Its team's run is held, so that nothing is written once that has ended, or after its changes were undone.
        SELECT (r.lineage->'team'->>'run_id')::uuid INTO team_run FROM agno.run r WHERE r.id = of_run AND r.kind <> 'team';
        PERFORM FROM agno.run t WHERE t.id = team_run AND t.ended_at IS NULL FOR SHARE;
        IF team_run IS NOT NULL AND NOT FOUND THEN
            RAISE EXCEPTION 'run % of the team of run % has ended: its state takes no more changes of its members.', team_run, of_run USING ERRCODE = 'AG002';
        END IF;
    END IF;
    PERFORM agno.write_state(in_tenant, changes, of_run, of_step, NULL);
END $$;

-- Return the owner of the state of a run's team: of the nearest one above it, or of its own, the session of that team's run or the run itself.
-- A run at the top of its tree may be one of a team that no worker has registered.
CREATE OR REPLACE FUNCTION agno.team_of(r agno.run) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN r.kind = 'team' OR r.lineage->'team' IS NULL THEN coalesce(nullif(r.session_id, ''), r.id::text)
        ELSE coalesce(nullif(r.lineage->'team'->>'session_id', ''), r.lineage->'team'->>'run_id') END;
$$;

-- Return whether state that is deleted with a run is that of the run: a session may have its id, and a team its state there.
CREATE OR REPLACE FUNCTION agno.is_of_run(in_tenant text, in_scope text, of_owner text) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT $2 = 'run' OR NOT EXISTS (SELECT FROM agno.session s WHERE s.tenant = $1 AND s.id = $3);
$$;

-- Return a run and all that it started, and those started.
CREATE OR REPLACE FUNCTION agno.family_of(of_run uuid) RETURNS uuid[] LANGUAGE sql STABLE AS $$
    WITH RECURSIVE family AS (
        SELECT $1 AS id
        UNION SELECT s.child_run_id FROM family f JOIN agno.step s ON s.run_id = f.id WHERE s.child_run_id IS NOT NULL)
    SELECT array_agg(id) FROM family;
$$;

-- Change state as agno.change_state does, and return what the keys hold now.
CREATE OR REPLACE FUNCTION agno.write_state(in_tenant text, changes jsonb, by_run uuid, by_step uuid, by_actor text)
RETURNS TABLE (key text, value jsonb, version bigint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    asked record;
    held agno.state;
    current jsonb;
    following jsonb;
    operation text;
    operand jsonb;
BEGIN
    FOR asked IN
        SELECT c->>'scope' AS scope, c->>'owner' AS owner, c->>'key' AS key, max((c->>'version')::bigint) AS version, jsonb_agg(c ORDER BY place) AS steps
        FROM jsonb_array_elements(changes) WITH ORDINALITY AS e (c, place) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    LOOP
        LOOP
            SELECT * INTO held FROM agno.state s
            WHERE s.tenant = in_tenant AND s.scope = asked.scope AND s.owner = asked.owner AND s.key = asked.key FOR NO KEY UPDATE;
            EXIT WHEN FOUND;
            INSERT INTO agno.state (tenant, scope, owner, key, version) VALUES (in_tenant, asked.scope, asked.owner, asked.key, 0) ON CONFLICT DO NOTHING;
        END LOOP;
        IF held.version <> asked.version THEN
            RAISE EXCEPTION 'state % of % % has changed: it was read at version %, and is at version % now. Read it again, and repeat the change.',
                quote_literal(asked.key), asked.scope, quote_literal(asked.owner), asked.version, held.version USING ERRCODE = 'AG001',
                DETAIL = jsonb_build_object('scope', asked.scope, 'owner', asked.owner, 'key', asked.key, 'version', held.version)::text;
        END IF;
        current := agno.inflate(held.value);
        FOR operation, operand IN SELECT c->>'operation', c->'value' FROM jsonb_array_elements(asked.steps) c LOOP
            following := agno.state_after(asked.key, operation, current, operand);
            CONTINUE WHEN following IS NOT DISTINCT FROM current;
            held.version := held.version + 1;
            INSERT INTO agno.state_change (tenant, scope, owner, key, version, operation, run_id, step_id, actor, value, before)
            VALUES (in_tenant, asked.scope, asked.owner, asked.key, held.version, operation, by_run, by_step, by_actor, agno.pack_state(asked.key,
                CASE WHEN operation = 'union' THEN agno.items_between(following, jsonb_array_length(coalesce(current, '[]')), NULL) ELSE operand END),
                agno.pack_state(asked.key, CASE
                    WHEN operation IN ('append', 'extend', 'union') THEN to_jsonb(jsonb_array_length(current))
                    WHEN operation = 'update' AND current IS NOT NULL THEN (SELECT coalesce(jsonb_object_agg(field, current->field), '{}')
                        FROM jsonb_object_keys(operand) field WHERE current ? field)
                    ELSE current END));
            current := following;
        END LOOP;
        IF held.version = 0 THEN
            DELETE FROM agno.state s WHERE s.tenant = in_tenant AND s.scope = asked.scope AND s.owner = asked.owner AND s.key = asked.key;
        ELSE
            UPDATE agno.state s SET value = agno.pack_state(asked.key, current), version = held.version, updated_at = clock_timestamp()
            WHERE s.tenant = in_tenant AND s.scope = asked.scope AND s.owner = asked.owner AND s.key = asked.key AND s.version <> held.version;
        END IF;
        RETURN QUERY SELECT asked.key, current, held.version;
    END LOOP;
END $$;

-- Return a value after an operation; NULL is a key that does not exist. core/state.py computes the same for a tool's own view.
CREATE OR REPLACE FUNCTION agno.state_after(of_key text, operation text, current jsonb, operand jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    kind text := jsonb_typeof(current);
    given text := jsonb_typeof(operand);
    item jsonb;
BEGIN
    CASE
        WHEN operation IN ('set', 'restore') THEN
            RETURN operand;
        WHEN operation = 'delete' THEN
            RETURN NULL;
        WHEN operation = 'increment' AND coalesce(kind, 'number') = 'number' AND given = 'number' THEN
            RETURN to_jsonb(coalesce(current::numeric, 0) + operand::numeric);
        WHEN operation IN ('append', 'extend') AND coalesce(kind, 'array') = 'array' AND given = 'array' THEN
            RETURN coalesce(current, '[]') || operand;
        WHEN operation = 'union' AND coalesce(kind, 'array') = 'array' AND given = 'array' THEN
            RETURN coalesce(current, '[]') || (SELECT coalesce(jsonb_agg(new.value ORDER BY new.place), '[]') FROM (
                SELECT e.value, min(e.place) AS place FROM jsonb_array_elements(operand) WITH ORDINALITY AS e (value, place) GROUP BY e.value) AS new
                WHERE new.value NOT IN (SELECT jsonb_array_elements(coalesce(current, '[]'))));
        WHEN operation = 'remove' AND kind = 'array' AND given = 'array' THEN  -- only undo does this: the last of each item, as often as it is named
            FOR item IN SELECT jsonb_array_elements(operand) LOOP
                current := current - coalesce((SELECT max(e.place) - 1 FROM jsonb_array_elements(current) WITH ORDINALITY AS e (value, place)
                    WHERE e.value = item)::int, jsonb_array_length(current));
            END LOOP;
            RETURN current;
        WHEN operation IN ('max', 'min') AND coalesce(kind, given) = given AND given IN ('number', 'string') THEN
            RETURN CASE
                WHEN current IS NULL THEN operand
                WHEN (operation = 'max') = CASE WHEN given = 'number' THEN operand::numeric > current::numeric
                    ELSE (operand #>> '{}') COLLATE "C" > (current #>> '{}') COLLATE "C" END THEN operand
                ELSE current END;
        WHEN operation = 'update' AND coalesce(kind, 'object') = 'object' AND given = 'object' THEN
            RETURN coalesce(current, '{}') || operand;
        ELSE
            RAISE EXCEPTION 'state % is of type %, and % of type % does not fit it: set it instead, or use another key.',
                quote_literal(of_key), coalesce(kind, 'none'), operation, coalesce(given, 'none') USING ERRCODE = 'AG002';
    END CASE;
END $$;

-- Return a value before a change, of the value after it.
CREATE OR REPLACE FUNCTION agno.state_before(change agno.state_change, after jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT CASE
        WHEN change.before IS NULL THEN NULL
        WHEN change.operation IN ('append', 'extend', 'union') THEN agno.items_between(after, 0, change.before::int)
        WHEN change.operation = 'update' THEN (after - ARRAY(SELECT jsonb_object_keys(agno.inflate(change.value)))) || agno.inflate(change.before)
        ELSE agno.inflate(change.before) END;
$$;

-- Return the items of an array from one place to another, counted from 0; NULL is the end.
CREATE OR REPLACE FUNCTION agno.items_between(list jsonb, first int, below int) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(jsonb_agg(e.item ORDER BY e.place), '[]') FROM jsonb_array_elements(list) WITH ORDINALITY AS e (item, place)
    WHERE e.place > first AND (below IS NULL OR e.place <= below);
$$;

-- Return a value as it is stored: over 64 KiB it is a blob, and so is a value that looks like the reference of one; see agno.inflate.
CREATE OR REPLACE FUNCTION agno.pack_state(of_key text, content jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    bytes int := pg_column_size(content);
    digest text;
BEGIN
    IF bytes > 8 * 1024 * 1024 THEN
        RAISE EXCEPTION 'state % would take % bytes, and may take 8 MiB: store large values elsewhere, and their address here.', quote_literal(of_key), bytes
            USING ERRCODE = 'AG002';
    END IF;
    IF content IS NULL OR bytes <= 64 * 1024 AND NOT content @? '$.**."$blob"' THEN
        RETURN content;
    END IF;
    digest := encode(sha256(convert_to(content::text, 'UTF8')), 'hex');
    PERFORM agno.store_blobs(jsonb_build_object(digest, content));
    RETURN jsonb_build_object('$blob', digest);
END $$;

-- Return the version of a key at a time. 0: it did not exist. Raises AG002 when its changes since then are not kept any more.
CREATE OR REPLACE FUNCTION agno.state_version_at(held agno.state, as_of timestamptz) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    newest bigint;
    oldest bigint;
BEGIN
    SELECT max(c.version) FILTER (WHERE c.at <= as_of), min(c.version) INTO newest, oldest FROM agno.state_change c
    WHERE c.tenant = held.tenant AND c.scope = held.scope AND c.owner = held.owner AND c.key = held.key;
    IF newest IS NULL AND oldest > 1 THEN
        RAISE EXCEPTION 'the changes of state % of % % at % were pruned: choose a later time.', quote_literal(held.key), held.scope,
            quote_literal(held.owner), as_of USING ERRCODE = 'AG002';
    END IF;
    RETURN coalesce(newest, 0);
END $$;

-- Return the value of a key at an earlier version, by going back through its changes from the first that kept a whole value.
CREATE OR REPLACE FUNCTION agno.state_at_version(held agno.state, at_version bigint) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    whole agno.state_change;
    change agno.state_change;
    value jsonb := agno.inflate(held.value);
BEGIN
    IF at_version = 0 THEN
        RETURN NULL;
    END IF;
    SELECT * INTO whole FROM agno.state_change c
    WHERE c.tenant = held.tenant AND c.scope = held.scope AND c.owner = held.owner AND c.key = held.key AND c.version > at_version
      AND (c.before IS NULL OR c.operation NOT IN ('append', 'extend', 'union', 'update')) ORDER BY c.version LIMIT 1;
    FOR change IN
        SELECT * FROM agno.state_change c
        WHERE c.tenant = held.tenant AND c.scope = held.scope AND c.owner = held.owner AND c.key = held.key
          AND c.version > at_version AND c.version <= coalesce(whole.version, held.version) ORDER BY c.version DESC
    LOOP
        value := agno.state_before(change, value);
    END LOOP;
    RETURN value;
END $$;

-- Return the keys of an owner with the values that they had at a time.
CREATE OR REPLACE FUNCTION agno.state_at(in_tenant text, in_scope text, of_owner text, as_of timestamptz)
RETURNS TABLE (key text, value jsonb) LANGUAGE sql STABLE AS $$
    SELECT was.key, was.value FROM (
        SELECT s.key, agno.state_at_version(s, agno.state_version_at(s, $4)) AS value FROM agno.state s
        WHERE s.tenant = $1 AND s.scope = $2 AND s.owner = $3) AS was
    WHERE was.value IS NOT NULL ORDER BY was.key;
$$;

-- Set each key of an owner to the value that it had at a time, as a new version; keys that were made later are deleted. Returns how many keys changed.
CREATE OR REPLACE FUNCTION agno.restore_state(in_tenant text, in_scope text, of_owner text, as_of timestamptz, by_actor text)
RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    held agno.state;
    changed int := 0;
BEGIN
    FOR held IN
        SELECT * FROM agno.state s WHERE s.tenant = in_tenant AND s.scope = in_scope AND s.owner = of_owner ORDER BY s.key FOR NO KEY UPDATE
    LOOP
        changed := changed + agno.change_key(held, 'restore', agno.state_at_version(held, agno.state_version_at(held, as_of)), NULL, by_actor);
    END LOOP;
    RETURN changed;
END $$;

-- Copy the state that an owner had at a time to another owner of the scope.
CREATE OR REPLACE FUNCTION agno.copy_state(in_tenant text, in_scope text, from_owner text, to_owner text, as_of timestamptz, by_actor text)
RETURNS void LANGUAGE sql AS $$
    SELECT FROM agno.write_state($1, coalesce((SELECT jsonb_agg(jsonb_build_object('scope', $2, 'owner', $4, 'key', s.key, 'operation', 'set', 'value', s.value))
        FROM agno.state_at($1, $2, $3, $5) s), '[]'), NULL, NULL, $6);
$$;

-- Undo what a run changed in the state of its session, and with its members in that of its team there, in a transaction that holds the run, and
-- return the keys that were left as they are. A key
-- that nobody changed since gets its value back. Where others did, what the run added is taken away again if all changes since are increments,
-- or all are additions to a list. Changes of runs that were undone themselves do not count.
CREATE OR REPLACE FUNCTION agno.undo_state(of_run uuid) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    held agno.state;
    first bigint;
    is_undone boolean;
    by_others boolean;
    operations text[];
    added jsonb;
    family uuid[] := agno.family_of(of_run);
BEGIN
    FOR held IN
        SELECT s.* FROM agno.state s JOIN agno.run r ON r.tenant = s.tenant AND s.scope IN ('session', 'team') AND r.session_id = s.owner
        WHERE r.id = of_run AND s.key IN (SELECT c.key FROM agno.state_change c WHERE c.run_id = ANY(family) AND c.scope = s.scope AND c.owner = s.owner)
        ORDER BY s.scope, s.key FOR NO KEY UPDATE OF s
    LOOP
        SELECT min(c.version), bool_or(c.actor IS NOT NULL) INTO first, is_undone FROM agno.state_change c WHERE c.run_id = ANY(family)
          AND c.scope = held.scope AND c.owner = held.owner AND c.key = held.key;
        CONTINUE WHEN is_undone;
        SELECT bool_or(c.run_id IS NULL OR c.run_id <> ALL(family)), array_agg(DISTINCT c.operation) INTO by_others, operations FROM agno.state_change c
        WHERE c.tenant = held.tenant AND c.scope = held.scope AND c.owner = held.owner AND c.key = held.key AND c.version >= first
          AND NOT EXISTS (SELECT FROM agno.state_change u WHERE u.scope = held.scope AND u.owner = held.owner AND u.key = held.key AND u.actor IS NOT NULL
              AND u.run_id = coalesce((SELECT (m.lineage->>'root')::uuid FROM agno.run m WHERE m.id = c.run_id), c.run_id));
        IF NOT by_others THEN
            PERFORM agno.change_key(held, 'restore', agno.state_at_version(held, first - 1), of_run, 'rollback');
        ELSIF operations = '{increment}' THEN
            SELECT to_jsonb(-sum(c.value::numeric)) INTO added FROM agno.state_change c WHERE c.run_id = ANY(family) AND c.scope = held.scope AND c.owner = held.owner AND c.key = held.key;
            PERFORM agno.change_key(held, 'increment', added, of_run, 'rollback');
        ELSIF operations <@ '{append,extend,union}' THEN
            SELECT coalesce(jsonb_agg(e.item), '[]') INTO added FROM agno.state_change c, jsonb_array_elements(agno.inflate(c.value)) AS e (item)
            WHERE c.run_id = ANY(family) AND c.scope = held.scope AND c.owner = held.owner AND c.key = held.key;
            PERFORM agno.change_key(held, 'remove', added, of_run, 'rollback');
        ELSE
            RETURN NEXT held.key;
        END IF;
    END LOOP;
END $$;

-- Change a key that is locked, and return 1 if that changed its value. The operation `restore` with NULL deletes the key.
CREATE OR REPLACE FUNCTION agno.change_key(held agno.state, operation text, operand jsonb, by_run uuid, by_actor text) RETURNS int LANGUAGE sql AS $$
    SELECT (w.version <> held.version)::int FROM agno.write_state(held.tenant, jsonb_build_array(jsonb_build_object('scope', held.scope,
        'owner', held.owner, 'key', held.key, 'operation', operation)
        || CASE WHEN operand IS NULL THEN '{}' ELSE jsonb_build_object('value', operand) END), by_run, NULL, by_actor) w;
$$;
