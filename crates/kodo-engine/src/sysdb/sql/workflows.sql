-- The workflows of one product database, as `kodo prove` and scripts/db/psql-both.sh hand them to its session.
SELECT workflow_uuid, name, status, executor_id, queue_name, forked_from
FROM dbos.workflow_status
WHERE application_name = 'sisu-kodo-' || :'instance'
  AND (workflow_uuid >= :'first_run' OR left(workflow_uuid, 4) <> 'run_')
