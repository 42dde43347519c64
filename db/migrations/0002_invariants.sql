-- What must hold, one view each: `app.invariant_…` returns the rows that offend, and so nothing where it holds. The comment
-- on a view is its sentence. `kodo prove`, the tests and readers use the same views.
--
-- Every view has the columns `subject` (what offends: an id, a table), `finding` (why) and `allowed`: how long such a row
-- may be seen on a service that works, because a sweep is about to mend it; NULL where nothing will.
--
-- The rows of the workflow engine may be in another database, where no view can look. The functions `app.engine_…` return
-- what was loaded into temporary tables of the session, and refuse where nothing was: rather no answer than a wrong one.
-- scripts/db/psql-both.sh loads them and runs a query.

-- ---- what the session has loaded ----

CREATE FUNCTION app.require_loaded(relation text) RETURNS void LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF to_regclass('pg_temp.' || relation) IS NULL THEN
        RAISE EXCEPTION 'this session has not loaded %', relation USING
            ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Run the query by scripts/db/psql-both.sh -c ''…'', which loads it first, or use kodo prove.';
    END IF;
END $$;

CREATE FUNCTION app.engine_workflows()
RETURNS TABLE (id text, name text, status text, executor_id text, queue_name text, forked_from text)
LANGUAGE plpgsql STABLE ROWS 10000 AS $$
BEGIN
    PERFORM app.require_loaded('engine_workflows');
    RETURN QUERY SELECT w.id, w.name, w.status, w.executor_id, w.queue_name, w.forked_from
                 FROM pg_temp.engine_workflows w;
END $$;

CREATE FUNCTION app.engine_checkpoints()
RETURNS TABLE (workflow_id text, function_id integer, function_name text, failed boolean)
LANGUAGE plpgsql STABLE ROWS 40000 AS $$
BEGIN
    PERFORM app.require_loaded('engine_checkpoints');
    RETURN QUERY SELECT c.workflow_id, c.function_id, c.function_name, c.failed FROM pg_temp.engine_checkpoints c;
END $$;

-- Workers whose slot is held right now.
CREATE FUNCTION app.engine_workers()
RETURNS TABLE (executor_id text)
LANGUAGE plpgsql STABLE ROWS 4 AS $$
BEGIN
    PERFORM app.require_loaded('engine_workers');
    RETURN QUERY SELECT w.executor_id FROM pg_temp.engine_workers w;
END $$;

CREATE FUNCTION app.engine_relations()
RETURNS TABLE (database text, started_at timestamptz, schema text, relation text, of_engine boolean)
LANGUAGE plpgsql STABLE ROWS 20 AS $$
BEGIN
    PERFORM app.require_loaded('engine_relations');
    RETURN QUERY SELECT r.database, r.started_at, r.schema, r.relation, r.of_engine FROM pg_temp.engine_relations r;
END $$;

-- Version and SHA-384 of each migration that the reader's version of Sisu Kodo has.
CREATE FUNCTION app.known_migrations()
RETURNS TABLE (version bigint, checksum text)
LANGUAGE plpgsql STABLE ROWS 10 AS $$
BEGIN
    PERFORM app.require_loaded('known_migrations');
    RETURN QUERY SELECT k.version, k.checksum FROM pg_temp.known_migrations k;
END $$;

-- Through a function, so that the table can be dropped and made anew.
CREATE FUNCTION app.applied_migrations()
RETURNS TABLE (version bigint, success boolean, checksum text)
LANGUAGE plpgsql STABLE ROWS 10 AS $$
BEGIN
    IF to_regclass('app.schema_migrations') IS NOT NULL THEN
        RETURN QUERY SELECT m.version, m.success, encode(m.checksum, 'hex') FROM app.schema_migrations m;
    END IF;
END $$;

-- Whether a live worker has nothing to do. Its room (MAX_CONCURRENT_RUNS) is not in any row, so a run that waits beside
-- busy workers may be waiting its turn; beside one that is idle it may not.
CREATE FUNCTION app.a_worker_is_idle() RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (
        SELECT FROM app.engine_workers() k
        WHERE k.executor_id NOT IN (
            SELECT w.executor_id FROM app.engine_workflows() w WHERE w.status = 'PENDING' AND w.executor_id IS NOT NULL))
