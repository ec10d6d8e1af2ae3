-- What people see of knowledge bases in a list: counts, and what searching rests on. Counting is a scan of an index or two.

-- name: bases
SELECT k.name, k.options, k.version, k.created_at, s.model, coalesce(s.dimensions, 0) AS dimensions,
       (SELECT count(*) FROM agno.document d WHERE d.knowledge_id = k.id) AS documents,
       (SELECT count(*) FROM agno.chunk c WHERE c.knowledge_id = k.id) AS chunks,
       (SELECT count(*) FROM agno.chunk_embedding e WHERE e.space_id = k.space_id) AS vectors,
       (SELECT count(*) FROM agno.ingestion i JOIN agno.run r ON r.id = i.run_id WHERE i.knowledge_id = k.id AND r.ended_at IS NULL) AS open,
       (SELECT count(*) FROM agno.review v WHERE v.knowledge_id = k.id AND v.status = 'waiting') AS notes,
       (SELECT count(*) FROM agno.gap g WHERE g.knowledge_id = k.id) AS gaps,
       (SELECT max(d.updated_at) FROM agno.document d WHERE d.knowledge_id = k.id) AS updated_at
FROM agno.knowledge k LEFT JOIN agno.space s ON s.id = k.space_id
WHERE %(name)s::text IS NULL OR k.name = %(name)s ORDER BY k.name;

-- name: models
SELECT s.model, s.dimensions, s.status, s.has_partition, s.is_indexed,
       (SELECT count(*) FROM agno.chunk_embedding e WHERE e.space_id = s.id) AS vectors
FROM agno.space s JOIN agno.knowledge k ON k.id = s.knowledge_id WHERE k.name = %(name)s ORDER BY s.id;

-- name: origins
-- Where its documents are from, the most first; those that came one by one stand together.
SELECT d.origin, count(*) AS documents, max(d.updated_at) AS updated_at
FROM agno.document d JOIN agno.knowledge k ON k.id = d.knowledge_id
WHERE k.name = %(name)s GROUP BY d.origin ORDER BY documents DESC, d.origin LIMIT %(limit)s;

-- name: unfinished
-- Models whose vectors are to be searched once they are all there, while no ingestion is at work to make them.
SELECT k.name AS knowledge, s.model, (SELECT count(*) FROM agno.chunk_embedding e WHERE e.space_id = s.id) AS vectors,
       (SELECT count(*) FROM agno.chunk c WHERE c.knowledge_id = k.id) AS chunks
FROM agno.space s JOIN agno.knowledge k ON k.id = s.knowledge_id
WHERE s.status = 'building'
  AND NOT EXISTS (SELECT FROM agno.ingestion i JOIN agno.run r ON r.id = i.run_id WHERE i.knowledge_id = k.id AND r.ended_at IS NULL)
ORDER BY k.name, s.id;

-- name: searched
-- What a search needs to know of a knowledge base.
SELECT k.id, k.space_id, s.model FROM agno.knowledge k LEFT JOIN agno.space s ON s.id = k.space_id WHERE k.name = %(name)s;

-- name: document
SELECT d.id, d.duplicate_of FROM agno.document d WHERE d.knowledge_id = %(knowledge_id)s AND d.uri = %(uri)s;
