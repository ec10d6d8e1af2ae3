-- How a run stays within its model's context window: large results are stored beside the transcript, and a summary takes the place of the
-- oldest messages.

-- Make a running turn wait until its transcript is compacted, and write the step that does it, as in agno.write_steps: its `call` is a
-- CompactionOrder of core/step.py. The attempt of the turn does not count. No row: another worker has the turn, or the run has ended.
CREATE OR REPLACE FUNCTION agno.begin_compaction(of_run uuid, of_step uuid, in_attempt int, compact jsonb, publish_after_s float8)
RETURNS TABLE (outbox_id bigint, step_id uuid, run_id uuid, generation int, kind text, queue text, priority smallint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    turn agno.step;
BEGIN
    PERFORM FROM agno.run r WHERE r.id = of_run AND r.ended_at IS NULL FOR SHARE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    UPDATE agno.step s SET status = 'waiting', waits_for = 'compaction', lease_until = NULL, max_attempts = s.max_attempts + 1,
        call = jsonb_build_object('compactions', compact->'call'->'number')
    WHERE s.id = of_step AND s.run_id = of_run AND s.status = 'running' AND s.attempt = in_attempt RETURNING s.* INTO turn;
    IF FOUND THEN
        RETURN QUERY SELECT * FROM agno.write_steps(of_run, turn.generation, jsonb_build_array(compact), publish_after_s);
    END IF;
END $$;

-- Record the outcome of a compaction, in the transaction that ends its step, and return the message for the turn that waits for it. `outcome` is
-- a CompactionRecord of core/step.py, or {declined}, the reason why the summary was not made.
CREATE OR REPLACE FUNCTION agno.end_compaction(of_run uuid, outcome jsonb, publish_after_s float8) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
    turn agno.step;
    message bigint;
BEGIN
    UPDATE agno.step s SET status = 'ready', waits_for = NULL, sent_at = clock_timestamp(), resend_at = agno.resend_time(),
        call = s.call || CASE WHEN outcome ? 'declined' THEN outcome ELSE '{}' END
    WHERE s.run_id = of_run AND s.status = 'waiting' AND s.waits_for = 'compaction' RETURNING s.* INTO turn;
    IF NOT outcome ? 'declined' THEN
        INSERT INTO agno.compaction (run_id, until_seq, at_seq, keeps_first, summary, tokens_before, tokens_after)
        SELECT of_run, o.until_seq, turn.seq, o.keeps_first, o.summary, o.tokens_before, o.tokens_after
        FROM jsonb_to_record(outcome) AS o (until_seq int, keeps_first boolean, summary text, tokens_before int, tokens_after int);
    END IF;
    INSERT INTO agno.outbox (step_id, due_at) VALUES (turn.id, clock_timestamp() + make_interval(secs => publish_after_s)) RETURNING id INTO message;
    RETURN jsonb_build_array(jsonb_build_object('outbox_id', message, 'step_id', turn.id, 'run_id', of_run, 'generation', turn.generation,
        'kind', turn.kind, 'queue', turn.queue, 'priority', turn.priority));
END $$;

-- Return what a transcript begins with in place of the messages before `since`, as JSON texts that end with a comma if more follows.
CREATE OR REPLACE FUNCTION agno.summary_before(of_run uuid, since int, more boolean) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN c.keeps_first THEN (SELECT agno.inflate(m.content)::text || ',' FROM agno.message m WHERE m.run_id = $1 AND m.seq = 0) ELSE '' END
        || jsonb_build_object('role', 'user', 'parts', jsonb_build_array(jsonb_build_object('type', 'text', 'text', c.summary)))
        || CASE WHEN $3 THEN ',' ELSE '' END
    FROM agno.compaction c WHERE c.run_id = $1 AND c.until_seq = $2;
$$;

-- Return the most tokens of a tool result that stays whole in the transcript of a run; NULL means no limit. Definitions of earlier code say
-- nothing about it.
CREATE OR REPLACE FUNCTION agno.offload_tokens(of_run uuid) RETURNS int LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN d.content ? 'compaction' THEN (d.content->'compaction'->>'offload_tokens')::int ELSE 4000 END
    FROM agno.run r JOIN agno.definition d ON d.sha256 = r.definition WHERE r.id = $1;
$$;

-- Store a large result of a tool: the transcript gets its beginning, its end, and how to read on. `result` is a ToolResult of core/messages.py.
-- The id says nothing about the run, and stays the same in forks and in the history of later runs.
CREATE OR REPLACE FUNCTION agno.store_result(of_run uuid, at_seq int, result jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    content text := result->>'content';
    chars int := length(content);
    head int := least(2000, chars / 4);
    tail int := least(1000, chars / 8);
    tokens int := (octet_length(content) + 3) / 4;
    name text := 'r' || left(md5(of_run::text || ':' || at_seq), 8);
BEGIN
    INSERT INTO agno.stored_result (run_id, seq, id, content) VALUES (of_run, at_seq, name, content);
    INSERT INTO agno.message (run_id, seq, content) VALUES (of_run, at_seq, agno.tool_message(result->>'call_id', result->>'name',
        format(E'[Result %s: about %s tokens, %s characters. These are its beginning and its end; read_result(id="%s", from_line=1) and search_result(id="%s", query=...) read the rest.]\n%s\n[... %s characters ...]\n%s',
            name, tokens, chars, name, name, left(content, head), chars - head - tail, right(content, tail)),
        coalesce((result->>'is_error')::boolean, false)));
END $$;

-- Return a stored result as a run may read it: its own, and those of other runs of its session and its user. Of the same id in several runs,
-- as in forks, its own comes first.
CREATE OR REPLACE FUNCTION agno.read_result(by_run uuid, result_id text) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT s.content FROM agno.run reader JOIN agno.stored_result s ON s.id = $2 JOIN agno.run r ON r.id = s.run_id
    WHERE reader.id = $1 AND (r.id = reader.id OR r.tenant = reader.tenant AND r.session_id = reader.session_id
        AND r.user_id IS NOT DISTINCT FROM reader.user_id AND r.rolled_back_at IS NULL)
    ORDER BY r.id = reader.id DESC, r.created_at DESC LIMIT 1;
$$;
