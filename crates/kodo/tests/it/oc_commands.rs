//! `kodo oc …`: the planner's fixtures from the command line, without any database.

use crate::model::{Reply, Script, ScriptedModel};
use serde_json::{Value, json};

use crate::program::kodo;
use crate::scratch::Scratch;
use crate::support::DEMO_INTENT;

fn plan(prompt: &str) -> Value {
    json!({"prompt": prompt, "toolCalls": [{"name": "exec", "args": {"argv": ["true"]}}], "responses": [], "diffs": []})
}

async fn model() -> ScriptedModel {
    let script = Script::default().otherwise(plan("scripted"));
    ScriptedModel::start(0, script).await.unwrap()
}

#[tokio::test]
async fn a_fixture_is_recorded_shown_checked_and_compared() {
    let model = model().await;
    let scratch = Scratch::new("oc_commands");
    let elsewhere = Scratch::new("oc_commands_intents");
    let intent = elsewhere.file("demo.json", DEMO_INTENT);
    let intent = intent.to_str().unwrap();
    let (dir, url) = (scratch.path().display().to_string(), model.url());
    let environment = [
        ("OC_FIXTURES_DIR", dir.as_str()),
        ("OC_BASE_URL", &url),
        ("OC_MODEL", "scripted"),
    ];
    let alone = &environment[..1];

    // Nothing is there yet.
    let none = kodo(&["oc", "show", intent], alone).await;
    assert_eq!(none.code, Some(3), "{none:?}");
    assert!(none.stderr.contains("no fixture"), "{none:?}");
    let none = kodo(&["oc", "verify"], alone).await;
    assert_eq!(none.code, Some(1), "{none:?}");
    let none = kodo(&["oc", "record", intent], alone).await;
    assert!(none.stderr.contains("set OC_BASE_URL"), "{none:?}");

    let recorded = kodo(&["oc", "record", intent], &environment).await;
    assert_eq!(recorded.code, Some(0), "{recorded:?}");
    let key = recorded.stdout.split(' ').next().unwrap().to_owned();
    assert!(
        recorded
            .stdout
            .contains(" added: plan of 1 tool calls (exec)"),
        "{recorded:?}"
    );
    // Once more, by the fixture itself: the same question, the same answer.
    let again = kodo(&["oc", "record"], &environment).await;
    assert!(
        again.stdout.starts_with(&format!("{key} unchanged")),
        "{again:?}"
    );

    let shown = kodo(&["oc", "show", &key[..8], "--output", "json"], alone).await;
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown["fixture"]["response"], plan("scripted"));
    assert_eq!(shown["isDefault"], false);
    let shown = kodo(&["oc", "show", intent], alone).await;
    assert!(
        shown.stdout.contains("the fixture with this key"),
        "{shown:?}"
    );
    let verified = kodo(&["oc", "verify"], alone).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    assert!(
        verified.stdout.contains("1 fixtures, 0 wrong"),
        "{verified:?}"
    );

    // Compared with what the model says now: the same, and then not.
    let same = kodo(&["oc", "diff", &key], &environment).await;
    assert_eq!((same.code, same.stdout.as_str()), (Some(0), ""), "{same:?}");
    model.next(Reply::Json(plan("changed")));
    let other = kodo(&["oc", "diff", intent], &environment).await;
    assert_eq!(other.code, Some(1), "{other:?}");
    assert!(
        other.stdout.contains("-  \"prompt\": \"scripted\"")
            && other.stdout.contains("+  \"prompt\": \"changed\""),
        "{other:?}"
    );

    // Another seed is another question, answered by the default once there is one.
    let seed = [
        environment[0],
        environment[1],
        environment[2],
        ("TEST_SEED", "1"),
    ];
    model.next(Reply::Json(plan("default")));
    let default = kodo(&["oc", "record", "--default", intent], &seed).await;
    assert!(default.stdout.starts_with("default added"), "{default:?}");
    let shown = kodo(&["oc", "show", intent], &seed).await;
    assert!(shown.stdout.contains("the default fixture"), "{shown:?}");
    let two = kodo(&["oc", "diff", &key, "default"], alone).await;
    assert!(two.stdout.contains("+  \"prompt\": \"default\""), "{two:?}");

    // A recorded failure ends the command with 1, and stays.
    model.next(Reply::Refusal("no".into()));
    let declined = kodo(&["oc", "record", &key], &environment).await;
    assert_eq!(declined.code, Some(1), "{declined:?}");
    assert!(
        declined
            .stdout
            .contains("changed: failure planner_declined"),
        "{declined:?}"
    );

    // Whatever is no fixture is found, and why.
    scratch.file(&format!("{}.json", "a".repeat(64)), "{}");
    let wrong = kodo(&["oc", "verify", "--output", "json"], alone).await;
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    let report: Value = serde_json::from_str(&wrong.stdout).unwrap();
    assert_eq!(report["ok"], false);
    let bad: Vec<&Value> = report["fixtures"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|fixture| fixture["ok"] == false)
        .collect();
    assert_eq!(bad.len(), 1, "{report:#}");
    assert!(
        bad[0]["answer"]
            .as_str()
            .unwrap()
            .contains("missing field `key`"),
        "{report:#}"
    );
    for nonsense in ["xyz", "abc", "no-such-file.json"] {
        let ended = kodo(&["oc", "show", nonsense], alone).await;
        assert!(ended.stderr.contains("is no question"), "{ended:?}");
    }
}

#[tokio::test]
async fn the_committed_fixtures_are_sound() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/oc");
    let verified = kodo(&["oc", "verify"], &[("OC_FIXTURES_DIR", dir)]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

#[tokio::test]
async fn where_no_fixtures_are_the_place_that_was_looked_at_is_named() {
    // The tests run in the folder of their crate, which has none.
    let looked_at = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/oc");
    let ended = kodo(&["oc", "verify"], &[]).await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended.stderr.contains(looked_at) && ended.stderr.contains("OC_FIXTURES_DIR"),
        "{ended:?}"
    );
}
