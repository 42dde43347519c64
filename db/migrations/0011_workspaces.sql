-- Workspaces: what a step's jobs left in their folder is one snapshot in the artifact store, and so is what is uploaded.

-- Content in the artifact store that the snapshot of a step needs: its manifest, and what the manifest names. Each step names
-- all of it, so that no other row keeps what this one needs.
CREATE TABLE app.workspace_objects (
    run_id  text   NOT NULL,
    step_id text   NOT NULL,
    sha256  text   NOT NULL CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    bytes   bigint NOT NULL CHECK (bytes >= 0),
    PRIMARY KEY (run_id, step_id, sha256),
    FOREIGN KEY (run_id, step_id) REFERENCES app.run_steps (run_id, step_id) ON DELETE CASCADE
);
-- `kodo artifacts gc` knows nothing but a hash.
CREATE INDEX workspace_objects_by_hash ON app.workspace_objects (sha256);

-- Content that somebody uploaded (PUT /artifacts). Its row keeps it until `kodo artifacts gc` finds that no intent names it.
CREATE TABLE app.uploads (
    sha256     text PRIMARY KEY CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    bytes      bigint      NOT NULL CHECK (bytes >= 0),
    created_at timestamptz NOT NULL DEFAULT now()
);
-- Which intents name an upload.
CREATE INDEX intents_by_workspace ON app.intents ((payload #>> '{inputs,workspace}'))
    WHERE payload #>> '{inputs,workspace}' IS NOT NULL;
