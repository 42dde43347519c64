-- Executions of a run. Whoever executes a run holds its claim: a second execution is refused by the index, and a step is
-- recorded only under a claim that is open. The engine's rows do not decide that: its clients write into them.

CREATE TABLE app.run_claims (
    run_id     text        NOT NULL REFERENCES app.runs (id),
    -- From 1, without a gap: the executions of a run in their order.
    epoch      integer     NOT NULL CHECK (epoch > 0),
    -- The executor id of the worker that executes the run.
    worker     text        NOT NULL,
    -- Made at random by the execution, which so knows its own claim again when the answer to its statement was lost.
    execution  text        NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT now(),
    -- When the execution ended, or when the claim was taken from a worker that is gone.
    ended_at   timestamptz,
    PRIMARY KEY (run_id, epoch)
);
CREATE UNIQUE INDEX run_claims_open ON app.run_claims (run_id) WHERE ended_at IS NULL;

-- The execution that recorded the step. NULL in rows of before this migration.
ALTER TABLE app.run_steps ADD COLUMN epoch integer CHECK (epoch > 0);
