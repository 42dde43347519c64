-- The checkpoints of these workflows.
SELECT o.workflow_uuid, o.function_id, o.function_name, o.error IS NOT NULL
FROM dbos.operation_outputs o
JOIN dbos.workflow_status w ON w.workflow_uuid = o.workflow_uuid
WHERE w.application_name = 'sisu-kodo-' || :'instance'
  AND (w.workflow_uuid >= :'first_run' OR w.workflow_uuid !~ '^run_[0-9a-f]{32}$')
