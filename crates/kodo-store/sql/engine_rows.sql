-- Tables of one session, for what the views app.invariant_… need to know and cannot see: the engine's rows, which may be
-- in another database, and the migrations that this version has. Made anew for every look.
DROP TABLE IF EXISTS pg_temp.engine_workflows, pg_temp.engine_checkpoints, pg_temp.engine_workers,
                     pg_temp.engine_relations, pg_temp.known_migrations;
CREATE TEMPORARY TABLE engine_workflows (
    id          text NOT NULL,
    name        text,
    status      text,
    executor_id text,
    queue_name  text,
    forked_from text
);
CREATE TEMPORARY TABLE engine_checkpoints (
    workflow_id   text    NOT NULL,
    function_id   integer NOT NULL,
    function_name text    NOT NULL,
    failed        boolean NOT NULL
);
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
CREATE TEMPORARY TABLE known_migrations (
    version  bigint NOT NULL,
    checksum text   NOT NULL
);
