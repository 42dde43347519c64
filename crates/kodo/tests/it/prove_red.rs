//! Each invariant is violated by hand, and `kodo prove` says so in exactly its own sentence.

use kodo_contract::{Intent, decode, parse_json};
use kodo_planner::fixture_key;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool};

use crate::evidence::fixtures;
use crate::proof::{invariant, proof, violated};
use crate::scratch::Scratch;
use crate::support::{DEMO_INTENT, OTHER_INTENT, World, until};
use crate::workflow_commands::kodo_on;

async fn execute(pool: &PgPool, statements: &str) {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned()))
        .execute(pool)
        .await
        .unwrap_or_else(|error| panic!("{statements}: {error}"));
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    App,
    System,
}
use Side::{App, System};

/// What is broken, where, how, how it is mended, and what is found then.
struct Case {
    invariant: &'static str,
    side: Side,
    harm: &'static str,
    mend: &'static str,
    finding: &'static str,
}

/// `RUN` stands for a run that succeeded, `FAILED` for one that failed.
const CASES: &[Case] = &[
    Case {
        invariant: "no_effect_twice",
        side: App,
        harm: "ALTER TABLE app.marks DROP CONSTRAINT marks_pkey; INSERT INTO app.marks VALUES ('demo', 's1')",
        mend: "DELETE FROM app.marks WHERE step = 's1' AND ctid <> (SELECT min(ctid) FROM app.marks WHERE step = 's1');
               ALTER TABLE app.marks ADD PRIMARY KEY (run_id, step)",
        finding: "the mark is recorded 2 times",
    },
    Case {
        invariant: "no_effect_twice",
        side: System,
        harm: "INSERT INTO dbos.operation_outputs (workflow_uuid, function_id, function_name) VALUES ('RUN', 4, 'tool-003')",
        mend: "DELETE FROM dbos.operation_outputs WHERE function_id = 4",
        finding: "the step is checkpointed 2 times",
    },
    Case {
        invariant: "one_execution",
        side: App,
        harm: "DROP INDEX app.run_claims_open",
        mend: "CREATE UNIQUE INDEX run_claims_open ON app.run_claims (run_id) WHERE ended_at IS NULL",
        finding: "no unique index on (run_id) that would refuse a second open claim",
    },
    Case {
        invariant: "one_execution",
        side: App,
        harm: "DROP INDEX app.run_claims_open; UPDATE app.run_claims SET ended_at = NULL WHERE run_id = 'RUN';
               INSERT INTO app.run_claims (run_id, epoch, worker, execution) VALUES ('RUN', 2, 'kodo-1', 'x')",
        mend: "DELETE FROM app.run_claims WHERE epoch = 2; UPDATE app.run_claims SET ended_at = now();
               CREATE UNIQUE INDEX run_claims_open ON app.run_claims (run_id) WHERE ended_at IS NULL",
        finding: "2 executions are open at the same time",
    },
    Case {
        invariant: "one_execution",
        side: App,
        harm: "UPDATE app.run_claims SET ended_at = NULL WHERE run_id = 'RUN';
               INSERT INTO app.run_claims (run_id, epoch, worker, execution, ended_at) VALUES ('RUN', 2, 'kodo-1', 'x', now())",
        mend: "DELETE FROM app.run_claims WHERE epoch = 2; UPDATE app.run_claims SET ended_at = now()",
        finding: "execution 1 is open, and the run has a later one, 2",
    },
    Case {
        invariant: "one_execution",
        side: App,
        harm: "UPDATE app.run_claims SET epoch = 7 WHERE run_id = 'FAILED'",
        mend: "UPDATE app.run_claims SET epoch = 1 WHERE epoch = 7",
        finding: "1 executions, numbered to 7",
    },
    Case {
        invariant: "one_execution",
        side: App,
        harm: "UPDATE app.run_steps SET epoch = 2 WHERE run_id = 'RUN' AND step_id = 'tool-002'",
        mend: "UPDATE app.run_steps SET epoch = 1",
        finding: "recorded by execution 2, which never held the claim",
    },
    Case {
        invariant: "statuses_agree",
        side: App,
        harm: "INSERT INTO app.runs (id, intent_id, workflow_id, status)
               SELECT 'run_' || repeat('f', 32), intent_id, 'run_' || repeat('f', 32), 'canceled' FROM app.runs WHERE id = 'RUN'",
        mend: "DELETE FROM app.runs WHERE id = 'run_' || repeat('f', 32)",
        finding: "canceled, but the engine has no workflow of that id",
    },
    Case {
        invariant: "statuses_agree",
        side: System,
        harm: "UPDATE dbos.workflow_status SET status = 'PENDING' WHERE workflow_uuid = 'RUN'",
        mend: "UPDATE dbos.workflow_status SET status = 'SUCCESS' WHERE workflow_uuid = 'RUN'",
        finding: "succeeded, but its workflow is PENDING",
    },
    Case {
        invariant: "statuses_agree",
        side: System,
        harm: "UPDATE dbos.workflow_status SET status = 'CANCELLED' WHERE workflow_uuid = 'FAILED'",
        mend: "UPDATE dbos.workflow_status SET status = 'ERROR' WHERE workflow_uuid = 'FAILED'",
        finding: "failed, but its workflow ended as CANCELLED",
    },
    Case {
        invariant: "succeeded_runs_complete",
        side: App,
        harm: "UPDATE app.run_steps SET output = jsonb_set(output, '{exitCode}', '1') WHERE step_id = 'tool-002'",
        mend: "UPDATE app.run_steps SET output = jsonb_set(output, '{exitCode}', '0') WHERE step_id = 'tool-002'",
        finding: "3 steps that ended well beside the plan, 2 of them its tool calls, where the plan has 3",
    },
    Case {
        invariant: "succeeded_runs_complete",
        side: App,
        harm: "UPDATE app.run_steps SET finished_at = NULL WHERE run_id = 'RUN' AND step_id = 'plan'",
        mend: "UPDATE app.run_steps SET finished_at = now() WHERE finished_at IS NULL",
        finding: "no planning step with a plan",
    },
    Case {
        invariant: "failed_runs_say_why",
        side: App,
        harm: r#"UPDATE app.runs SET error = error || '{"message":"something else"}' WHERE status = 'failed'"#,
        mend: "UPDATE app.runs SET error = (SELECT inline FROM app.artifacts WHERE kind = 'error') WHERE status = 'failed'",
        finding: "failed, and its artifact of kind error says something else than app.runs.error",
    },
    Case {
        invariant: "failed_runs_say_why",
        side: App,
        harm: "CREATE TABLE public.kept AS SELECT * FROM app.artifacts WHERE kind = 'error';
               DELETE FROM app.artifacts WHERE kind = 'error'",
        mend: "INSERT INTO app.artifacts SELECT * FROM public.kept; DROP TABLE public.kept",
        finding: "failed, and has no artifact of kind error",
    },
    Case {
        invariant: "artifacts_complete",
        side: App,
        harm: "CREATE TABLE public.kept AS SELECT * FROM app.artifacts WHERE kind = 'stdout' AND step_id = 'tool-001';
               DELETE FROM app.artifacts WHERE kind = 'stdout' AND step_id = 'tool-001'",
        mend: "INSERT INTO app.artifacts SELECT * FROM public.kept; DROP TABLE public.kept",
        finding: "0 artifacts of kind stdout, where the step's output has 1",
    },
    Case {
        invariant: "artifact_hashes_fit",
        side: App,
        harm: "UPDATE app.artifacts SET sha256 = repeat('0', 64) WHERE kind = 'plan'",
        mend: "UPDATE app.artifacts SET sha256 = encode(sha256(convert_to(canonical, 'UTF8')), 'hex') WHERE kind = 'plan'",
        finding: "kind plan, sha256 000000000000… is not that of its content",
    },
    Case {
        invariant: "artifact_hashes_fit",
        side: App,
        harm: "UPDATE app.artifacts SET canonical = canonical || ' ' WHERE kind = 'plan'",
        mend: "UPDATE app.artifacts SET canonical = rtrim(canonical) WHERE kind = 'plan'",
        finding: "kind plan, sha256 ",
    },
    Case {
        invariant: "artifact_hashes_fit",
        side: App,
        harm: "UPDATE app.artifacts SET inline = inline || '{\"prompt\":\"other\"}' WHERE kind = 'plan'",
        mend: "UPDATE app.artifacts SET inline = canonical::jsonb WHERE kind = 'plan'",
        finding: "kind plan, the text that was hashed is not its content",
    },
    // As a row is from before there was a column for the text.
    Case {
        invariant: "artifact_hashes_fit",
        side: App,
        harm: "CREATE TABLE public.kept AS SELECT * FROM app.artifacts WHERE kind = 'plan';
               UPDATE app.artifacts SET canonical = NULL;
               UPDATE app.artifacts SET inline = inline || '{\"prompt\":\"other\"}' WHERE kind = 'plan'",
        mend: "DELETE FROM app.artifacts WHERE kind = 'plan'; INSERT INTO app.artifacts SELECT * FROM public.kept;
               DROP TABLE public.kept",
        finding: "is not that of its content",
    },
    Case {
        invariant: "ids_not_reused",
        side: App,
        harm: "INSERT INTO app.intents (id, goal, payload) VALUES ('it_1', 'g', '{}')",
        mend: "DELETE FROM app.intents WHERE id = 'it_1'",
        finding: "is no id that this service makes (it_ and 32 hexadecimal digits)",
    },
    Case {
        invariant: "ids_not_reused",
        side: System,
        harm: "UPDATE dbos.workflow_status SET name = 'another' WHERE workflow_uuid = 'FAILED'",
        mend: "UPDATE dbos.workflow_status SET name = 'intent_run' WHERE workflow_uuid = 'FAILED'",
        finding: "has the id of a run, but is a workflow named another",
    },
    Case {
        invariant: "workflows_have_runs",
        side: System,
        harm: "INSERT INTO dbos.workflow_status (workflow_uuid, status, name, application_name)
               SELECT 'orphan', 'ERROR', name, application_name FROM dbos.workflow_status WHERE workflow_uuid = 'RUN'",
        mend: "DELETE FROM dbos.workflow_status WHERE workflow_uuid = 'orphan'",
        finding: "workflow ERROR without a row in app.runs",
    },
    Case {
        invariant: "checkpoints_match_steps",
        side: System,
        harm: "UPDATE dbos.operation_outputs SET function_id = 9 WHERE workflow_uuid = 'RUN' AND function_id = 3",
        mend: "UPDATE dbos.operation_outputs SET function_id = 3 WHERE function_id = 9",
        finding: "ended as SUCCESS with 4 checkpoints, numbered 0 to 9",
    },
    Case {
        invariant: "checkpoints_match_steps",
        side: System,
        harm: "UPDATE dbos.operation_outputs SET function_name = 'other' WHERE workflow_uuid = 'RUN' AND function_id = 3",
        mend: "UPDATE dbos.operation_outputs SET function_name = 'tool-003' WHERE function_name = 'other'",
        finding: "app.run_steps has a row, the engine has no checkpoint",
    },
    Case {
        invariant: "checkpoints_match_steps",
        side: System,
        harm: "INSERT INTO dbos.operation_outputs (workflow_uuid, function_id, function_name) VALUES ('FAILED', 7, 'tool-007')",
        mend: "DELETE FROM dbos.operation_outputs WHERE function_id = 7",
        finding: "the engine has a checkpoint, app.run_steps has no row",
    },
    Case {
        invariant: "marks_match_workflows",
        side: App,
        harm: "DELETE FROM app.marks WHERE step = 's2'",
        mend: "INSERT INTO app.marks VALUES ('demo', 's2')",
        finding: "ended as SUCCESS with the marks s1",
    },
    Case {
        invariant: "marks_match_workflows",
        side: App,
        harm: "INSERT INTO app.marks VALUES ('by hand', 's1')",
        mend: "DELETE FROM app.marks WHERE run_id = 'by hand'",
        finding: "the mark has no crash_demo workflow of that id",
    },
    Case {
        invariant: "idempotency_keys_answer",
        side: App,
        harm: "UPDATE app.idempotency_keys SET body = replace(body, 'RUN', 'run_ffffffffffffffffffffffffffffffff')",
        mend: "UPDATE app.idempotency_keys SET body = replace(body, 'run_ffffffffffffffffffffffffffffffff', 'RUN')",
        finding: "which does not exist",
    },
    Case {
        invariant: "migrations_at_head",
        side: App,
        harm: "CREATE TABLE public.kept AS SELECT * FROM app.schema_migrations WHERE version = 1;
               DELETE FROM app.schema_migrations WHERE version = 1",
        mend: "INSERT INTO app.schema_migrations SELECT * FROM public.kept; DROP TABLE public.kept",
        finding: "is not recorded as applied",
    },
    Case {
        invariant: "migrations_at_head",
        side: App,
        harm: "INSERT INTO app.schema_migrations (version, description, success, checksum, execution_time)
               VALUES (999, 'of a later version', true, '', 0)",
        mend: "DELETE FROM app.schema_migrations WHERE version = 999",
        finding: "is applied, and unknown to this version of Sisu Kodo",
    },
    Case {
        invariant: "migrations_at_head",
        side: App,
        harm: "UPDATE app.schema_migrations SET success = false WHERE version = 1",
        mend: "UPDATE app.schema_migrations SET success = true",
        finding: "was begun and not finished",
    },
    Case {
        invariant: "migrations_at_head",
        side: App,
        harm: "UPDATE app.schema_migrations SET checksum = checksum || '\\x00' WHERE version = 1",
        mend: "UPDATE app.schema_migrations SET checksum = substr(checksum, 1, length(checksum) - 1) WHERE version = 1",
        finding: "was applied from another text than this version's",
    },
    Case {
        invariant: "schemas_apart",
        side: App,
        harm: "CREATE TABLE app.workflow_status ()",
        mend: "DROP TABLE app.workflow_status",
        finding: "has the name of one of the engine's tables",
    },
    Case {
        invariant: "schemas_apart",
        side: App,
        harm: "CREATE SCHEMA dbos; CREATE TABLE dbos.anything ()",
        mend: "DROP SCHEMA dbos CASCADE",
        finding: "is in the product database, while the engine's schema is in another one",
    },
    Case {
        invariant: "schemas_apart",
        side: System,
        harm: "CREATE TABLE dbos.runs ()",
        mend: "DROP TABLE dbos.runs",
        finding: "is in the engine's schema, and none of its tables",
    },
    Case {
        invariant: "schemas_apart",
        side: System,
        harm: "CREATE SCHEMA app; CREATE TABLE app.runs ()",
        mend: "DROP SCHEMA app CASCADE",
        finding: "and belongs to no product database",
    },
    Case {
        invariant: "artifacts_complete",
        side: App,
        harm: r#"UPDATE app.run_steps SET shown = '{"stored": true, "sha256": "x", "size": 1}' WHERE run_id = 'RUN' AND step_id = 'plan'"#,
        mend: "UPDATE app.run_steps SET shown = NULL",
        finding: "0 artifacts of kind output, where the step's output has 1",
    },
    Case {
        invariant: "artifacts_complete",
        side: App,
        harm: r#"UPDATE app.run_steps SET shown = '{"stored": true, "sha256": "xyz", "size": 7}' WHERE run_id = 'RUN' AND step_id = 'plan';
               INSERT INTO app.artifacts (run_id, step_id, idx, kind, uri, inline, sha256, stored_bytes, media_type)
               VALUES ('RUN', 'plan', 99, 'output', 'artifact://RUN/plan/99',
                       jsonb_build_object('stored', true, 'mediaType', 'application/json', 'size', 7, 'sha256', repeat('a', 64)),
                       repeat('a', 64), 7, 'application/json')"#,
        mend: "DELETE FROM app.artifacts WHERE kind = 'output'; UPDATE app.run_steps SET shown = NULL",
        finding: "a view shows that its output is xyz…, and the step's artifact is another one",
    },
    Case {
        invariant: "workspaces_kept",
        side: App,
        harm: r#"UPDATE app.run_steps SET output = output || '{"workspace": {"sha256": "abc", "size": 9, "entries": 0, "bytes": 0}}'
               WHERE run_id = 'RUN' AND step_id = 'tool-001'"#,
        mend: "UPDATE app.run_steps SET output = output - 'workspace'",
        finding: "no row keeps its workspace, the manifest abc… of 9 bytes",
    },
    Case {
        invariant: "workspaces_kept",
        side: App,
        harm: r#"UPDATE app.run_steps SET output = output || format('{"workspace": {"sha256": "%s", "size": 9, "bytes": 5}}', repeat('b', 64))::jsonb
               WHERE run_id = 'RUN' AND step_id = 'tool-001';
               INSERT INTO app.workspace_objects VALUES ('RUN', 'tool-001', repeat('b', 64), 9)"#,
        mend: "DELETE FROM app.workspace_objects; UPDATE app.run_steps SET output = output - 'workspace'",
        finding: "its workspace has 5 bytes of content, and no row keeps any",
    },
    Case {
        invariant: "one_system_database",
        side: App,
        harm: "CREATE TABLE public.kept AS SELECT system_database FROM app.instance;
               UPDATE app.instance SET system_database = (SELECT oid FROM pg_database WHERE datname = 'postgres')",
        mend: "UPDATE app.instance SET system_database = (SELECT system_database FROM public.kept); DROP TABLE public.kept",
        finding: "is bound to the system database postgres, and this is ",
    },
    Case {
        invariant: "one_system_database",
        side: App,
        harm: "CREATE TABLE public.kept AS SELECT product_database FROM app.instance;
               UPDATE app.instance SET product_database = (SELECT oid FROM pg_database WHERE datname = 'postgres')",
        mend: "UPDATE app.instance SET product_database = (SELECT product_database FROM public.kept); DROP TABLE public.kept",
        finding: "is a copy of postgres, and this is the system database of both, ",
    },
];

