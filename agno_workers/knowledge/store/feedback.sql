-- Feedback on knowledge: notes for review, gaps, counts of used results, and the results that accompanied a message.

-- name: add_review_note
-- No row: there is no knowledge base of that name.
INSERT INTO agno.review (knowledge_id, title, content, source, confidence, author, run_id, metadata)
SELECT id, %(title)s, %(content)s, %(source)s, %(confidence)s, %(author)s, %(run_id)s, %(metadata)s
FROM agno.knowledge WHERE name = %(knowledge)s
RETURNING id;

-- name: notes
-- Oldest first.
SELECT review.id, knowledge.name AS knowledge, review.title, review.content, review.source, review.confidence, review.author,
       review.run_id, review.metadata, review.status, review.decided_by, review.note, review.created_at, review.decided_at
FROM agno.review JOIN agno.knowledge ON knowledge.id = review.knowledge_id
WHERE knowledge.name = %(knowledge)s AND (%(status)s::text IS NULL OR review.status = %(status)s)
  AND (%(id)s::bigint IS NULL OR review.id = %(id)s)
ORDER BY review.created_at, review.id LIMIT %(limit)s;

-- name: decide_note
-- No row: the note was decided already, or does not exist.
UPDATE agno.review SET status = %(status)s, decided_by = %(by)s, note = %(note)s, decided_at = clock_timestamp()
FROM agno.knowledge
WHERE knowledge.id = review.knowledge_id AND knowledge.name = %(knowledge)s AND review.id = %(id)s AND review.status = 'waiting'
RETURNING review.id, knowledge.name AS knowledge, review.title, review.content, review.source, review.confidence, review.author,
          review.run_id, review.metadata, review.status, review.decided_by, review.note, review.created_at, review.decided_at;

-- name: note_gap
INSERT INTO agno.gap (knowledge_id, question, best_score)
SELECT id, %(question)s, %(best_score)s FROM agno.knowledge WHERE name = %(knowledge)s
ON CONFLICT (knowledge_id, question) DO UPDATE
SET asked = gap.asked + 1, best_score = excluded.best_score, last_at = clock_timestamp();

-- name: gaps
SELECT gap.question, gap.asked, gap.best_score, gap.first_at, gap.last_at
FROM agno.gap JOIN agno.knowledge ON knowledge.id = gap.knowledge_id
WHERE knowledge.name = %(knowledge)s ORDER BY gap.asked DESC, gap.last_at DESC LIMIT %(limit)s;

-- name: forget_gap
DELETE FROM agno.gap USING agno.knowledge
WHERE knowledge.id = gap.knowledge_id AND knowledge.name = %(knowledge)s AND gap.question = %(question)s
RETURNING gap.question;

-- name: count_feedback
-- In the order of the chunks, so that concurrent counts don't deadlock. Deleted chunks are skipped.
INSERT INTO agno.feedback AS known (chunk_id, used, cited, up, down)
SELECT chunk.id, sum(said.used), sum(said.cited), sum(said.up), sum(said.down)
FROM jsonb_to_recordset(%(counts)s) AS said (chunk bigint, used bigint, cited bigint, up bigint, down bigint)
JOIN agno.chunk ON chunk.id = said.chunk
GROUP BY chunk.id ORDER BY chunk.id
ON CONFLICT (chunk_id) DO UPDATE SET used = known.used + excluded.used, cited = known.cited + excluded.cited,
    up = known.up + excluded.up, down = known.down + excluded.down, updated_at = clock_timestamp()
RETURNING chunk_id;

-- name: ground
-- The first insert wins, for all attempts and turns.
INSERT INTO agno.grounding (run_id, seq, hits) VALUES (%(run_id)s, %(seq)s, %(hits)s)
ON CONFLICT (run_id, seq) DO UPDATE SET hits = grounding.hits
RETURNING hits;

-- name: grounded
-- The stored results of a run, by message number.
SELECT seq, hits FROM agno.grounding WHERE run_id = %(run_id)s ORDER BY seq;
