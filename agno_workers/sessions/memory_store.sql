-- Memories and their versions. Each change writes the memory as it is after it, as one more version.

-- name: lock
-- Let one transaction at a time change the memories of an owner. Recall counts uses without it.
SELECT pg_advisory_xact_lock(hashtextextended(jsonb_build_array('agno.memory', %(tenant)s::text, %(scope)s::text, %(owner)s::text)::text, 0));

-- name: memories
SELECT id, scope, owner, kind, text, confidence, version, source_run_id, valid_from, valid_to, replaced_by, contradicts, uses, used_at, recorded_at
FROM agno.memory
WHERE tenant = %(tenant)s AND scope = %(scope)s AND owner = %(owner)s AND (%(kind)s::text IS NULL OR kind = %(kind)s) AND (valid_to IS NULL OR %(closed)s)
ORDER BY recorded_at DESC, id LIMIT %(limit)s;

-- name: memories_at
-- The memories that were recalled at a time, as they were then.
SELECT m.id, m.scope, m.owner, v.kind, v.text, v.confidence, v.version, m.source_run_id, m.valid_from, v.contradicts, v.at AS recorded_at
FROM agno.memory m, LATERAL (
    SELECT * FROM agno.memory_version v WHERE v.memory_id = m.id AND v.at <= %(at)s::timestamptz ORDER BY v.version DESC LIMIT 1) v
WHERE m.tenant = %(tenant)s AND m.scope = %(scope)s AND m.owner = %(owner)s AND v.is_open AND (%(kind)s::text IS NULL OR v.kind = %(kind)s)
ORDER BY v.at DESC, m.id LIMIT %(limit)s;

-- name: get
-- A memory by its id, or by the last 8 digits of the id of an open one.
SELECT * FROM agno.memory
WHERE tenant = %(tenant)s AND (%(scope)s::text IS NULL OR scope = %(scope)s AND owner = %(owner)s)
  AND (id = %(id)s::uuid OR %(id)s::uuid IS NULL AND valid_to IS NULL AND right(id::text, 8) = %(short)s) LIMIT 2;

-- name: same_text
SELECT id FROM agno.memory WHERE tenant = %(tenant)s AND scope = %(scope)s AND owner = %(owner)s AND digest = %(digest)s AND valid_to IS NULL;

-- name: other_with_text
SELECT o.id FROM agno.memory m JOIN agno.memory o USING (tenant, scope, owner)
WHERE m.id = %(id)s AND o.id <> m.id AND o.digest = %(digest)s AND o.valid_to IS NULL;

-- name: replaced
-- The closed memories that this one replaced.
SELECT id FROM agno.memory WHERE replaced_by = %(id)s AND valid_to IS NOT NULL ORDER BY id;

-- name: versions
SELECT version, change, text, kind, confidence, is_open, replaced_by, contradicts, restores, actor, run_id, at
FROM agno.memory_version WHERE memory_id = %(id)s ORDER BY version;

-- name: add
-- No row: the owner has a memory with this text.
WITH added AS (
    INSERT INTO agno.memory (id, tenant, scope, owner, kind, text, digest, confidence, source_run_id, contradicts, valid_from)
    VALUES (%(id)s, %(tenant)s, %(scope)s, %(owner)s, %(kind)s, %(text)s, %(digest)s, %(confidence)s, %(run_id)s, %(contradicts)s,
            coalesce(%(valid_from)s::timestamptz, clock_timestamp()))
    ON CONFLICT (tenant, scope, owner, digest) WHERE valid_to IS NULL DO NOTHING RETURNING *
),
version AS (
    INSERT INTO agno.memory_version (memory_id, version, change, text, kind, confidence, is_open, contradicts, actor, run_id)
    SELECT id, 1, 'added', text, kind, confidence, true, contradicts, %(actor)s, %(run_id)s FROM added
)
SELECT * FROM added;

-- name: confirm
-- The same was said again.
UPDATE agno.memory SET recorded_at = clock_timestamp(), used_at = clock_timestamp() WHERE id = %(id)s AND valid_to IS NULL RETURNING *;

