-- The schemas are apart: nothing of ours among the engine's tables, none of its among ours, and no key or view crosses.
-- Looks at tables and views: SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = 'app'::regnamespace AND relkind
-- IN ('r', 'p', 'v', 'm', 'f')) + (SELECT count(*) FROM pg_temp.engine_relations)

-- By hand, at the root of a checkout: scripts/db/psql-both.sh -f db/invariants/schemas_apart.sql
WITH engine AS (
    SELECT database, started_at, schema, relation,
           database = current_database() AND started_at = pg_postmaster_start_time() AS here
    FROM pg_temp.engine_relations WHERE of_engine
), here AS (
    SELECT c.oid, n.nspname AS schema, c.relname AS relation,
           CASE WHEN n.nspname = 'app' THEN 'app'
                WHEN n.nspname IN (SELECT e.schema FROM engine e) THEN 'engine' END AS side
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
)
SELECT format('%s.%s', h.schema, h.relation) AS subject, 'has the name of one of the engine''s tables' AS finding,
       NULL::interval AS allowed
FROM here h WHERE h.side = 'app' AND h.relation IN (SELECT e.relation FROM engine e)
UNION ALL
SELECT format('%s.%s', h.schema, h.relation),
       'is in the product database, while the engine''s schema is in another one', NULL
FROM here h WHERE h.side = 'engine' AND NOT EXISTS (SELECT FROM engine e WHERE e.here)
UNION ALL
SELECT format('%s.%s', r.schema, r.relation), 'is in the engine''s schema, and none of its tables', NULL
FROM pg_temp.engine_relations r
WHERE NOT r.of_engine AND r.schema IN (SELECT e.schema FROM engine e)
UNION ALL
-- A schema app with an instance in it is another product database, which may be the system database of this one.
SELECT format('%s.%s', r.schema, r.relation),
       format('is in the system database %s, and belongs to no product database', r.database), NULL
FROM pg_temp.engine_relations r
WHERE r.schema = 'app' AND NOT EXISTS (SELECT FROM engine e WHERE e.here)
  AND NOT EXISTS (SELECT FROM pg_temp.engine_relations i WHERE i.schema = 'app' AND i.relation = 'instance')
UNION ALL
SELECT format('%s.%s', a.schema, a.relation),
       format('foreign key %s leads to %s.%s', c.conname, b.schema, b.relation), NULL
FROM pg_constraint c JOIN here a ON a.oid = c.conrelid JOIN here b ON b.oid = c.confrelid
WHERE c.contype = 'f' AND a.side <> b.side
UNION ALL
SELECT DISTINCT format('%s.%s', a.schema, a.relation), format('the view reads %s.%s', b.schema, b.relation), NULL::interval
FROM pg_depend d
JOIN pg_rewrite w ON w.oid = d.objid AND d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
JOIN here a ON a.oid = w.ev_class JOIN here b ON b.oid = d.refobjid
WHERE a.side <> b.side;
