-- One product database is worked on from one system database. From a second one, every unfinished run would look as if
-- nobody had begun it, and be done again.

-- The object id of the system database in this server; NULL until a service or a command binds the two. An id survives a
-- renaming and is not given again to a database that is made anew under the name, as long as the server is the same.
ALTER TABLE app.instance ADD COLUMN system_database oid;

CREATE VIEW app.invariant_one_system_database AS
SELECT 'app.instance' AS subject,
       format('is bound to the system database %s, and this is %s',
              coalesce(d.datname, 'with the object id ' || i.system_database || ', which was dropped'), l.database) AS finding,
       NULL::interval AS allowed
FROM app.instance i
CROSS JOIN (SELECT DISTINCT r.database FROM app.engine_relations() r) l
LEFT JOIN pg_database d ON d.oid = i.system_database
WHERE i.system_database IS NOT NULL AND d.datname IS DISTINCT FROM l.database;
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
