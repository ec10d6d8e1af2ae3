-- Talk: the messages of past sessions, in a knowledge base of their own; see knowledge/talk.py. A document is the talk of one session with
-- one agent, a chunk is one message or a part of a long one, and its position is its place in the talk.

-- Score the candidates of both sides of a search and the messages around them, in place of agno.fused. People answer in other words than
-- they are asked, so words count more than vectors here, and a message is read with the talk around it:
--   keyword  BM25 of the message with its neighbours: a word of the next or the last message counts 1/2, one further away 1/4
--   vector   the cosine of the message alone; one without a vector gets the lowest of the others
-- Each is divided by the best. `meaning` is the weight of vectors. LoCoMo, evidence among the first ten turns (benchmarks/locomo.py):
--
--   BM25 of a turn 60 %, with the turn before it 69 %, MiniLM 50 %, RRF of BM25 and MiniLM 60 %
--   this, of whole exchanges: words alone 73.8 %, with 0.2 of vectors 75.1 %, 0.3 75.7 %, 0.4 76.2 %, 0.5 76.1 %
CREATE OR REPLACE FUNCTION agno.in_talk(space int, near halfvec, near_ids bigint[], said_ids bigint[], query_words tsquery[], idfs float8[], average float8,
    meaning float8)
RETURNS TABLE (id bigint, vector float8, vector_rank bigint, keyword float8, keyword_rank bigint, score float8) LANGUAGE sql STABLE AS $$
    WITH candidate AS MATERIALIZED (
        SELECT id, v.rank AS vector_rank, w.rank AS keyword_rank
        FROM unnest(near_ids) WITH ORDINALITY AS v (id, rank) FULL JOIN unnest(said_ids) WITH ORDINALITY AS w (id, rank) USING (id)
    ),
    -- The candidates and two messages on each side of them, which are scored, and two more, which are read with those.
    around AS MATERIALIZED (
        SELECT o.id, bool_or(abs(o.position - c.position) <= 2) AS found, max(k.vector_rank) FILTER (WHERE o.id = k.id) AS vector_rank,
            max(k.keyword_rank) FILTER (WHERE o.id = k.id) AS keyword_rank
        FROM candidate k JOIN agno.chunk c ON c.id = k.id
        JOIN agno.chunk o ON o.document_id = c.document_id AND o.position BETWEEN c.position - 4 AND c.position + 4 AND o.live
        GROUP BY o.id
    ),
    counted AS MATERIALIZED ( -- so that each word of a message is counted once
        SELECT a.*, c.document_id, c.position, length(c.tsv) AS length, w.nth, w.idf, agno.frequency(c.tsv, w.word) AS said
        FROM around a JOIN agno.chunk c ON c.id = a.id LEFT JOIN unnest(query_words, idfs) WITH ORDINALITY AS w (word, idf, nth) ON true
    ),
    heard AS (
        SELECT n.id, n.found, n.vector_rank, n.keyword_rank, n.idf, (2 * n.said + sum(n.said) OVER next + sum(n.said) OVER nearby)::float8 / 4 AS said,
            (2 * n.length + sum(n.length) OVER next + sum(n.length) OVER nearby)::float8 / 4 AS length
        FROM counted n
        WINDOW next AS (PARTITION BY n.document_id, n.nth ORDER BY n.position RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING),
            nearby AS (PARTITION BY n.document_id, n.nth ORDER BY n.position RANGE BETWEEN 2 PRECEDING AND 2 FOLLOWING)
    ),
    words AS ( -- a whole message between four others counts as 2.5
        SELECT h.id, h.vector_rank, h.keyword_rank,
            coalesce(sum(h.idf * 2.2 / (1 + (0.3 + h.length * (0.9 / (2.5 * average))) / nullif(h.said, 0))), 0) AS words
        FROM heard h WHERE h.found GROUP BY h.id, h.vector_rank, h.keyword_rank
    ),
    scored AS (
        SELECT w.*, -(e.embedding <#> near) AS cosine
        FROM words w LEFT JOIN agno.chunk_embedding e ON e.chunk_id = w.id AND e.embedding_space_id = space
    ),
    limits AS (SELECT greatest(max(cosine), 1e-6) AS cosine, min(cosine) AS least, greatest(max(words), 1e-6) AS words FROM scored)
    SELECT s.id, s.cosine, s.vector_rank, s.words, s.keyword_rank,
        (1 - meaning) * s.words / limits.words + meaning * greatest(coalesce(s.cosine, limits.least, 0), 0) / limits.cosine
    FROM scored s, limits;
$$;

-- Append messages to a talk, in place of those of the same runs. `messages` is [{run_id, said_at, heading, content, words, language, hash,
-- tokens, vector?}]; those of runs that are gone or rolled back are left out. Locks the runs against both, then the document, then the knowledge base.
-- Returns the number of messages that were written.
CREATE OR REPLACE FUNCTION agno.write_talk(base int, space int, talk_uri text, about jsonb, messages jsonb) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    talk bigint;
    runs uuid[];
    ids bigint[];
    place int;
    gone int;
BEGIN
    SELECT array_agg(r.id) INTO runs FROM (
        SELECT run.id FROM agno.run WHERE run.id IN (SELECT (m->>'run_id')::uuid FROM jsonb_array_elements(messages) m) AND run.rolled_back_at IS NULL
        ORDER BY run.id FOR SHARE) r;
    IF runs IS NULL THEN
        RETURN 0;
    END IF;
    INSERT INTO agno.document AS d (knowledge_id, uri, metadata, version) VALUES (base, talk_uri, about, 1)
    ON CONFLICT (knowledge_id, uri) DO UPDATE SET metadata = excluded.metadata, updated_at = clock_timestamp() RETURNING d.id INTO talk;
    DELETE FROM agno.chunk c WHERE c.run_id = ANY (runs) AND c.document_id = talk;
    GET DIAGNOSTICS gone = ROW_COUNT;
    SELECT coalesce(max(c.position) + 1, 0) INTO place FROM agno.chunk c WHERE c.document_id = talk;
    WITH written AS (
        INSERT INTO agno.chunk (id, knowledge_id, document_id, version, position, live, hash, content, heading, start_at, end_at, tokens, language, words, run_id, said_at)
        SELECT nextval('agno.chunk_id_seq'), base, talk, 1, place + row_number() OVER (ORDER BY m.nth) - 1, true, decode(m.hash, 'hex'), m.content, m.heading, 0, length(m.content),
            m.tokens, m.language::regconfig, m.words, m.run_id, m.said_at
        FROM ROWS FROM (jsonb_to_recordset(messages) AS (run_id uuid, said_at timestamptz, heading text, content text, words text, language text, hash text, tokens int))
            WITH ORDINALITY AS m (run_id, said_at, heading, content, words, language, hash, tokens, nth)
        WHERE m.run_id = ANY (runs) RETURNING id, position
    )
    SELECT array_agg(w.id ORDER BY w.position) INTO ids FROM written w;
    -- A statement of its own, see agno.attach_partition.
    INSERT INTO agno.chunk_embedding (embedding_space_id, chunk_id, embedding)
    SELECT space, ids[said.nth], (said.message->'vector')::text::halfvec
    FROM (SELECT a.message, row_number() OVER (ORDER BY a.nth) AS nth FROM jsonb_array_elements(messages) WITH ORDINALITY AS a (message, nth)
        WHERE (a.message->>'run_id')::uuid = ANY (runs)) said
    WHERE said.message ? 'vector' AND EXISTS (SELECT FROM agno.embedding_space s WHERE s.id = space AND s.status <> 'retired');
    UPDATE agno.document d SET chunks = d.chunks + cardinality(ids) - gone WHERE d.id = talk;
    UPDATE agno.knowledge k SET version = k.version + 1, chunk_count = k.chunk_count + cardinality(ids) - gone WHERE k.id = base;
    RETURN cardinality(ids);
END $$;

-- Remove the messages of runs from the index of past sessions. A tenant of NULL stands for all. Locks the documents, in the order of their
-- ids, then their chunks and the knowledge base.
CREATE OR REPLACE FUNCTION agno.forget_exchanges(in_tenant text, run_ids uuid[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    talks bigint[];
BEGIN
    SELECT array_agg(locked.id) INTO talks FROM (
        SELECT d.id FROM agno.document d JOIN agno.knowledge k ON k.id = d.knowledge_id
        WHERE d.id IN (SELECT c.document_id FROM agno.chunk c WHERE c.run_id = ANY (run_ids)) AND k.tenant = coalesce(in_tenant, k.tenant)
        ORDER BY d.id FOR NO KEY UPDATE OF d) locked;
    IF talks IS NULL THEN
        RETURN;
    END IF;
    WITH gone AS (DELETE FROM agno.chunk c WHERE c.run_id = ANY (run_ids) AND c.document_id = ANY (talks) RETURNING c.document_id),
    less AS (SELECT g.document_id AS id, count(*) AS chunks FROM gone g GROUP BY 1),
    shorter AS (UPDATE agno.document d SET chunks = d.chunks - less.chunks FROM less WHERE d.id = less.id RETURNING d.knowledge_id, less.chunks),
    smaller AS (SELECT s.knowledge_id AS id, sum(s.chunks) AS chunks FROM shorter s GROUP BY 1)
    UPDATE agno.knowledge k SET version = k.version + 1, chunk_count = greatest(0, k.chunk_count - smaller.chunks) FROM smaller WHERE k.id = smaller.id;
    DELETE FROM agno.document d WHERE d.id = ANY (talks) AND NOT EXISTS (SELECT FROM agno.chunk c WHERE c.document_id = d.id);
END $$;
