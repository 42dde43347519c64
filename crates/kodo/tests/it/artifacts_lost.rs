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
    fs::remove_dir(&store).unwrap();
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
