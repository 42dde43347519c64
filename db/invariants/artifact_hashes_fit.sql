-- Every artifact's hash fits: sha256 of its content as canonical JSON, computed anew from the stored rows; of content
-- in the artifact store, what its reference says (kodo artifacts verify reads the store).
-- Looks at artifacts: SELECT count(inline) FROM pg_temp.artifacts

-- By hand, at the root of a checkout: scripts/db/psql-both.sh -f db/invariants/artifact_hashes_fit.sql
-- A row from before migration 5 has no text (canonical): `kodo prove` computes the hash of its content itself.
SELECT format('%s/%s/%s', run_id, step_id, idx) AS subject,
       format('kind %s, sha256 %s… is not that of its content, %s…', kind, left(sha256, 12),
              left(encode(sha256(convert_to(canonical, 'UTF8')), 'hex'), 12)) AS finding,
       NULL::interval AS allowed
FROM pg_temp.artifacts
WHERE stored_bytes IS NULL AND sha256 <> encode(sha256(convert_to(canonical, 'UTF8')), 'hex')
UNION ALL
SELECT format('%s/%s/%s', run_id, step_id, idx),
       format('kind %s, the text that was hashed is not its content', kind), NULL
FROM pg_temp.artifacts
WHERE stored_bytes IS NULL
  -- Only what was hashed is known to be JSON.
  AND CASE WHEN sha256 = encode(sha256(convert_to(canonical, 'UTF8')), 'hex')
           THEN canonical::jsonb IS DISTINCT FROM inline END
UNION ALL
SELECT format('%s/%s/%s', run_id, step_id, idx),
       format('kind %s, stored content of %s bytes under %s…, where its reference says %s', kind, stored_bytes,
              left(sha256, 12), left(coalesce(inline::text, 'nothing'), 200)), NULL
FROM pg_temp.artifacts
WHERE stored_bytes IS NOT NULL
  AND (inline -> 'stored' IS DISTINCT FROM 'true' OR inline ->> 'sha256' IS DISTINCT FROM sha256
       OR inline -> 'size' IS DISTINCT FROM to_jsonb(stored_bytes) OR inline ->> 'mediaType' IS DISTINCT FROM media_type);
