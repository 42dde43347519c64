-- A run is executed once at a time: of its executions one is open at most, by a worker that lives, and whoever recorded a
-- step held the run's claim.
-- Looks at executions: SELECT count(*) FROM pg_temp.run_claims

-- By hand, at the root of a checkout: scripts/db/psql-both.sh -f db/invariants/one_execution.sql
SELECT 'app.run_claims' AS subject, 'no unique index on (run_id) that would refuse a second open claim' AS finding,
       NULL::interval AS allowed
WHERE NOT EXISTS (
    SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = 'run_id'
    WHERE i.indrelid = to_regclass('app.run_claims') AND i.indisunique AND i.indisvalid AND i.indpred IS NOT NULL
      AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum)
UNION ALL
SELECT run_id, format('%s executions are open at the same time', count(*)), NULL
FROM pg_temp.run_claims WHERE ended_at IS NULL GROUP BY run_id HAVING count(*) > 1
UNION ALL
SELECT run_id, format('execution %s is open, and the run has a later one, %s', min(epoch) FILTER (WHERE ended_at IS NULL),
                      max(epoch)), NULL
FROM pg_temp.run_claims GROUP BY run_id
HAVING count(*) FILTER (WHERE ended_at IS NULL) = 1 AND min(epoch) FILTER (WHERE ended_at IS NULL) < max(epoch)
UNION ALL
SELECT run_id, format('%s executions, numbered to %s', count(*), max(epoch)), NULL
FROM pg_temp.run_claims GROUP BY run_id HAVING count(*) <> max(epoch)
UNION ALL
SELECT format('%s/%s', s.run_id, s.step_id), format('recorded by execution %s, which never held the claim', s.epoch), NULL
FROM pg_temp.run_steps s LEFT JOIN pg_temp.run_claims c ON c.run_id = s.run_id AND c.epoch = s.epoch
WHERE s.epoch IS NOT NULL AND c.run_id IS NULL
UNION ALL
SELECT c.run_id, format('execution %s belongs to %s, which is no live worker', c.epoch, c.worker), interval '12 s'
FROM pg_temp.run_claims c
WHERE c.ended_at IS NULL AND c.worker NOT IN (SELECT k.executor_id FROM pg_temp.engine_workers k)
  -- Where none lives, the next one ends it.
  AND EXISTS (SELECT FROM pg_temp.engine_workers)
UNION ALL
SELECT c.run_id, format('execution %s is open, and its workflow ended as %s', c.epoch, w.status), interval '5 s'
FROM pg_temp.run_claims c JOIN pg_temp.runs r ON r.id = c.run_id
JOIN pg_temp.engine_workflows w ON w.id = r.workflow_id
WHERE c.ended_at IS NULL AND w.status IN ('SUCCESS', 'ERROR')
UNION ALL
-- A worker that has room for nothing more has claims. One without any has forgotten the run, until it looks for such rows.
SELECT r.id, format('its workflow is PENDING at %s, which executes nothing', w.executor_id), interval '40 s'
FROM pg_temp.runs r JOIN pg_temp.engine_workflows w ON w.id = r.workflow_id
WHERE w.status = 'PENDING' AND w.name = 'intent_run'
  AND w.executor_id IN (SELECT k.executor_id FROM pg_temp.engine_workers k)
  AND NOT EXISTS (SELECT FROM app.run_claims c WHERE c.ended_at IS NULL AND (c.run_id = r.id OR c.worker = w.executor_id));
