-- What is in the schemas `dbos` and `app` of the system database, which database that is (its name and the start of its
-- server), and whether it is one of the tables that the built-in version of the engine makes, or a newer SDK of DBOS.
SELECT current_database(), pg_postmaster_start_time(), n.nspname, c.relname,
       n.nspname = 'dbos' AND c.relname IN (
           'application_versions', 'dbos_migrations', 'event_dispatch_kv', 'notifications', 'operation_outputs', 'queues',
           'streams', 'workflow_events', 'workflow_events_history', 'workflow_input', 'workflow_output', 'workflow_schedules',
           'workflow_status')
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname IN ('dbos', 'app') AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
