"""Invariants that hold after every test, also after kills, flushes and duplicate messages."""

from __future__ import annotations

import threading
from collections.abc import Callable

import psycopg
import pytest

_SETTLES_IN_S = 20.0

# Invariants that every transaction keeps: each statement returns a row per violation, as below. The state machine
# (integration/runs/test_state_machine.py) checks them after every transaction, `hold` at the end of a test.
ALWAYS = {
    "nothing will ever move this run: it is open, and none of its steps is": """
        SELECT r.id, r.agent, r.status FROM agno.run r
        WHERE r.ended_at IS NULL
          AND NOT EXISTS (SELECT FROM agno.step s WHERE s.run_id = r.id AND s.generation = r.generation
                          AND s.status IN ('ready', 'running', 'waiting'))
          AND NOT EXISTS (SELECT FROM agno.run k WHERE k.canvas->'alike' ? r.id::text)
          AND NOT EXISTS (SELECT FROM agno.ingestion i WHERE i.run_id = r.id AND i.scanned_at IS NOT NULL)""",
    "a step is open of a run that has ended, or of an older generation": """
        SELECT s.id, s.key, s.status, s.generation, r.status, r.generation FROM agno.step s JOIN agno.run r ON r.id = s.run_id
        WHERE s.status IN ('ready', 'running', 'waiting') AND (r.ended_at IS NOT NULL OR r.generation <> s.generation)""",
    "a run has not ended as its status says, so that lists of failed and cancelled runs miss it": """
        SELECT id, status, ended_as FROM agno.run
        WHERE ended_as IS DISTINCT FROM CASE WHEN status IN ('failed', 'cancelled') THEN status END""",
    "a report has no call that made it, is an event of a run that is not above, or is too large": """
        SELECT e.id, e.run_id, e.from_run_id, length(e.text), e.fraction FROM agno.report e
        LEFT JOIN agno.step s ON s.id = e.step_id AND s.run_id = e.from_run_id AND s.kind = 'tool' LEFT JOIN agno.run r ON r.id = e.from_run_id
        WHERE s.id IS NULL OR length(e.text) > 500 OR e.fraction NOT BETWEEN 0 AND 1
           OR e.run_id::text NOT IN (r.id::text, coalesce(r.lineage->>'root', ''), coalesce(r.lineage->'team'->>'run_id', ''))""",
    "a ready step without a timer was never sent, so that the keeper will not miss it": """
        SELECT id, key, attempt FROM agno.step WHERE status = 'ready' AND not_before IS NULL AND sent_at IS NULL""",
    "a turn is open beside another open step": """
        SELECT run_id, array_agg(key) FROM agno.step
        WHERE status IN ('ready', 'running', 'waiting') AND waits_for IS DISTINCT FROM 'compaction' AND arrival IS NULL
        GROUP BY run_id HAVING count(*) > 1 AND bool_or(kind IN ('turn', 'compact'))""",
    "a turn waits for a compaction that nobody makes, or a compaction is made for no turn": """
        SELECT run_id, array_agg(key) FROM agno.step
        WHERE status IN ('ready', 'running', 'waiting') AND (kind = 'compact' OR waits_for = 'compaction')
        GROUP BY run_id HAVING count(*) FILTER (WHERE kind = 'compact') <> 1
            OR count(*) FILTER (WHERE kind = 'turn' AND waits_for = 'compaction') <> 1 OR min(seq) <> max(seq)""",
    "a summary stands for messages that are not there": """
        SELECT c.run_id, c.until_seq, c.at_seq, count(m.seq) FROM agno.compaction c LEFT JOIN agno.message m ON m.run_id = c.run_id AND m.seq < c.until_seq
        GROUP BY c.run_id, c.until_seq HAVING count(m.seq) <> c.until_seq OR c.until_seq > c.at_seq""",
    "a stored result has no preview": """
        SELECT s.run_id, s.seq, s.id FROM agno.stored_result s LEFT JOIN agno.message m ON m.run_id = s.run_id AND m.seq = s.seq
        WHERE strpos(m.content #>> '{parts,0,content}', '[Result ' || s.id || ': ') IS DISTINCT FROM 1""",
    "a turn would read a transcript with a gap, or what comes after it": """
        SELECT s.run_id, s.key, s.seq, count(m.seq), max(m.seq) FROM agno.step s JOIN agno.run r ON r.id = s.run_id
        LEFT JOIN agno.message m ON m.run_id = s.run_id
        WHERE s.kind = 'turn' AND s.status IN ('ready', 'running')
          AND NOT EXISTS (SELECT FROM agno.step c WHERE c.run_id IN (r.id, r.forked_from) AND c.arrival IS NOT NULL)
        GROUP BY s.id HAVING count(m.seq) <> s.seq OR max(m.seq) <> s.seq - 1""",
    "a call that ended has no result, or one that is open has": """
        SELECT s.run_id, s.key, s.status, m.content->>'role' FROM agno.step s
        LEFT JOIN agno.message m ON m.run_id = s.run_id AND m.seq = s.seq
        WHERE s.kind IN ('tool', 'delegate') AND s.arrival IS NULL AND (s.ended_at IS NOT NULL) <> (m.content->>'role' IS NOT DISTINCT FROM 'tool')""",
    "a transcript of a run that has ended has a gap": """
        SELECT m.run_id, count(*), max(m.seq) FROM agno.message m JOIN agno.run r ON r.id = m.run_id
        WHERE r.ended_at IS NOT NULL AND NOT EXISTS (SELECT FROM agno.step c WHERE c.run_id IN (r.id, r.forked_from) AND c.arrival IS NOT NULL)
        GROUP BY m.run_id HAVING count(*) <> max(m.seq) + 1 OR min(m.seq) <> 0""",
    "a barrier has not counted the results of its calls": """
        SELECT b.id, b.arrived, b.size, b.fired_at, count(s.id) FROM agno.barrier b JOIN agno.run r ON r.id = b.run_id
        LEFT JOIN agno.step s ON s.barrier_id = b.id AND (s.status IN ('done', 'dead', 'unknown') OR s.arrival > 0)
        WHERE b.generation = r.generation OR NOT EXISTS (  -- a retry of a program takes its calls to a new one
            SELECT FROM agno.step c WHERE c.run_id = r.id AND c.arrival IS NOT NULL)
        GROUP BY b.id
        HAVING b.arrived <> count(s.id) OR b.arrived > b.size AND count(s.arrival) = 0 OR (b.arrived >= b.size) <> (b.fired_at IS NOT NULL)""",
    "the ends of the calls of a program are not numbered from 1 on without a gap": """
        SELECT b.run_id, b.arrived, array_agg(s.arrival ORDER BY s.arrival) FROM agno.barrier b
        JOIN agno.run r ON r.id = b.run_id AND r.generation = b.generation JOIN agno.step s ON s.barrier_id = b.id
        WHERE s.arrival IS NOT NULL GROUP BY b.id
        HAVING count(DISTINCT s.arrival) FILTER (WHERE s.arrival > 0) <> b.arrived OR coalesce(max(s.arrival), 0) <> b.arrived""",
    "a call of a program has ended without a number, or has one and is open": """
        SELECT s.run_id, s.key, s.status, s.arrival FROM agno.step s JOIN agno.run r ON r.id = s.run_id
        WHERE s.arrival = 0 AND s.ended_at IS NOT NULL AND r.ended_at IS NULL AND r.generation = s.generation OR s.arrival > 0 AND s.ended_at IS NULL
           OR s.arrival = 0 AND s.ended_at IS NOT NULL AND s.status <> 'cancelled'""",
    "a call of a program is done with neither a result nor an error, or has a result and is not done": """
        SELECT run_id, key, status, error FROM agno.step
        WHERE arrival IS NOT NULL AND (status = 'done' AND result IS NULL AND error IS NULL OR result IS NOT NULL AND status <> 'done')
           OR arrival IS NULL AND result IS NOT NULL AND kind <> 'turn'""",
    "a program's run has messages beside its input and its answer": """
        SELECT r.id, count(m.seq) FROM agno.run r JOIN agno.message m ON m.run_id = r.id
        WHERE EXISTS (SELECT FROM agno.step c WHERE c.run_id = r.id AND c.arrival IS NOT NULL)
        GROUP BY r.id HAVING count(m.seq) <> CASE WHEN r.status = 'done' AND r.reason = 'end' THEN 2 ELSE 1 END""",
    "a signal was taken by no wait for it, or its wait did not get it": """
        SELECT g.run_id, g.name, s.key, s.status, s.result FROM agno.signal g LEFT JOIN agno.step s ON s.id = g.step_id AND s.run_id = g.run_id
        WHERE g.step_id IS NOT NULL AND (s.kind, s.call->>'kind', s.name, s.status, s.result)
            IS DISTINCT FROM ('wait', 'signal', g.name, 'done', coalesce(g.payload, 'null'))""",
    "a wait took more than one signal, or none": """
        SELECT s.run_id, s.key, count(g.id) FROM agno.step s JOIN agno.run r ON r.id = s.run_id LEFT JOIN agno.signal g ON g.step_id = s.id
        WHERE s.call->>'kind' = 'signal' AND s.kind = 'wait' AND r.forked_from IS NULL
        GROUP BY s.id HAVING count(g.id) <> (s.status = 'done' AND s.error IS NULL)::int""",
    "a signal is kept while a step waits for it": """
        SELECT s.run_id, s.key, g.id FROM agno.step s JOIN agno.signal g ON g.run_id = s.run_id AND g.name = s.name
        WHERE s.waits_for = 'signal' AND g.step_id IS NULL""",
    "a barrier that is full has not written its turn, or one that is not has": """
        SELECT b.id, b.run_id, b.fired_at FROM agno.barrier b
        WHERE b.run_id IS NOT NULL
          AND (b.fired_at IS NOT NULL) <> EXISTS (SELECT FROM agno.step s WHERE s.id = (b.body->>'id')::uuid)""",
    "a user's chord fired with parts missing, or did not count one": """
        SELECT b.id, b.arrived, b.size, b.fired_at FROM agno.barrier b
        WHERE b.run_id IS NULL AND (coalesce(b.arrived >= b.size, false) <> (b.fired_at IS NOT NULL)
            OR b.arrived <> (SELECT count(*) FROM agno.chord_part p WHERE p.barrier_id = b.id))""",
    "a delegation waits for a run that is over, or waits for another": """
        SELECT s.run_id, s.key, c.id, c.status FROM agno.step s
        LEFT JOIN agno.run c ON c.id = s.child_run_id AND c.parent_step_id = s.id AND c.parent_run_id = s.run_id
        WHERE s.waits_for = 'run' AND (c.id IS NULL OR c.ended_at IS NOT NULL)""",
    "a delegation is carried by a worker": """
        SELECT run_id, key, status, attempt FROM agno.step
        WHERE kind = 'delegate' AND (status IN ('ready', 'running') OR attempt > 0 OR coalesce(waits_for, 'run') <> 'run')""",
    "a step waits for somebody who can do nothing for it": """
        SELECT run_id, key, kind, waits_for, attempt FROM agno.step
        WHERE waits_for IN ('answer', 'execution') AND kind <> 'tool'
           OR waits_for IN ('confirmation', 'answer', 'execution') AND (kind NOT IN ('tool', 'wait') OR attempt > 0 OR answer IS NOT NULL)
           OR waits_for IN ('timer', 'signal') AND (kind <> 'wait' OR waits_for <> call->>'kind')
           OR waits_for = 'timer' AND expires_at IS NULL
           OR kind = 'wait' AND (arrival IS NULL OR attempt > 0 OR status IN ('ready', 'running')
              OR waits_for IS NOT NULL AND waits_for NOT IN ('timer', 'signal', 'confirmation'))
           OR waits_for = 'resolution' AND (kind <> 'tool' OR effect <> 'once' OR attempt = 0)
           OR waits_for = 'run' AND kind <> 'delegate'
           OR waits_for = 'compaction' AND kind <> 'turn'
           OR waits_for = 'session' AND (kind <> 'turn' OR attempt > 0)
           OR (waits_for = 'window' OR kind IN ('scan', 'ingest', 'embed', 'finalize')) AND waits_for IS NOT NULL
              AND (waits_for <> 'window' OR kind <> 'embed' OR attempt > 0)""",
    "it is not known what became of a step that may be repeated": """
        SELECT run_id, key, effect FROM agno.step WHERE status = 'unknown' AND effect IS DISTINCT FROM 'once'""",
    "a step is dead, and nothing says why": """
        SELECT run_id, key FROM agno.step WHERE status = 'dead' AND error IS NULL""",
    "a step is cancelled in a generation that goes on": """
        SELECT s.run_id, s.key FROM agno.step s JOIN agno.run r ON r.id = s.run_id
        WHERE s.status = 'cancelled' AND s.generation >= r.generation AND r.forked_from IS NULL
          AND NOT (s.arrival > 0 OR s.arrival = 0 AND r.ended_at IS NOT NULL)""",
    "a run is queued, and its turn has begun": """
        SELECT r.id, s.key, s.status, s.attempt FROM agno.run r JOIN agno.step s ON s.run_id = r.id AND s.generation = r.generation
        WHERE r.status = 'queued' AND s.status IN ('ready', 'running', 'waiting')
          AND (s.kind NOT IN ('turn', 'scan', 'background') OR s.status <> 'ready' AND s.error->'ids'->>'given_up' IS DISTINCT FROM 'true'
                 AND s.waits_for IS DISTINCT FROM 'session' OR s.attempt > 0)""",
    "a run is running without a turn under way": """
        SELECT r.id FROM agno.run r WHERE r.status = 'running' AND NOT EXISTS (SELECT FROM agno.step s
            WHERE s.run_id = r.id AND s.generation = r.generation AND s.kind IN ('turn', 'background', 'compact') AND s.status IN ('ready', 'running'))
          AND NOT EXISTS (SELECT FROM agno.ingestion i WHERE i.run_id = r.id)""",
    "a run is waiting while its turn is under way": """
        SELECT r.id, s.key FROM agno.run r JOIN agno.step s ON s.run_id = r.id
        WHERE r.status = 'waiting' AND s.kind = 'turn' AND s.status = 'running'
          AND s.error->'ids'->>'given_up' IS DISTINCT FROM 'true'""",
    "a run that has failed does not say why": """
        SELECT id, status FROM agno.run WHERE status IN ('failed', 'cancelled') AND (error IS NULL OR reason IS NULL)""",
    "a run is done without an answer": """
        SELECT id, reason FROM agno.run WHERE status = 'done' AND (reason IS NULL OR error IS NOT NULL)""",
    "a run failed for want of an answer that was given": """
        SELECT r.id, s.key, s.answer FROM agno.run r JOIN agno.step s ON s.id = (r.error->'ids'->>'step_id')::uuid
        WHERE r.reason = 'nobody_answered' AND s.answer IS NOT NULL""",
    "run.tool_calls is not the number of its calls": """
        SELECT r.id, r.tool_calls, count(DISTINCT s.key) FROM agno.run r
        LEFT JOIN agno.step s ON s.run_id = r.id AND s.kind IN ('tool', 'delegate')
        WHERE r.generation = 0 AND r.forked_from IS NULL
            OR NOT EXISTS (SELECT FROM agno.step c WHERE c.run_id IN (r.id, r.forked_from) AND c.arrival IS NOT NULL)
        GROUP BY r.id HAVING r.tool_calls <> count(DISTINCT s.key)""",
    "run.turns is not the number of its turns that are done": """
        SELECT r.id, r.turns, count(s.id) FROM agno.run r
        LEFT JOIN agno.step s ON s.run_id = r.id AND s.kind = 'turn' AND s.status = 'done'
        WHERE r.status = 'done' AND (r.generation = 0 AND r.forked_from IS NULL
            OR NOT EXISTS (SELECT FROM agno.step c WHERE c.run_id IN (r.id, r.forked_from) AND c.arrival IS NOT NULL))
        GROUP BY r.id HAVING r.turns <> count(s.id)""",
    "run.turns is not the number of replies in its transcript": """
        SELECT r.id, r.turns, count(m.seq) FROM agno.run r
        LEFT JOIN agno.message m ON m.run_id = r.id AND agno.inflate(m.content)->>'role' = 'assistant'
        WHERE NOT EXISTS (SELECT FROM agno.step c WHERE c.run_id IN (r.id, r.forked_from) AND c.arrival IS NOT NULL)
        GROUP BY r.id HAVING r.turns <> count(m.seq)""",
    "a run waits for its turn in a session in which nothing holds it up": """
        SELECT r.id, r.session_id, s.status FROM agno.run r LEFT JOIN agno.session s ON s.tenant = r.tenant AND s.id = r.session_id
        WHERE r.session_status = 'waiting' AND r.ended_at IS NULL AND s.status IS DISTINCT FROM 'paused' AND NOT EXISTS (
            SELECT FROM agno.run l WHERE l.tenant = r.tenant AND l.session_id = r.session_id AND l.session_status = 'live' AND l.ended_at IS NULL)""",
    "a run that waits for its turn may begin, or one that may begin waits": """
        SELECT r.id, r.session_status, s.key, s.status, s.waits_for FROM agno.run r
        JOIN agno.step s ON s.run_id = r.id AND s.generation = r.generation AND s.status IN ('ready', 'running', 'waiting')
        WHERE coalesce(r.session_status IN ('waiting', 'scheduled'), false) <> (s.waits_for IS NOT DISTINCT FROM 'session')
           OR s.waits_for = 'session' AND (r.session_status = 'scheduled') <> (s.not_before IS NOT NULL)""",
    "a run of a session has no place, or one that another run of it has, too": """
        SELECT r.session_id, r.session_position, array_agg(r.session_status) FROM agno.run r WHERE r.session_status IS NOT NULL
          AND NOT (r.session_status = 'waiting' AND r.started_at IS NULL
                   AND (r.forked_from IS NOT NULL OR EXISTS (SELECT FROM agno.steer t WHERE t.next_run_id = r.id)))
          AND NOT (r.session_status = 'scheduled' AND r.session_position IS NULL)
        GROUP BY r.tenant, r.session_id, r.session_position HAVING count(*) > 1 OR r.session_position IS NULL""",
    "a session gives a place that is taken": """
        SELECT s.id, s.next_position, s.begun_position FROM agno.session s
        WHERE s.next_position <= s.begun_position OR s.next_position <= (SELECT max(session_position) FROM agno.run r
                                                                         WHERE r.tenant = s.tenant AND r.session_id = s.id)""",
    "a run has begun before one that comes before it in its session": """
        SELECT a.id, a.session_position, b.id, b.session_position FROM agno.run a JOIN agno.run b ON b.tenant = a.tenant AND b.session_id = a.session_id
        WHERE a.session_position < b.session_position AND a.started_at > b.started_at AND a.generation = 0
          AND a.session_status IN ('live', 'replaced') AND b.session_status IN ('live', 'replaced')""",
    "a run was replaced, and goes on": """
        SELECT id, status, reason FROM agno.run WHERE (session_status = 'replaced' OR rolled_back_at IS NOT NULL) AND ended_at IS NULL""",
    "a session has ended, and its status does not say so": """
        SELECT id, status, ended_at FROM agno.session WHERE (status IN ('ended', 'timed_out')) <> (ended_at IS NOT NULL)""",
    "a session has runs, and its status is that of one without": """
        SELECT s.id, s.status FROM agno.session s JOIN agno.run r ON r.tenant = s.tenant AND r.session_id = s.id
        WHERE s.status = 'created' AND r.session_position IS NOT NULL""",
    "a message waits to join a run that has ended": """
        SELECT t.id, t.run_id, r.status FROM agno.steer t JOIN agno.run r ON r.id = t.run_id WHERE t.status = 'pending' AND r.ended_at IS NOT NULL""",
    "a message joined a run at no turn of it, or without its text": """
        SELECT t.id, t.run_id, s.key, s.status FROM agno.steer t LEFT JOIN agno.step s ON s.id = t.step_id AND s.run_id = t.run_id
        WHERE t.status = 'committed' AND (s.kind IS DISTINCT FROM 'turn' OR s.status NOT IN ('done', 'dead')
            OR NOT EXISTS (SELECT FROM agno.message m WHERE m.run_id = t.run_id AND m.seq >= s.seq AND m.content = t.content))""",
    "a message was returned to no run, or joined one as well": """
        SELECT t.id, t.status, t.step_id, t.next_run_id FROM agno.steer t
        WHERE (t.status = 'committed') <> (t.step_id IS NOT NULL) OR (t.status = 'returned') <> (t.next_run_id IS NOT NULL)
           OR (t.status = 'pending') <> (t.decided_at IS NULL)
           OR t.status = 'returned' AND NOT EXISTS (SELECT FROM agno.message m WHERE m.run_id = t.next_run_id AND m.content = t.content)""",
    "a limit of a tree has not counted what the runs below it have used": """
        SELECT b.run_id, b.used_tokens, sum(r.input_tokens + r.output_tokens) FROM agno.budget b JOIN agno.run r
            ON r.id = b.run_id OR r.lineage->'limits' @> jsonb_build_array(jsonb_build_object('run_id', b.run_id))
        GROUP BY b.run_id HAVING b.used_tokens <> sum(r.input_tokens + r.output_tokens)""",
    "a map is done, and has not called each of its items once": """
        SELECT r.id, r.content->'count', count(s.id) FROM agno.run r LEFT JOIN agno.step s
            ON s.run_id = r.id AND s.generation = r.generation AND starts_with(s.key, 'item:') AND s.arrival > 0
        WHERE r.agent = 'agno:map' AND r.status = 'done' GROUP BY r.id HAVING count(s.id) <> (r.content->>'count')::int""",
    "an ingestion has a step of an agent, or an agent one of an ingestion": """
        SELECT s.run_id, s.key, r.agent FROM agno.step s JOIN agno.run r ON r.id = s.run_id
        WHERE (s.kind IN ('scan', 'ingest', 'embed', 'finalize')) <> (r.kind = 'ingestion')""",
    "background work has a step of an agent, or an agent one of background work": """
        SELECT s.run_id, s.key, r.agent FROM agno.step s JOIN agno.run r ON r.id = s.run_id
        WHERE (s.kind = 'background') <> (r.kind = 'background')""",
    "an open background run is not the one that does its work, or a row of open work has no open run": """
        SELECT r.id, b.kind, b.owner FROM agno.run r FULL JOIN agno.background b ON b.run_id = r.id
            AND b.tenant = r.tenant AND b.kind = r.metadata->>'kind' AND b.owner = r.metadata->>'owner'
        WHERE (r.kind = 'background' OR r.id IS NULL) AND (r.ended_at IS NULL) IS DISTINCT FROM (b.run_id IS NOT NULL)""",
    "background work was asked for that no run does, and none has failed": """
        SELECT i.id, i.kind, i.owner, i.run_id FROM agno.background_item i
        WHERE NOT EXISTS (SELECT FROM agno.background b WHERE (b.tenant, b.kind, b.owner) = (i.tenant, i.kind, i.owner))
          AND NOT EXISTS (SELECT FROM agno.run r WHERE r.tenant = i.tenant AND r.kind = 'background' AND r.status = 'failed'
                          AND r.metadata->>'kind' = i.kind AND r.metadata->>'owner' = i.owner)""",
    "an ingestion is scanned, or has sources, without its scan being done": """
        SELECT i.run_id, i.scanned_at FROM agno.ingestion i
        WHERE (i.scanned_at IS NOT NULL) <> EXISTS (SELECT FROM agno.step s WHERE s.run_id = i.run_id AND s.kind = 'scan' AND s.status = 'done')
           OR i.scanned_at IS NULL AND EXISTS (SELECT FROM agno.source p WHERE p.run_id = i.run_id)
           OR i.scanned_at IS NOT NULL AND i.total <> (SELECT count(*) FROM agno.source p WHERE p.run_id = i.run_id)""",
    "an ingestion is tidied while something of it is open": """
        SELECT s.run_id, s.key FROM agno.step s WHERE s.kind = 'finalize' AND s.status IN ('ready', 'running')
          AND (EXISTS (SELECT FROM agno.source p WHERE p.run_id = s.run_id AND p.status IN ('pending', 'taken'))
               OR EXISTS (SELECT FROM agno.step o WHERE o.run_id = s.run_id AND o.id <> s.id AND o.status IN ('ready', 'running', 'waiting')))""",
    "a source is in the hands of no step that is open, or in those of one and not taken": """
        SELECT p.run_id, p.uri, p.status, s.status FROM agno.source p JOIN agno.run r ON r.id = p.run_id LEFT JOIN agno.step s ON s.id = p.step_id
        WHERE r.ended_at IS NULL AND (p.status = 'taken') <> (s.status IS NOT NULL AND s.status IN ('ready', 'running'))""",
    "a source that failed does not say why, or one that is in has no document": """
        SELECT p.run_id, p.uri, p.status FROM agno.source p
        WHERE p.status = 'failed' AND p.error IS NULL OR p.status IN ('done', 'duplicate') AND p.document_id IS NULL""",
    "the counters of an ingestion are not the number of its sources": """
        SELECT i.run_id, c.documents, c.unchanged, c.duplicates, c.failed FROM agno.ingestion i, LATERAL (
            SELECT coalesce(sum(documents), 0) AS documents, coalesce(sum(unchanged), 0) AS unchanged, coalesce(sum(duplicates), 0) AS duplicates,
                   coalesce(sum(failed), 0) AS failed FROM agno.ingest_count n WHERE n.run_id = i.run_id) AS c
        WHERE (c.documents, c.unchanged, c.duplicates, c.failed) <> (
            SELECT count(*) FILTER (WHERE status = 'done'), count(*) FILTER (WHERE status = 'unchanged'),
                   count(*) FILTER (WHERE status = 'duplicate'), count(*) FILTER (WHERE status = 'failed')
            FROM agno.source p WHERE p.run_id = i.run_id)""",
    "what is counted as to be embedded is not in a step": """
        SELECT i.run_id, c.to_embed, s.chunks FROM agno.ingestion i JOIN agno.run r ON r.id = i.run_id,
            LATERAL (SELECT coalesce(sum(to_embed), 0) AS to_embed FROM agno.ingest_count n WHERE n.run_id = i.run_id) AS c,
            LATERAL (SELECT coalesce(sum(jsonb_array_length(call->'chunks')), 0) AS chunks FROM agno.step
                     WHERE step.run_id = i.run_id AND kind = 'embed' AND status IN ('ready', 'running', 'waiting')) AS s
        WHERE r.ended_at IS NULL AND c.to_embed <> s.chunks""",
    "a document does not have the chunks that it says": """
        SELECT d.uri, d.version, d.chunks, count(c.id) FROM agno.document d LEFT JOIN agno.chunk c ON c.document_id = d.id AND c.live
        GROUP BY d.id HAVING d.chunks <> count(c.id) OR d.version = 0 OR count(c.id) FILTER (WHERE c.version <> d.version) > 0
            OR count(DISTINCT c.position) <> count(c.id) OR max(c.position) + 1 <> count(c.id) AND count(c.run_id) = 0""",
    "a message of a past session is among documents, or a document is among messages": """
        SELECT k.name, d.uri, c.run_id FROM agno.chunk c JOIN agno.document d ON d.id = c.document_id JOIN agno.knowledge k ON k.id = c.knowledge_id
        WHERE (c.run_id IS NOT NULL) <> (k.name = 'agno:sessions') OR (c.run_id IS NULL) <> (c.said_at IS NULL)""",
    "a past session has messages of another one, or of another user": """
        SELECT d.uri, c.run_id FROM agno.chunk c JOIN agno.document d ON d.id = c.document_id JOIN agno.run r ON r.id = c.run_id
        WHERE d.metadata <> jsonb_build_object('user_id', r.user_id, 'session_id', r.session_id, 'agent', r.agent)""",
    "a chunk is of a version that nothing waits for": """
        SELECT d.uri, c.version, c.position FROM agno.chunk c JOIN agno.document d ON d.id = c.document_id
        WHERE NOT c.live AND (d.pending IS NULL OR c.version <> (d.pending->>'version')::int)""",
    "a document waits for a version of which chunks are gone": """
        SELECT d.uri, d.pending FROM agno.document d WHERE d.pending IS NOT NULL AND (d.pending->>'chunks')::int <>
            (SELECT count(*) FROM agno.chunk c WHERE c.document_id = d.id AND NOT c.live) + (
             SELECT count(*) FROM agno.chunk c, jsonb_array_elements(d.pending->'keep') AS kept (value)
             WHERE c.document_id = d.id AND c.live AND c.id = (kept.value->>'id')::bigint)""",
    "a duplicate has chunks of its own, or is that of a document without": """
        SELECT d.uri, o.uri, o.duplicate_of FROM agno.document d LEFT JOIN agno.document o ON o.id = d.duplicate_of
        WHERE d.duplicate_of IS NOT NULL AND (d.chunks <> 0 OR d.pending IS NOT NULL OR o.id IS NULL OR o.duplicate_of IS NOT NULL
            OR o.text_sha256 <> d.text_sha256)""",
    "the searched chunks of a knowledge base are not counted": """
        SELECT k.name, k.chunk_count, count(c.id) FROM agno.knowledge k LEFT JOIN agno.chunk c ON c.knowledge_id = k.id AND c.live
        GROUP BY k.id HAVING k.chunk_count <> count(c.id)""",
    "a text that is to get a vector is in no step": """
        SELECT d.uri, c.position, d.run_id FROM agno.chunk c JOIN agno.document d ON d.id = c.document_id JOIN agno.knowledge k ON k.id = d.knowledge_id
        JOIN agno.run r ON r.id = d.run_id JOIN agno.ingestion i ON i.run_id = r.id
        WHERE r.ended_at IS NULL AND i.scanned_at IS NOT NULL AND k.embedding_space_id IS NOT NULL AND c.refused IS NULL
          AND NOT EXISTS (SELECT FROM agno.chunk_embedding e WHERE e.chunk_id = c.id AND e.embedding_space_id = k.embedding_space_id)
          AND NOT EXISTS (SELECT FROM agno.step s WHERE s.kind = 'embed' AND s.status IN ('ready', 'running', 'waiting')
                          AND (s.call->>'embedding_space')::int = k.embedding_space_id AND s.call->'chunks' @> to_jsonb(c.id))""",
    "the newest change of a key of state is not its version": """
        SELECT s.scope, s.owner, s.key, s.version, max(c.version) FROM agno.state s JOIN agno.state_change c USING (tenant, scope, owner, key)
        GROUP BY s.tenant, s.scope, s.owner, s.key HAVING s.version <> max(c.version)""",
    "a knowledge base is searched in an embedding space that is not its current one": """
        SELECT k.name, k.embedding_space_id, s.id, s.status FROM agno.knowledge k JOIN agno.embedding_space s ON s.knowledge_id = k.id
        WHERE (s.status = 'current') <> (k.embedding_space_id IS NOT DISTINCT FROM s.id)""",
}

