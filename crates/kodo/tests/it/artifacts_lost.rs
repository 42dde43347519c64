//! Stores that lose, spoil or refuse what they hold.

use std::fs;
use std::path::{Path, PathBuf};

use kodo_contract::ContentHash;
use serde_json::Value;

use crate::evidence::error_of;
use crate::large::{artifacts, get, large, left, run};
use crate::scratch::Scratch;

/// Where content is below a folder.
pub fn stored_at(root: &Path, content: &str) -> PathBuf {
    let hash = ContentHash::of(content.as_bytes()).into_string();
    let instance = fs::read_dir(root).unwrap().next().unwrap().unwrap().path();
    instance.join("sha256").join(&hash[..2]).join(hash)
}

#[tokio::test]
async fn content_that_was_lost_or_spoiled_is_told_and_never_served_as_good() {
    let scratch = Scratch::new("artifacts_lost");
    let world = large("artifacts_lost", &scratch, &[]).await;
    run(&world).await;
    let file = stored_at(&scratch.path().join("store"), &left());
    let path = format!("/artifacts/{}", ContentHash::of(left().as_bytes()));
    assert_eq!(get(&world, &path, &[]).await.status, 200);

    let spoiled = left().replacen('0', "1", 1);
    for (what, status, error) in [
        (
            Some(spoiled.as_str()),
            500,
            "artifact content does not fit its hash",
        ),
        (Some("short"), 500, "artifact content does not fit its hash"),
        (
            None,
            410,
            "artifact content is missing from the artifact store",
        ),
    ] {
        match what {
            Some(text) => fs::write(&file, text).unwrap(),
            None => fs::remove_file(&file).unwrap(),
        }
        for headers in [&[][..], &[("range", "bytes=100-110")]] {
            // Of a range nothing else is read, so only the length of the whole is seen to be wrong.
            if !headers.is_empty() && what == Some(spoiled.as_str()) {
                let part = get(&world, &path, headers).await;
                assert_eq!(
                    (part.status, part.text()),
                    (206, spoiled[100..=110].to_owned())
                );
                continue;
            }
            let answer = get(&world, &path, headers).await;
            assert_eq!(
                (answer.status, answer.json()["error"].as_str()),
                (status, Some(error))
            );
        }
        let verified = artifacts(&world, &["verify", "-o", "json"]).await;
        assert_eq!(verified.code, Some(1), "{verified:?}");
        let report: Value = serde_json::from_str(&verified.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap();
        assert_eq!(findings.len(), 1, "{report:#}");
        assert!(
            findings[0]["artifact"]
                .as_str()
                .unwrap()
                .ends_with("/tool-001/2"),
            "{report:#}"
        );
    }
    fs::write(&file, left()).unwrap();
    assert_eq!(artifacts(&world, &["verify"]).await.code, Some(0));

    // A row that somebody changed.
    sqlx::query("UPDATE app.artifacts SET inline = '\"other\"' WHERE kind = 'stderr'")
        .execute(&world.app)
        .await
        .unwrap();
    let verified = artifacts(&world, &["verify"]).await;
    assert_eq!(verified.code, Some(1));
    assert!(
        verified.stdout.contains("(stderr): the hash of its row is"),
        "{verified:?}"
    );
    sqlx::query("UPDATE app.artifacts SET stored_bytes = stored_bytes + 1 WHERE kind = 'file'")
        .execute(&world.app)
        .await
        .unwrap();
    let proof = crate::proof::proof(&world).await;
    assert_eq!(
        crate::proof::violated(&proof),
        ["artifact_hashes_fit"],
        "{proof:#}"
    );
}

#[tokio::test]
async fn a_run_whose_content_cannot_be_stored_fails_and_says_so() {
    let scratch = Scratch::new("artifacts_away");
    let patience = [("ARTIFACT_STORE_PATIENCE_MS", "300".to_owned())];
    let world = large("artifacts_away", &scratch, &patience).await;
    let store = scratch.path().join("store");
    // As when a mount is gone and something else is in its place.
    fs::remove_dir_all(&store).unwrap();
    fs::write(&store, "").unwrap();
    let view = run(&world).await;
    assert_eq!(view["status"], "failed");
    let error = error_of(&view).unwrap();
    assert_eq!(error["code"], "artifact_store_unavailable", "{error:#}");
    assert!(
        error["message"]
            .as_str()
            .unwrap()
            .ends_with("ARTIFACT_STORE says where it is"),
        "{error:#}"
    );
    assert_eq!(
        world.count("SELECT count(*) FROM app.run_steps").await,
        0,
        "no row without its content"
    );

    fs::remove_file(&store).unwrap();
    assert_eq!(
        run(&world).await["status"],
        "succeeded",
        "the folder is made anew"
    );
}

#[tokio::test]
async fn a_store_that_cannot_be_used_stops_the_start() {
    let ended = |place: &'static str| async move {
        let environment = [
            ("ARTIFACT_STORE", place),
            ("PORT", "0"),
            ("ADMIN_PORT", "0"),
        ];
        let ended = crate::program::kodo(&["serve"], &environment).await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        ended.stderr.lines().last().unwrap().to_owned()
    };
    assert!(
        ended("store")
            .await
            .starts_with("kodo: ARTIFACT_STORE=store is not valid: an absolute path")
    );
    let nowhere = ended("/dev/null/store").await;
    assert!(
        nowhere.starts_with("kodo: ARTIFACT_STORE=/dev/null/store does not work: "),
        "{nowhere}"
    );
    let nobody = ended("s3://bucket").await;
    assert!(nobody.contains("set AWS_ACCESS_KEY_ID"), "{nobody}");
}

