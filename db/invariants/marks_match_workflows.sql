-- Marks and crash demos match: one that succeeded has s1 and s2, and no mark is without its workflow, unless that was
-- deleted after both.
-- Looks at marks and crash demos: SELECT (SELECT count(*) FROM app.marks) + (SELECT count(*) FROM
-- pg_temp.engine_workflows WHERE name = 'crash_demo')

-- By hand, at the root of a checkout: scripts/db/psql-both.sh -f db/invariants/marks_match_workflows.sql
SELECT format('%s/%s', m.run_id, m.step) AS subject, 'the mark has no crash_demo workflow of that id' AS finding,
       NULL::interval AS allowed
FROM app.marks m
LEFT JOIN pg_temp.engine_workflows w ON w.id = m.run_id AND w.name = 'crash_demo'
WHERE w.id IS NULL
  AND NOT EXISTS (SELECT FROM app.marks o WHERE o.run_id = m.run_id AND o.step <> m.step)
UNION ALL
SELECT w.id, format('ended as SUCCESS with the marks %s', coalesce(m.steps, '(none)')), NULL
FROM pg_temp.engine_workflows w
LEFT JOIN (SELECT run_id, string_agg(DISTINCT step, ', ' ORDER BY step) AS steps FROM app.marks GROUP BY run_id) m
       ON m.run_id = w.id
WHERE w.name = 'crash_demo' AND w.status = 'SUCCESS' AND w.forked_from IS NULL AND m.steps IS DISTINCT FROM 's1, s2'
UNION ALL
SELECT format('%s/%s', c.workflow_id, c.function_name), 'the engine has a checkpoint, app.marks has no row', NULL
FROM pg_temp.engine_checkpoints c
-- One that succeeded is in the branch above.
JOIN pg_temp.engine_workflows w ON w.id = c.workflow_id AND w.name = 'crash_demo' AND w.status <> 'SUCCESS'
                             AND w.forked_from IS NULL
LEFT JOIN app.marks m ON m.run_id = c.workflow_id AND m.step = c.function_name
WHERE c.function_name IN ('s1', 's2') AND NOT c.failed AND m.run_id IS NULL;
