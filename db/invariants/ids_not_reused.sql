-- No id is used twice: intents and runs have ids of their own, and a run's workflow has the run's id, unless it is a
-- fork, and is an intent_run.
-- Looks at intents, runs and workflows: SELECT (SELECT count(*) FROM app.intents) + (SELECT count(*) FROM pg_temp.runs)
-- + (SELECT count(*) FROM pg_temp.engine_workflows)

-- By hand, at the root of a checkout: scripts/db/psql-both.sh -f db/invariants/ids_not_reused.sql
SELECT r.id AS subject, 'is no id that this service makes (run_ and 32 hexadecimal digits)' AS finding,
       NULL::interval AS allowed
FROM pg_temp.runs r WHERE r.id !~ '^run_[0-9a-f]{32}$'
UNION ALL
SELECT r.id, format('its workflow_id is another one: %s', r.workflow_id), NULL
FROM pg_temp.runs r WHERE r.workflow_id <> r.id AND r.forked_from IS NULL
UNION ALL
SELECT i.id, 'is no id that this service makes (it_ and 32 hexadecimal digits)', NULL
FROM app.intents i WHERE i.id !~ '^it_[0-9a-f]{32}$'
UNION ALL
SELECT w.id, format('has the id of a run, but is a workflow named %s', coalesce(w.name, '(nothing)')), NULL
FROM pg_temp.engine_workflows w JOIN pg_temp.runs r ON r.workflow_id = w.id
WHERE w.name IS DISTINCT FROM 'intent_run'
UNION ALL
SELECT min(r.id), format('%s runs share the id', count(*)), NULL FROM pg_temp.runs r GROUP BY r.id HAVING count(*) > 1
UNION ALL
SELECT w.id, format('%s workflows share the id', count(*)), NULL
FROM pg_temp.engine_workflows w GROUP BY w.id HAVING count(*) > 1;
