-- Submit runs; agno.submit_run in functions/submit.sql does the work.

-- name: submit
-- `due` is false for a run that existed already and for one with a timer.
SELECT run_id, created, step_id, outbox_id, kind, queue, priority, due FROM agno.submit_run(%(run)s);

-- name: submit_canvas
SELECT run_id, created, step_id, outbox_id, kind, queue, priority, due FROM agno.submit_canvas(%(canvas)s);

-- name: agents
SELECT name FROM agno.agent WHERE tenant = %(tenant)s ORDER BY name;

-- name: wake_keeper
SELECT pg_notify('agno_outbox', '');
