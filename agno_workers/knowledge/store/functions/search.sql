-- Search functions: one call finds, scores and joins, so that a search is one round trip. Safe to run twice.
--
-- Dynamic SQL contains only numbers that are computed here. Values of the caller stay parameters:
-- $1 the filter, $2 the documents that match it, $3 the query vector, $4 the query words, $5 their idfs, $6 the words to look up.
-- Only the two lookups are dynamic: their plans depend on the filter and on the index of the embedding space. What comes after them reads a
-- few chunks by their ids, so each session plans it once.

-- Return how often a chunk with these lexemes has a word, at most 16. ts_rank of one word is the sum of 1/i^2 for i up to its frequency,
-- divided by pi^2/6, so width_bucket finds the frequency in the list of these sums. That is many times faster than unnesting the tsvector.
CREATE OR REPLACE FUNCTION agno.frequency(lexemes tsvector, word tsquery) RETURNS int LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT width_bucket(ts_rank('{1,1,1,1}', lexemes, word)::float8,
        '{0.6,0.755,0.824,0.865,0.8875,0.904,0.9165,0.9265,0.9335,0.9396,0.9447,0.9491,0.9527,0.956,0.9588,0.9613}');
$$;

-- Return the BM25 score of a chunk with these lexemes, one row. k1 = 1.2 and b = 0.75 as in Lucene; the formula is from Robertson and
-- Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009). The length counts distinct lexemes. Frequencies raise
-- nDCG (see agno.fused). A set, because the planner then inlines it.
CREATE OR REPLACE FUNCTION agno.bm25(lexemes tsvector, query_words tsquery[], idfs float8[], average float8) RETURNS SETOF float8 LANGUAGE sql IMMUTABLE AS $$
    SELECT coalesce(sum(w.idf * 2.2 / (1 + (0.3 + length(lexemes) * (0.9 / average)) / nullif(agno.frequency(lexemes, w.word), 0))), 0)
    FROM unnest(query_words, idfs) AS w (word, idf);
$$;