# What holds once all is over. Each gives a row for each violation: what it is about, and how it is wrong.
AT_REST = {
    "a run is not terminal": """
        SELECT id, agent, status FROM agno.run WHERE ended_at IS NULL""",
    "a step is left open": """
        SELECT id, key, status FROM agno.step WHERE status IN ('ready', 'running', 'waiting')""",
    "a message is left in the outbox": """
        SELECT id, step_id, ended_run_id, chord_id FROM agno.outbox""",
    "the barrier of a finished run did not fire, or with parts missing or too many": """
        SELECT b.id, b.arrived, b.size, b.fired_at FROM agno.barrier b
        JOIN agno.run r ON r.id = b.run_id AND r.generation = b.generation
        WHERE r.status = 'done' AND (b.fired_at IS NULL OR b.arrived < b.size
            OR b.arrived > b.size AND NOT EXISTS (SELECT FROM agno.step s WHERE s.barrier_id = b.id AND s.arrival IS NOT NULL))""",
    "a user's chord did not fire, or with parts missing or too many": """
        SELECT b.id, b.arrived, b.size, b.fired_at FROM agno.barrier b
        WHERE b.run_id IS NULL AND (b.fired_at IS NULL OR b.arrived IS DISTINCT FROM b.size
            OR b.arrived <> (SELECT count(*) FROM agno.chord_part p WHERE p.barrier_id = b.id))""",
    "a delegation is not one run that is over": """
        SELECT s.id, s.key, s.child_run_id, array_agg(child.id), array_agg(child.status) FROM agno.step s
        LEFT JOIN agno.run child ON child.parent_step_id = s.id
        WHERE s.kind = 'delegate' AND s.status = 'done' AND s.child_run_id IS NOT NULL GROUP BY s.id
        HAVING array_agg(child.id) <> ARRAY[s.child_run_id] OR bool_or(child.ended_at IS NULL)""",
    "a delegation did not hear what its run said": """
        SELECT s.id, s.key, child.content, m.content FROM agno.step s JOIN agno.run child ON child.parent_step_id = s.id
        LEFT JOIN agno.message m ON m.run_id = s.run_id AND m.seq = s.seq
        LEFT JOIN agno.stored_result r ON r.run_id = s.run_id AND r.seq = s.seq
        WHERE s.status = 'done' AND s.arrival IS NULL AND child.status = 'done' AND child.generation = 0 AND coalesce(r.content, agno.inflate(m.content) #>> '{parts,0,content}')
              IS DISTINCT FROM coalesce(agno.inflate(child.content) #>> '{}', '')""",
    "a program's call of a run has not the content of the run, or goes on without it": """
        SELECT s.run_id, s.key, s.status, child.status FROM agno.step s JOIN agno.run child ON child.parent_step_id = s.id
        WHERE s.arrival IS NOT NULL AND (child.ended_at IS NULL OR s.result IS NOT NULL AND (child.status <> 'done' OR s.result <> coalesce(child.content, 'null')))""",
    "a memory is not as its last version": """
        SELECT m.id, m.version, v.version, v.change FROM agno.memory m LEFT JOIN agno.memory_version v ON v.memory_id = m.id AND v.version = m.version
        WHERE (m.text, m.kind, m.confidence, m.replaced_by, m.contradicts, m.valid_to IS NULL)
              IS DISTINCT FROM (v.text, v.kind, v.confidence, v.replaced_by, v.contradicts, v.is_open)
           OR EXISTS (SELECT FROM agno.memory_version l WHERE l.memory_id = m.id AND l.version > m.version)""",
    "an ingestion did not use what its steps did": """
        SELECT r.id, r.input_tokens FROM agno.run r JOIN agno.ingestion i ON i.run_id = r.id
        WHERE r.ended_at IS NOT NULL AND r.input_tokens <> (SELECT coalesce(sum(tokens), 0) FROM agno.ingest_count c WHERE c.run_id = r.id)""",
    "a source of an ingestion that is done was not settled": """
        SELECT p.run_id, p.uri, p.status FROM agno.source p JOIN agno.run r ON r.id = p.run_id
        WHERE r.status = 'done' AND p.status IN ('pending', 'taken')""",
    "a document waits for vectors that nobody makes": """
        SELECT d.uri, d.pending FROM agno.document d JOIN agno.run r ON r.id = d.run_id WHERE d.pending IS NOT NULL AND r.status = 'done'""",
    "a text has no vector, and its ingestion was done": """
        SELECT d.uri, c.position FROM agno.chunk c JOIN agno.document d ON d.id = c.document_id JOIN agno.knowledge k ON k.id = d.knowledge_id
        JOIN agno.run r ON r.id = d.run_id
        WHERE r.status = 'done' AND k.embedding_space_id IS NOT NULL AND c.refused IS NULL
          AND NOT EXISTS (SELECT FROM agno.chunk_embedding e WHERE e.chunk_id = c.id AND e.embedding_space_id = k.embedding_space_id)""",
}