/// Two databases with a run that succeeded, one that failed and a crash demo, and no service.
async fn finished(test: &str, scratch: &Scratch) -> (World, String, String) {
    let intent: Intent = decode(&parse_json(DEMO_INTENT.as_bytes()).unwrap()).unwrap();
    let default = std::fs::read_to_string(format!("{}/default.json", fixtures())).unwrap();
    scratch.file("default.json", &default);
    scratch.file(&format!("{}.json", fixture_key(&intent, 424_242)), "{}");
    let mut world = World::apart(test, |options| {
        options
            .env("OC_FIXTURES_DIR", scratch.path().display())
            .env("TEST_SEED", 424_242)
            .env("WF_SLEEP_MS", 0)
    })
    .await;
    let intent = world.intent(OTHER_INTENT).await;
    let headers = [("Idempotency-Key", "once")];
    let path = format!("/intents/{intent}/run");
    let answer = world
        .client
        .send(hyper::Method::POST, &path, &headers, "{}");
    let run = crate::support::text(&answer.await.unwrap(), "runId");
    assert_eq!(world.ended(&run).await["status"], "succeeded");
    let intent = world.intent(DEMO_INTENT).await;
    let failed = world.run(&intent).await;
    assert_eq!(world.ended(&failed).await["status"], "failed");
    world.client.post("/crashdemo?wf=demo", "").await.unwrap();
    until("the crash demo's end", || async {
        let over: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM dbos.workflow_status WHERE workflow_uuid = 'demo' AND status = 'SUCCESS'",
        )
        .fetch_one(&world.system)
        .await
        .unwrap();
        over == 1
    })
    .await;
    assert!(world.service.stop().await.expect("an exit").success());
    (world, run, failed)
}

