-- A run waits for a planner that is away, for a bounded time that a crash of the service does not begin anew.

-- When the planner was first found to be away; NULL if it is not, or has answered since.
ALTER TABLE app.runs ADD COLUMN planner_away_since timestamptz;
