-- A view of a run (GET /runs/:id) has at most 8 MiB. Whoever records a step knows what of that is taken, and what the step
-- shows where there is no room for its output.

ALTER TABLE app.run_steps
    -- {"stored": true, "sha256", "size"} in place of output, in this order; NULL if output is shown. The bytes are the step's
    -- artifact of kind output.
    ADD COLUMN shown json,
    -- What the step and its artifacts take of a view; NULL if a version recorded it that did not count.
    ADD COLUMN view_bytes bigint CHECK (view_bytes >= 0);
