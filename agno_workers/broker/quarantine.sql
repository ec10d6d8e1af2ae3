-- Rejected messages, stored for a person to look at.

-- name: store
-- Returns no row when the hour's limit is reached: more rows would only fill the disk. Rows older than 30 days are deleted.
WITH old AS (DELETE FROM agno.quarantine WHERE created_at < clock_timestamp() - interval '30 days')
INSERT INTO agno.quarantine (reason, detail, queue, task, message_id, head, bytes, worker)
SELECT %(reason)s, %(detail)s, %(queue)s, %(task)s, %(message_id)s, %(head)s, %(bytes)s, %(worker)s
WHERE (SELECT count(*) FROM (SELECT FROM agno.quarantine WHERE created_at > clock_timestamp() - interval '1 h' LIMIT %(max_per_hour)s) recent) < %(max_per_hour)s
RETURNING id;

-- name: count_recent
SELECT reason, count(*) AS messages, max(created_at) AS newest FROM agno.quarantine
WHERE created_at > clock_timestamp() - make_interval(secs => %(seconds)s) GROUP BY reason ORDER BY reason;
