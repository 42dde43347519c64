-- The product's tables. Schema `dbos` belongs to the engine and is never named here.

-- Which product database this is. Workers and workflows of another one may share the system database.
CREATE TABLE app.instance (
    id        text    PRIMARY KEY CHECK (id ~ '^[0-9a-f]{8}$'),
    singleton boolean NOT NULL DEFAULT true UNIQUE CHECK (singleton)
);
INSERT INTO app.instance (id) VALUES (left(replace(gen_random_uuid()::text, '-', ''), 8));

CREATE TABLE app.intents (
    id         text        PRIMARY KEY,
    goal       text        NOT NULL CHECK (goal <> ''),
    payload    jsonb       NOT NULL CHECK (jsonb_typeof(payload) = 'object'),
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE app.runs (
    id          text        PRIMARY KEY,
    intent_id   text        NOT NULL REFERENCES app.intents (id),
    workflow_id text        NOT NULL UNIQUE,
    status      text        NOT NULL DEFAULT 'queued'
                CHECK (status IN ('queued', 'running', 'waiting_input', 'succeeded', 'failed', 'canceled')),
    trace_id    text,
    error       jsonb,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now(),
    CHECK (error IS NULL OR status = 'failed')
);

-- The sweep walks unfinished runs by id; finished ones, the great majority, are not in this index.
CREATE INDEX runs_unfinished ON app.runs (id) WHERE status IN ('queued', 'running', 'waiting_input');

CREATE TABLE app.run_steps (
    run_id      text        NOT NULL REFERENCES app.runs (id),
    step_id     text        NOT NULL,
    phase       text        NOT NULL CHECK (phase IN ('planning', 'executing')),
    output      jsonb       NOT NULL,
    trace_id    text,
    started_at  timestamptz NOT NULL,
    finished_at timestamptz,
    PRIMARY KEY (run_id, step_id)
);

CREATE TABLE app.artifacts (
    run_id     text        NOT NULL REFERENCES app.runs (id),
    step_id    text        NOT NULL,
    idx        integer     NOT NULL CHECK (idx >= 0),
    kind       text        NOT NULL,
    uri        text        NOT NULL,
    inline     jsonb,
    sha256     text        NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, step_id, idx)
);

-- Effects of the crash demo. The primary key is what makes each of them exactly-once.
CREATE TABLE app.marks (
    run_id     text        NOT NULL,
    step       text        NOT NULL CHECK (step IN ('s1', 's2')),
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (run_id, step)
);

-- The first answer to a request that carried an Idempotency-Key, stored in the request's own transaction.
CREATE TABLE app.idempotency_keys (
    scope       text        NOT NULL,
    key         text        NOT NULL,
    fingerprint text        NOT NULL,
    status      smallint    NOT NULL,
    body        text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, key)
);

-- Who last held a worker slot. The slot itself is a session advisory lock in the system database; this row
-- lets the next holder tell a dead process from one whose connection is only slow to come back.
CREATE TABLE app.workers (
    slot       integer     PRIMARY KEY CHECK (slot >= 0),
    holder     text,
    changed_at timestamptz NOT NULL DEFAULT now()
);