/// Each case of one side is found by the invariant that it violates, and by no other.
async fn found_by_its_own(test: &str, side: Side) {
    let scratch = Scratch::new(test);
    let (world, run, failed) = finished(test, &scratch).await;
    let pool = match side {
        App => &world.app,
        System => &world.system,
    };
    let none = [""; 0];
    assert_eq!(violated(&proof(&world).await), none);
    for case in CASES.iter().filter(|case| case.side == side) {
        let names = |text: &str| text.replace("RUN", &run).replace("FAILED", &failed);
        execute(pool, &names(case.harm)).await;
        let found = proof(&world).await;
        execute(pool, &names(case.mend)).await;
        assert_eq!(
            violated(&found),
            [case.invariant],
            "{}: {found:#}",
            case.harm
        );
        let rows = invariant(&found, case.invariant)["violations"]
            .as_array()
            .unwrap();
        let said = |row: &Value| row["finding"].as_str().unwrap().contains(case.finding);
        assert!(rows.iter().any(said), "{}: {rows:#?}", case.harm);
    }
    let after = proof(&world).await;
    assert_eq!(violated(&after), none, "{after:#}");
}

#[tokio::test]
async fn each_violation_in_the_product_database_is_found_by_its_own_invariant_and_by_no_other() {
    found_by_its_own("prove_red_app", App).await;
}

