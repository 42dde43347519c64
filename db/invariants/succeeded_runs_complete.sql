-- Every succeeded run is complete: its plan, and a finished step with exit code 0 for each tool call of the plan.
-- Looks at succeeded runs: SELECT count(*) FROM pg_temp.runs WHERE status = 'succeeded'

-- By hand, at the root of a checkout: scripts/db/psql-both.sh -f db/invariants/succeeded_runs_complete.sql
SELECT r.id AS subject,
       CASE WHEN p.calls IS NULL THEN 'no planning step with a plan'
            ELSE format('%s steps that ended well beside the plan, %s of them its tool calls, where the plan has %s',
                        coalesce(s.steps, 0), coalesce(s.calls, 0), p.calls)
       END AS finding,
       NULL::interval AS allowed
FROM pg_temp.runs r
LEFT JOIN (
    SELECT run_id, CASE jsonb_typeof(output -> 'plan' -> 'toolCalls') WHEN 'array'
                        THEN jsonb_array_length(output -> 'plan' -> 'toolCalls') END AS calls
    FROM pg_temp.run_steps WHERE step_id = 'plan' AND phase = 'planning' AND finished_at >= started_at
) p ON p.run_id = r.id
LEFT JOIN (
    SELECT run_id, count(*) AS steps,
           count(*) FILTER (WHERE step_id ~ '^tool-[0-9]{3}$' AND phase = 'executing' AND finished_at >= started_at
                                  AND output -> 'exitCode' = '0') AS calls,
           max(step_id) AS last
    FROM pg_temp.run_steps WHERE step_id <> 'plan' GROUP BY run_id
) s ON s.run_id = r.id
WHERE r.status = 'succeeded'
  AND (p.calls IS NULL OR coalesce(s.calls, 0) <> p.calls OR coalesce(s.steps, 0) <> p.calls
       -- As many as planned and the last of them the last: so each of them.
       OR p.calls > 0 AND s.last <> 'tool-' || lpad(p.calls::text, 3, '0'));
