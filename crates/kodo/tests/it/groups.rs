//! The journal: what many write at once goes into few transactions, one bad row fails alone, and a lost connection fails
//! nobody.

use futures_util::future::join_all;
use kodo_contract::{Intent, IntentId, decode};
use kodo_store::{Group, Journal, Store, StoreError, Write};
use serde_json::json;
use sqlx::{PgConnection, PgPool};

use crate::evidence::checkpointed;
use crate::proof::assert_invariants_hold;
use crate::support::{OTHER_INTENT, World, until};

fn intent(goal: &str) -> Intent {
    let mut intent: Intent =
        decode(&json!({"goal": "g", "inputs": {}, "constraints": {}})).expect("an intent");
    // Whatever its length: no boundary lies between this test and the statement.
    goal.clone_into(&mut intent.goal);
    intent
}

async fn store_all(store: &Store, goals: &[String]) -> Vec<Result<Write, StoreError>> {
    let storing = goals.iter().map(|goal| async move {
        store
            .insert_intent(&IntentId::generate(), &intent(goal), None)
            .await
    });
    join_all(storing).await
}

async fn transactions(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(DISTINCT xmin::text) FROM app.intents")
        .fetch_one(pool)
        .await
        .expect("transactions")
}

#[tokio::test]
async fn what_comes_together_is_written_in_few_transactions() {
    let world = World::new("group_few").await;
    let store = Store::new(&world.databases().app, 4);
    let goals: Vec<String> = (0..400).map(|n| format!("goal {n}")).collect();
    let stored = store_all(&store, &goals).await;
    assert!(stored.iter().all(|it| matches!(it, Ok(Write::Created))));
    assert_eq!(world.count("SELECT count(*) FROM app.intents").await, 400);
    let transactions = transactions(&world.app).await;
    assert!(transactions < 40, "{transactions}");
}

#[tokio::test]
async fn of_a_group_one_bad_row_fails_alone() {
    let world = World::new("group_bad").await;
    let store = Store::new(&world.databases().app, 4);
    let mut goals: Vec<String> = (0..50).map(|n| format!("goal {n}")).collect();
    // The column refuses it.
    goals[17].clear();
    let stored = store_all(&store, &goals).await;
    for (n, stored) in stored.iter().enumerate() {
        match n {
            17 => assert!(matches!(stored, Err(StoreError::Refused(_))), "{stored:?}"),
            _ => assert!(matches!(stored, Ok(Write::Created)), "{n}: {stored:?}"),
        }
    }
    assert_eq!(world.count("SELECT count(*) FROM app.intents").await, 49);
}

#[tokio::test]
async fn a_connection_that_is_lost_again_and_again_fails_nobody_and_writes_nothing_twice() {
    let world = World::new("group_lost").await;
    let store = Store::new(&world.databases().app, 4);
    let mut stored = 0;
    for round in 0..20 {
        let goals: Vec<String> = (0..30).map(|n| format!("goal {round} {n}")).collect();
        let cut = sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE application_name = 'kodo-journal' AND datname = current_database()",
        )
        .execute(&world.app);
        let (all, _) = tokio::join!(store_all(&store, &goals), cut);
        assert!(
            all.iter().all(|it| matches!(it, Ok(Write::Created))),
            "{all:?}"
        );
        stored += all.len();
    }
    let rows = world.count("SELECT count(*) FROM app.intents").await;
    assert_eq!(rows, i64::try_from(stored).unwrap());
}

/// A group whose writer ends with a panic where an entry asks for it.
struct Fragile;

impl Group for Fragile {
    type Entry = bool;
    type Answer = ();

    fn size(_: &bool) -> usize {
        1
    }

    async fn write(&self, _: &mut PgConnection, entries: &[&bool]) -> Result<Vec<()>, StoreError> {
        assert!(!entries.contains(&&true), "asked for");
        Ok(vec![(); entries.len()])
    }
}

#[tokio::test]
async fn a_writer_that_ends_by_a_fault_is_replaced() {
    let world = World::new("group_panic").await;
    let options = world.databases().app.connect_options("kodo-it");
    let journal = Journal::new(options, Fragile);
    journal.write(false).await.expect("written");
    let lost = journal.write(true).await.expect_err("the writer ends");
    assert!(lost.is_transient(), "{lost}");
    until("another writer", || async {
        journal.write(false).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_row_that_somebody_keeps_locked_holds_up_no_other_run() {
    let world = World::with("group_locked", |options| {
        options.env("SBX_MOCK_DELAY_MS", 500)
    })
    .await;
    let intent = world.intent(OTHER_INTENT).await;
    let held = world.run(&intent).await;
    checkpointed(&world, &held, "plan").await;
    let mut engines = world.system.begin().await.expect("a transaction");
    sqlx::query("SELECT FROM dbos.workflow_status WHERE workflow_uuid = $1 FOR UPDATE")
        .bind(&held)
        .execute(&mut *engines)
        .await
        .expect("a lock");
    for _ in 0..3 {
        let run = world.run(&intent).await;
        assert_eq!(world.ended(&run).await["status"], "succeeded");
    }
    let unfinished = "SELECT count(*) FROM app.runs WHERE status = 'running'";
    assert_eq!(world.count(unfinished).await, 1, "it waits for the lock");
    engines.rollback().await.expect("let go");
    assert_eq!(world.ended(&held).await["status"], "succeeded");
    assert_invariants_hold(&world).await;
}
