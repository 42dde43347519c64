-- No run is stranded: while a worker lives, every run that is not over is being worked on or waits its turn.
-- Looks at unfinished runs: SELECT count(*) FROM pg_temp.runs WHERE status IN ('queued', 'running', 'waiting_input')

-- By hand, at the root of a checkout: scripts/db/psql-both.sh -f db/invariants/no_run_stranded.sql
SELECT r.id AS subject,
       CASE WHEN w.id IS NULL THEN format('%s, without a workflow, while a worker is idle', r.status)
            WHEN w.status = 'PENDING'
            THEN format('%s, but its workflow belongs to %s, which is no live worker', r.status,
                        coalesce(w.executor_id, 'nobody'))
            ELSE format('%s, but its workflow stays %s, while a worker is idle', r.status, w.status)
       END AS finding,
       -- A worker that may live is waited for 10 s, by a sweep every 2 s; a queue is polled once a second.
       CASE WHEN w.status = 'PENDING' THEN interval '12 s' ELSE interval '3 s' END AS allowed
FROM pg_temp.runs r LEFT JOIN pg_temp.engine_workflows w ON w.id = r.workflow_id
WHERE r.status IN ('queued', 'running', 'waiting_input')
  AND CASE WHEN w.id IS NULL OR w.status IN ('ENQUEUED', 'DELAYED') THEN EXISTS (SELECT FROM pg_temp.idle_workers)
           WHEN w.status = 'PENDING'
           THEN EXISTS (SELECT FROM pg_temp.engine_workers)
                AND (w.executor_id IS NULL
                     OR w.executor_id NOT IN (SELECT k.executor_id FROM pg_temp.engine_workers k))
           ELSE false
      END;
