-- Steps and checkpoints match: a checkpoint only after its row, and in a workflow that succeeded one for each row,
-- without a gap.
-- Looks at steps and checkpoints: SELECT (SELECT count(*) FROM pg_temp.run_steps) + (SELECT count(*) FROM
-- pg_temp.engine_checkpoints)

-- By hand, at the root of a checkout: scripts/db/psql-both.sh -f db/invariants/checkpoints_match_steps.sql
SELECT w.id AS subject,
       format('ended as SUCCESS with %s checkpoints, numbered %s to %s', count(c.function_id),
              coalesce(min(c.function_id)::text, 'nothing'), coalesce(max(c.function_id)::text, 'nothing')) AS finding,
       NULL::interval AS allowed
FROM pg_temp.engine_workflows w LEFT JOIN pg_temp.engine_checkpoints c ON c.workflow_id = w.id
WHERE w.status = 'SUCCESS' AND w.name IN ('intent_run', 'crash_demo')
GROUP BY w.id
HAVING count(c.function_id) = 0 OR min(c.function_id) <> 0 OR max(c.function_id) <> count(c.function_id) - 1
UNION ALL
SELECT format('%s/%s', c.workflow_id, c.function_name), 'the engine has a checkpoint, app.run_steps has no row', NULL
FROM pg_temp.engine_checkpoints c JOIN pg_temp.runs r ON r.workflow_id = c.workflow_id
LEFT JOIN pg_temp.run_steps s ON s.run_id = r.id AND s.step_id = c.function_name
WHERE NOT c.failed AND (c.function_name = 'plan' OR c.function_name LIKE 'tool-%') AND s.run_id IS NULL
UNION ALL
SELECT format('%s/%s', s.run_id, s.step_id), 'app.run_steps has a row, the engine has no checkpoint', NULL
FROM pg_temp.run_steps s
JOIN pg_temp.runs r ON r.id = s.run_id
JOIN pg_temp.engine_workflows w ON w.id = r.workflow_id AND w.status = 'SUCCESS' AND w.name = 'intent_run'
LEFT JOIN pg_temp.engine_checkpoints c ON c.workflow_id = w.id AND c.function_name = s.step_id AND NOT c.failed
WHERE c.workflow_id IS NULL;
