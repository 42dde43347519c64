-- Every failed run says why, in app.runs.error and in one artifact of kind error, and no other run has such an
-- artifact.
-- Looks at runs: SELECT count(*) FROM pg_temp.runs

-- By hand, at the root of a checkout: scripts/db/psql-both.sh -f db/invariants/failed_runs_say_why.sql
SELECT r.id AS subject,
       CASE WHEN r.status <> 'failed' THEN format('%s, and has an artifact of kind error all the same', r.status)
            WHEN r.error IS NULL THEN 'failed, and app.runs.error is empty'
            WHEN e.errors IS NULL THEN 'failed, and has no artifact of kind error'
            WHEN e.errors > 1 THEN format('failed, and has %s artifacts of kind error', e.errors)
            ELSE 'failed, and its artifact of kind error says something else than app.runs.error'
       END AS finding,
       NULL::interval AS allowed
FROM pg_temp.runs r
LEFT JOIN (
    SELECT run_id, count(*) AS errors, min(inline::text) AS content, min(step_id) AS step_id
    FROM pg_temp.artifacts WHERE kind = 'error' GROUP BY run_id
) e ON e.run_id = r.id
WHERE CASE WHEN r.status = 'failed'
           THEN r.error IS NULL OR e.errors IS DISTINCT FROM 1 OR e.content IS DISTINCT FROM r.error::text
                OR coalesce(r.error ->> 'code', '') = '' OR r.error ->> 'message' IS NULL
                OR e.step_id <> coalesce(r.error ->> 'stepId', 'run')
           ELSE e.errors IS NOT NULL
      END;
