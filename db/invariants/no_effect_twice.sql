-- No effect happened twice: each mark, step and artifact is recorded once, and each step checkpointed once.
-- Looks at marks, steps, artifacts and checkpoints: SELECT (SELECT count(*) FROM app.marks) + (SELECT count(*) FROM
-- pg_temp.run_steps) + (SELECT count(*) FROM pg_temp.artifacts) + (SELECT count(*) FROM pg_temp.engine_checkpoints)

-- By hand, at the root of a checkout: scripts/db/psql-both.sh -f db/invariants/no_effect_twice.sql
SELECT format('app.%s', k.relation) AS subject,
       format('no primary key (%s) that would refuse a second effect', k.key) AS finding,
       NULL::interval AS allowed
FROM (VALUES ('marks', 'run_id, step'), ('run_steps', 'run_id, step_id'), ('artifacts', 'run_id, step_id, idx'),
             ('runs', 'id'), ('intents', 'id'), ('idempotency_keys', 'scope, key')) AS k (relation, key)
WHERE NOT EXISTS (
    SELECT FROM pg_constraint c
    WHERE c.conrelid = to_regclass('app.' || k.relation) AND c.contype = 'p'
      AND pg_get_constraintdef(c.oid) = format('PRIMARY KEY (%s)', k.key))
UNION ALL
SELECT format('%s/%s', run_id, step), format('the mark is recorded %s times', count(*)), NULL
FROM app.marks GROUP BY run_id, step HAVING count(*) > 1
UNION ALL
SELECT format('%s/%s', run_id, step_id), format('the step is recorded %s times', count(*)), NULL
FROM pg_temp.run_steps GROUP BY run_id, step_id HAVING count(*) > 1
UNION ALL
SELECT format('%s/%s/%s', run_id, step_id, idx), format('the artifact is kept %s times', count(*)), NULL
FROM pg_temp.artifacts GROUP BY run_id, step_id, idx HAVING count(*) > 1
UNION ALL
SELECT format('%s/%s', workflow_id, function_name), format('the step is checkpointed %s times', count(*)), NULL
FROM pg_temp.engine_checkpoints
WHERE function_name IN ('plan', 's1', 's2') OR function_name LIKE 'tool-%'
GROUP BY workflow_id, function_name HAVING count(*) > 1;