-- name: change
-- Write the memory as given, and a version of it. A memory that closes is valid until %(valid_to)s, or until now.
WITH changed AS (
    UPDATE agno.memory SET text = %(text)s, digest = %(digest)s, kind = %(kind)s, confidence = %(confidence)s, version = version + 1,
        replaced_by = %(replaced_by)s, contradicts = %(contradicts)s,
        valid_to = CASE WHEN NOT %(is_open)s THEN coalesce(valid_to, greatest(valid_from, coalesce(%(valid_to)s::timestamptz, clock_timestamp()))) END,
        recorded_at = CASE WHEN %(change)s = 'edited' THEN clock_timestamp() ELSE recorded_at END
    WHERE id = %(id)s RETURNING *
),
version AS (
    INSERT INTO agno.memory_version (memory_id, version, change, text, kind, confidence, is_open, replaced_by, contradicts, restores, actor, run_id)
    SELECT id, version, %(change)s, text, kind, confidence, valid_to IS NULL, replaced_by, contradicts, %(restores)s, %(actor)s, %(run_id)s FROM changed
)
SELECT * FROM changed;

-- name: redact_versions
UPDATE agno.memory_version SET text = NULL WHERE memory_id = %(id)s AND text IS NOT NULL;

-- name: redact_proposals
-- Proposals hold texts that were made of several memories.
DELETE FROM agno.run_context c USING agno.run r
WHERE c.key = 'proposal' AND c.value->>'owner' = %(whose)s AND c.value->'seen' ? %(id)s AND r.id = c.run_id AND r.tenant = %(tenant)s;

-- name: forget_asked
-- Forget which runs are still to be learned from.
DELETE FROM agno.background_item WHERE tenant = %(tenant)s AND kind IN ('learn', 'consolidate') AND owner = %(whose)s;

-- name: at_work
SELECT run_id FROM agno.background WHERE tenant = %(tenant)s AND kind = ANY(%(kinds)s) AND owner = %(whose)s AND run_id IS NOT NULL;

-- name: delete_all
WITH proposals AS (
    DELETE FROM agno.run_context c USING agno.run r
    WHERE c.key = 'proposal' AND c.value->>'owner' = %(whose)s AND r.id = c.run_id AND r.tenant = %(tenant)s
)
DELETE FROM agno.memory WHERE tenant = %(tenant)s AND scope = %(scope)s AND owner = %(owner)s RETURNING id;

-- name: export_versions
SELECT v.memory_id, v.version, v.change, v.text, v.kind, v.confidence, v.is_open, v.replaced_by, v.contradicts, v.restores, v.actor, v.run_id, v.at
FROM agno.memory m JOIN agno.memory_version v ON v.memory_id = m.id
WHERE m.tenant = %(tenant)s AND m.scope = %(scope)s AND m.owner = %(owner)s ORDER BY v.memory_id, v.version;

-- name: consents
SELECT category, allowed, at FROM agno.consent WHERE tenant = %(tenant)s AND user_id = %(owner)s AND (category = 'memory' OR category LIKE 'memory:%%') ORDER BY category;

-- name: denied
SELECT kind FROM unnest(%(kinds)s::text[]) AS kind WHERE NOT agno.memory_allowed(%(tenant)s, %(user_id)s, kind);

-- name: tenant
SELECT tenant FROM agno.run WHERE id = %(run_id)s;

