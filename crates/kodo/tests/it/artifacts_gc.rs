//! Content and rows under crashes: a crash leaves at most content without a row, and collecting it takes nothing that a
//! row names, or is about to.

use std::fs;
use std::time::Duration;

use kodo_contract::ContentHash;
use kodo_dev::harness::Service;
use kodo_store::Store;
use rustix::process::Signal;
use serde_json::Value;

use crate::artifacts_lost::stored_at;
use crate::evidence::killed;
use crate::large::{artifacts, large, left, run};
use crate::proof::assert_invariants_hold;
use crate::scratch::Scratch;
use crate::support::{DEMO_INTENT, World, until};

async fn gc(world: &World, more: &[&str]) -> Value {
    let arguments = [&["gc", "--grace", "0", "-o", "json"], more].concat();
    let ended = artifacts(world, &arguments).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap()
}

async fn verified(world: &World) {
    let ended = artifacts(world, &["verify"]).await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[tokio::test]
async fn a_kill_between_content_and_row_leaves_only_what_gc_removes() {
    let scratch = Scratch::new("artifacts_killed");
    let mut world = large("artifacts_killed", &scratch, &[]).await;
    let undisturbed = world.options.clone();
    world
        .restart(&undisturbed.clone().env("KODO_FAILPOINT", "tool-001:stored"))
        .await;
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    killed(&mut world.service, "tool-001:stored").await;
    // Plan and diff are named by the row of the plan; what the tool left is not.
    assert_eq!(world.count("SELECT count(*) FROM app.run_steps").await, 1);
    let file = stored_at(&scratch.path().join("store"), &left());
    assert!(file.exists());
    // What was being written when a writer died, as it is called then.
    let half = file.with_file_name(format!("{}#1", file.file_name().unwrap().to_str().unwrap()));
    fs::write(&half, "half").unwrap();
    // Two hours ago: what is younger than one may be under way, whatever the grace period.
    let then = std::time::SystemTime::from(kodo_contract::now())
        - std::time::Duration::from_secs(2 * 3600);
    let written = fs::File::options().append(true).open(&half).unwrap();
    written.set_modified(then).unwrap();

    let kept = artifacts(&world, &["gc", "-o", "json"]).await;
    let kept: Value = serde_json::from_str(&kept.stdout).unwrap();
    assert_eq!(
        (&kept["young"], &kept["removed"]),
        (&4.into(), &0.into()),
        "{kept}"
    );
    let dry = gc(&world, &["--dry-run"]).await;
    assert_eq!(
        (&dry["named"], &dry["removed"], &dry["halfWritten"]),
        (&2.into(), &2.into(), &1.into()),
        "{dry}"
    );
    assert!(file.exists() && half.exists());
    let removed = gc(&world, &[]).await;
    assert_eq!(
        (
            &removed["named"],
            &removed["removed"],
            &removed["halfWritten"]
        ),
        (&2.into(), &2.into(), &1.into())
    );
    assert!(!file.exists() && !half.exists());

    world.service = Service::start(&undisturbed).await.unwrap();
    world.client = world.service.client();
    assert_eq!(world.ended(&run).await["status"], "succeeded");
    verified(&world).await;
    assert_invariants_hold(&world).await;
    assert_eq!(gc(&world, &[]).await["removed"], 0);
    verified(&world).await;
}

#[tokio::test]
async fn content_that_is_collected_before_its_row_is_there_is_stored_again() {
    let scratch = Scratch::new("artifacts_raced");
    let mut world = large("artifacts_raced", &scratch, &[]).await;
    let options = world
        .options
        .clone()
        .env("KODO_FAILPOINT", "stop:tool-001:stored");
    world.restart(&options).await;
    let intent = world.intent(DEMO_INTENT).await;
    let run = world.run(&intent).await;
    // It stands between content and row, with nobody to see that the content is wanted.
    let stat = format!("/proc/{}/stat", world.service.pid().unwrap());
    until("the service to stand still", || async {
        fs::read_to_string(&stat)
            .unwrap()
            .rsplit_once(") ")
            .unwrap()
            .1
            .starts_with('T')
    })
    .await;
    let file = stored_at(&scratch.path().join("store"), &left());
    assert!(file.exists());
    assert_eq!(gc(&world, &[]).await["removed"], 2);
    assert!(!file.exists());
    world.service.signal(Signal::CONT).unwrap();
    assert_eq!(world.ended(&run).await["status"], "succeeded");
    verified(&world).await;
}

#[tokio::test]
async fn content_that_somebody_is_about_to_name_is_not_collected() {
    let scratch = Scratch::new("artifacts_held");
    let world = large("artifacts_held", &scratch, &[]).await;
    run(&world).await;
    let store = Store::new(&world.databases().app, 4);
    let hash = ContentHash::of(b"about to be named");
    let held = store
        .hold_content(std::slice::from_ref(&hash))
        .await
        .unwrap();
    assert!(store.claim_unnamed(&hash).await.unwrap().is_none(), "held");
    let both = store
        .hold_content(std::slice::from_ref(&hash))
        .await
        .unwrap();
    drop((held, both));
    until("the claim", || async {
        store.claim_unnamed(&hash).await.unwrap().is_some()
    })
    .await;

    // The other way round: whoever wants to name it waits until it is gone.
    let claim = loop {
        if let Some(claim) = store.claim_unnamed(&hash).await.unwrap() {
            break claim;
        }
    };
    let hashes = [hash.clone()];
    let mut waiting = std::pin::pin!(store.hold_content(&hashes));
    let waited = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(waited.is_err(), "it waits");
    claim.release().await.unwrap();
    waiting.await.unwrap();

    // What a row names is nobody's to claim.
    let named = ContentHash::of(left().as_bytes());
    assert!(store.claim_unnamed(&named).await.unwrap().is_none());
}

/// The lock table of a server has some 6,400 places.
#[tokio::test]
async fn a_step_with_very_much_content_leaves_room_in_the_lock_table() {
    let scratch = Scratch::new("artifacts_locks");
    let world = large("artifacts_locks", &scratch, &[]).await;
    let store = Store::new(&world.databases().app, 4);
    let hashes: Vec<ContentHash> = (0..20_000_u32)
        .map(|it| ContentHash::of(&it.to_le_bytes()))
        .collect();
    let watched = store.watch_content(&hashes).await.unwrap();
    let held = store.hold_content(&hashes).await.unwrap();
    assert!(held.is_untouched_since(watched));
    let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    let locks = world.count(locks).await;
    assert!((1..=256).contains(&locks), "{locks}");
    assert!(store.claim_unnamed(&hashes[7]).await.unwrap().is_none());
    drop(held);
    // Whoever has looked before is told that something was taken, and by nothing else.
    let claim = async || {
        store
            .claim_unnamed(&ContentHash::of(b"other"))
            .await
            .unwrap()
    };
    until("the claim", || async { claim().await.is_some() }).await;
    let held = store.hold_content(&hashes).await.unwrap();
    assert!(!held.is_untouched_since(watched));
}

#[tokio::test]
async fn who_holds_content_leaves_half_of_the_connections_to_others() {
    let scratch = Scratch::new("artifacts_holders");
    let world = large("artifacts_holders", &scratch, &[]).await;
    let store = Store::new(&world.databases().app, 4);
    let hashes = [ContentHash::of(b"held for long")];
    let first = store.hold_content(&hashes).await.unwrap();
    let second = store.hold_content(&hashes).await.unwrap();
    let mut third = std::pin::pin!(store.hold_content(&hashes));
    let waited = tokio::time::timeout(Duration::from_millis(300), &mut third).await;
    assert!(waited.is_err(), "it waits for one of the two");
    let (one, other) = tokio::join!(store.ping(), store.ping());
    one.and(other).unwrap();
    drop(first);
    third.await.unwrap();
    drop(second);
}