def hold(database_url: str, timeout_s: float = _SETTLES_IN_S) -> None:
    """Fails, with every row that is wrong, unless the invariants hold within `timeout_s`."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        if not comes(lambda: not _violations(connection), timeout_s) and (found := _violations(connection)):
            pytest.fail("\n".join(["these invariants do not hold:", *found[:20]]))


def usage_adds_up(database_url: str) -> None:
    """Fails unless each run has used what its transcript says, however often its turns were asked: for scripted models, which
    count words, and prices (if any) of a dollar a word. Runs with a summary are left out: it is not in their transcript. So are those of
    workflows, which ask no model, and of teams and their members, which have instructions of their own.
    """
    with psycopg.connect(database_url) as connection:
        wrong = connection.execute("""
            WITH said AS (
                SELECT m.run_id, m.seq, agno.inflate(m.content)->>'role' AS role,
                       coalesce((SELECT sum(cardinality(regexp_split_to_array(btrim(p->>'text', E' \n'), '\\s+')))
                                 FROM jsonb_array_elements(agno.inflate(m.content)->'parts') p
                                 WHERE p->>'type' = 'text' AND btrim(p->>'text', E' \n') <> ''), 0) AS words
                FROM agno.message m),
            used AS (
                SELECT reply.run_id, sum(reply.words) AS output,
                       sum((SELECT coalesce(sum(before.words), 0) FROM said before
                            WHERE before.run_id = reply.run_id AND before.seq < reply.seq)) AS input
                FROM said reply WHERE reply.role = 'assistant' GROUP BY reply.run_id)
            SELECT r.id, r.agent, r.input_tokens, used.input, r.output_tokens, used.output, r.cost_usd
            FROM agno.run r LEFT JOIN used ON used.run_id = r.id
            WHERE r.kind = 'agent' AND r.lineage->'team' IS NULL AND NOT EXISTS (SELECT FROM agno.compaction c WHERE c.run_id = r.id)
              AND ((r.input_tokens, r.output_tokens) IS DISTINCT FROM (coalesce(used.input, 0), coalesce(used.output, 0))
                   OR r.cost_usd NOT IN (0, r.input_tokens + r.output_tokens))""").fetchall()
    if wrong:
        pytest.fail("\n".join(["the usage of these runs does not add up:", *(str(row) for row in wrong)]))


def comes(condition: Callable[[], object], timeout_s: float = _SETTLES_IN_S) -> bool:
    """Whether a condition of the outside world comes true in time."""
    tick = threading.Event()
    for _ in range(round(timeout_s * 50)):
        if condition():
            return True
        tick.wait(0.02)
    return False


def until(condition: Callable[[], object], timeout_s: float = 30) -> None:
    """Wait for a condition of the outside world, such as a file that a tool writes; fails when it never comes."""
    if not comes(condition, timeout_s):
        pytest.fail(f"the condition did not come within {timeout_s} s")


def _violations(connection: psycopg.Connection) -> list[str]:
    return [
        f"{name}: {' '.join(map(str, row))}"
        for name, statement in {**ALWAYS, **AT_REST}.items()
        for row in connection.execute(statement).fetchall()
    ]


# Coverage: what the invariants above know of the tables, and what the proof by a model moves. integration/runs/
# test_coverage.py fails where a table, a word or a statement is new and not said here. A word in quotes that holds a space is
# the name of an invariant; one without is a constraint of the tables.

TABLES = {
    "run": "nothing will ever move this run: it is open, and none of its steps is",
    "step": "a step is open of a run that has ended, or of an older generation",
    "barrier": "a barrier has not counted the results of its calls",
    "compaction": "a summary stands for messages that are not there",
    "stored_result": "a stored result has no preview",
    "message": "a turn would read a transcript with a gap, or what comes after it",
    "session": "a run waits for its turn in a session in which nothing holds it up",
    "signal": "a signal is kept while a step waits for it",
    "steer": "a message waits to join a run that has ended",
    "chord_part": "a user's chord fired with parts missing, or did not count one",
    "outbox": "a message is left in the outbox",
    "ingestion": "an ingestion is scanned, or has sources, without its scan being done",
    "source": "a source is in the hands of no step that is open, or in those of one and not taken",
    "ingest_count": "the counters of an ingestion are not the number of its sources",
    "document": "a document does not have the chunks that it says",
    "chunk": "a chunk is of a version that nothing waits for",
    "chunk_embedding": "a text that is to get a vector is in no step",
    "knowledge": "the searched chunks of a knowledge base are not counted",
    "embedding_space": "a knowledge base is searched in an embedding space that is not its current one",
    "background": "an open background run is not the one that does its work, or a row of open work has no open run",
    "background_item": "background work was asked for that no run does, and none has failed",
}
REFERENCE_ONLY = {
    "task_result": "results of users' own tasks: tests/contract",
    "task_group": "the same, of their groups",
    "revoked": "ids that a later submit cancels: test_revoke.py",
    "delayed_task": "users' own tasks: test_plain_tasks.py",
    "blob": "content by its hash, only inserted: test_payloads.py",
    "definition": "agents by their hash, only inserted",
    "batch": "names runs, which are checked one by one: test_bulk.py",
    "worker": "who was seen when: nothing follows from it",
    "agent": "agents by name, as workers register them: test_submit.py",
    "run_event": "events, numbered when they are first read: test_looking.py",
    "quarantine": "kept for people, nothing reads it",
    "meta": "the epoch and the lead: test_keeper.py",
    "near_band": "what an earlier version wrote, a hint: test_search.py",
    "lexeme": "counted anew from the chunks: test_search_index.py",
    "review": "notes for people: test_feedback.py",
    "gap": "questions, counted: test_feedback.py",
    "feedback": "results, counted: test_feedback.py",
    "run_context": "what runs were given, only inserted: test_context.py",
    "context_value": "values from outside, fetched again when they are old: test_context.py",
    "context_access": "uses of context, only inserted: test_context.py",
    "consent": "what users said: test_context.py",
    "memory": "facts of people: test_memories.py and test_learning.py; a memory is as its last version (AT_REST)",
    "memory_version": "the changes of memories, only added and redacted: test_memories.py",
    "grounding": "what runs were given, only inserted: test_feedback.py",
    "state": "its version is that of its newest change; values by a model: test_state_history.py",
    "state_change": "as state",
    "report": "what steps said of their progress, only inserted",
    "map_item": "the items of maps, only inserted",
    "budget": "the limits of trees of runs",
    "budget_hold": "what calls under way may still use",
}
WORDS = {
    "run.kind": {
        "agent": "an ingestion has a step of an agent, or an agent one of an ingestion",
        "team": "an ingestion has a step of an agent, or an agent one of an ingestion",
        "workflow": "an ingestion has a step of an agent, or an agent one of an ingestion",
        "ingestion": "an ingestion has a step of an agent, or an agent one of an ingestion",
        "background": "background work has a step of an agent, or an agent one of background work",
    },
    "run.status": {
        "queued": "a run is queued, and its turn has begun",
        "running": "a run is running without a turn under way",
        "waiting": "a run is waiting while its turn is under way",
        "done": "a run is done without an answer",
        "failed": "a run that has failed does not say why",
        "cancelled": "a run that has failed does not say why",
    },
    "step.status": {
        "ready": "a ready step without a timer was never sent, so that the keeper will not miss it",
        "running": "step_lease",
        "waiting": "step_waiting",
        "done": "a call that ended has no result, or one that is open has",
        "unknown": "it is not known what became of a step that may be repeated",
        "dead": "a step is dead, and nothing says why",
        "cancelled": "a step is cancelled in a generation that goes on",
    },
    "step.kind": {
        "turn": "a turn is open beside another open step",
        "tool": "a call that ended has no result, or one that is open has",
        "delegate": "a delegation is carried by a worker",
        "scan": "an ingestion is scanned, or has sources, without its scan being done",
        "ingest": "a source is in the hands of no step that is open, or in those of one and not taken",
        "embed": "what is counted as to be embedded is not in a step",
        "finalize": "an ingestion is tidied while something of it is open",
        "background": "background work has a step of an agent, or an agent one of background work",
        "compact": "a turn waits for a compaction that nobody makes, or a compaction is made for no turn",
        "wait": "a step waits for somebody who can do nothing for it",
    },
    "step.waits_for": {
        "confirmation": "a step waits for somebody who can do nothing for it",
        "answer": "a step waits for somebody who can do nothing for it",
        "execution": "a step waits for somebody who can do nothing for it",
        "resolution": "a step waits for somebody who can do nothing for it",
        "run": "a delegation waits for a run that is over, or waits for another",
        "window": "a step waits for somebody who can do nothing for it",
        "compaction": "a turn waits for a compaction that nobody makes, or a compaction is made for no turn",
        "session": "a run that waits for its turn may begin, or one that may begin waits",
        "timer": "a step waits for somebody who can do nothing for it",
        "signal": "a signal is kept while a step waits for it",
    },
    "session.status": {
        "created": "a session has runs, and its status is that of one without",
        "active": "a run waits for its turn in a session in which nothing holds it up",
        "paused": "a run waits for its turn in a session in which nothing holds it up",
        "ended": "a session has ended, and its status does not say so",
        "timed_out": "a session has ended, and its status does not say so",
    },
    "steer.status": {
        "pending": "a message waits to join a run that has ended",
        "committed": "a message joined a run at no turn of it, or without its text",
        "returned": "a message was returned to no run, or joined one as well",
    },
    "source.status": {
        "pending": "a source is in the hands of no step that is open, or in those of one and not taken",
        "taken": "a source is in the hands of no step that is open, or in those of one and not taken",
        "done": "a source that failed does not say why, or one that is in has no document",
        "unchanged": "the counters of an ingestion are not the number of its sources",
        "duplicate": "a source that failed does not say why, or one that is in has no document",
        "failed": "a source that failed does not say why, or one that is in has no document",
    },
    "embedding_space.status": {
        "building": "a knowledge base is searched in an embedding space that is not its current one",
        "current": "a knowledge base is searched in an embedding space that is not its current one",
        "retired": "a knowledge base is searched in an embedding space that is not its current one",
    },
}
MOVES = {
    "runs/batch.messages": "submit_many",
    "runs/batch.runs": "submit_many",
    "runs/batch.steps": "submit_many",
    "runs/commit.answer": "answer",
    "runs/commit.ask_person": "execute",
    "runs/claim.end_lease": "end_lease",
    "runs/control.pause": "pause",
    "runs/outbox.published": "publish_outbox",
    "runs/claim.renew": "renew",
    "runs/claim.renew_all": "renew",
    "runs/control.resume": "resume",
    "runs/claim.retry": "try_turn_later",
    "runs/claim.return_step": "step_does_not_begin",
    "runs/agents.register": "worker_with_the_agents_starts",
    "runs/claim.set_deadline": "set_deadline",
    "runs/maintain.release_expired": "expire_leases",
    "runs/maintain.take_due": "send_due",
    "runs/maintain.take_forgotten": "resend",
    "runs/maintain.take_lost": "resend",
    "runs/maintain.take_outbox": "publish_outbox",
    "runs/maintain.take_overdue": "resend",
    "runs/results.hold_continuation": "publish_outbox",
    "runs/results.release_continuation": "publish_outbox",
    "runs/workers.hand_over": "hand_over",
    # Functions of the database.
    "arm_barrier": "program_goes_on",
    "cancel_calls": "program_goes_on",
    "count_parts": "execute",
    "end_held_waits": "end_due_timers",
    "number_arrivals": "execute",
    "send_signal": "send_signal",
    "take_signals": "send_signal",
    "chord_part": "submit_chord",
    "close_chord": "submit_chord",
    "end_alike": "submit_with",
    "end_delegation": "end",
    "begin_compaction": "begin_compaction",
    "end_compaction": "end_compaction",
    "fork_run": "fork",
    "claim_steps": "receive",
    "end_open_steps": "cancel",
    "end_steps": "execute",
    "finish_steps": "fan_out",
    "move_runs": "fan_out",
    "retry_run": "retry_run",
    "keep_calls": "retry_run",
    "write_steps": "submit",
    "run_ended": "end",
    "size_chord": "submit_chord",
    "stand_in": "submit_with",
    "submit_canvas": "submit_chord",
    "submit_run": "submit_by_sql",
}
"""Whatever writes a run, a step, a barrier, a message or what is owed, and the rule of the proof that does it."""

INGEST_MOVES = {
    "knowledge/store/ingest.copy_vectors": "record",
    "knowledge/store/ingest.count": "record",
    "knowledge/store/ingest.drop_chunks": "record",
    "knowledge/store/ingest.drop_retired": "record",
    "knowledge/store/ingest.end_sources": "record",
    "knowledge/store/ingest.free_sources": "break_down",
    "knowledge/store/ingest.upsert_documents": "record",
    "knowledge/store/ingest.update_call": "receive",
    "knowledge/store/ingest.clear_vectors_missing": "record",
    "knowledge/store/ingest.raise_version": "record",
    "knowledge/store/ingest.refuse": "record",
    "knowledge/store/ingest.remove_documents": "take_out",
    "knowledge/store/ingest.scanned": "record",
    "knowledge/store/ingest.switch_embedding_space": "another_model",
    "knowledge/store/ingest.touch_documents": "record",
    "knowledge/store/ingest.write_retry": "record",
    "knowledge/store/ingest.write_documents": "record",
    "knowledge/store/ingest.write_embeds": "record",
    "knowledge/store/bases.ensure": "submit",
    "knowledge/store/bases.ensure_embedding_space": "receive",
    "knowledge/store/bases.raise_version": "take_out",
    # Functions of the database.
    "begin_ingestion": "submit",
    "reassign_chunks": "take_out",
    "ingestion_ends": "break_down",
    "schedule_next": "follow_up",
    "merge_duplicates": "record",
    "switch_documents": "record",
}
"""The same, of ingestions; their rules are in integration/knowledge/store/test_ingest_machine.py."""
SESSION_MOVES = {
    "runs/maintain.time_out_sessions": "time_out_sessions",
    # Functions of the database.
    "add_steer": "submit_with",
    "commit_steers": "end",
    "enter_beside": "fork",
    "enter_session": "submit_with",
    "hold_session": "submit_with",
    "leave_session": "end",
    "pause_session": "pause_session",
    "reenter_session": "retry_run",
    "replace_run": "submit_with",
    "resume_session": "resume_session",
    "return_steers": "end",
    "take_place": "send_due",
    "wake_session": "end",
}
"""The same, of sessions; their rules are in integration/sessions/test_session_machine.py."""
MOVED_ELSEWHERE = {
    "runs/claim.continue_with": "test_leading.py",
    "runs/budget.put_off": "test_budgets.py",
    "take_over_items": "test_maps.py",
    "copy_calls": "test_written.py",
    "background_ended": "test_background.py",
    "request_background": "test_background.py",
    "retry_background": "test_background.py",
    "sessions/background.take": "test_background.py",
    "sessions/summary.write": "test_summary.py",
    "sessions/memory_store.forget_asked": "test_memories.py",
    "attach_partition": "test_search_index.py",
    "count_words": "test_search_index.py",
    "drop_partition": "test_search_index.py",
    "knowledge/store/search.indexed": "test_search_index.py",
    "knowledge/store/search.words_written": "test_words.py",
    "knowledge/store/search.write_words": "test_words.py",
    "knowledge/store/bases.remove": "test_bases.py",
    "knowledge/store/bases.retry_models": "test_ingest.py",
    "knowledge/store/bases.stop_reindex": "test_ingest.py",
    "knowledge/store/ingest.stop_model": "test_ingest.py",
    "knowledge/store/talk.create": "test_past_sessions.py",
    "write_talk": "test_past_sessions.py",
    "sessions/store.create": "test_lifecycle.py",
    "sessions/store.update": "test_lifecycle.py",
    "end_session": "test_lifecycle.py",
    "begin_delete_session": "test_lifecycle.py",
    "forget_exchanges": "test_past_sessions.py",
    "store_result": "test_long_runs.py",
    "runs/prune.delete": "test_prune.py",
    "sessions/store.delete_runs": "test_lifecycle.py",
    "sessions/store.delete": "test_lifecycle.py",
    "sessions/store.forget_background": "test_lifecycle.py",
    "fork_session": "test_lifecycle.py",
    "roll_back_session": "test_lifecycle.py",
    "database/identity.cut_canvases": "test_databases.py",
    "database/identity.forget_messages": "test_databases.py",
}
"""What writes the same tables without moving anything in them, and where it is tested."""
