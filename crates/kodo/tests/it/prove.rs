//! `kodo prove` where everything holds, and where nothing can be proven.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::test_databases::TestDatabases;
use kodo_store::INVARIANTS;
use serde_json::{Value, json};

use crate::evidence::{recorded, workflow};
use crate::interrupted::abandoned;
use crate::program::{in_repository, kodo};
use crate::proof::{assert_invariants_hold, invariant, proof, violated};
use crate::support::{OTHER_INTENT, World, program, server, text, until};
use crate::workflow_commands::kodo_on;

fn environment(databases: &TestDatabases) -> Vec<(String, String)> {
    databases.databases.environment()
}

fn borrowed(environment: &[(String, String)]) -> Vec<(&str, &str)> {
    environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

/// Starts runs one after another until told to stop.
async fn load(world: &World, intent: &str, stop: Arc<AtomicBool>) {
    let path = format!("/intents/{intent}/run");
    while !stop.load(Ordering::Relaxed) {
        // A 503 of a busy machine is as good a load; the rows say what was accepted.
        world.client.post(&path, "").await.expect("an answer");
    }
}

/// Proves a few times while runs are started, and once more when all of them are over and the service is down.
async fn proves_under_load_and_after_it(mut world: World) {
    let intent = world.intent(OTHER_INTENT).await;
    let stop = Arc::new(AtomicBool::new(false));
    let proving = async {
        for _ in 0..3 {
            let proof = proof(&world).await;
            assert_eq!(violated(&proof), [""; 0], "{proof:#}");
            assert_eq!(proof["workers"], json!(["kodo-0"]));
        }
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(load(&world, &intent, Arc::clone(&stop)), proving);
    until("the end of every run", || async {
        let open = "SELECT count(*) FROM app.runs WHERE status <> 'succeeded'";
        world.count(open).await == 0
    })
    .await;
    world.client.post("/crashdemo?wf=demo", "").await.unwrap();
    until("both marks", || async {
        world.count("SELECT count(*) FROM app.marks").await == 2
    })
    .await;
    assert!(world.service.stop().await.expect("an exit").success());
    let started = world.count("SELECT count(*) FROM app.runs").await as usize;
    let proof = proof(&world).await;
    assert_eq!(violated(&proof), [""; 0], "{proof:#}");
    assert_eq!(proof["workers"], json!([]));
    assert_eq!(proof["runs"], json!({ "succeeded": started }));
    // Nothing was found among everything, not among nothing.
    let looked_at = |name: &str| invariant(&proof, name)["lookedAt"].as_u64().unwrap() as usize;
    assert!(started > 0);
    assert_eq!(looked_at("statuses_agree"), started);
    assert_eq!(looked_at("succeeded_runs_complete"), started);
    assert_eq!(looked_at("artifacts_complete"), started * 4);
    assert_eq!(looked_at("checkpoints_match_steps"), started * 8 + 3);
    assert_eq!(looked_at("marks_match_workflows"), 3);
    let artifacts = world.count("SELECT count(*) FROM app.artifacts").await;
    assert_eq!(looked_at("artifact_hashes_fit") as i64, artifacts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_holds_on_two_databases_under_load_and_with_the_service_down() {
    let world = World::apart("prove_apart", |options| options.env("WF_SLEEP_MS", 0)).await;
    proves_under_load_and_after_it(world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_holds_on_one_database_under_load_and_with_the_service_down() {
    let world = World::with("prove_one", |options| options.env("WF_SLEEP_MS", 0)).await;
    proves_under_load_and_after_it(world).await;
}

#[tokio::test]
async fn a_deployment_that_never_ran_anything_holds_and_says_that_it_looked_at_nothing() {
    let databases = TestDatabases::two(&program(), &server(), "prove_empty")
        .await
        .unwrap();
    let environment = environment(&databases);
    let ended = kodo(&["prove", "-o", "json"], &borrowed(&environment)).await;
    let mut proof = crate::proof::read(&ended);
    let names: Vec<&str> = proof["invariants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|invariant| invariant["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, INVARIANTS);
    // The shape, which programs read.
    proof["productDatabase"] = "APP".into();
    proof["systemDatabase"] = "SYS".into();
    proof["instance"] = "INSTANCE".into();
    proof["invariants"].as_array_mut().unwrap().truncate(1);
    insta::assert_snapshot!(format!("{proof:#}"), @r#"
    {
      "holds": true,
      "productDatabase": "APP",
      "systemDatabase": "SYS",
      "instance": "INSTANCE",
      "workers": [],
      "runs": {},
      "invariants": [
        {
          "name": "no_run_stranded",
          "sentence": "No run is stranded: while a worker lives, every run that is not over is being worked on or waits its turn.",
          "holds": true,
          "lookedAt": 0,
          "units": "unfinished runs",
          "violations": [],
          "more": false,
          "waiting": [],
          "query": "scripts/db/psql-both.sh -f db/invariants/no_run_stranded.sql"
        }
      ]
    }
    "#);
    let told = kodo(&["prove"], &borrowed(&environment)).await;
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""));
    assert!(told.stdout.contains("No worker lives; no runs yet."));
    // The tables of the product are there, and nothing in them.
    assert!(
        told.stdout.contains("no rows to check: 0 runs\n"),
        "{}",
        told.stdout
    );
    let unchecked = told.stdout.matches(" no rows to check: 0 ").count();
    assert!(
        told.stdout.ends_with(&format!(
            "\nAll {} invariants hold; {unchecked} of them had no rows to check.\n",
            INVARIANTS.len()
        )),
        "{}",
        told.stdout
    );
    // The first line names the databases, which have long names here.
    let mut lines = told.stdout.lines().skip(1);
    assert!(lines.all(|line| line.chars().count() <= 100));
}

#[tokio::test]
async fn runs_that_wait_for_a_worker_are_told_and_are_no_violation() {
    let (world, run) = abandoned("prove_wait").await;
    let queued = "INSERT INTO app.runs (id, intent_id, workflow_id)
        SELECT 'run_' || repeat('0', 32), intent_id, 'run_' || repeat('0', 32) FROM app.runs LIMIT 1";
    sqlx::query(queued).execute(&world.app).await.unwrap();
    let told = kodo_on(&world, &["prove"]).await;
    assert_eq!(told.code, Some(0), "{told:?}");
    let head: Vec<&str> = told.stdout.lines().skip(1).take(2).collect();
    assert_eq!(
        head,
        [
            "No worker lives; 2 runs: 1 queued, 1 running.",
            "2 of them not over: they wait until one does."
        ]
    );
    // Its workflow ended meanwhile: the next sweep says so in the run.
    sqlx::query("UPDATE dbos.workflow_status SET status = 'CANCELLED'")
        .execute(&world.system)
        .await
        .unwrap();
    let proof = proof(&world).await;
    assert_eq!(proof["holds"], true);
    let agree = invariant(&proof, "statuses_agree");
    assert_eq!(agree["violations"], json!([]));
    assert_eq!(
        agree["waiting"],
        json!([{ "subject": run, "finding": "running, but its workflow ended as CANCELLED" }])
    );
}

#[tokio::test]
async fn a_queued_run_beside_a_busy_worker_waits_its_turn() {
    let world = World::with("prove_busy", |options| {
        options
            .env("SBX_MOCK_DELAY_MS", crate::interrupted::FOR_EVER)
            .env("DRAIN_GRACE_MS", 300)
            .env("MAX_CONCURRENT_RUNS", 1)
    })
    .await;
    let intent = world.intent(OTHER_INTENT).await;
    let first = world.run(&intent).await;
    recorded(&world, &first, "plan").await;
    world.run(&intent).await;
    let proof = proof(&world).await;
    assert_eq!(violated(&proof), [""; 0], "{proof:#}");
    assert_eq!(proof["runs"], json!({ "queued": 1, "running": 1 }));
    // What keeps the worker busy is older than what is looked at.
    let newest = kodo_on(&world, &["prove", "-o", "json", "--newest", "1"]).await;
    let proof = crate::proof::read(&newest);
    assert_eq!(violated(&proof), [""; 0], "{proof:#}");
    assert_eq!(proof["runs"], json!({ "queued": 1 }));
}

#[tokio::test]
async fn what_a_sweep_mends_while_it_is_looked_at_is_no_violation() {
    let world = World::new("prove_sweep").await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    world.ended(&run).await;
    // As a crash between the engine's outcome and the run's status leaves it.
    sqlx::query("UPDATE app.runs SET status = 'running'")
        .execute(&world.app)
        .await
        .unwrap();
    assert_invariants_hold(&world).await;
    assert_eq!(world.ended(&run).await["status"], "succeeded");
}

#[tokio::test]
async fn where_a_database_cannot_be_asked_nothing_is_proven() {
    let unproven = async |variables: &[(&str, &str)], arguments: &[&str]| {
        let ended = kodo(&[&["prove"], arguments].concat(), variables).await;
        assert_eq!(
            (ended.code, ended.stdout.as_str()),
            (Some(2), ""),
            "{ended:?}"
        );
        let said = ended.stderr.trim_end().to_owned();
        assert!(said.starts_with("kodo: nothing is proven: "), "{said}");
        said
    };
    let said = unproven(&[], &[]).await;
    assert!(
        said.contains("the product database \"app_local\" at 127.0.0.1:1"),
        "{said}"
    );
    let said = unproven(&[("DB_PORT", "many")], &["--json"]).await;
    assert!(said.contains("DB_PORT=many"), "{said}");

    let databases = TestDatabases::two(&program(), &server(), "prove_unproven")
        .await
        .unwrap();
    let environment = environment(&databases);
    let missing = format!("{}_no", databases.databases.system.database);
    let mut variables = borrowed(&environment);
    variables.push(("SYS_DB_NAME", &missing));
    let said = unproven(&variables, &[]).await;
    assert!(said.contains(&missing), "{said}");
    variables.push(("SYS_DB_NAME", &databases.databases.app.database));
    let said = unproven(&variables, &[]).await;
    assert!(said.contains("start the service once"), "{said}");

    let app = databases.databases.app_pool();
    sqlx::query("ALTER TABLE app.artifacts DROP COLUMN canonical")
        .execute(&app)
        .await
        .unwrap();
    let said = unproven(&borrowed(&environment), &[]).await;
    assert!(
        said.contains("has no column app.artifacts.canonical")
            && said.contains("restore the database"),
        "{said}"
    );
    sqlx::raw_sql("DROP SCHEMA app CASCADE")
        .execute(&app)
        .await
        .unwrap();
    let said = unproven(&borrowed(&environment), &[]).await;
    assert!(said.contains("was never migrated"), "{said}");
}

#[tokio::test]
async fn the_query_to_check_by_hand_finds_the_same_and_refuses_where_nothing_is_loaded() {
    let (world, run) = abandoned("prove_hand").await;
    sqlx::query("UPDATE app.runs SET status = 'succeeded'")
        .execute(&world.app)
        .await
        .unwrap();
    let proof = proof(&world).await;
    let variables = world.databases().environment();
    // As a person pastes it at the root of the repository.
    let pasted = invariant(&proof, "statuses_agree")["query"]
        .as_str()
        .unwrap();
    let ended = in_repository("/bin/bash", &["-c", pasted], &borrowed(&variables)).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let line = format!(" {run} | succeeded, but its workflow is PENDING | ");
    assert!(ended.stdout.contains(&line), "{}", ended.stdout);
    // All of them, in one session.
    let mut arguments = vec!["-At"];
    let mut expected = Vec::new();
    for invariant in proof["invariants"].as_array().unwrap() {
        let query = invariant["query"].as_str().unwrap();
        arguments.extend(["-f", query.split_once(" -f ").unwrap().1]);
        expected.extend(invariant["violations"].as_array().unwrap().iter().cloned());
    }
    let ended = in_repository("scripts/db/psql-both.sh", &arguments, &borrowed(&variables)).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let found: Vec<Value> = ended
        .stdout
        .lines()
        .map(|line| line.split('|').collect::<Vec<&str>>())
        // The third column says how long a row may be seen: of those, a proof tells the ones that stay.
        .filter(|cells| cells[2].is_empty())
        .map(|cells| json!({ "subject": cells[0], "finding": cells[1] }))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(
        invariant(&proof, "statuses_agree")["violations"],
        json!([{ "subject": run, "finding": "succeeded, but its workflow is PENDING" }])
    );
    let bare = in_repository(
        "scripts/db/psql-app.sh",
        &[
            "-v",
            "ON_ERROR_STOP=1",
            "-f",
            "db/invariants/statuses_agree.sql",
        ],
        &borrowed(&variables),
    )
    .await;
    assert_eq!((bare.code, bare.stdout.as_str()), (Some(3), ""));
    assert!(bare.stderr.contains("pg_temp.runs"), "{}", bare.stderr);
    // Half of the engine's rows would be worse than none.
    let broken = [
        &borrowed(&variables)[..],
        &[("SYS_DB_NAME", "no_such_database")],
    ]
    .concat();
    let ended = in_repository("scripts/db/psql-both.sh", &["-c", "SELECT 1"], &broken).await;
    assert_ne!(ended.code, Some(0));
    assert_eq!(ended.stdout, "");
}

#[tokio::test]
async fn a_proof_writes_to_no_table_and_needs_no_right_to() {
    let world = World::apart("prove_reader", |options| options).await;
    let intent = world.intent(OTHER_INTENT).await;
    let run = world.run(&intent).await;
    world.ended(&run).await;
    let role = format!("kodo_it_reader_{}", std::process::id());
    let grants = |schema: &str| {
        format!(
            "GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role};"
        )
    };
    let create = format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'reads'; {}",
        grants("app")
    );
    for (pool, statement) in [(&world.app, create), (&world.system, grants("dbos"))] {
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement))
            .execute(pool)
            .await
            .unwrap();
    }
    let environment = world.databases().environment();
    let mut variables = borrowed(&environment);
    variables.extend([("DB_USER", role.as_str()), ("DB_PASSWORD", "reads")]);
    let ended = kodo(&["prove"], &variables).await;
    for pool in [&world.app, &world.system] {
        let drop = format!("DROP OWNED BY {role}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(drop))
            .execute(pool)
            .await
            .unwrap();
    }
    let drop = format!("DROP ROLE {role}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(drop))
        .execute(&world.app)
        .await
        .unwrap();
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stdout, ended.stderr);
    assert_eq!(
        text(
            &world.client.get(&format!("/runs/{run}")).await.unwrap(),
            "status"
        ),
        "succeeded"
    );
}

#[tokio::test]
async fn of_a_large_database_the_newest_runs_can_be_looked_at_alone() {
    let mut world = World::apart("prove_newest", |options| options.env("WF_SLEEP_MS", 1)).await;
    let intent = world.intent(OTHER_INTENT).await;
    let mut runs = Vec::new();
    // The oldest has a key, which is looked at whatever the window is.
    let path = format!("/intents/{intent}/run");
    let keyed = [("Idempotency-Key", "oldest")];
    let oldest = world.client.send(hyper::Method::POST, &path, &keyed, "");
    runs.push(text(&oldest.await.expect("an answer"), "runId"));
    world.ended(&runs[0]).await;
    // An id that looks like a run's and is none is looked at whatever the window is.
    let demo = world.client.post("/crashdemo?wf=run_01", "").await;
    assert_eq!(demo.expect("an answer").status, 202);
    until("the end of the crash demo", || async {
        workflow(&world, "run_01").await.2 == "SUCCESS"
    })
    .await;
    for _ in 0..2 {
        let run = world.run(&intent).await;
        world.ended(&run).await;
        runs.push(run);
    }
    assert!(world.service.stop().await.expect("an exit").success());
    // The oldest is out of order in both databases: among the newest two nothing is.
    let broken = "UPDATE app.runs SET status = 'canceled' WHERE id = $1";
    sqlx::query(broken)
        .bind(&runs[0])
        .execute(&world.app)
        .await
        .unwrap();
    sqlx::query("DELETE FROM dbos.operation_outputs WHERE workflow_uuid = $1")
        .bind(&runs[0])
        .execute(&world.system)
        .await
        .unwrap();
    let newest = kodo_on(&world, &["prove", "-o", "json", "--newest", "2"]).await;
    let proof = crate::proof::read(&newest);
    assert_eq!(violated(&proof), [""; 0], "{proof:#}");
    assert_eq!(proof["newest"], 2);
    assert_eq!(proof["runs"], json!({ "succeeded": 2 }));
    let looked_at = |name: &str| invariant(&proof, name)["lookedAt"].as_i64().unwrap();
    assert_eq!(looked_at("statuses_agree"), 2);
    assert_eq!(looked_at("artifacts_complete"), 2 * 4);
    assert_eq!(looked_at("workflows_have_runs"), 2);
    // Steps and checkpoints of two runs, and the three checkpoints of the crash demo.
    assert_eq!(looked_at("checkpoints_match_steps"), 2 * 8 + 3);
    let told = kodo_on(&world, &["prove", "--newest", "2"]).await;
    let head = "Looked at the newest 2 runs alone (--newest).\n";
    assert!(told.stdout.contains(head), "{}", told.stdout);
    let all = kodo_on(&world, &["prove", "-o", "json", "--newest", "99"]).await;
    let proof = crate::proof::read(&all);
    assert!(violated(&proof).contains(&"statuses_agree"), "{proof:#}");
    assert!(
        violated(&proof).contains(&"checkpoints_match_steps"),
        "{proof:#}"
    );
}
