-- Every workflow has its run: the row came first, so no workflow of this product database is an orphan.
-- Looks at workflows of runs: SELECT count(*) FROM pg_temp.engine_workflows WHERE name = 'intent_run'

-- By hand, at the root of a checkout: scripts/db/psql-both.sh -f db/invariants/workflows_have_runs.sql
SELECT w.id AS subject, format('workflow %s without a row in app.runs', w.status) AS finding,
       -- The sweep makes a run of a workflow that somebody forked.
       CASE WHEN w.forked_from IS NOT NULL THEN interval '2 s' END AS allowed
FROM pg_temp.engine_workflows w
WHERE w.name = 'intent_run'
  -- Not the window of runs: unfinished workflows of older ones are loaded, too.
  AND NOT EXISTS (SELECT FROM app.runs r WHERE r.workflow_id = w.id);