-- name: find
-- The open memories of an owner that a question is about, best first, each with what contradicts it: all while there are %(few)s, else the best by
-- words (BM25), by how lately they were confirmed and by how often they were used. A memory without a word of the question may follow.
WITH mine AS MATERIALIZED (
    SELECT m.id, m.kind, m.words, m.uses, m.recorded_at, coalesce(m.contradicts, m.id) AS root FROM agno.memory m
    WHERE m.tenant = %(tenant)s AND m.scope = %(scope)s AND m.owner = %(owner)s AND m.valid_to IS NULL AND m.text IS NOT NULL
),
kinds AS (SELECT kind FROM (SELECT DISTINCT kind FROM mine OFFSET 0) AS k WHERE agno.memory_allowed(%(tenant)s, %(user_id)s, kind)),
size AS (SELECT count(*)::float8 AS number, greatest(1, avg(length(words))::float8) AS average FROM mine),
said AS MATERIALIZED (
    SELECT agno.word(lexeme) AS word
    FROM unnest(tsvector_to_array(to_tsvector('english', %(question)s) || to_tsvector('simple', %(question)s))) AS lexeme
),
asked AS MATERIALIZED (
    SELECT array_agg(word) AS words, array_agg(idf) AS idfs FROM (
        SELECT word, ln(1 + (size.number - found.number + 0.5) / (found.number + 0.5)) AS idf
        FROM size, said, LATERAL (SELECT count(*)::float8 AS number FROM mine WHERE mine.words @@ said.word) AS found
        WHERE size.number > %(few)s AND found.number > 0 ORDER BY idf DESC LIMIT 20) AS rarest
),
scored AS MATERIALIZED (
    SELECT m.id, m.recorded_at, m.root,
        (0.1 + coalesce(b.score / nullif(max(b.score) OVER (), 0), 0)) * (1 + ln(1 + m.uses) / 10)
        * CASE WHEN %(half_life_days)s::float8 IS NULL THEN 1
               ELSE 0.5 ^ least(1000, extract(epoch FROM clock_timestamp() - m.recorded_at)::float8 / 86400 / %(half_life_days)s::float8) END AS score
    FROM mine m JOIN kinds USING (kind) CROSS JOIN size CROSS JOIN asked
        CROSS JOIN LATERAL agno.bm25(m.words, asked.words, asked.idfs, size.average) AS b (score)
),
top AS (SELECT id, root FROM scored ORDER BY score DESC, recorded_at DESC, id LIMIT %(limit)s)
SELECT m.id, m.version, m.kind, m.text, m.valid_from, s.root, s.score FROM scored s JOIN agno.memory m USING (id)
WHERE s.id IN (SELECT id FROM top) OR s.root IN (SELECT root FROM top) ORDER BY s.score DESC, s.recorded_at DESC, s.id;

-- name: recall
-- Decide what a run recalls; the first call wins. Its memories are counted as used, but for those that another transaction holds.
WITH kept AS (
    INSERT INTO agno.run_context (run_id, key, value) VALUES (%(run_id)s, 'memories', %(memories)s) ON CONFLICT DO NOTHING RETURNING run_id
),
used AS (
    SELECT m.id FROM agno.memory m WHERE m.id = ANY(%(ids)s::uuid[]) AND EXISTS (SELECT FROM kept) ORDER BY m.id FOR NO KEY UPDATE OF m SKIP LOCKED
)
UPDATE agno.memory m SET uses = m.uses + 1, used_at = clock_timestamp() FROM used WHERE m.id = used.id;

-- name: recalled
-- The memories that a run recalled, as they were then; their texts are those of their versions, so that a redacted one is gone here too.
-- One row without an id: it recalled nothing. No row: it has not begun.
SELECT v.memory_id AS id, v.version, v.kind, v.text, m.valid_from, given.root::text AS root
FROM agno.run_context c LEFT JOIN LATERAL ROWS FROM (jsonb_to_recordset(c.value) AS (id uuid, version int, root uuid)) WITH ORDINALITY AS given (id, version, root, place) ON true
LEFT JOIN agno.memory_version v ON v.memory_id = given.id AND v.version = given.version
LEFT JOIN agno.memory m ON m.id = v.memory_id
WHERE c.run_id = %(run_id)s AND c.key = 'memories' ORDER BY given.place;

-- name: exchanges
-- The words of users and the last answers of runs, in this order: of runs that were answered and not rolled back, of this owner, whose user allows
-- memory. What a delegated run was asked is the text of a model, so it is left out. `used_tools`: the model has read what a tool has said, or
-- what may repeat it: earlier runs with tools, a summary, other sessions, values of the context, or what a search found. What it read of its
-- members counts as theirs: a team without tools learns from its answers.
SELECT r.id AS run_id, r.agent, r.user_id, r.created_at AS at, said.messages,
    EXISTS (SELECT FROM agno.message m WHERE m.run_id = r.id AND m.content->>'role' = 'tool'
        AND NOT EXISTS (SELECT FROM agno.step s WHERE s.run_id = r.id AND s.seq = m.seq AND s.kind = 'delegate'))
    OR EXISTS (SELECT FROM agno.step s WHERE s.run_id = ANY(tree.runs) AND (s.kind = 'tool' OR s.kind = 'delegate' AND s.child_run_id IS NULL))
    OR EXISTS (SELECT FROM agno.grounding g WHERE g.run_id = ANY(tree.runs) AND g.hits <> '[]')
    OR EXISTS (SELECT FROM agno.run_context c WHERE c.run_id = ANY(tree.runs) AND (c.key = 'context' OR c.key LIKE 'context:%%'))
    OR EXISTS (SELECT FROM agno.run_context c WHERE c.run_id = ANY(tree.runs) AND c.key = 'history' AND (c.value->>'summary' <> '' OR c.value->'exchanges' <> '[]'
        OR EXISTS (SELECT FROM jsonb_array_elements_text(c.value->'runs') AS earlier (id) JOIN agno.message m ON m.run_id = earlier.id::uuid
                   WHERE m.content->>'role' = 'tool'))) AS used_tools
