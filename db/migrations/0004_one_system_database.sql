-- One product database is worked on from one system database. From a second one, every unfinished run would look as if
-- nobody had begun it, and be done again.

-- Which system database of which server, and which product database these rows are in: a copy of it has them too. NULL until
-- a service or a command binds them. Databases are known by object ids, which survive a renaming and are not given again.
ALTER TABLE app.instance
    ADD COLUMN server           text CHECK (server ~ '^[0-9]+$'),
    ADD COLUMN product_database oid,
    ADD COLUMN system_database  oid,
    ADD CONSTRAINT instance_bound_whole CHECK (
        (server IS NULL) = (system_database IS NULL) AND (server IS NULL) = (product_database IS NULL));

CREATE VIEW app.invariant_one_system_database AS
SELECT 'app.instance' AS subject,
       CASE WHEN p.datname <> current_database()
            THEN format('is a copy of %s, and this is the system database of both, %s', p.datname, s.datname)
            ELSE format('is bound to the system database %s, and this is %s', s.datname, l.database) END AS finding,
       NULL::interval AS allowed
FROM app.instance i
CROSS JOIN pg_control_system() c
CROSS JOIN (SELECT DISTINCT r.database FROM app.engine_relations() r) l
JOIN pg_database s ON s.oid = i.system_database AND i.server = c.system_identifier::text
LEFT JOIN pg_database p ON p.oid = i.product_database
WHERE (p.datname <> current_database()) IS TRUE = (s.datname = l.database);
COMMENT ON VIEW app.invariant_one_system_database IS
'The product database belongs to one system database: the one that is looked at.';

CREATE OR REPLACE VIEW app.invariant_scopes (invariant, looked_at, units) AS
SELECT 'no_run_stranded', count(*), 'unfinished runs'
FROM app.runs WHERE status IN ('queued', 'running', 'waiting_input')
UNION ALL
SELECT 'no_effect_twice',
       (SELECT count(*) FROM app.marks) + (SELECT count(*) FROM app.run_steps) + (SELECT count(*) FROM app.artifacts)
       + (SELECT count(*) FROM app.engine_checkpoints()), 'marks, steps, artifacts and checkpoints'
UNION ALL
SELECT 'statuses_agree', count(*), 'runs' FROM app.runs
UNION ALL
SELECT 'succeeded_runs_complete', count(*), 'succeeded runs' FROM app.runs WHERE status = 'succeeded'
UNION ALL
SELECT 'failed_runs_say_why', count(*), 'runs' FROM app.runs
UNION ALL
SELECT 'artifacts_complete', count(*), 'steps' FROM app.run_steps
UNION ALL
SELECT 'artifact_hashes_fit', count(inline), 'artifacts' FROM app.artifacts
UNION ALL
SELECT 'ids_not_reused',
       (SELECT count(*) FROM app.intents) + (SELECT count(*) FROM app.runs) + (SELECT count(*) FROM app.engine_workflows()),
       'intents, runs and workflows'
UNION ALL
SELECT 'workflows_have_runs', count(*), 'workflows of runs' FROM app.engine_workflows() WHERE name = 'intent_run'
UNION ALL
SELECT 'checkpoints_match_steps',
       (SELECT count(*) FROM app.run_steps) + (SELECT count(*) FROM app.engine_checkpoints()), 'steps and checkpoints'
UNION ALL
SELECT 'marks_match_workflows',
       (SELECT count(*) FROM app.marks) + (SELECT count(*) FROM app.engine_workflows() WHERE name = 'crash_demo'),
       'marks and crash demos'
UNION ALL
SELECT 'idempotency_keys_answer', count(*), 'keys' FROM app.idempotency_keys
UNION ALL
SELECT 'migrations_at_head', count(*), 'migrations' FROM app.known_migrations()
UNION ALL
SELECT 'schemas_apart',
       (SELECT count(*) FROM pg_class WHERE relnamespace = 'app'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f'))
       + (SELECT count(*) FROM app.engine_relations()), 'tables and views'
UNION ALL
SELECT 'one_system_database', count(*), 'instances of schema app' FROM app.instance;