-- Quote a lexeme as a tsquery.
CREATE OR REPLACE FUNCTION agno.word(lexeme text) RETURNS tsquery LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ('''' || replace(replace(lexeme, '\', '\\'), '''', '''''') || '''')::tsquery;
$$;

-- SQL text for the condition of a filter (see knowledge/filters.py) on a document `d`; the filter itself is $1.
CREATE OR REPLACE FUNCTION agno.filter_condition(filter jsonb) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT concat_ws(' AND ', 'd.version > 0',
        (SELECT string_agg(format('d.%1$I = ($1 #>> ''{columns,%1$s}'')', name), ' AND ')
            FROM jsonb_object_keys(filter->'columns') name WHERE name IN ('uri', 'language', 'media_type')),
        (SELECT string_agg(format('(d.metadata @> ($1 #> ''{equal,%1$s,0}'') OR d.metadata @> ($1 #> ''{equal,%1$s,1}''))', i), ' AND ')
            FROM generate_series(0, jsonb_array_length(filter->'equal') - 1) i),
        CASE WHEN filter->>'path' IS NOT NULL THEN format('jsonb_path_exists(%s, ($1->>''path'')::jsonpath, $1->''values'', true)',
            CASE WHEN (filter->>'uses_facts')::boolean THEN
                'jsonb_build_object(''metadata'', d.metadata, ''uri'', d.uri, ''title'', d.title, ''language'', d.language, ''media_type'', d.media_type, '
                '''created'', extract(epoch FROM d.created_at), ''updated'', extract(epoch FROM d.updated_at))'
            ELSE 'jsonb_build_object(''metadata'', d.metadata)' END) END);
$$;

-- Return a page of the documents of a knowledge base that match a filter (NULL: all), in the order of their uris.
CREATE OR REPLACE FUNCTION agno.find_documents(base int, filter jsonb, after text, at_most int) RETURNS SETOF agno.document LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY EXECUTE format('SELECT d.* FROM agno.document d WHERE d.knowledge_id = %s AND d.uri > $2%s ORDER BY d.uri LIMIT %s',
        base, CASE WHEN filter IS NOT NULL THEN ' AND ' || agno.filter_condition(filter) END, at_most) USING filter, after;
END $$;

-- Return at most 40 words of a query that the knowledge base has, the rarest first, with the number of chunks that contain each. The
-- query is parsed in every language of the knowledge base. The numbers are the last counts, scaled to the current size; before the first
-- count they are counted here, up to 2000. An unknown word would take the place of one that is looked up. Without the setting, the
-- planner could read all chunks for a word that none has.
CREATE OR REPLACE FUNCTION agno.question_words(base agno.knowledge, question text)
RETURNS TABLE (word tsquery, documents float8) LANGUAGE plpgsql STABLE SET enable_seqscan = off AS $$
DECLARE
    lexemes text[];
BEGIN
    -- A loose index scan, which DISTINCT does not do.
    WITH RECURSIVE spoken (language) AS (
        (SELECT c.language FROM agno.chunk c WHERE c.knowledge_id = base.id ORDER BY c.language LIMIT 1)
        UNION ALL
        SELECT (SELECT c.language FROM agno.chunk c WHERE c.knowledge_id = base.id AND c.language > s.language ORDER BY c.language LIMIT 1)
        FROM spoken s WHERE s.language IS NOT NULL
    )
    SELECT array_agg(DISTINCT l) INTO lexemes
    FROM spoken s, unnest(tsvector_to_array(to_tsvector(s.language, left(question, 4000)))) l
    WHERE s.language IS NOT NULL AND l <> '';
    IF base.stats_chunks > 0 THEN
        RETURN QUERY SELECT agno.word(l), coalesce(x.documents, 1) * greatest(1, base.chunk_count / base.stats_chunks::float8)
            FROM unnest(lexemes) l LEFT JOIN agno.lexeme x ON x.knowledge_id = base.id AND x.lexeme = l
            WHERE x.documents IS NOT NULL OR EXISTS (SELECT FROM agno.chunk c WHERE c.tsv @@ agno.word(l) AND c.knowledge_id = base.id)
            ORDER BY 2, l LIMIT 40;
    ELSE
        RETURN QUERY SELECT agno.word(l), n.documents
            FROM unnest(lexemes) l, LATERAL (
                SELECT count(*)::float8 AS documents FROM (
                    SELECT FROM agno.chunk c WHERE c.tsv @@ agno.word(l) AND c.knowledge_id = base.id LIMIT 2000) few) n
            WHERE n.documents > 0 ORDER BY 2, l LIMIT 40;
    END IF;
END $$;

-- Search a knowledge base. `asked` holds knowledge_id, known_version?, embedding_space_id?, text?, search_type, filter?, max_results,
-- candidates, ef, max_scan, exact_chunks, words_budget, per_document?, near_duplicates? (false: drop documents that nearly
-- equal a better one), min_score? (the lowest cosine), for a search by example document_id? (which is left out), and for a search of
-- past sessions talk? (the weight of vectors, see agno.in_talk) and since? (seconds of the epoch, of said_at).
-- Returns {"version", "how", "hits"}; {"version", "unchanged": true} if the version is still known_version; {"version", "retired": true}
-- if the embedding space is no longer searched; NULL if there is no such knowledge base.
--
-- In a hybrid search without per_document, the second best chunk of a document counts 0.8 of its score, the third 0.8 of 0.8, down to
-- the fifth (`sibling`), so that other documents get a place. Lists of links count less in every search (`weight`, see
-- knowledge/quality.py); BM25 includes it.
CREATE OR REPLACE FUNCTION agno.search(asked jsonb, question_vector text) RETURNS jsonb LANGUAGE plpgsql
    SET jit = off SET plan_cache_mode = force_generic_plan
    SET enable_seqscan = on SET enable_hashjoin = on SET enable_mergejoin = on AS $$ -- what find_chunks sets ends with this function
DECLARE
    base agno.knowledge;
    space agno.embedding_space;
    answer jsonb;
BEGIN
    SELECT k.* INTO base FROM agno.knowledge k WHERE k.id = (asked->>'knowledge_id')::int;
    IF NOT FOUND THEN
        RETURN NULL;
    ELSIF base.version = (asked->>'known_version')::bigint THEN
        RETURN jsonb_build_object('version', base.version, 'unchanged', true);
    END IF;
    SELECT s.* INTO space FROM agno.embedding_space s WHERE s.id = coalesce((asked->>'embedding_space_id')::int, base.embedding_space_id) AND s.knowledge_id = base.id;
    IF space.status = 'retired' THEN -- its vectors are being removed
        RETURN CASE WHEN asked->>'embedding_space_id' IS NULL THEN agno.search(asked, question_vector) ELSE jsonb_build_object('version', base.version, 'retired', true) END;
    END IF;
    answer := agno.find_chunks(base, space, asked, question_vector);
    IF (SELECT (s.has_partition, s.status) FROM agno.embedding_space s WHERE s.id = space.id) <> (space.has_partition, space.status) THEN
        RETURN agno.search(asked, question_vector); -- the vectors moved to another partition during the search
    END IF;
    RETURN jsonb_build_object('version', base.version) || answer;
END $$;

-- Return the "how" and "hits" of a search. STABLE: all its statements read one snapshot, so a document that changes meanwhile is found
-- in its old version.
CREATE OR REPLACE FUNCTION agno.find_chunks(base agno.knowledge, space agno.embedding_space, asked jsonb, question_vector text) RETURNS jsonb LANGUAGE plpgsql STABLE AS $$
DECLARE
    filter jsonb := nullif(asked->'filter', 'null');
    search_type text := asked->>'search_type';
    max_results int := (asked->>'max_results')::int;
    per_document int := (asked->>'per_document')::int;
    -- More than max_results, because HNSW returns an approximate order and feedback may move a chunk. With a filter the order of
    -- HNSW is worse: recall is 0.97 with five times as many, 0.92 with twice as many.
    best int := CASE WHEN search_type = 'vector' AND per_document IS NULL THEN max_results * CASE WHEN filter IS NULL THEN 2 ELSE 5 END
                     ELSE greatest((asked->>'candidates')::int, max_results * 2) END;
    documents bigint[];
    left_chunks bigint;
    narrow text := '';
    near halfvec := question_vector;
    self bigint := (asked->>'document_id')::bigint;
    is_exact boolean;
    dimensions text;
    ef int;
    query_words tsquery[];
    counts float8[];
    idfs float8[];
    lookup tsquery;
    average float8;
    n float8;
    budget float8;
    presence text;
    how jsonb := '{}';
    hits jsonb;
    near_duplicates boolean := coalesce((asked->>'near_duplicates')::boolean, true);
    lowest float8 := (asked->>'min_score')::float8;
    by_vector text;
    talk float8 := (asked->>'talk')::float8;
    -- The candidates of both sides, the best first.
    near_ids bigint[];
    near_scores float8[];
    said_ids bigint[];
    said_scores float8[];
BEGIN
    IF NOT near_duplicates THEN
        best := best * 2; -- some of them are dropped
    END IF;
    -- Queries name the parent table; the planner prunes it to one partition.
    dimensions := format('halfvec(%s)', space.dimensions);

    IF filter IS NOT NULL THEN
        EXECUTE format('SELECT array_agg(id), coalesce(sum(chunks), 0) FROM (SELECT d.id, d.chunks FROM agno.document d '
            'WHERE d.knowledge_id = %s AND %s LIMIT 20001) few', base.id, agno.filter_condition(filter)) INTO documents, left_chunks USING filter;
        IF documents IS NULL THEN
            RETURN '{"how": {"filter": "nothing is left"}, "hits": []}';
        ELSIF cardinality(documents) <= 20000 THEN
            narrow := ' AND c.document_id = ANY ($2)';
        ELSE
            left_chunks := base.chunk_count;
            narrow := format(' AND EXISTS (SELECT FROM agno.document d WHERE d.id = c.document_id AND %s)', agno.filter_condition(filter));
        END IF;
        how := how || jsonb_build_object('filtered_chunks', left_chunks);
    END IF;

    IF asked ? 'since' THEN
        narrow := narrow || format(' AND c.said_at >= to_timestamp(%s)', (asked->>'since')::float8);
    END IF;
    IF self IS NOT NULL AND space.id IS NOT NULL THEN
        -- The mean vector of the document, over at most 200 chunks.
        EXECUTE format('SELECT l2_normalize(avg(embedding)) FROM (SELECT e.embedding FROM agno.chunk c JOIN agno.chunk_embedding e ON e.chunk_id = c.id AND e.embedding_space_id = %s '
            'WHERE c.document_id = $1 AND c.live AND c.knowledge_id = %s ORDER BY c.position LIMIT 200) few', space.id, base.id)
            INTO near USING self;
        narrow := narrow || format(' AND c.document_id <> %s', self);
    END IF;
    IF space.id IS NULL OR near IS NULL THEN
        search_type := CASE search_type WHEN 'vector' THEN 'none' ELSE 'keyword' END;
        near := NULL;
    ELSIF vector_dims(near) <> space.dimensions THEN
        RAISE EXCEPTION 'the question has % dimensions, and the vectors of % have %: ask with the model that they were made with.',
            vector_dims(near), space.model, space.dimensions USING ERRCODE = '22023';
    END IF;

    IF search_type IN ('vector', 'hybrid') THEN
        is_exact := NOT space.is_indexed OR left_chunks <= (asked->>'exact_chunks')::int OR talk IS NOT NULL;
        how := how || jsonb_build_object('vector', CASE WHEN is_exact THEN 'exact' ELSE 'hnsw' END);
        IF is_exact AND filter IS NOT NULL AND (left_chunks <= (asked->>'exact_chunks')::int OR talk IS NOT NULL) THEN
            -- Few chunks, or those of one user: join from the documents to their chunks to their vectors.
            by_vector := format('SELECT c.id, -(e.embedding <#> $3) AS score FROM agno.chunk c JOIN agno.chunk_embedding e ON e.chunk_id = c.id AND e.embedding_space_id = %s '
                'WHERE c.live%s ORDER BY e.embedding <#> $3 LIMIT %s', space.id, narrow, best);
        ELSIF is_exact THEN
            -- Sort before the join, because nearly all chunks are live.
            by_vector := format('SELECT c.id, -e.distance AS score FROM agno.chunk c JOIN (SELECT chunk_id, embedding <#> $3 AS distance FROM agno.chunk_embedding '
                'WHERE embedding_space_id = %s ORDER BY 2) e ON c.id = e.chunk_id WHERE c.live%s ORDER BY e.distance LIMIT %s', space.id, narrow, best);
        ELSE
            -- ef grows as the filter gets narrower. The iterative scan continues when the filter, or row-level security, rejects more
            -- than expected. Its order is approximate and corrected below.
            ef := least(1000, greatest((asked->>'ef')::int, max_results * 2 * base.chunk_count / greatest(coalesce(left_chunks, base.chunk_count), 1)));
            PERFORM set_config('hnsw.iterative_scan', 'relaxed_order', true), set_config('hnsw.ef_search', ef::text, true),
                    set_config('hnsw.max_scan_tuples', asked->>'max_scan', true);
            by_vector := format('SELECT c.id, -(e.embedding::%1$s <#> $3::%1$s) AS score FROM agno.chunk c JOIN agno.chunk_embedding e ON e.chunk_id = c.id '
                'WHERE e.embedding_space_id = %2$s AND c.live%3$s ORDER BY e.embedding::%1$s <#> $3::%1$s LIMIT %4$s', dimensions, space.id, narrow, best);
        END IF;
        EXECUTE format('SELECT array_agg(id ORDER BY score DESC, id), array_agg(score ORDER BY score DESC, id) FROM (%s) found', by_vector)
            INTO near_ids, near_scores USING filter, documents, near;
    END IF;

    IF search_type IN ('keyword', 'hybrid') THEN
        n := greatest(base.chunk_count, 1);
        average := coalesce(nullif(base.avg_length, 0), 40);
        SELECT array_agg(q.word), array_agg(q.documents), array_agg(ln(1 + (greatest(n - q.documents, 0) + 0.5) / (q.documents + 0.5))),
            string_agg(format('CASE WHEN c.tsv @@ ($4)[%1$s] THEN ($5)[%1$s] ELSE 0 END', q.i), ' + ')
            INTO query_words, counts, idfs, presence FROM agno.question_words(base, asked->>'text') WITH ORDINALITY AS q (word, documents, i);
        -- A narrow filter leaves fewer chunks for each word, so more words can be looked up; a keyword search looks up more, too.
        budget := (asked->>'words_budget')::float8 * CASE search_type WHEN 'keyword' THEN 3 ELSE 1 END
            * CASE WHEN left_chunks <= (asked->>'exact_chunks')::int THEN n / greatest(left_chunks, 1) ELSE least(n / greatest(coalesce(left_chunks, n), 1), 3) END;
        FOR i IN 1 .. coalesce(cardinality(query_words), 0) LOOP
            budget := budget - counts[i];
            EXIT WHEN i > 1 AND budget < 0;
            lookup := CASE WHEN lookup IS NULL THEN query_words[i] ELSE lookup || query_words[i] END;
        END LOOP;
        how := how || jsonb_build_object('words', coalesce(cardinality(query_words), 0), 'looked_up', coalesce(numnode(lookup) / 2 + 1, 0));
        IF lookup IS NOT NULL THEN
            -- Words beyond the budget add to the score and are not looked up. Of the chunks found, those with the best sum of idf
            -- get a full BM25 score.
            EXECUTE format('SELECT array_agg(id) FROM (SELECT c.id FROM (SELECT c.id, c.tsv, c.weight FROM agno.chunk c '
                'WHERE c.tsv @@ $6 AND c.knowledge_id = %s AND c.live%s LIMIT 20000) c ORDER BY c.weight * (%s) / (0.55 + 0.45 * length(c.tsv) / float8 ''%s'') DESC LIMIT %s) few',
                base.id, narrow, presence, average, best * 2) INTO said_ids USING filter, documents, near, query_words, idfs, lookup;
        END IF;
    END IF;

    -- The plans of the statements below last: without the settings, one that is made while the tables are small would read all of them later.
    PERFORM set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
    SELECT array_agg(s.id ORDER BY s.score DESC, s.id), array_agg(s.score ORDER BY s.score DESC, s.id) INTO said_ids, said_scores
    FROM (SELECT c.id, b.score * c.weight AS score FROM agno.chunk c, agno.bm25(c.tsv, query_words, idfs, average) AS b (score)
        WHERE c.id = ANY (said_ids) ORDER BY 2 DESC, 1 LIMIT best) s;
    WITH joined (id, vector, vector_rank, keyword, keyword_rank, score) AS (
        SELECT v.id, v.score, v.rank, NULL::float8, NULL::bigint, v.score FROM unnest(near_ids, near_scores) WITH ORDINALITY AS v (id, score, rank)
        WHERE search_type = 'vector'
        UNION ALL
        SELECT w.id, NULL, NULL, w.score, w.rank, w.score FROM unnest(said_ids, said_scores) WITH ORDINALITY AS w (id, score, rank)
        WHERE search_type = 'keyword' AND talk IS NULL
        UNION ALL
        SELECT f.* FROM agno.fused(space.id, near, near_ids, said_ids, query_words, idfs, average) f WHERE search_type = 'hybrid' AND talk IS NULL
        UNION ALL
        SELECT t.* FROM agno.in_talk(space.id, near, near_ids, said_ids, query_words, idfs, average, talk) t WHERE search_type <> 'vector' AND talk IS NOT NULL
    ),
    placed AS (
        SELECT j.*, c.document_id, c.weight, row_number() OVER (PARTITION BY c.document_id ORDER BY j.score DESC, j.id) AS place
        FROM joined j JOIN agno.chunk c ON c.id = j.id
    ),
    moved AS (
        SELECT p.*, l.feedback, l.sibling, p.score + abs(p.score) * (coalesce(l.feedback, 1) * l.sibling * CASE search_type WHEN 'keyword' THEN 1 ELSE p.weight END - 1) AS final
        FROM placed p LEFT JOIN agno.feedback b ON b.chunk_id = p.id,
            LATERAL (SELECT (b.cited + 0.1 * b.used + 3 * b.up - 3 * b.down)::float8 AS said) f,
            LATERAL (SELECT 1 + 0.1 * f.said / (10 + abs(f.said)) AS feedback, -- always between 0.9 and 1.1
                CASE WHEN per_document IS NULL AND search_type = 'hybrid' THEN power(0.8::float8, least(p.place - 1, 4)) ELSE 1 END AS sibling) l
    ),
    document AS (SELECT m.document_id AS id, max(m.final) AS final FROM moved m GROUP BY 1),
    -- Documents that are near-duplicates of a better one. Not executed unless they are dropped.
    repeated AS MATERIALIZED (
        SELECT mine.id FROM (
            SELECT array_agg(d.id ORDER BY d.final DESC, d.id) AS ids
            FROM document d JOIN agno.document o USING (id), unnest(agno.bands_of(o)) AS b (hash) GROUP BY b.hash HAVING count(*) > 1) band,
            unnest(band.ids) WITH ORDINALITY AS mine (id, nth), unnest(band.ids[:mine.nth - 1]) AS better (id)
        GROUP BY mine.id, better.id HAVING count(*) >= 4
    ),
    top AS (
        SELECT m.* FROM moved m WHERE (lowest IS NULL OR m.vector >= lowest) AND (per_document IS NULL OR m.place <= per_document)
            AND (near_duplicates OR m.document_id NOT IN (SELECT r.id FROM repeated r))
        ORDER BY m.final DESC, m.id LIMIT max_results
    )
    SELECT jsonb_agg(jsonb_build_object('chunk_id', c.id, 'document_id', d.id, 'uri', d.uri, 'title', d.title, 'content', c.content,
        'heading', CASE c.heading WHEN '' THEN '[]'::jsonb ELSE to_jsonb(string_to_array(c.heading, E'\n')) END, 'position', c.position, 'start', c.start_at,
        'end', c.end_at, 'place', c.place, 'metadata', d.metadata, 'score', t.final, 'closeness', t.vector, 'scores', jsonb_strip_nulls(jsonb_build_object('vector', t.vector,
        'vector_rank', t.vector_rank, 'keyword', t.keyword, 'keyword_rank', t.keyword_rank, 'feedback', t.feedback, 'sibling', nullif(t.sibling, 1), 'weight', nullif(t.weight, 1))))
        ORDER BY t.final DESC, t.id)
    INTO hits FROM top t JOIN agno.chunk c ON c.id = t.id JOIN agno.document d ON d.id = c.document_id;
    RETURN jsonb_build_object('how', how || jsonb_build_object('search_type', search_type), 'hits', coalesce(hits, '[]'));
END $$;

-- Join the two sides of a hybrid search. Every candidate of either side gets both scores:
--   vector   cosine, plus 0.75 of the cosine with the mean of the three best chunks (Rocchio feedback, with its usual weight)
--   keyword  BM25
-- Each is averaged with the mean of the chunk and its neighbours, divided by the best, and summed 0.6 to 0.4. A chunk without a vector
-- gets the lowest vector score of the others. Cranfield, nDCG@10 in %, one chunk a document (benchmarks/cranfield.py):
--
--   keyword 38.0   without term frequency 34.4      hybrid by RRF (k = 60)              43.3
--   vector  39.6                                    0.6 / 0.4 of the scores             44.0
--                                                   + Rocchio feedback                  45.1
--                                                   + neighbours                        45.4
--                                                   + both                              46.7   (45.4 without term frequency)
--
-- These are with the words of Postgres's parser. With those of knowledge/words.py: keyword 38.6, hybrid 47.3.
CREATE OR REPLACE FUNCTION agno.fused(space int, near halfvec, near_ids bigint[], said_ids bigint[], query_words tsquery[], idfs float8[], average float8)
RETURNS TABLE (id bigint, vector float8, vector_rank bigint, keyword float8, keyword_rank bigint, score float8) LANGUAGE sql STABLE AS $$
    WITH candidate AS MATERIALIZED (
        SELECT id, v.rank AS vector_rank, w.rank AS keyword_rank
        FROM unnest(near_ids) WITH ORDINALITY AS v (id, rank) FULL JOIN unnest(said_ids) WITH ORDINALITY AS w (id, rank) USING (id)
    ),
    -- The candidates and their neighbours.
    around AS MATERIALIZED (
        SELECT o.id, bool_or(o.id = k.id) AS found, max(k.vector_rank) FILTER (WHERE o.id = k.id) AS vector_rank,
            max(k.keyword_rank) FILTER (WHERE o.id = k.id) AS keyword_rank
        FROM candidate k JOIN agno.chunk c ON c.id = k.id
        JOIN agno.chunk o ON o.document_id = c.document_id AND o.position BETWEEN c.position - 1 AND c.position + 1 AND o.live
        GROUP BY o.id
    ),
    weighed AS MATERIALIZED (
        SELECT a.*, c.document_id, c.position, e.embedding, -(e.embedding <#> near) AS cosine, b.score * c.weight AS words
        FROM around a JOIN agno.chunk c ON c.id = a.id CROSS JOIN agno.bm25(c.tsv, query_words, idfs, average) AS b (score)
        LEFT JOIN agno.chunk_embedding e ON e.chunk_id = a.id AND e.embedding_space_id = space
    ),
    most AS (SELECT greatest(max(cosine), 1e-6) AS cosine, greatest(max(words), 1e-6) AS words FROM weighed WHERE found),
    middle AS (
        SELECT avg(embedding) AS mean FROM (
            SELECT w.embedding FROM weighed w, most WHERE w.found AND w.embedding IS NOT NULL
            ORDER BY 0.6 * w.cosine / most.cosine + 0.4 * w.words / most.words DESC, w.id LIMIT 3) best
    ),
    fed AS (
        SELECT w.*, w.cosine - 0.75 * (w.embedding <#> middle.mean) AS meaning FROM weighed w, middle
    ),
    placed AS (
        SELECT f.*, f.meaning + avg(f.meaning) OVER side AS near_meaning, f.words + avg(f.words) OVER side AS near_words
        FROM fed f WINDOW side AS (PARTITION BY document_id ORDER BY position RANGE BETWEEN 1 PRECEDING AND 1 FOLLOWING)
    ),
    limits AS (SELECT greatest(max(near_meaning), 1e-6) AS meaning, min(near_meaning) AS least, greatest(max(near_words), 1e-6) AS words FROM placed WHERE found)
    SELECT p.id, p.cosine, p.vector_rank, p.words, p.keyword_rank,
        0.6 * coalesce(p.near_meaning, limits.least, 0) / limits.meaning + 0.4 * p.near_words / limits.words
    FROM placed p, limits WHERE p.found;
$$;

-- Derive the words of a chunk from those that knowledge/words.py made of it. Rows without them, which an earlier version writes during
-- a deploy, get those of Postgres's parser.
CREATE OR REPLACE FUNCTION agno.set_words() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.tsv := to_tsvector(NEW.language, coalesce(NEW.words, NEW.heading || E'\n' || NEW.content));
    NEW.words := NULL;
    RETURN NEW;
END $$;

-- A restored row has its tsv.
CREATE OR REPLACE TRIGGER chunk_words BEFORE INSERT OR UPDATE OF words ON agno.chunk FOR EACH ROW
    WHEN (NEW.tsv IS NULL OR NEW.words IS NOT NULL) EXECUTE FUNCTION agno.set_words();

-- Partitions. The vectors of a large embedding space have a partition and an index of their own; small spaces share one.
-- Call each function in its own transaction, one caller at a time (search_index.py holds a lock). Each may be repeated after a crash.

-- Create the table of the partition without attaching it.
CREATE OR REPLACE FUNCTION agno.make_partition(embedding_space_id int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF to_regclass(format('agno.chunk_embedding_%s', embedding_space_id)) IS NULL THEN
        EXECUTE format('CREATE TABLE agno.chunk_embedding_%1$s (LIKE agno.chunk_embedding INCLUDING INDEXES, CHECK (embedding_space_id = %1$s))', embedding_space_id);
    END IF;
END $$;

-- Copy the vectors from the shared partition, which stays readable and writable.
CREATE OR REPLACE FUNCTION agno.fill_partition(embedding_space_id int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('INSERT INTO agno.chunk_embedding_%1$s (embedding_space_id, chunk_id, embedding) SELECT e.embedding_space_id, e.chunk_id, e.embedding '
        'FROM agno.chunk_embedding_small e WHERE e.embedding_space_id = %1$s ON CONFLICT DO NOTHING', embedding_space_id);
END $$;

-- Complete the copy and attach it, in one commit. Locks agno.chunk EXCLUSIVE, then agno.chunk_embedding SHARE UPDATE EXCLUSIVE,
-- then agno.chunk_embedding_small ACCESS EXCLUSIVE. Readers of agno.chunk are compatible with the first lock. Writers of vectors lock
-- their chunks first, in a statement of its own: they finish before this function, or see the new partition. (A writer that
-- waited for chunk_embedding_small would insert there and be rejected.) The copy has no foreign key: attaching a table that has one
-- drops its triggers, which locks out readers of agno.chunk.
CREATE OR REPLACE FUNCTION agno.attach_partition(embedding_space_id int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    LOCK TABLE agno.chunk IN EXCLUSIVE MODE;
    LOCK TABLE ONLY agno.chunk_embedding IN SHARE UPDATE EXCLUSIVE MODE;
    LOCK TABLE agno.chunk_embedding_small IN ACCESS EXCLUSIVE MODE;
    EXECUTE format('DELETE FROM agno.chunk_embedding_%s e WHERE NOT EXISTS (SELECT FROM agno.chunk c WHERE c.id = e.chunk_id)', embedding_space_id);
    EXECUTE format('WITH moved AS (DELETE FROM agno.chunk_embedding_small WHERE embedding_space_id = %1$s RETURNING embedding_space_id, chunk_id, embedding) '
        'INSERT INTO agno.chunk_embedding_%1$s (embedding_space_id, chunk_id, embedding) SELECT m.* FROM moved m ON CONFLICT DO NOTHING', embedding_space_id);
    EXECUTE format('ALTER TABLE agno.chunk_embedding ATTACH PARTITION agno.chunk_embedding_%1$s FOR VALUES IN (%1$s)', embedding_space_id);
    UPDATE agno.embedding_space s SET has_partition = true WHERE s.id = $1;
END $$;

-- Drop the partition of an embedding space. Locks agno.chunk, then agno.chunk_embedding, ACCESS EXCLUSIVE for a moment: the order in
-- which a search locks them.
CREATE OR REPLACE FUNCTION agno.drop_partition(embedding_space_id int) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF to_regclass(format('agno.chunk_embedding_%s', embedding_space_id)) IS NOT NULL THEN
        LOCK TABLE agno.chunk IN ACCESS EXCLUSIVE MODE;
        LOCK TABLE ONLY agno.chunk_embedding IN ACCESS EXCLUSIVE MODE;
        EXECUTE format('DROP TABLE agno.chunk_embedding_%s', embedding_space_id);
        UPDATE agno.embedding_space s SET has_partition = false, is_indexed = false WHERE s.id = $1;
    END IF;
END $$;

-- Count the chunks that contain each word of a knowledge base, and the mean length of a chunk. Words of a single chunk are not
-- stored: a missing word counts as one chunk.
CREATE OR REPLACE FUNCTION agno.count_words(knowledge_id int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    average float8;
    counted bigint;
BEGIN
    SELECT count(*), coalesce(avg(length(c.tsv)), 0) INTO counted, average FROM agno.chunk c WHERE c.knowledge_id = $1 AND c.live;
    WITH counts AS MATERIALIZED (
        SELECT s.word, s.ndoc FROM ts_stat(format('SELECT tsv FROM agno.chunk WHERE knowledge_id = %s AND live', $1)) s WHERE s.ndoc > 1
    ),
    gone AS (
        DELETE FROM agno.lexeme x WHERE x.knowledge_id = $1 AND NOT EXISTS (SELECT FROM counts WHERE counts.word = x.lexeme)
    )
    INSERT INTO agno.lexeme AS x (knowledge_id, lexeme, documents) SELECT $1, word, ndoc FROM counts
    ON CONFLICT ON CONSTRAINT lexeme_pkey DO UPDATE SET documents = excluded.documents WHERE x.documents <> excluded.documents;
    UPDATE agno.knowledge k SET avg_length = average, stats_chunks = counted, version = k.version + 1, stats_version = k.version + 1 WHERE k.id = $1;
    RETURN counted;
END $$;
