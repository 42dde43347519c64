-- Every workflow has its run: the row came first, so no workflow of this product database that did anything is an orphan.
-- Looks at workflows of runs: SELECT count(*) FROM pg_temp.engine_workflows WHERE name = 'intent_run'

-- By hand, at the root of a checkout: scripts/db/psql-both.sh -f db/invariants/workflows_have_runs.sql
SELECT w.id AS subject, format('workflow %s without a row in app.runs', w.status) AS finding,
       CASE WHEN fork.of_run THEN interval '2 s' WHEN w.status = 'PENDING' THEN interval '12 s' END AS allowed
FROM pg_temp.engine_workflows w
-- The sweep makes a run of a fork of a run, unless no run can have its id.
CROSS JOIN LATERAL (SELECT octet_length(w.id) <= 256 AND EXISTS (
    SELECT FROM app.runs r WHERE r.workflow_id = w.forked_from) AS of_run) fork
WHERE w.name = 'intent_run'
  -- Not the window of runs: unfinished workflows of older ones are loaded, too.
  AND NOT EXISTS (SELECT FROM app.runs r WHERE r.workflow_id = w.id)
  -- A client of the engine can write anything into its queue. It is refused when it begins, and does nothing.
  AND (fork.of_run AND NOT w.refused OR CASE
           WHEN w.status IN ('ENQUEUED', 'DELAYED') THEN false
           WHEN w.refused OR w.status IN ('CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')
           THEN w.forked_from IS NULL
                AND EXISTS (SELECT FROM pg_temp.engine_checkpoints c WHERE c.workflow_id = w.id)
           ELSE true
       END);
