-- The invariants are the files of db/invariants, read by `kodo prove` since the version before this one. Nothing reads
-- their views and functions here any more, and a view forbids changing the columns that it names.

DROP VIEW
    app.invariant_no_run_stranded,
    app.invariant_no_effect_twice,
    app.invariant_statuses_agree,
    app.invariant_succeeded_runs_complete,
    app.invariant_failed_runs_say_why,
    app.invariant_artifacts_complete,
    app.invariant_artifact_hashes_fit,
    app.invariant_ids_not_reused,
    app.invariant_workflows_have_runs,
    app.invariant_checkpoints_match_steps,
    app.invariant_marks_match_workflows,
    app.invariant_idempotency_keys_answer,
    app.invariant_migrations_at_head,
    app.invariant_schemas_apart,
    app.invariant_scopes,
    app.invariant_one_system_database;

DROP FUNCTION
    app.require_loaded(text),
    app.engine_workflows(),
    app.engine_checkpoints(),
    app.engine_workers(),
    app.engine_relations(),
    app.known_migrations(),
    app.applied_migrations(),
    app.a_worker_is_idle(),
    app.canonical_number(numeric),
    app.utf16_order(text),
    app.canonical_json(jsonb),
    app.content_sha256(jsonb),
    app.items(jsonb);