/// What two machines have by default: each worker stores where the other one does not look.
#[tokio::test]
async fn a_second_store_on_one_product_database_is_refused_until_it_is_adopted() {
    let scratch = Scratch::new("artifacts_two");
    let mut world = large("artifacts_two", &scratch, &[]).await;
    assert_eq!(run(&world).await["status"], "succeeded");
    let first = scratch.path().join("store");
    let second = scratch.path().join("second");
    let mut elsewhere = world.options.clone();
    elsewhere = elsewhere.env("ARTIFACT_STORE", second.display());
    let refused = kodo_dev::harness::Service::start(&elsewhere)
        .await
        .unwrap_err();
    let refused = refused.to_string();
    assert!(
        refused.contains(&format!("the artifact store {}", second.display()))
            && refused.contains("(this one has none)")
            && refused.contains("kodo artifacts adopt"),
        "{refused}"
    );
    let doctor = crate::doctor::doctor_on(
        world.databases(),
        &[("ARTIFACT_STORE", second.to_str().unwrap())],
    )
    .await;
    let (what, _) = doctor.problem("artifact store");
    assert!(
        what.contains("is not the store of this product database"),
        "{what}"
    );

    // The same store under another name is the same one; one whose content was copied with its mark, too.
    std::os::unix::fs::symlink(&first, scratch.path().join("alias")).unwrap();
    elsewhere = world.options.clone();
    elsewhere = elsewhere.env("ARTIFACT_STORE", scratch.path().join("alias").display());
    world.restart(&elsewhere).await;

    let options = world.options.clone();
    for (place, why) in [
        (scratch.path().join("mistyped"), "there is no folder"),
        (second.clone(), "is not the one that this product database"),
    ] {
        let there = place.exists();
        world.options = options.clone().env("ARTIFACT_STORE", place.display());
        for (verb, code) in [("verify", 2), ("gc", 1)] {
            let refused = artifacts(&world, &[verb]).await;
            assert_eq!(refused.code, Some(code), "{refused:?}");
            assert!(refused.stderr.contains(why), "{refused:?}");
        }
        assert_eq!(place.exists(), there, "looking makes no store");
    }
    let adopted = artifacts(&world, &["adopt"]).await;
    assert_eq!(adopted.code, Some(0), "{adopted:?}");
    let options = world.options.clone();
    world.restart(&options).await;
    assert_eq!(
        artifacts(&world, &["verify"]).await.code,
        Some(1),
        "its content is elsewhere"
    );
}

