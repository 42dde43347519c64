-- The migrations are at head: exactly those of this version are applied, each whole and from the same text.
-- Looks at migrations: SELECT count(*) FROM pg_temp.known_migrations

-- By hand, at the root of a checkout: scripts/db/psql-both.sh -f db/invariants/migrations_at_head.sql
SELECT format('migration %s', coalesce(k.version, m.version)) AS subject,
       CASE WHEN m.version IS NULL THEN 'is not recorded as applied'
            WHEN k.version IS NULL THEN 'is applied, and unknown to this version of Sisu Kodo'
            WHEN NOT m.success THEN 'was begun and not finished'
            ELSE 'was applied from another text than this version''s'
       END AS finding,
       NULL::interval AS allowed
FROM pg_temp.known_migrations k FULL JOIN app.schema_migrations m ON m.version = k.version
WHERE k.version IS NULL OR m.version IS NULL OR NOT m.success OR encode(m.checksum, 'hex') <> k.checksum;