#[tokio::test]
async fn each_violation_in_the_system_database_is_found_by_its_own_invariant_and_by_no_other() {
    found_by_its_own("prove_red_system", System).await;
}

#[test]
fn every_invariant_is_violated_by_some_test() {
    for name in kodo_store::INVARIANTS {
        // The one that needs a live worker has a test of its own.
        let seen = CASES.iter().any(|case| case.invariant == name);
        assert!(seen || name == "no_run_stranded", "{name} was never red");
    }
}

#[tokio::test]
async fn a_person_is_shown_a_few_of_many_and_a_program_all() {
    let mut world = World::new("prove_many").await;
    world.service.kill9().await.expect("kill");
    execute(
        &world.app,
        "INSERT INTO app.marks SELECT 'by hand ' || lpad(n::text, 3, '0'), 's1' FROM generate_series(1, 12) n",
    )
    .await;
    let told = kodo_on(&world, &["prove"]).await;
    assert_eq!(told.code, Some(1), "{told:?}");
    let at = told.stdout.find("VIOLATED").expect("a violation");
    let block = told.stdout[at..].split("\n\n").next().unwrap();
    insta::assert_snapshot!(block, @r"
    VIOLATED  Marks and crash demos match: one that succeeded has s1 and s2, and no mark is without its
              workflow, unless that was deleted after both.
              12 found in 12 marks and crash demos
                by hand 001/s1: the mark has no crash_demo workflow of that id
                by hand 002/s1: the mark has no crash_demo workflow of that id
                by hand 003/s1: the mark has no crash_demo workflow of that id
                by hand 004/s1: the mark has no crash_demo workflow of that id
                by hand 005/s1: the mark has no crash_demo workflow of that id
                by hand 006/s1: the mark has no crash_demo workflow of that id
                by hand 007/s1: the mark has no crash_demo workflow of that id
                by hand 008/s1: the mark has no crash_demo workflow of that id
                by hand 009/s1: the mark has no crash_demo workflow of that id
                by hand 010/s1: the mark has no crash_demo workflow of that id
                and 2 more (kodo prove --json lists them)
              scripts/db/psql-both.sh -f db/invariants/marks_match_workflows.sql
    ");
    assert!(told.stdout.ends_with("\n1 of 17 invariants is violated.\n"));
    // At the end of the screen, behind those that hold.
    assert!(!told.stdout[at..].contains("\nholds "), "{}", told.stdout);
    let found = proof(&world).await;
    let rows = &invariant(&found, "marks_match_workflows")["violations"];
    assert_eq!(rows.as_array().map(Vec::len), Some(12));
}

#[tokio::test]
async fn a_run_that_nobody_will_ever_work_on_is_stranded_while_a_worker_lives() {
    let world = World::new("prove_stranded").await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    world.ended(&run).await;
    // On a queue that no worker listens to.
    let lost = kodo_contract::RunId::generate().into_string();
    execute(
        &world.app,
        &format!("INSERT INTO app.runs (id, intent_id, workflow_id) VALUES ('{lost}', '{intent}', '{lost}')
                  ON CONFLICT DO NOTHING;
                  INSERT INTO dbos.workflow_status (workflow_uuid, status, name, application_name, queue_name)
                  SELECT '{lost}', 'ENQUEUED', name, application_name, 'nobody' FROM dbos.workflow_status LIMIT 1"),
    )
    .await;
    let found = proof(&world).await;
    assert_eq!(violated(&found), ["no_run_stranded"], "{found:#}");
    assert_eq!(
        invariant(&found, "no_run_stranded")["violations"],
        json!([{
            "subject": lost,
            "finding": "queued, but its workflow stays ENQUEUED, while a worker is idle",
        }])
    );
}

#[tokio::test]
async fn on_one_database_no_key_and_no_view_may_cross() {
    let mut world = World::new("prove_cross").await;
    world.service.kill9().await.expect("kill");
    execute(
        &world.app,
        "CREATE VIEW app.peek AS SELECT workflow_uuid FROM dbos.workflow_status;
         ALTER TABLE app.marks ADD CONSTRAINT leads FOREIGN KEY (run_id) REFERENCES dbos.workflow_status (workflow_uuid)",
    )
    .await;
    let found = proof(&world).await;
    assert_eq!(violated(&found), ["schemas_apart"], "{found:#}");
    assert_eq!(
        invariant(&found, "schemas_apart")["violations"],
        json!([
            { "subject": "app.marks", "finding": "foreign key leads leads to dbos.workflow_status" },
            { "subject": "app.peek", "finding": "the view reads dbos.workflow_status" },
        ])
    );
}
