-- Every step that has a workspace has the rows that keep it in the artifact store: its manifest, and content if it has any.
-- Looks at workspaces: SELECT count(*) FROM pg_temp.run_steps WHERE jsonb_typeof(output -> 'workspace') = 'object'

-- By hand, at the root of a checkout: scripts/db/psql-both.sh -f db/invariants/workspaces_kept.sql
SELECT format('%s/%s', s.run_id, s.step_id) AS subject,
       format('no row keeps its workspace, the manifest %s… of %s bytes', left(w.sha256, 12), w.size) AS finding,
       NULL::interval AS allowed
FROM pg_temp.run_steps s
-- As texts: a row that somebody changed is a finding and no error.
CROSS JOIN LATERAL (SELECT s.output #>> '{workspace,sha256}' AS sha256, s.output #>> '{workspace,size}' AS size) w
WHERE jsonb_typeof(s.output -> 'workspace') = 'object'
  AND NOT EXISTS (SELECT FROM pg_temp.workspace_objects o
                  WHERE o.run_id = s.run_id AND o.step_id = s.step_id AND o.sha256 = w.sha256 AND o.bytes::text = w.size)
UNION ALL
SELECT format('%s/%s', s.run_id, s.step_id),
       format('its workspace has %s bytes of content, and no row keeps any', s.output #>> '{workspace,bytes}'), NULL
FROM pg_temp.run_steps s
WHERE jsonb_typeof(s.output -> 'workspace') = 'object' AND s.output #>> '{workspace,bytes}' <> '0'
  AND NOT EXISTS (SELECT FROM pg_temp.workspace_objects o
                  WHERE o.run_id = s.run_id AND o.step_id = s.step_id AND o.sha256 <> s.output #>> '{workspace,sha256}');