FROM unnest(%(run_ids)s::uuid[]) WITH ORDINALITY AS asked (id, place) JOIN agno.run r ON r.id = asked.id,
    LATERAL (SELECT agno.family_of(r.id) AS runs) AS tree,
    LATERAL (SELECT jsonb_agg(jsonb_build_object('role', m.role, 'parts', jsonb_build_array(jsonb_build_object('type', 'text', 'text', m.text))) ORDER BY m.seq) AS messages
        FROM (SELECT m.seq, m.content->>'role' AS role, part.text, m.content->>'role' = 'user' OR m.seq = max(m.seq) FILTER (WHERE m.content->>'role' = 'assistant') OVER () AS is_said
            FROM agno.message m, LATERAL (SELECT left(string_agg(p->>'text', '' ORDER BY nth), %(chars)s) AS text
                FROM jsonb_array_elements(agno.inflate(m.content)->'parts') WITH ORDINALITY AS parts (p, nth) WHERE p->>'type' = 'text') AS part
            WHERE m.run_id = r.id AND m.content->>'role' IN ('user', 'assistant') AND part.text ~ '\S') AS m
        WHERE m.is_said) AS said
WHERE r.tenant = %(tenant)s AND r.status = 'done' AND r.rolled_back_at IS NULL AND r.parent_run_id IS NULL AND said.messages IS NOT NULL
  AND CASE %(scope)s::text WHEN 'user' THEN r.user_id WHEN 'session' THEN r.session_id WHEN 'global' THEN '' ELSE r.agent END IS NOT DISTINCT FROM %(owner)s
  AND agno.memory_allowed(r.tenant, r.user_id, '')
ORDER BY asked.place;

-- name: propose
-- Store a proposal, unless the text of a memory that it was made from is gone meanwhile.
INSERT INTO agno.run_context (run_id, key, value) SELECT %(run_id)s, 'proposal', %(proposal)s::jsonb
WHERE NOT EXISTS (SELECT FROM jsonb_object_keys(%(proposal)s::jsonb->'seen') AS seen (id) LEFT JOIN agno.memory m ON m.id = seen.id::uuid WHERE m.text IS NULL)
ON CONFLICT (run_id, key) DO UPDATE SET value = excluded.value;

-- name: proposal
SELECT r.status, c.value AS proposal FROM agno.run r LEFT JOIN agno.run_context c ON c.run_id = r.id AND c.key = 'proposal'
WHERE r.id = %(run_id)s AND r.tenant = %(tenant)s AND r.kind = 'background' AND r.metadata->>'kind' = 'consolidate';

-- name: consolidate
-- Ask for a consolidation, by the agent that ran last for the owner.
WITH latest AS (
    SELECT r.id FROM agno.run r WHERE r.tenant = %(tenant)s AND r.kind IN ('agent', 'team') AND (%(agent)s::text IS NULL OR r.agent = %(agent)s)
      AND CASE %(scope)s::text WHEN 'user' THEN r.user_id WHEN 'session' THEN r.session_id WHEN 'global' THEN '' ELSE r.agent END = %(owner)s
    ORDER BY r.created_at DESC LIMIT 1
)
SELECT id AS run_id, agno.request_background(id, jsonb_build_array(jsonb_build_object('kind', 'consolidate', 'owner', %(whose)s::text))) FROM latest;
