-- The executor ids of the workers that live: a slot is an advisory lock whose first key is the instance (see locks.rs).
SELECT 'kodo-' || objid
FROM pg_locks
WHERE locktype = 'advisory' AND granted AND objsubid = 2
  AND classid = ('x' || lpad(:'instance', 16, '0'))::bit(64)::bigint::oid
  -- Not the locks of sweeps and launches: their second key is negative, which is large as an oid.
  AND objid < 1000::oid
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
