-- Ingestions: their beginning, what they do next, and their end.

-- Begin an ingestion; agno.submit_run calls it for a run of this kind. `asked` holds knowledge (a name), and the options of the ingestion.
CREATE OR REPLACE FUNCTION agno.begin_ingestion(of_run uuid, asked jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO agno.ingestion (run_id, knowledge_id, options)
    SELECT of_run, k.id, asked - 'knowledge' FROM agno.knowledge k JOIN agno.run r ON r.tenant = k.tenant
    WHERE r.id = of_run AND k.name = asked->>'knowledge';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no knowledge base %.', asked->>'knowledge' USING ERRCODE = 'P0002';
    END IF;
END $$;

-- Return true if an ingestion makes vectors for an embedding space. A new model that makes none waits for a reindexing.
CREATE OR REPLACE FUNCTION agno.is_open(space agno.embedding_space) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
    SELECT space.status = 'current' OR space.status = 'building' AND space.error IS NULL;
$$;

-- Return the chunks that stay without a vector: those of the documents that an ingestion listed, and those that its own embed steps
-- tried, also for another model.
CREATE OR REPLACE FUNCTION agno.refused_chunks(ingestion uuid) RETURNS SETOF agno.chunk LANGUAGE sql STABLE AS $$
    SELECT c.* FROM agno.ingestion i JOIN agno.knowledge k ON k.id = i.knowledge_id
    JOIN agno.chunk c ON c.knowledge_id = k.id AND c.refused IS NOT NULL
    WHERE i.run_id = ingestion AND (
        c.id IN (SELECT jsonb_array_elements_text(s.call->'chunks')::bigint FROM agno.step s
                 WHERE s.run_id = ingestion AND s.kind = 'embed' AND s.status = 'dead')
        OR c.document_id IN (SELECT s.document_id FROM agno.source s WHERE s.run_id = ingestion)
           AND NOT EXISTS (SELECT FROM agno.chunk_embedding e WHERE e.chunk_id = c.id AND e.embedding_space_id = k.embedding_space_id));
$$;

-- Sum an ingestion up when its run ends: the tokens of all its steps, the counts as its content, and, where it did not come to its end,
-- a mark that vectors may be missing.
CREATE OR REPLACE FUNCTION agno.ingestion_ends() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    total record;
BEGIN
    IF NOT EXISTS (SELECT FROM agno.ingestion WHERE run_id = NEW.id) THEN
        RETURN NEW; -- it ends as another run does
    END IF;
    SELECT coalesce(sum(documents), 0) AS documents, coalesce(sum(changed), 0) AS changed, coalesce(sum(unchanged), 0) AS unchanged, coalesce(sum(duplicates), 0) AS duplicates,
           coalesce(sum(failed), 0) AS failed, coalesce(sum(removed), 0) AS removed, coalesce(sum(chunks), 0) AS chunks,
           coalesce(sum(embedded), 0) AS embedded, coalesce(sum(tokens), 0) AS tokens
        INTO total FROM agno.ingest_count WHERE run_id = NEW.id;
    NEW.input_tokens := NEW.input_tokens + total.tokens;
    IF NEW.status = 'done' THEN
        NEW.content := to_jsonb(total) || jsonb_build_object('refused', (SELECT count(*) FROM agno.refused_chunks(NEW.id)), 'seconds',
            round(extract(epoch FROM clock_timestamp() - coalesce(NEW.started_at, NEW.created_at)), 3));
    ELSE
        UPDATE agno.knowledge k SET vectors_missing = true FROM agno.ingestion i WHERE i.run_id = NEW.id AND k.id = i.knowledge_id;
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE TRIGGER ingestion_ends BEFORE UPDATE OF status ON agno.run FOR EACH ROW
    WHEN (NEW.kind = 'ingestion' AND OLD.ended_at IS NULL AND NEW.ended_at IS NOT NULL) EXECUTE FUNCTION agno.ingestion_ends();

-- Create the next steps of an ingestion: those of its windows, or, when nothing is open, the finalize step. `how` holds ingest_window,
-- embed_window, batch_bytes, batch_documents, unknown_bytes (for a source of unknown size), attempts and publish_after_s. Called after
-- the commit of each step, because only then is the last step known, and by the keeper after a crash. Two concurrent calls create at
-- most one batch too many; sources that the other call has locked are skipped.
CREATE OR REPLACE FUNCTION agno.schedule_next(ingestion uuid, how jsonb)
RETURNS TABLE (outbox_id bigint, step_id uuid, run_id uuid, generation int, kind text, queue text, priority smallint) LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    alive agno.run;
    scan agno.step;
    room int;
    embeds int;
    is_over boolean;
    opened uuid[] := '{}';
    called uuid[];
    new_step uuid;
    taken int;
BEGIN
    SELECT r.* INTO alive FROM agno.run r JOIN agno.ingestion i ON i.run_id = r.id
        WHERE r.id = ingestion AND r.ended_at IS NULL AND i.scanned_at IS NOT NULL FOR SHARE OF r;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT s.* INTO scan FROM agno.step s WHERE s.run_id = alive.id AND s.kind = 'scan' ORDER BY s.generation DESC LIMIT 1;
    SELECT (how->>'ingest_window')::int - count(*) FILTER (WHERE s.kind = 'ingest'),
           (how->>'embed_window')::int - count(*) FILTER (WHERE s.kind = 'embed' AND s.status <> 'waiting'), count(*) = 0
        INTO room, embeds, is_over
        FROM agno.step s WHERE s.run_id = alive.id AND s.generation = alive.generation
            AND s.kind IN ('scan', 'ingest', 'embed', 'finalize') AND s.status IN ('ready', 'running', 'waiting');
    WHILE room > 0 LOOP
        new_step := agno.uuid7();
        WITH free AS (
            SELECT p.position, p.alone, CASE p.bytes WHEN 0 THEN (how->>'unknown_bytes')::bigint ELSE p.bytes END AS bytes
            FROM agno.source p WHERE p.run_id = alive.id AND p.status = 'pending'
            ORDER BY p.position LIMIT (how->>'batch_documents')::int FOR UPDATE SKIP LOCKED
        ),
        ranked AS (
            SELECT free.position, row_number() OVER place AS nth, sum(free.bytes) OVER place AS total, bool_or(free.alone) OVER place AS alone
            FROM free WINDOW place AS (ORDER BY free.position)
        )
        UPDATE agno.source p SET status = 'taken', step_id = new_step FROM ranked
        WHERE p.run_id = alive.id AND p.position = ranked.position
          AND (ranked.nth = 1 OR ranked.total <= (how->>'batch_bytes')::bigint AND NOT ranked.alone);
        GET DIAGNOSTICS taken = ROW_COUNT;
        EXIT WHEN taken = 0;
        INSERT INTO agno.step (id, run_id, generation, key, kind, queue, priority, seq, policy, max_attempts, sent_at)
        VALUES (new_step, alive.id, alive.generation, 'ingest:' || right(new_step::text, 12), 'ingest', scan.queue, scan.priority, 2,
                '{"death_attempts": 2}', (how->>'attempts')::int * CASE taken WHEN 1 THEN 2 ELSE 1 END, clock_timestamp());
        opened := opened || new_step;
        room := room - 1;
    END LOOP;
    IF embeds > 0 THEN
        WITH next AS (
            SELECT s.id FROM agno.step s
            WHERE s.run_id = alive.id AND s.generation = alive.generation AND s.kind = 'embed' AND s.status = 'waiting'
            ORDER BY s.created_at LIMIT embeds FOR UPDATE SKIP LOCKED
        ),
        sent AS (
            UPDATE agno.step s SET status = 'ready', waits_for = NULL, sent_at = clock_timestamp(),
                resend_at = agno.resend_time()
            FROM next WHERE s.id = next.id
            RETURNING s.id
        )
        SELECT coalesce(array_agg(sent.id), '{}') INTO called FROM sent;
        opened := opened || called;
    END IF;
    IF is_over AND cardinality(opened) = 0
       AND NOT EXISTS (SELECT FROM agno.source p WHERE p.run_id = alive.id AND p.status IN ('pending', 'taken')) THEN
        -- One statement, so one snapshot: a concurrent call either sees the step of this one, or makes the same key.
        INSERT INTO agno.step (id, run_id, generation, key, kind, queue, priority, seq, call, max_attempts, sent_at)
        SELECT agno.uuid7(), alive.id, alive.generation, 'finalize:' || count(*), 'finalize', scan.queue, scan.priority, 4,
               jsonb_build_object('rounds', count(*)), (how->>'attempts')::int * 4, clock_timestamp()
        FROM agno.step s WHERE s.run_id = alive.id AND s.generation = alive.generation AND s.kind = 'finalize'
        HAVING NOT coalesce(bool_or(s.status IN ('ready', 'running', 'waiting')), false)
        ON CONFLICT DO NOTHING RETURNING id INTO new_step;
        IF FOUND THEN
            opened := opened || new_step;
        END IF;
    END IF;
    RETURN QUERY
        WITH owed AS (
            INSERT INTO agno.outbox (step_id, due_at)
            SELECT o.id, clock_timestamp() + make_interval(secs => (how->>'publish_after_s')::float8) FROM unnest(opened) WITH ORDINALITY AS o (id, place)
            ORDER BY o.place RETURNING id, step_id
        )
        SELECT owed.id, s.id, s.run_id, s.generation, s.kind, s.queue, s.priority FROM owed JOIN agno.step s ON s.id = owed.step_id ORDER BY owed.id;
END $$;

-- Switch documents to their pending version, if all its chunks have a vector in the current embedding space, or were rejected. One
-- transaction: a search sees the old or the new version. `pending` holds version, keep ([{id, position, start_at, end_at, tokens, place}],
-- unchanged chunks) and row (columns of the document). The caller has locked the documents. Returns the change in searched chunks.
CREATE OR REPLACE FUNCTION agno.switch_documents(documents bigint[]) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    next agno.document;
    row agno.document;
    more bigint := 0;
    changed bigint;
BEGIN
    FOR next IN
        SELECT d.* FROM agno.document d JOIN agno.knowledge k ON k.id = d.knowledge_id
        WHERE d.id = ANY(documents) AND d.pending IS NOT NULL
          AND NOT EXISTS (SELECT FROM agno.chunk c WHERE c.document_id = d.id AND NOT c.live AND c.refused IS NULL AND k.embedding_space_id IS NOT NULL
                          AND NOT EXISTS (SELECT FROM agno.chunk_embedding e WHERE e.chunk_id = c.id AND e.embedding_space_id = k.embedding_space_id))
    LOOP
        DELETE FROM agno.chunk c WHERE c.document_id = next.id AND c.live
            AND NOT EXISTS (SELECT FROM jsonb_array_elements(next.pending->'keep') kept WHERE (kept->>'id')::bigint = c.id);
        GET DIAGNOSTICS changed = ROW_COUNT;
        more := more - changed;
        UPDATE agno.chunk c SET version = (next.pending->>'version')::int, position = kept.position, start_at = kept.start_at, end_at = kept.end_at,
            tokens = kept.tokens, place = kept.place
        FROM jsonb_to_recordset(next.pending->'keep') AS kept (id bigint, position int, start_at int, end_at int, tokens int, place jsonb) WHERE c.id = kept.id;
        UPDATE agno.chunk c SET live = true WHERE c.document_id = next.id AND NOT c.live;
        GET DIAGNOSTICS changed = ROW_COUNT;
        more := more + changed;
        row := jsonb_populate_record(next, next.pending->'row');
        UPDATE agno.document d SET (origin, title, media_type, language, bytes, fingerprint, sha256, text_sha256, processing_hash, metadata, given_metadata, bands, run_id) =
            (coalesce(nullif(row.origin, ''), next.origin), row.title, row.media_type, row.language, row.bytes, row.fingerprint, row.sha256, row.text_sha256, row.processing_hash,
             row.metadata, row.given_metadata, row.bands, row.run_id),
            version = (next.pending->>'version')::int, chunks = (next.pending->>'chunks')::int, pending = NULL, updated_at = clock_timestamp()
        WHERE d.id = next.id;
    END LOOP;
    RETURN more;
END $$;

-- Return the MinHash bands of a document; see knowledge/minhash.py.
CREATE OR REPLACE FUNCTION agno.bands_of(d agno.document) RETURNS bigint[] LANGUAGE sql STABLE AS $$
    SELECT coalesce(d.bands, ARRAY(SELECT b.hash FROM agno.near_band b WHERE b.document_id = d.id));
$$;

-- Reassign the chunks of a document that is about to change or be removed to a duplicate. Returns false, without any change, if a
-- duplicate is locked elsewhere: retry later. The caller has locked the document; nothing waits here.
CREATE OR REPLACE FUNCTION agno.reassign_chunks(leaving bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    heirs bigint[];
BEGIN
    SELECT array_agg(h.id) INTO heirs FROM (
        SELECT d.id FROM agno.document d WHERE d.duplicate_of = leaving ORDER BY d.uri FOR NO KEY UPDATE SKIP LOCKED) h;
    IF EXISTS (SELECT FROM agno.document d WHERE d.duplicate_of = leaving AND d.id <> ALL(coalesce(heirs, '{}'))) THEN
        RETURN false;
    END IF;
    IF heirs IS NULL THEN
        RETURN true;
    END IF;
    UPDATE agno.chunk c SET document_id = heirs[1] WHERE c.document_id = leaving AND c.live;
    UPDATE agno.document d SET duplicate_of = NULL, version = l.version, chunks = l.chunks, bands = agno.bands_of(l), updated_at = clock_timestamp()
        FROM agno.document l WHERE d.id = heirs[1] AND l.id = leaving;
    UPDATE agno.document d SET duplicate_of = heirs[1] WHERE d.id = ANY(heirs[2:]);
    UPDATE agno.document d SET version = 0, chunks = 0, bands = '{}' WHERE d.id = leaving;
    RETURN true;
END $$;

-- Merge documents of an ingestion that got the same text concurrently, such as two edited ones: one keeps its chunks. Locked documents
-- are skipped; nothing waits here. Returns the number of removed chunks.
CREATE OR REPLACE FUNCTION agno.merge_duplicates(ingestion uuid, base int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    held bigint[];
    pair record;
    gone bigint;
    less bigint := 0;
BEGIN
    SELECT array_agg(h.id) INTO held FROM (
        SELECT d.id FROM agno.document d
        WHERE d.knowledge_id = base AND d.duplicate_of IS NULL AND d.pending IS NULL AND d.text_sha256 IN (
            SELECT e.text_sha256 FROM agno.source s JOIN agno.document e ON e.id = s.document_id
            WHERE s.run_id = ingestion AND s.status = 'done' AND EXISTS (
                SELECT FROM agno.document o WHERE o.knowledge_id = base AND o.text_sha256 = e.text_sha256 AND o.id <> e.id AND o.duplicate_of IS NULL))
        ORDER BY d.uri FOR NO KEY UPDATE SKIP LOCKED) h;
    FOR pair IN
        SELECT same.id, same.original FROM (
            SELECT d.id, d.has_heirs, first_value(d.id) OVER (PARTITION BY d.text_sha256 ORDER BY d.has_heirs DESC, d.id) AS original
            FROM (SELECT e.id, e.text_sha256, EXISTS (SELECT FROM agno.document h WHERE h.duplicate_of = e.id) AS has_heirs
                  FROM agno.document e WHERE e.id = ANY(held)) d) same
        WHERE same.id <> same.original AND NOT same.has_heirs
    LOOP
        DELETE FROM agno.chunk c WHERE c.document_id = pair.id;
        GET DIAGNOSTICS gone = ROW_COUNT;
        less := less + gone;
        UPDATE agno.document d SET duplicate_of = pair.original, chunks = 0, bands = '{}', updated_at = clock_timestamp() WHERE d.id = pair.id;
    END LOOP;
    RETURN less;
END $$;
