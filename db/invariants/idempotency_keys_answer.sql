-- Every idempotency key answers with what its request made, and no two keys with the same.
-- Looks at keys: SELECT count(*) FROM app.idempotency_keys

-- By hand, at the root of a checkout: scripts/db/psql-both.sh -f db/invariants/idempotency_keys_answer.sql
SELECT format('%s %s', k.scope, k.key) AS subject, format('answers %s, which does not exist', left(k.body, 120)) AS finding,
       NULL::interval AS allowed
FROM app.idempotency_keys k
-- Not the window of runs: keys are looked at whole.
LEFT JOIN app.runs r ON r.id = substring(k.body FROM '"runId":"([^"]*)"')
LEFT JOIN app.intents i ON i.id = substring(k.body FROM '"intentId":"([^"]*)"')
WHERE CASE k.scope WHEN 'POST /intents/:id/run' THEN r.id IS NULL WHEN 'POST /intents' THEN i.id IS NULL ELSE false END
UNION ALL
SELECT format('%s %s', k.scope, min(k.key)), format('%s keys answer %s', count(*), left(k.body, 120)), NULL
FROM app.idempotency_keys k GROUP BY k.scope, k.body HAVING count(*) > 1;
