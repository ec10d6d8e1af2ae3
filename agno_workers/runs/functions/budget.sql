-- Limits of a whole tree of runs. A model call under one holds what it may use at most, and its commit counts what it has used.

-- Let the model call of a step hold tokens and US dollars of the limits of its tree, `limits` as core.step.TreeLimit. Returns NULL, or the limit that
-- is in the way: {run_id, what, used, held, limit}. `held` is that of other calls under way, whose steps are `running`: what is left of crashes and
-- cancelled calls is deleted here. The locks of the limits, in the order of their ids, let concurrent calls see each other.
CREATE OR REPLACE FUNCTION agno.hold_budget(of_step uuid, limits jsonb, need_tokens bigint, need_usd numeric) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    ids uuid[] := ARRAY(SELECT (l->>'run_id')::uuid FROM jsonb_array_elements(limits) l);
    met jsonb;
BEGIN
    INSERT INTO agno.budget AS b (run_id, tokens, cost_usd)
    SELECT r.id, (l->>'tokens')::bigint, (l->>'cost_usd')::numeric FROM jsonb_array_elements(limits) l JOIN agno.run r ON r.id = (l->>'run_id')::uuid ORDER BY r.id
    ON CONFLICT (run_id) DO UPDATE SET tokens = excluded.tokens, cost_usd = excluded.cost_usd;
    DELETE FROM agno.budget_hold h WHERE h.run_id = ANY(ids)
        AND (h.step_id = of_step OR NOT EXISTS (SELECT FROM agno.step s WHERE s.id = h.step_id AND s.status = 'running'));
    SELECT jsonb_build_object('run_id', b.run_id, 'what', n.what, 'used', n.used, 'held', n.held, 'limit', n.most) INTO met
    FROM agno.budget b,
        LATERAL (SELECT coalesce(sum(h.tokens), 0) AS tokens, coalesce(sum(h.cost_usd), 0) AS cost_usd FROM agno.budget_hold h WHERE h.run_id = b.run_id) AS held,
        LATERAL (VALUES ('tokens', b.used_tokens::numeric, held.tokens, b.tokens::numeric, need_tokens::numeric),
            ('cost', b.used_usd, held.cost_usd, b.cost_usd, need_usd)) AS n (what, used, held, most, need)
    WHERE b.run_id = ANY(ids) AND n.used + n.held + n.need > n.most
    ORDER BY n.used + n.need > n.most DESC LIMIT 1;  -- one that no end of another call changes comes first
    IF met IS NULL THEN
        INSERT INTO agno.budget_hold (step_id, run_id, tokens, cost_usd)
        SELECT of_step, b.run_id, need_tokens, need_usd FROM agno.budget b WHERE b.run_id = ANY(ids);
    END IF;
    RETURN met;
END $$;

-- Count what a step has used, in the transaction of its result, and let go of what it held. Nothing is locked after it.
CREATE OR REPLACE FUNCTION agno.settle_budget(of_step uuid, of_runs jsonb, used jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    ids uuid[] := ARRAY(SELECT jsonb_array_elements_text(of_runs)::uuid);
BEGIN
    PERFORM FROM agno.budget b WHERE b.run_id = ANY(ids) ORDER BY b.run_id FOR NO KEY UPDATE;
    UPDATE agno.budget b SET used_usd = b.used_usd + coalesce((used->>'cost_usd')::numeric, 0), used_tokens = b.used_tokens
        + coalesce((used->'usage'->>'input_tokens')::bigint, 0) + coalesce((used->'usage'->>'output_tokens')::bigint, 0)
    WHERE b.run_id = ANY(ids);
    DELETE FROM agno.budget_hold h WHERE h.step_id = of_step AND h.run_id = ANY(ids);
END $$;
