-- The product database belongs to one system database: the one that is looked at.
-- Looks at instances of schema app: SELECT count(*) FROM app.instance

-- By hand, at the root of a checkout: scripts/db/psql-both.sh -f db/invariants/one_system_database.sql
SELECT 'app.instance' AS subject,
       CASE WHEN p.datname <> current_database()
            THEN format('is a copy of %s, and this is the system database of both, %s', p.datname, s.datname)
            ELSE format('is bound to the system database %s, and this is %s', s.datname, l.database) END AS finding,
       NULL::interval AS allowed
FROM app.instance i
CROSS JOIN pg_control_system() c
CROSS JOIN (SELECT DISTINCT r.database FROM pg_temp.engine_relations r) l
JOIN pg_database s ON s.oid = i.system_database AND i.server = c.system_identifier::text
LEFT JOIN pg_database p ON p.oid = i.product_database
WHERE (p.datname <> current_database()) IS TRUE = (s.datname = l.database);
