-- Forks: a fork is a run of its own. Where a client of the engine made it, workflow_id is the id that the engine gave it.

ALTER TABLE app.runs
    -- The run that it was forked from, and the first step that it did not take over from there.
    ADD COLUMN forked_from text REFERENCES app.runs (id),
    ADD COLUMN from_step   text,
    ADD CONSTRAINT runs_forked_whole CHECK ((forked_from IS NULL) = (from_step IS NULL));
CREATE INDEX runs_by_fork ON app.runs (forked_from) WHERE forked_from IS NOT NULL;

-- Runs that the engine gave up. A client of the engine can still cancel their workflows, so the sweep looks at them.
CREATE INDEX runs_given_up ON app.runs (id) WHERE status = 'failed' AND error ->> 'code' = 'recovery_exhausted';
