-- Maps: the run of a map makes a call for each of its items, a few at once.

-- Return what a turn of a map sees, of one moment: `arrived`, how many of its calls are open, the first of the latest that failed, and the next
-- items from a position on, as many as there is room for. It reads about `at_once` rows, however many items there are.
-- The settings and the subqueries keep to the indexes, also where statistics are out of date.
CREATE OR REPLACE FUNCTION agno.map_page(of_run uuid, in_generation int, list uuid, next int, at_once int) RETURNS json LANGUAGE plpgsql STABLE
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    parent uuid := (SELECT r.parent_run_id FROM agno.run r WHERE r.id = of_run);
    page json;
BEGIN
    SELECT json_build_object('barrier_id', b.id, 'arrived', coalesce(b.arrived, 0), 'open', o.open, 'failed', (
            SELECT json_build_array(s.key, coalesce(s.error->>'message', s.status)) FROM agno.step s
            WHERE s.run_id = of_run AND s.generation = in_generation AND s.arrival > greatest(0, b.arrived - at_once)
              AND (s.status = 'done' AND s.result IS NOT NULL) IS NOT TRUE
            ORDER BY s.arrival LIMIT 1),
        'items', coalesce((SELECT json_agg(json_build_array(i.position, agno.inflate(i.content)) ORDER BY i.position) FROM (
            SELECT m.position, m.content FROM agno.map_item m
            WHERE m.run_id = parent AND m.list_id = list AND m.position >= next
              AND (SELECT true FROM agno.step s WHERE s.run_id = of_run AND s.generation = in_generation AND s.key = 'item:' || m.position LIMIT 1) IS NULL
            ORDER BY m.position LIMIT greatest(0, at_once - o.open)) AS i), '[]')) INTO page
    FROM (SELECT count(*) AS open FROM agno.step s WHERE s.run_id = of_run AND s.generation = in_generation AND s.arrival = 0) AS o
        LEFT JOIN agno.barrier b ON b.run_id = of_run AND b.generation = in_generation;
    RETURN page;
END $$;

-- Copy what a retry keeps of the same items from the last run of a map that made calls before its parent was retried. They count as ended here;
-- those without a result come last, where the turn that follows looks for them.
CREATE OR REPLACE FUNCTION agno.take_over_items(of_run uuid, list uuid) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    asked agno.step;
    earlier agno.step;
    earlier_list uuid;
    barrier uuid := agno.uuid7();
    taken int;
BEGIN
    PERFORM FROM agno.run r WHERE r.id = of_run FOR NO KEY UPDATE;  -- a turn may be executed twice at once
    SELECT s.* INTO asked FROM agno.run r JOIN agno.step s ON s.id = r.parent_step_id WHERE r.id = of_run;
    SELECT s.* INTO earlier FROM agno.step s WHERE s.run_id = asked.run_id AND s.key = asked.key AND s.generation < asked.generation
        AND EXISTS (SELECT FROM agno.step i WHERE i.run_id = s.child_run_id AND i.arrival IS NOT NULL) ORDER BY s.generation DESC LIMIT 1;
    IF earlier.id IS NULL OR EXISTS (SELECT FROM agno.barrier b WHERE b.run_id = of_run) THEN
        RETURN 0;
    END IF;
    SELECT (m.content #>> '{parts,1,text}')::jsonb->>'list_id' INTO earlier_list FROM agno.message m WHERE m.run_id = earlier.child_run_id AND m.seq = 0;
    INSERT INTO agno.step (id, run_id, generation, key, kind, status, queue, priority, name, seq, call, effect, barrier_id, max_attempts, policy, child_run_id,
        arrival, result, error, attempt, worker, created_at, started_at, ended_at)
    SELECT agno.uuid7(), of_run, 0, s.key, s.kind, s.status, s.queue, s.priority, s.name, 1, s.call, s.effect, barrier, s.max_attempts, s.policy, s.child_run_id,
        row_number() OVER (ORDER BY s.result IS NULL, m.position), s.result, agno.kept_error(s), s.attempt, s.worker, s.created_at, s.started_at, s.ended_at
    FROM agno.map_item m JOIN agno.map_item e ON e.run_id = m.run_id AND e.list_id = earlier_list AND e.position = m.position AND e.content = m.content
        JOIN agno.step s ON s.run_id = earlier.child_run_id AND s.key = 'item:' || m.position AND agno.is_kept(s)
    WHERE m.run_id = asked.run_id AND m.list_id = list
    ON CONFLICT DO NOTHING;
    GET DIAGNOSTICS taken = ROW_COUNT;
    IF taken = 0 THEN
        RETURN 0;
    END IF;
    INSERT INTO agno.barrier (id, run_id, size, arrived, body, fired_at)  -- as if the turn under way had followed them
    SELECT barrier, of_run, taken, taken, jsonb_build_object('id', s.id), clock_timestamp() FROM agno.step s WHERE s.run_id = of_run AND s.kind = 'turn';
    UPDATE agno.run r SET tool_calls = r.tool_calls + taken WHERE r.id = of_run;
    RETURN taken;
END $$;
