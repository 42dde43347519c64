-- Artifacts by content: from 64 KiB on, content is in the artifact store under its sha256, and its row names it.

-- Length and media type of content that is stored; NULL where the row itself holds the content. `inline` then is
-- {"stored": true, "name"?, "mediaType", "size", "sha256"}, and column `sha256` is the hash of the content's bytes.
ALTER TABLE app.artifacts
    ADD COLUMN stored_bytes bigint CHECK (stored_bytes >= 0),
    ADD COLUMN media_type   text CHECK (media_type <> ''),
    ADD CONSTRAINT artifacts_stored_whole CHECK ((stored_bytes IS NULL) = (media_type IS NULL));

-- GET /artifacts/:sha256 knows nothing but a hash.
CREATE INDEX artifacts_by_hash ON app.artifacts (sha256);
-- A small file is found by the hash of its own bytes, too.
CREATE INDEX artifacts_by_file_hash ON app.artifacts ((inline ->> 'sha256')) WHERE kind = 'file' AND stored_bytes IS NULL;

-- ---- the invariants that know artifacts ----

CREATE OR REPLACE VIEW app.invariant_artifacts_complete AS
SELECT format('%s/%s', coalesce(w.run_id, a.run_id), coalesce(w.step_id, a.step_id)) AS subject,
       format('%s artifacts of kind %s, where the step''s output has %s', coalesce(a.count, 0), coalesce(w.kind, a.kind),
              coalesce(w.count::text, 'no such thing')) AS finding,
       NULL::interval AS allowed
FROM (
    SELECT s.run_id, s.step_id, k.kind, k.count
    FROM app.run_steps s
    CROSS JOIN LATERAL (VALUES
        ('plan', CASE WHEN s.phase = 'planning' THEN 1 ELSE 0 END),
        ('diff', CASE WHEN s.phase = 'planning' THEN app.items(s.output -> 'plan' -> 'diffs') ELSE 0 END),
        ('stdout', CASE WHEN s.phase = 'executing' THEN 1 ELSE 0 END),
        ('stderr', CASE WHEN s.phase = 'executing' AND s.output ->> 'stderr' <> '' THEN 1 ELSE 0 END),
        ('file', CASE WHEN s.phase = 'executing' THEN app.items(s.output -> 'files') ELSE 0 END)
    ) AS k (kind, count)
    WHERE k.count IS DISTINCT FROM 0
) w
FULL JOIN (
    SELECT run_id, step_id, kind, count(*) AS count
    FROM app.artifacts WHERE kind IN ('plan', 'diff', 'stdout', 'stderr', 'file') GROUP BY run_id, step_id, kind
) a ON a.run_id = w.run_id AND a.step_id = w.step_id AND a.kind = w.kind
WHERE a.count IS DISTINCT FROM w.count
UNION ALL
SELECT format('%s/%s/%s', run_id, step_id, idx), format('its address is %s', uri), NULL
FROM app.artifacts WHERE uri <> format('artifact://%s/%s/%s', run_id, step_id, idx)
UNION ALL
-- The content of a file is in the step's output or in the store: a step that says the latter has the row that leads there.
SELECT format('%s/%s', s.run_id, s.step_id),
       format('its file %s is said to be stored, and no artifact of the step is stored under its hash, %s…',
              f.file ->> 'name', left(f.file ->> 'sha256', 12)), NULL
FROM app.run_steps s
CROSS JOIN LATERAL jsonb_path_query(s.output, '$.files[*] ? (@.stored == true)') AS f (file)
WHERE s.phase = 'executing'
  AND NOT EXISTS (SELECT FROM app.artifacts a
                  WHERE a.run_id = s.run_id AND a.step_id = s.step_id AND a.kind = 'file'
                    AND a.stored_bytes IS NOT NULL AND a.sha256 = f.file ->> 'sha256');

CREATE OR REPLACE VIEW app.invariant_artifact_hashes_fit AS
SELECT format('%s/%s/%s', run_id, step_id, idx) AS subject,
       format('kind %s, sha256 %s… is not that of its content, %s…', kind, left(sha256, 12),
              left(app.content_sha256(inline), 12)) AS finding,
       NULL::interval AS allowed
FROM app.artifacts
WHERE stored_bytes IS NULL AND sha256 <> app.content_sha256(inline)
UNION ALL
SELECT format('%s/%s/%s', run_id, step_id, idx),
       format('kind %s, stored content of %s bytes under %s…, where its reference says %s', kind, stored_bytes,
              left(sha256, 12), left(coalesce(inline::text, 'nothing'), 200)), NULL
FROM app.artifacts
WHERE stored_bytes IS NOT NULL
  AND (inline -> 'stored' IS DISTINCT FROM 'true' OR inline ->> 'sha256' IS DISTINCT FROM sha256
       OR inline -> 'size' IS DISTINCT FROM to_jsonb(stored_bytes) OR inline ->> 'mediaType' IS DISTINCT FROM media_type);
COMMENT ON VIEW app.invariant_artifact_hashes_fit IS
'Every artifact''s hash fits: sha256 of its content as canonical JSON, computed anew from the stored rows; of content in the artifact store, what its reference says (kodo artifacts verify reads the store).';