$$;

-- ---- one text per JSON value ----

-- A number as kodo-contract's canonical.rs writes it: ECMAScript's notation with every digit.
CREATE FUNCTION app.canonical_number(number numeric) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    sign     text := CASE WHEN number < 0 THEN '-' ELSE '' END;
    plain    text := abs(number)::text;
    whole    text := split_part(plain, '.', 1);
    fraction text := split_part(plain, '.', 2);
    -- The digits that count, and where the point belongs: 0.DIGITS times ten to the power of `point`.
    digits   text := trim(BOTH '0' FROM whole || fraction);
    point    integer;
    count    integer := length(digits);
BEGIN
    IF count = 0 THEN
        RETURN '0';
    END IF;
    point := CASE WHEN whole = '0' THEN length(ltrim(fraction, '0')) - length(fraction) ELSE length(whole) END;
    IF point BETWEEN 1 AND 21 THEN
        IF count <= point THEN
            RETURN sign || rpad(digits, point, '0');
        END IF;
        RETURN sign || left(digits, point) || '.' || substr(digits, point + 1);
    END IF;
    IF point BETWEEN -5 AND 0 THEN
        RETURN sign || '0.' || repeat('0', -point) || digits;
    END IF;
    RETURN sign || left(digits, 1) || CASE WHEN count > 1 THEN '.' || substr(digits, 2) ELSE '' END
        || 'e' || CASE WHEN point > 0 THEN '+' ELSE '' END || (point - 1);
END $$;

