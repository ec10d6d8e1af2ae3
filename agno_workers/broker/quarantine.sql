-- Messages that no worker carries out: kept for a person to look at.

-- name: keep
-- No row: so many came within an hour that more would only fill the disk. Those of a month ago go.
WITH old AS (DELETE FROM agno.quarantine WHERE created_at < clock_timestamp() - interval '30 days')
INSERT INTO agno.quarantine (reason, detail, queue, task, message_id, head, bytes, worker)
SELECT %(reason)s, %(detail)s, %(queue)s, %(task)s, %(message_id)s, %(head)s, %(bytes)s, %(worker)s
WHERE (SELECT count(*) FROM (SELECT FROM agno.quarantine WHERE created_at > clock_timestamp() - interval '1 h' LIMIT %(most)s) late) < %(most)s
RETURNING id;

-- name: recent
SELECT reason, count(*) AS messages, max(created_at) AS newest FROM agno.quarantine
WHERE created_at > clock_timestamp() - make_interval(secs => %(seconds)s) GROUP BY reason ORDER BY reason;
