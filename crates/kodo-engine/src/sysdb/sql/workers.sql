-- The executor ids of the workers that live: a slot is an advisory lock whose first key is the instance (see workers/slot.rs).
SELECT 'kodo-' || objid
FROM pg_locks
WHERE locktype = 'advisory' AND granted AND objsubid = 2
  AND classid = ('x' || lpad(:'instance', 16, '0'))::bit(64)::bigint::oid
  -- The second key of a sweep's lock is -1; slots are few.
  AND objid < 1000::oid
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
