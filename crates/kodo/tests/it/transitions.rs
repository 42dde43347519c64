//! The store moves a run as the table of its transitions allows, and in no other way.

use crate::test_databases::TestDatabases;
use kodo_contract::{Phase, RunError, RunId, RunStatus, StepId, Transition, now};
use kodo_store::{Claim, NewStep, Settlement, Store, StoreError};
use serde_json::json;
use sqlx::PgPool;

use crate::support::{program, server};

/// A run of the seeded intent with this status.
async fn run_with(app: &PgPool, status: RunStatus) -> RunId {
    let run = RunId::generate();
    sqlx::query(
        "INSERT INTO app.runs (id, intent_id, workflow_id, status, error)
         SELECT $1, id, $1, $2, CASE $2 WHEN 'failed' THEN '{}'::jsonb END FROM app.intents LIMIT 1",
    )
    .bind(run.as_str())
    .bind(status.as_str())
    .execute(app)
    .await
    .expect("a run");
    run
}

/// Asks the store for a transition: whether the run's status changed, or that there is no such transition.
async fn asked(
    store: &Store,
    run: &RunId,
    transition: Transition,
    to: RunStatus,
) -> Result<(), StoreError> {
    match transition {
        Transition::Start => {
            let execution = run.as_str();
            let workflow = run.workflow_id();
            let claim = store.claim_run(&workflow, "kodo-0", execution);
            let Claim::Taken(claimed) = claim.await? else {
                panic!("nobody else wants {run}");
            };
            let step = NewStep {
                run_id: run,
                step_id: &StepId::plan(),
                epoch: claimed.epoch,
                phase: Phase::Planning,
                output: &json!({}),
                shown: None,
                view_bytes: 0,
                trace_id: None,
                started_at: now(),
                finished_at: now(),
                artifacts: &[],
                workspace: &[],
            };
            store.record_step(&step).await.map(drop)
        }
        Transition::Settle => {
            let error = (to == RunStatus::Failed).then(|| RunError {
                code: "tool_failed".to_owned(),
                message: "exit code 1".to_owned(),
                step_id: None,
            });
            let settlement = Settlement {
                workflow_id: run.workflow_id(),
                status: to,
                error,
            };
            store.settle(Some(&settlement), None).await.map(drop)
        }
        Transition::Reopen => store.reopen(&run.workflow_id()).await.map(drop),
        // Nothing waits for a person yet.
        Transition::Wait => Ok(()),
    }
}

#[tokio::test]
async fn the_store_moves_a_run_as_the_table_says_and_tells_what_it_cannot_do() {
    let databases = TestDatabases::one(&program(), &server(), "transitions")
        .await
        .unwrap();
    let app = databases.databases.app_pool();
    let store = Store::new(&databases.databases.app, 2);
    store.seed().await.unwrap();
    let mut refused = Vec::new();
    for from in RunStatus::ALL {
        let targets = RunStatus::ALL.map(|to| (Transition::Settle, to));
        let own = [Transition::Start, Transition::Reopen].map(|it| (it, RunStatus::Running));
        for (transition, to) in targets.into_iter().chain(own) {
            let run = run_with(&app, from).await;
            let answer = asked(&store, &run, transition, to).await;
            let status: String = sqlx::query_scalar("SELECT status FROM app.runs WHERE id = $1")
                .bind(run.as_str())
                .fetch_one(&app)
                .await
                .unwrap();
            let expected = match from.can_become(to, transition) {
                true => to,
                false => from,
            };
            assert_eq!(status, expected.as_str(), "{transition:?}: {from} -> {to}");
            match answer {
                Ok(()) => {}
                Err(StoreError::IllegalTransition { .. }) => {
                    refused.push(format!("{transition:?}: {from} -> {to}"));
                }
                Err(error) => panic!("{transition:?}: {from} -> {to}: {error}"),
            }
        }
    }
    // A step of a run that is over is recorded and opens nothing; a run that is open is not opened again. Only what
    // nobody has a reason to ask for is an error.
    let mut expected = vec!["Reopen: succeeded -> running".to_owned()];
    for from in RunStatus::ALL {
        for to in ["queued", "running", "waiting_input"] {
            expected.push(format!("Settle: {from} -> {to}"));
        }
    }
    refused.sort();
    expected.sort();
    assert_eq!(refused, expected);
}