-- Sorts as UTF-16 code units do when compared by code point: there the characters beyond U+FFFF come before U+E000.
-- Neither this nor content_sha256 is STRICT, and the latter no more than STABLE, or Postgres would not inline them.
CREATE FUNCTION app.utf16_order(key text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN octet_length(key) = length(key) THEN key
           -- U+E000 to U+FFFF go behind U+10FFFF, and U+10FFFF itself before them.
           ELSE regexp_replace(replace(key, chr(1114111), chr(1114111) || chr(1)),
                               '([' || chr(57344) || '-' || chr(65535) || '])', chr(1114111) || '\1', 'g')
           END
$$;

-- Canonical JSON (RFC 8785, numbers exact), the same text as kodo-contract's canonical.rs: what every sha256 is taken of.
-- Members and items that are no containers are written without a call: most values are, and a call costs more than they.
CREATE FUNCTION app.canonical_json(value jsonb) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    kind text := jsonb_typeof(value);
BEGIN
    IF kind = 'object' THEN
        RETURN (
            SELECT '{' || coalesce(string_agg(
                       to_json(key)::text || ':' ||
                       CASE WHEN jsonb_typeof(member) IN ('object', 'array', 'number') THEN app.canonical_json(member)
                            ELSE member::text END,
                       ',' ORDER BY app.utf16_order(key) COLLATE "C"), '') || '}'
            FROM jsonb_each(value) AS e (key, member));
    ELSIF kind = 'array' THEN
        RETURN (
            SELECT '[' || coalesce(string_agg(
                       CASE WHEN jsonb_typeof(item) IN ('object', 'array', 'number') THEN app.canonical_json(item)
                            ELSE item::text END,
                       ',' ORDER BY place), '') || ']'
            FROM jsonb_array_elements(value) WITH ORDINALITY AS a (item, place));
    ELSIF kind = 'number' THEN
        RETURN app.canonical_number((value #>> '{}')::numeric);
    END IF;
    -- Postgres escapes a string as JSON.stringify does.
    RETURN value::text;
END $$;

CREATE FUNCTION app.content_sha256(content jsonb) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT encode(sha256(convert_to(
        CASE WHEN jsonb_typeof(content) = 'string' THEN content::text ELSE app.canonical_json(content) END, 'UTF8')), 'hex')
$$;

-- How many items an array has; NULL of anything else, so that a row that somebody changed is a finding and no error.
CREATE FUNCTION app.items(value jsonb) RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN jsonb_typeof(value) = 'array' THEN jsonb_array_length(value) END
$$;

-- ---- the invariants ----

CREATE VIEW app.invariant_no_run_stranded AS
SELECT r.id AS subject,
       CASE WHEN w.id IS NULL THEN format('%s, without a workflow, while a worker is idle', r.status)
            WHEN w.status = 'PENDING'
            THEN format('%s, but its workflow belongs to %s, which is no live worker', r.status,
                        coalesce(w.executor_id, 'nobody'))
            ELSE format('%s, but its workflow stays %s, while a worker is idle', r.status, w.status)
       END AS finding,
       -- A worker that may live is waited for 10 s, by a sweep every 2 s; a queue is polled once a second.
       CASE WHEN w.status = 'PENDING' THEN interval '12 s' ELSE interval '3 s' END AS allowed
FROM app.runs r LEFT JOIN app.engine_workflows() w ON w.id = r.workflow_id
WHERE r.status IN ('queued', 'running', 'waiting_input')
  AND CASE WHEN w.id IS NULL OR w.status IN ('ENQUEUED', 'DELAYED') THEN (SELECT app.a_worker_is_idle())
           WHEN w.status = 'PENDING'
           THEN EXISTS (SELECT FROM app.engine_workers())
                AND (w.executor_id IS NULL
                     OR w.executor_id NOT IN (SELECT k.executor_id FROM app.engine_workers() k))
           ELSE false
      END;
COMMENT ON VIEW app.invariant_no_run_stranded IS
'No run is stranded: while a worker lives, every run that is not over is being worked on or waits its turn.';

CREATE VIEW app.invariant_no_effect_twice AS
SELECT format('app.%s', k.relation) AS subject,
       format('no primary key (%s) that would refuse a second effect', k.key) AS finding,
       NULL::interval AS allowed
FROM (VALUES ('marks', 'run_id, step'), ('run_steps', 'run_id, step_id'), ('artifacts', 'run_id, step_id, idx'),
             ('runs', 'id'), ('intents', 'id'), ('idempotency_keys', 'scope, key')) AS k (relation, key)
WHERE NOT EXISTS (
    SELECT FROM pg_constraint c
    WHERE c.conrelid = to_regclass('app.' || k.relation) AND c.contype = 'p'
      AND pg_get_constraintdef(c.oid) = format('PRIMARY KEY (%s)', k.key))
UNION ALL
SELECT format('%s/%s', run_id, step), format('the mark is recorded %s times', count(*)), NULL
FROM app.marks GROUP BY run_id, step HAVING count(*) > 1
UNION ALL
SELECT format('%s/%s', run_id, step_id), format('the step is recorded %s times', count(*)), NULL
FROM app.run_steps GROUP BY run_id, step_id HAVING count(*) > 1
UNION ALL
SELECT format('%s/%s/%s', run_id, step_id, idx), format('the artifact is kept %s times', count(*)), NULL
FROM app.artifacts GROUP BY run_id, step_id, idx HAVING count(*) > 1
UNION ALL
SELECT format('%s/%s', workflow_id, function_name), format('the step is checkpointed %s times', count(*)), NULL
FROM app.engine_checkpoints()
WHERE function_name IN ('plan', 's1', 's2') OR function_name LIKE 'tool-%'
GROUP BY workflow_id, function_name HAVING count(*) > 1;
COMMENT ON VIEW app.invariant_no_effect_twice IS
'No effect happened twice: each mark, step and artifact is recorded once, and each step checkpointed once.';

CREATE VIEW app.invariant_statuses_agree AS
SELECT subject, finding, allowed
FROM (
    SELECT r.id AS subject,
           CASE
               WHEN w.id IS NULL THEN
                   CASE WHEN r.status IN ('succeeded', 'failed', 'canceled')
                        THEN format('%s, but the engine has no workflow of that id', r.status) END
               WHEN o.status IS NULL THEN
                   CASE WHEN w.status NOT IN ('PENDING', 'ENQUEUED', 'DELAYED')
                        THEN format('%s, and its workflow has the unknown status %s', r.status, w.status)
                        WHEN r.status = 'succeeded'
                        THEN format('succeeded, but its workflow is %s', w.status)
                        -- A cancelled or given-up workflow that was resumed comes from a queue; its run is opened again
                        -- when a worker has room for it.
                        WHEN r.status IN ('failed', 'canceled') AND w.status = 'PENDING' AND w.queue_name IS NULL
                        THEN format('%s, but its workflow is %s', r.status, w.status)
                        WHEN r.status IN ('failed', 'canceled') AND w.status <> 'PENDING' AND (SELECT app.a_worker_is_idle())
                        THEN format('%s, but its workflow was resumed and stays %s, while a worker is idle', r.status, w.status)
                   END
               WHEN r.status <> o.status THEN
                   format('%s, but its workflow ended as %s', r.status, w.status)
           END AS finding,
           CASE WHEN w.id IS NOT NULL AND (r.status NOT IN ('succeeded', 'failed', 'canceled')
                                           OR w.status IN ('ENQUEUED', 'DELAYED') AND r.status <> 'succeeded')
                THEN interval '2 s' END AS allowed
    FROM app.runs r
    LEFT JOIN app.engine_workflows() w ON w.id = r.workflow_id
    LEFT JOIN LATERAL (SELECT CASE
        -- Another workflow under the run's id: the run can only fail.
        WHEN w.status IN ('SUCCESS', 'ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')
             AND w.name IS DISTINCT FROM 'intent_run' THEN 'failed'
        WHEN w.status = 'SUCCESS' THEN 'succeeded'
        WHEN w.status IN ('ERROR', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED') THEN 'failed'
        WHEN w.status = 'CANCELLED' THEN 'canceled'
    END AS status) o ON true
) AS compared
WHERE finding IS NOT NULL;
COMMENT ON VIEW app.invariant_statuses_agree IS
'Runs and workflows agree: a run says how it ended exactly where its workflow ended so.';

CREATE VIEW app.invariant_succeeded_runs_complete AS
SELECT r.id AS subject,
       CASE WHEN p.calls IS NULL THEN 'no planning step with a plan'
            ELSE format('%s steps that ended well beside the plan, %s of them its tool calls, where the plan has %s',
                        coalesce(s.steps, 0), coalesce(s.calls, 0), p.calls)
       END AS finding,
       NULL::interval AS allowed
FROM app.runs r
LEFT JOIN (
    SELECT run_id, app.items(output -> 'plan' -> 'toolCalls') AS calls
    FROM app.run_steps WHERE step_id = 'plan' AND phase = 'planning' AND finished_at >= started_at
) p ON p.run_id = r.id
LEFT JOIN (
    SELECT run_id, count(*) AS steps,
           count(*) FILTER (WHERE step_id ~ '^tool-[0-9]{3}$' AND phase = 'executing' AND finished_at >= started_at
                                  AND output -> 'exitCode' = '0') AS calls,
           max(step_id) AS last
    FROM app.run_steps WHERE step_id <> 'plan' GROUP BY run_id
) s ON s.run_id = r.id
WHERE r.status = 'succeeded'
  AND (p.calls IS NULL OR coalesce(s.calls, 0) <> p.calls OR coalesce(s.steps, 0) <> p.calls
       -- As many as planned and the last of them the last: so each of them.
       OR p.calls > 0 AND s.last <> 'tool-' || lpad(p.calls::text, 3, '0'));
COMMENT ON VIEW app.invariant_succeeded_runs_complete IS
'Every succeeded run is complete: its plan, and a finished step with exit code 0 for each tool call of the plan.';

CREATE VIEW app.invariant_failed_runs_say_why AS
SELECT r.id AS subject,
       CASE WHEN r.status <> 'failed' THEN format('%s, and has an artifact of kind error all the same', r.status)
            WHEN r.error IS NULL THEN 'failed, and app.runs.error is empty'
            WHEN e.errors IS NULL THEN 'failed, and has no artifact of kind error'
            WHEN e.errors > 1 THEN format('failed, and has %s artifacts of kind error', e.errors)
            ELSE 'failed, and its artifact of kind error says something else than app.runs.error'
       END AS finding,
       NULL::interval AS allowed
FROM app.runs r
LEFT JOIN (
    SELECT run_id, count(*) AS errors, min(inline::text) AS content, min(step_id) AS step_id
    FROM app.artifacts WHERE kind = 'error' GROUP BY run_id
) e ON e.run_id = r.id
WHERE CASE WHEN r.status = 'failed'
           THEN r.error IS NULL OR e.errors IS DISTINCT FROM 1 OR e.content IS DISTINCT FROM r.error::text
                OR coalesce(r.error ->> 'code', '') = '' OR r.error ->> 'message' IS NULL
                OR e.step_id <> coalesce(r.error ->> 'stepId', 'run')
           ELSE e.errors IS NOT NULL
      END;
COMMENT ON VIEW app.invariant_failed_runs_say_why IS
'Every failed run says why, in app.runs.error and in one artifact of kind error, and no other run has such an artifact.';

CREATE VIEW app.invariant_artifacts_complete AS
SELECT format('%s/%s', coalesce(w.run_id, a.run_id), coalesce(w.step_id, a.step_id)) AS subject,
       format('%s artifacts of kind %s, where the step''s output has %s', coalesce(a.count, 0), coalesce(w.kind, a.kind),
              coalesce(w.count::text, 'no such thing')) AS finding,
       NULL::interval AS allowed
FROM (
    SELECT s.run_id, s.step_id, k.kind, k.count
    FROM app.run_steps s
    CROSS JOIN LATERAL (VALUES
        ('plan', CASE WHEN s.phase = 'planning' THEN 1 ELSE 0 END),
        ('diff', CASE WHEN s.phase = 'planning' THEN app.items(s.output -> 'plan' -> 'diffs') ELSE 0 END),
        ('stdout', CASE WHEN s.phase = 'executing' THEN 1 ELSE 0 END),
        ('stderr', CASE WHEN s.phase = 'executing' AND s.output ->> 'stderr' <> '' THEN 1 ELSE 0 END),
        ('file', CASE WHEN s.phase = 'executing' THEN app.items(s.output -> 'files') ELSE 0 END)
    ) AS k (kind, count)
    WHERE k.count IS DISTINCT FROM 0
) w
FULL JOIN (
    SELECT run_id, step_id, kind, count(*) AS count
    FROM app.artifacts WHERE kind IN ('plan', 'diff', 'stdout', 'stderr', 'file') GROUP BY run_id, step_id, kind
) a ON a.run_id = w.run_id AND a.step_id = w.step_id AND a.kind = w.kind
WHERE a.count IS DISTINCT FROM w.count
UNION ALL
SELECT format('%s/%s/%s', run_id, step_id, idx), format('its address is %s', uri), NULL
FROM app.artifacts WHERE uri <> format('artifact://%s/%s/%s', run_id, step_id, idx);
COMMENT ON VIEW app.invariant_artifacts_complete IS
'Every step has its artifacts: plan and diffs, or what the tool printed and its files, each at its own address.';

CREATE VIEW app.invariant_artifact_hashes_fit AS
SELECT format('%s/%s/%s', run_id, step_id, idx) AS subject,
       format('kind %s, sha256 %s… is not that of its content, %s…', kind, left(sha256, 12),
              left(app.content_sha256(inline), 12)) AS finding,
       NULL::interval AS allowed
FROM app.artifacts
WHERE sha256 <> app.content_sha256(inline);
COMMENT ON VIEW app.invariant_artifact_hashes_fit IS
'Every artifact''s hash fits: sha256 of its content as canonical JSON, computed anew from the stored rows.';

CREATE VIEW app.invariant_ids_not_reused AS
SELECT r.id AS subject, 'is no id that this service makes (run_ and 32 hexadecimal digits)' AS finding,
       NULL::interval AS allowed
FROM app.runs r WHERE r.id !~ '^run_[0-9a-f]{32}$'
UNION ALL
SELECT r.id, format('its workflow_id is another one: %s', r.workflow_id), NULL
FROM app.runs r WHERE r.workflow_id <> r.id
UNION ALL
SELECT i.id, 'is no id that this service makes (it_ and 32 hexadecimal digits)', NULL
FROM app.intents i WHERE i.id !~ '^it_[0-9a-f]{32}$'
UNION ALL
SELECT w.id, format('has the id of a run, but is a workflow named %s', coalesce(w.name, '(nothing)')), NULL
FROM app.engine_workflows() w JOIN app.runs r ON r.workflow_id = w.id
WHERE w.name IS DISTINCT FROM 'intent_run'
UNION ALL
SELECT min(r.id), format('%s runs share the id', count(*)), NULL FROM app.runs r GROUP BY r.id HAVING count(*) > 1
UNION ALL
SELECT w.id, format('%s workflows share the id', count(*)), NULL
FROM app.engine_workflows() w GROUP BY w.id HAVING count(*) > 1;
COMMENT ON VIEW app.invariant_ids_not_reused IS
'No id is used twice: intents and runs have ids of their own, and a run''s workflow has the run''s id and is an intent_run.';

CREATE VIEW app.invariant_workflows_have_runs AS
SELECT w.id AS subject, format('workflow %s without a row in app.runs', w.status) AS finding, NULL::interval AS allowed
FROM app.engine_workflows() w
-- A workflow that somebody forked writes under the keys of the run that it was forked from.
WHERE w.name = 'intent_run' AND w.forked_from IS NULL
  AND NOT EXISTS (SELECT FROM app.runs r WHERE r.workflow_id = w.id);
COMMENT ON VIEW app.invariant_workflows_have_runs IS
'Every workflow has its run: the row came first, so no workflow of this product database is an orphan.';

CREATE VIEW app.invariant_checkpoints_match_steps AS
SELECT w.id AS subject,
       format('ended as SUCCESS with %s checkpoints, numbered %s to %s', count(c.function_id),
              coalesce(min(c.function_id)::text, 'nothing'), coalesce(max(c.function_id)::text, 'nothing')) AS finding,
       NULL::interval AS allowed
FROM app.engine_workflows() w LEFT JOIN app.engine_checkpoints() c ON c.workflow_id = w.id
WHERE w.status = 'SUCCESS' AND w.name IN ('intent_run', 'crash_demo')
GROUP BY w.id
HAVING count(c.function_id) = 0 OR min(c.function_id) <> 0 OR max(c.function_id) <> count(c.function_id) - 1
UNION ALL
SELECT format('%s/%s', c.workflow_id, c.function_name), 'the engine has a checkpoint, app.run_steps has no row', NULL
FROM app.engine_checkpoints() c JOIN app.runs r ON r.workflow_id = c.workflow_id
LEFT JOIN app.run_steps s ON s.run_id = r.id AND s.step_id = c.function_name
WHERE NOT c.failed AND (c.function_name = 'plan' OR c.function_name LIKE 'tool-%') AND s.run_id IS NULL
UNION ALL
SELECT format('%s/%s', s.run_id, s.step_id), 'app.run_steps has a row, the engine has no checkpoint', NULL
FROM app.run_steps s
JOIN app.runs r ON r.id = s.run_id
JOIN app.engine_workflows() w ON w.id = r.workflow_id AND w.status = 'SUCCESS' AND w.name = 'intent_run'
LEFT JOIN app.engine_checkpoints() c ON c.workflow_id = w.id AND c.function_name = s.step_id AND NOT c.failed
WHERE c.workflow_id IS NULL;
COMMENT ON VIEW app.invariant_checkpoints_match_steps IS
'Steps and checkpoints match: a checkpoint only after its row, and in a workflow that succeeded one for each row, without a gap.';

CREATE VIEW app.invariant_marks_match_workflows AS
SELECT format('%s/%s', m.run_id, m.step) AS subject, 'the mark has no crash_demo workflow of that id' AS finding,
       NULL::interval AS allowed
FROM app.marks m
LEFT JOIN app.engine_workflows() w ON w.id = m.run_id AND w.name = 'crash_demo'
WHERE w.id IS NULL
UNION ALL
SELECT w.id, format('ended as SUCCESS with the marks %s', coalesce(m.steps, '(none)')), NULL
FROM app.engine_workflows() w
LEFT JOIN (SELECT run_id, string_agg(DISTINCT step, ', ' ORDER BY step) AS steps FROM app.marks GROUP BY run_id) m
       ON m.run_id = w.id
WHERE w.name = 'crash_demo' AND w.status = 'SUCCESS' AND w.forked_from IS NULL AND m.steps IS DISTINCT FROM 's1, s2'
UNION ALL
SELECT format('%s/%s', c.workflow_id, c.function_name), 'the engine has a checkpoint, app.marks has no row', NULL
FROM app.engine_checkpoints() c
-- One that succeeded is in the branch above.
JOIN app.engine_workflows() w ON w.id = c.workflow_id AND w.name = 'crash_demo' AND w.status <> 'SUCCESS'
                             AND w.forked_from IS NULL
LEFT JOIN app.marks m ON m.run_id = c.workflow_id AND m.step = c.function_name
WHERE c.function_name IN ('s1', 's2') AND NOT c.failed AND m.run_id IS NULL;
COMMENT ON VIEW app.invariant_marks_match_workflows IS
'Marks and crash demos match: one that succeeded has s1 and s2, and no mark is without its workflow.';

CREATE VIEW app.invariant_idempotency_keys_answer AS
SELECT format('%s %s', k.scope, k.key) AS subject, format('answers %s, which does not exist', left(k.body, 120)) AS finding,
       NULL::interval AS allowed
FROM app.idempotency_keys k
LEFT JOIN app.runs r ON r.id = substring(k.body FROM '"runId":"([^"]*)"')
LEFT JOIN app.intents i ON i.id = substring(k.body FROM '"intentId":"([^"]*)"')
WHERE CASE k.scope WHEN 'POST /intents/:id/run' THEN r.id IS NULL WHEN 'POST /intents' THEN i.id IS NULL ELSE false END
UNION ALL
SELECT format('%s %s', k.scope, min(k.key)), format('%s keys answer %s', count(*), left(k.body, 120)), NULL
FROM app.idempotency_keys k GROUP BY k.scope, k.body HAVING count(*) > 1;
COMMENT ON VIEW app.invariant_idempotency_keys_answer IS
'Every idempotency key answers with what its request made, and no two keys with the same.';

CREATE VIEW app.invariant_migrations_at_head AS
SELECT format('migration %s', coalesce(k.version, m.version)) AS subject,
       CASE WHEN m.version IS NULL THEN 'is not recorded as applied'
            WHEN k.version IS NULL THEN 'is applied, and unknown to this version of Sisu Kodo'
            WHEN NOT m.success THEN 'was begun and not finished'
            ELSE 'was applied from another text than this version''s'
       END AS finding,
       NULL::interval AS allowed
FROM app.known_migrations() k FULL JOIN app.applied_migrations() m ON m.version = k.version
WHERE k.version IS NULL OR m.version IS NULL OR NOT m.success OR m.checksum <> k.checksum;
COMMENT ON VIEW app.invariant_migrations_at_head IS
'The migrations are at head: exactly those of this version are applied, each whole and from the same text.';

CREATE VIEW app.invariant_schemas_apart AS
WITH engine AS (
    SELECT database, started_at, schema, relation,
           database = current_database() AND started_at = pg_postmaster_start_time() AS here
    FROM app.engine_relations() WHERE of_engine
), here AS (
    SELECT c.oid, n.nspname AS schema, c.relname AS relation,
           CASE WHEN n.nspname = 'app' THEN 'app'
                WHEN n.nspname IN (SELECT e.schema FROM engine e) THEN 'engine' END AS side
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
)
SELECT format('%s.%s', h.schema, h.relation) AS subject, 'has the name of one of the engine''s tables' AS finding,
       NULL::interval AS allowed
FROM here h WHERE h.side = 'app' AND h.relation IN (SELECT e.relation FROM engine e)
UNION ALL
SELECT format('%s.%s', h.schema, h.relation),
       'is in the product database, while the engine''s schema is in another one', NULL
FROM here h WHERE h.side = 'engine' AND NOT EXISTS (SELECT FROM engine e WHERE e.here)
UNION ALL
SELECT format('%s.%s', r.schema, r.relation), 'is in the engine''s schema, and none of its tables', NULL
FROM app.engine_relations() r
WHERE NOT r.of_engine AND r.schema IN (SELECT e.schema FROM engine e)
UNION ALL
-- A schema app with an instance in it is another product database, which may be the system database of this one.
SELECT format('%s.%s', r.schema, r.relation),
       format('is in the system database %s, and belongs to no product database', r.database), NULL
FROM app.engine_relations() r
WHERE r.schema = 'app' AND NOT EXISTS (SELECT FROM engine e WHERE e.here)
  AND NOT EXISTS (SELECT FROM app.engine_relations() i WHERE i.schema = 'app' AND i.relation = 'instance')
UNION ALL
SELECT format('%s.%s', a.schema, a.relation),
       format('foreign key %s leads to %s.%s', c.conname, b.schema, b.relation), NULL
FROM pg_constraint c JOIN here a ON a.oid = c.conrelid JOIN here b ON b.oid = c.confrelid
WHERE c.contype = 'f' AND a.side <> b.side
UNION ALL
SELECT DISTINCT format('%s.%s', a.schema, a.relation), format('the view reads %s.%s', b.schema, b.relation), NULL::interval
FROM pg_depend d
JOIN pg_rewrite w ON w.oid = d.objid AND d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
JOIN here a ON a.oid = w.ev_class JOIN here b ON b.oid = d.refobjid
WHERE a.side <> b.side;
COMMENT ON VIEW app.invariant_schemas_apart IS
'The schemas are apart: nothing of ours among the engine''s tables, none of its among ours, and no key or view crosses.';

-- ---- how much each of them looks at ----

CREATE VIEW app.invariant_scopes (invariant, looked_at, units) AS
SELECT 'no_run_stranded', count(*), 'unfinished runs'
FROM app.runs WHERE status IN ('queued', 'running', 'waiting_input')
UNION ALL
SELECT 'no_effect_twice',
       (SELECT count(*) FROM app.marks) + (SELECT count(*) FROM app.run_steps) + (SELECT count(*) FROM app.artifacts)
       + (SELECT count(*) FROM app.engine_checkpoints()), 'marks, steps, artifacts and checkpoints'
UNION ALL
SELECT 'statuses_agree', count(*), 'runs' FROM app.runs
UNION ALL
SELECT 'succeeded_runs_complete', count(*), 'succeeded runs' FROM app.runs WHERE status = 'succeeded'
UNION ALL
SELECT 'failed_runs_say_why', count(*), 'runs' FROM app.runs
UNION ALL
SELECT 'artifacts_complete', count(*), 'steps' FROM app.run_steps
UNION ALL
SELECT 'artifact_hashes_fit', count(inline), 'artifacts' FROM app.artifacts
UNION ALL
SELECT 'ids_not_reused',
       (SELECT count(*) FROM app.intents) + (SELECT count(*) FROM app.runs) + (SELECT count(*) FROM app.engine_workflows()),
       'intents, runs and workflows'
UNION ALL
SELECT 'workflows_have_runs', count(*), 'workflows of runs' FROM app.engine_workflows() WHERE name = 'intent_run'
UNION ALL
SELECT 'checkpoints_match_steps',
       (SELECT count(*) FROM app.run_steps) + (SELECT count(*) FROM app.engine_checkpoints()), 'steps and checkpoints'
UNION ALL
SELECT 'marks_match_workflows',
       (SELECT count(*) FROM app.marks) + (SELECT count(*) FROM app.engine_workflows() WHERE name = 'crash_demo'),
       'marks and crash demos'
UNION ALL
SELECT 'idempotency_keys_answer', count(*), 'keys' FROM app.idempotency_keys
UNION ALL
SELECT 'migrations_at_head', count(*), 'migrations' FROM app.known_migrations()
UNION ALL
SELECT 'schemas_apart',
       (SELECT count(*) FROM pg_class WHERE relnamespace = 'app'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f'))
       + (SELECT count(*) FROM app.engine_relations()), 'tables and views';
COMMENT ON VIEW app.invariant_scopes IS
'How many rows each invariant looks at, so that nothing found among nothing is seen as such.';
