-- Every step has its artifacts: plan and diffs, or what the tool printed and its files, and its output if a view does not
-- show it, each at its own address.
-- Looks at steps: SELECT count(*) FROM pg_temp.run_steps

-- By hand, at the root of a checkout: scripts/db/psql-both.sh -f db/invariants/artifacts_complete.sql
SELECT format('%s/%s', coalesce(w.run_id, a.run_id), coalesce(w.step_id, a.step_id)) AS subject,
       format('%s artifacts of kind %s, where the step''s output has %s', coalesce(a.count, 0), coalesce(w.kind, a.kind),
              coalesce(w.count::text, 'no such thing')) AS finding,
       NULL::interval AS allowed
FROM (
    SELECT s.run_id, s.step_id, k.kind, k.count
    FROM pg_temp.run_steps s
    -- NULL of what is no array: a row that somebody changed is a finding and no error.
    CROSS JOIN LATERAL (SELECT
        CASE jsonb_typeof(s.output -> 'plan' -> 'diffs') WHEN 'array'
             THEN jsonb_array_length(s.output -> 'plan' -> 'diffs') END AS diffs,
        CASE jsonb_typeof(s.output -> 'files') WHEN 'array' THEN jsonb_array_length(s.output -> 'files') END AS files
    ) AS o
    CROSS JOIN LATERAL (VALUES
        ('plan', CASE WHEN s.phase = 'planning' THEN 1 ELSE 0 END),
        ('diff', CASE WHEN s.phase = 'planning' THEN o.diffs ELSE 0 END),
        ('stdout', CASE WHEN s.phase = 'executing' THEN 1 ELSE 0 END),
        ('stderr', CASE WHEN s.phase = 'executing' AND s.output ->> 'stderr' <> '' THEN 1 ELSE 0 END),
        ('file', CASE WHEN s.phase = 'executing' THEN o.files ELSE 0 END),
        ('output', CASE WHEN s.shown IS NOT NULL THEN 1 ELSE 0 END)
    ) AS k (kind, count)
    WHERE k.count IS DISTINCT FROM 0
) w
FULL JOIN (
    SELECT run_id, step_id, kind, count(*) AS count
    FROM pg_temp.artifacts WHERE kind IN ('plan', 'diff', 'stdout', 'stderr', 'file', 'output') GROUP BY run_id, step_id, kind
) a ON a.run_id = w.run_id AND a.step_id = w.step_id AND a.kind = w.kind
WHERE a.count IS DISTINCT FROM w.count
UNION ALL
SELECT format('%s/%s/%s', run_id, step_id, idx), format('its address is %s', uri), NULL
FROM pg_temp.artifacts WHERE uri <> format('artifact://%s/%s/%s', run_id, step_id, idx)
UNION ALL
-- The content of a file is in the step's output or in the store: a step that says the latter has the row that leads there.
SELECT format('%s/%s', s.run_id, s.step_id),
       format('its file %s is said to be stored, and no artifact of the step is stored under its hash, %s…',
              f.file ->> 'name', left(f.file ->> 'sha256', 12)), NULL
FROM pg_temp.run_steps s
CROSS JOIN LATERAL jsonb_path_query(s.output, '$.files[*] ? (@.stored == true)') AS f (file)
WHERE s.phase = 'executing'
  AND NOT EXISTS (SELECT FROM pg_temp.artifacts a
                  WHERE a.run_id = s.run_id AND a.step_id = s.step_id AND a.kind = 'file'
                    AND a.stored_bytes IS NOT NULL AND a.sha256 = f.file ->> 'sha256')
UNION ALL
SELECT format('%s/%s', s.run_id, s.step_id),
       format('a view shows that its output is %s…, and the step''s artifact is another one', left(s.shown ->> 'sha256', 12)), NULL
FROM pg_temp.run_steps s
JOIN pg_temp.artifacts a ON a.run_id = s.run_id AND a.step_id = s.step_id AND a.kind = 'output'
WHERE (a.sha256, a.stored_bytes::text) IS DISTINCT FROM (s.shown ->> 'sha256', s.shown ->> 'size');