#[tokio::test]
async fn a_store_that_is_emptied_under_a_service_makes_it_unready() {
    let scratch = Scratch::new("artifacts_emptied");
    let mut world = large("artifacts_emptied", &scratch, &[]).await;
    let store = scratch.path().join("store");
    fs::rename(&store, scratch.path().join("away")).unwrap();
    let unready = world.client.get("/readyz").await.unwrap();
    assert_eq!(unready.status, 503, "{}", unready.text());
    let said = unready.json();
    assert_eq!(said["checks"]["artifactStore"], "unavailable");
    let reason = said["reasons"]["artifactStore"].as_str().unwrap();
    assert!(reason.contains(store.to_str().unwrap()), "{reason}");
    fs::rename(scratch.path().join("away"), &store).unwrap();
    world.service.ready().await.unwrap();
}

/// Credentials that are rotated while a run is under way: refused for a while, as with the database's password.
#[tokio::test]
async fn a_bucket_that_refuses_for_a_while_is_waited_out_and_one_that_refuses_at_the_start_stops_it()
 {
    let scratch = Scratch::new("artifacts_rotated");
    let bucket = crate::bucket::Bucket::default();
    let more = [
        (
            "ARTIFACT_STORE",
            format!("s3://{}/x", crate::bucket::BUCKET),
        ),
        ("AWS_ENDPOINT_URL", bucket.start().await),
        ("AWS_ACCESS_KEY_ID", "id".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "key".to_owned()),
    ];
    let world = large("artifacts_rotated", &scratch, &more).await;
    let intent = world.intent(crate::support::DEMO_INTENT).await;
    for status in [403, 401, 400] {
        bucket.fail(Some(status));
        let asked = bucket.requests().len();
        let waiting = world.run(&intent).await;
        crate::support::until("the store to be asked again after a refusal", || async {
            bucket.requests().len() > asked + 2
        })
        .await;
        let unready = world.client.get("/readyz").await.unwrap();
        assert_eq!(unready.status, 503, "{}", unready.text());
        assert!(unready.text().contains("refused"), "{}", unready.text());
        bucket.fail(None);
        assert_eq!(
            world.ended(&waiting).await["status"],
            "succeeded",
            "{status}"
        );
    }
    bucket.fail(Some(403));
    let refused = kodo_dev::harness::Service::start(&world.options)
        .await
        .unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("ARTIFACT_STORE=s3://bucket/x does not work"),
        "{refused}"
    );
    let missing = world.options.clone().env("ARTIFACT_STORE", "s3://none/x");
    bucket.fail(None);
    let refused = kodo_dev::harness::Service::start(&missing)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("NoSuchBucket"), "{refused}");
}

#[tokio::test]
async fn a_key_that_is_rotated_in_its_file_is_used_without_a_restart() {
    let scratch = Scratch::new("artifacts_key_file");
    let bucket = crate::bucket::Bucket::default();
    let keys =
        |id: &str| format!("[kodo]\naws_access_key_id = {id}\naws_secret_access_key = key\n");
    let file = scratch.file("credentials", &keys("old"));
    let more = [
        (
            "ARTIFACT_STORE",
            format!("s3://{}/x", crate::bucket::BUCKET),
        ),
        ("AWS_ENDPOINT_URL", bucket.start().await),
        ("AWS_SHARED_CREDENTIALS_FILE", file.display().to_string()),
        ("AWS_PROFILE", "kodo".to_owned()),
    ];
    bucket.only("old");
    let world = large("artifacts_key_file", &scratch, &more).await;
    bucket.only("new");
    let intent = world.intent(crate::support::DEMO_INTENT).await;
    let asked = bucket.requests().len();
    let waiting = world.run(&intent).await;
    crate::support::until("a refusal", || async {
        bucket.requests().len() > asked + 1
    })
    .await;
    scratch.file("credentials", &keys("new"));
    assert_eq!(world.ended(&waiting).await["status"], "succeeded");
    assert_eq!(world.client.get("/readyz").await.unwrap().status, 200);
}
