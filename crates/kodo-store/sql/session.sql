-- What the queries of db/invariants read, made anew in the session for every look: temporary tables for the engine's rows,
-- which may be in another database, and for the migrations that this version has; temporary views of the product's rows.
-- What a role or a database may have set otherwise, and what a query's text depends on.
SET quote_all_identifiers = off; SET IntervalStyle = postgres; SET DateStyle = ISO; SET standard_conforming_strings = on;
DROP VIEW IF EXISTS pg_temp.idle_workers, pg_temp.runs, pg_temp.run_steps, pg_temp.run_claims,
                    pg_temp.artifacts, pg_temp.workspace_objects;
DROP TABLE IF EXISTS pg_temp.engine_workflows, pg_temp.engine_checkpoints, pg_temp.engine_workers,
                     pg_temp.engine_relations, pg_temp.known_migrations, pg_temp.proof_window;
CREATE TEMPORARY TABLE engine_workflows (
    id          text NOT NULL,
    name        text,
    status      text,
    executor_id text,
    queue_name  text,
    forked_from text,
    -- Whether it ended because it is no run's: a client of the engine made it.
    refused     boolean NOT NULL
);
CREATE TEMPORARY TABLE engine_checkpoints (
    workflow_id   text    NOT NULL,
    function_id   integer NOT NULL,
    function_name text    NOT NULL,
    failed        boolean NOT NULL
);
-- Workers whose slot is held right now.
CREATE TEMPORARY TABLE engine_workers (
    executor_id text NOT NULL
);
CREATE TEMPORARY TABLE engine_relations (
    database   text        NOT NULL,
    started_at timestamptz NOT NULL,
    schema     text        NOT NULL,
    relation   text        NOT NULL,
    of_engine  boolean     NOT NULL
);
-- Version and SHA-384 of each migration.
CREATE TEMPORARY TABLE known_migrations (
    version  bigint NOT NULL,
    checksum text   NOT NULL
);
-- Live workers that have nothing to do. A worker's room (MAX_CONCURRENT_RUNS) is not in any row, so a run that waits beside
-- busy workers may be waiting its turn; beside one that is idle it may not.
CREATE TEMPORARY VIEW idle_workers AS
SELECT k.executor_id FROM engine_workers k
WHERE k.executor_id NOT IN (
    SELECT w.executor_id FROM engine_workflows w WHERE w.status = 'PENDING' AND w.executor_id IS NOT NULL);
-- The first run that is looked at: ids are in the order in which they were made. The empty text comes before all of them.
CREATE TEMPORARY TABLE proof_window AS SELECT ''::text AS first_run;
CREATE TEMPORARY VIEW runs AS SELECT * FROM app.runs WHERE id >= (SELECT first_run FROM proof_window);
CREATE TEMPORARY VIEW run_steps AS SELECT * FROM app.run_steps WHERE run_id >= (SELECT first_run FROM proof_window);
CREATE TEMPORARY VIEW run_claims AS SELECT * FROM app.run_claims WHERE run_id >= (SELECT first_run FROM proof_window);
CREATE TEMPORARY VIEW artifacts AS SELECT * FROM app.artifacts WHERE run_id >= (SELECT first_run FROM proof_window);
CREATE TEMPORARY VIEW workspace_objects AS
SELECT * FROM app.workspace_objects WHERE run_id >= (SELECT first_run FROM proof_window);
