-- The workflows of one product database, of runs from the first that is looked at on, and what is under way of older ones:
-- it says which worker is busy. As `kodo prove` and scripts/db/psql-both.sh hand them to its session.
SELECT workflow_uuid, name, status, executor_id, queue_name, forked_from,
       -- As this version records that a workflow is no run's (see workers/execute.rs and workers/idle.rs).
       coalesce(error LIKE '{"Application":{"code":"run_missing",%'
                OR error LIKE '{"Application":{"code":"input_unreadable",%', false)
FROM dbos.workflow_status
WHERE application_name = 'sisu-kodo-' || :'instance'
  AND (workflow_uuid >= :'first_run' OR workflow_uuid !~ '^run_[0-9a-f]{32}$' OR status = 'PENDING')
