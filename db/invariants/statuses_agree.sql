-- Runs and workflows agree: a run says how it ended exactly where its workflow ended so, or was deleted since.
-- Looks at runs: SELECT count(*) FROM pg_temp.runs

-- By hand, at the root of a checkout: scripts/db/psql-both.sh -f db/invariants/statuses_agree.sql
SELECT subject, finding, allowed
FROM (
    SELECT r.id AS subject,
           CASE
               WHEN w.id IS NULL THEN
                   -- Clients of the engine delete what has ended; what was executed had a workflow, and a fork was made
                   -- from one.
                   CASE WHEN r.status IN ('succeeded', 'failed', 'canceled') AND r.forked_from IS NULL
                             AND NOT EXISTS (SELECT FROM app.run_claims c WHERE c.run_id = r.id)
                             AND NOT EXISTS (SELECT FROM app.run_steps s WHERE s.run_id = r.id)
                        THEN format('%s, but the engine has no workflow of that id', r.status) END
               WHEN o.status IS NULL THEN
                   CASE WHEN w.status NOT IN ('PENDING', 'ENQUEUED', 'DELAYED')
                        THEN format('%s, and its workflow has the unknown status %s', r.status, w.status)
                        WHEN r.status = 'succeeded'
                        THEN format('succeeded, but its workflow is %s', w.status)
                        -- A cancelled or given-up workflow that was resumed comes from a queue; its run is opened again
                        -- when a worker has room for it.
                        WHEN r.status IN ('failed', 'canceled') AND w.status = 'PENDING' AND w.queue_name IS NULL
                        THEN format('%s, but its workflow is %s', r.status, w.status)
                        WHEN r.status IN ('failed', 'canceled') AND w.status <> 'PENDING'
                             AND EXISTS (SELECT FROM pg_temp.idle_workers)
                        THEN format('%s, but its workflow was resumed and stays %s, while a worker is idle',
                                    r.status, w.status)
                   END
               WHEN r.status <> o.status THEN
                   format('%s, but its workflow ended as %s', r.status, w.status)
           END AS finding,
           CASE WHEN w.id IS NOT NULL AND (r.status NOT IN ('succeeded', 'failed', 'canceled')
                                           OR w.status IN ('ENQUEUED', 'DELAYED') AND r.status <> 'succeeded')
                THEN interval '2 s' END AS allowed
    FROM pg_temp.runs r
    LEFT JOIN pg_temp.engine_workflows w ON w.id = r.workflow_id
    LEFT JOIN LATERAL (SELECT CASE
        -- Another workflow under the run's id: the run can only fail.
        WHEN w.status IN ('SUCCESS', 'ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')
             AND w.name IS DISTINCT FROM 'intent_run' THEN 'failed'
        WHEN w.status = 'SUCCESS' THEN 'succeeded'
        WHEN w.status IN ('ERROR', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED') THEN 'failed'
        WHEN w.status = 'CANCELLED' THEN 'canceled'
    END AS status) o ON true
) AS compared
WHERE finding IS NOT NULL;
