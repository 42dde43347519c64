//! Uploads: what a run can begin with.

use std::path::Path;
use std::process::Command;

use hyper::Method;
use kodo_contract::ContentHash;
use kodo_dev::harness::Answer;
use serde_json::{Value, json};

use crate::large::{artifacts, get};
use crate::proof::assert_invariants_hold;
use crate::raw::{Raw, chunked, request};
use crate::scratch::Scratch;
use crate::support::World;
use crate::tool_calls::{SEED, goal, run, stdout};

/// An archive as GNU tar makes it, of a folder with what a workspace can have.
fn archive(scratch: &Scratch) -> Vec<u8> {
    let made = shell(
        scratch.path(),
        "mkdir -p given/src given/none; cd given; echo one > src/a; printf '#!/bin/sh\necho ran\n' > run.sh; chmod 755 run.sh
        ln -s src/a link; ln src/a hard; touch -d '2001-02-03 04:05:06' src/a; head -c 3000000 /dev/urandom > large
        cd ..; tar -czf given.tar.gz -C given .",
    );
    assert_eq!(made, "");
    std::fs::read(scratch.path().join("given.tar.gz")).unwrap()
}

/// What a script prints, errors included.
pub fn shell(folder: &Path, script: &str) -> String {
    let done = Command::new("sh")
        .args(["-c", &format!("set -e; exec 2>&1; {script}")])
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(done.status.success(), "{said}");
    said
}

async fn put(world: &World, body: Vec<u8>) -> Answer {
    let headers = [("content-type", "application/octet-stream")];
    let answer = world.client.send(Method::PUT, "/artifacts", &headers, body);
    answer.await.unwrap()
}

/// A service with folders of its own, in which the scripts are run one after the other.
async fn world(scratch: &Scratch, test: &str, intent: &Value, scripts: &[&str]) -> World {
    let parsed = kodo_contract::decode(intent).unwrap();
    let key = kodo_planner::fixture_key(&parsed, SEED);
    let calls: Vec<Value> = scripts
        .iter()
        .map(|it| json!({"name": "exec", "args": {"shell": it}}))
        .collect();
    let response = json!({"prompt": "p", "toolCalls": calls, "responses": [], "diffs": []});
    let fixture = json!({"key": key, "schemaVersion": 1, "response": response});
    scratch.file(&format!("{key}.json"), &fixture.to_string());
    let (store, data) = (scratch.path().join("store"), scratch.path().join("data"));
    World::with(test, |options| {
        options
            .env("OC_FIXTURES_DIR", scratch.path().display())
            .env("TEST_SEED", SEED)
            .env("SBX_MODE", "live")
            .env("ARTIFACT_STORE", store.display())
            .env("KODO_DATA_DIR", data.display())
            .env("MAX_UPLOAD_BYTES", 4_000_000)
    })
    .await
}

#[tokio::test]
async fn an_uploaded_archive_is_what_a_run_begins_with() {
    let scratch = Scratch::new("uploads_run");
    let archive = archive(&scratch);
    let hash = ContentHash::of(&archive);
    let intent = goal(json!({"workspace": hash.as_str()}), json!({}));
    let scripts = ["./run.sh; cat link hard; stat -c '%h %Y' src/a; wc -c < large; ls -d none"];
    let world = world(&scratch, "uploads_run", &intent, &scripts).await;
    for status in [201, 200] {
        let answer = put(&world, archive.clone()).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(
            answer.json(),
            json!({"sha256": hash.as_str(), "size": archive.len()})
        );
    }
    let path = format!("/artifacts/{hash}");
    assert_eq!(get(&world, &path, &[]).await.body, archive);
    let part = get(&world, &path, &[("range", "bytes=1000000-1000099")]).await;
    assert_eq!(part.status, 206);
    assert_eq!(part.body, archive[1_000_000..1_000_100]);

    let view = run(&world, &intent).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    let time = shell(scratch.path(), "stat -c %Y given/src/a");
    assert_eq!(
        stdout(&view, "tool-001"),
        format!("ran\none\none\n2 {time}3000000\nnone\n")
    );
    assert_invariants_hold(&world).await;
    let verified = artifacts(&world, &["verify"]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
}

#[tokio::test]
async fn an_upload_that_is_too_long_or_breaks_off_leaves_nothing() {
    let scratch = Scratch::new("uploads_broken");
    let intent = goal(json!({}), json!({}));
    let world = world(&scratch, "uploads_broken", &intent, &["true"]).await;
    let error = "payload too large: an upload has at most 4000000 bytes (MAX_UPLOAD_BYTES)";
    let answer = put(&world, vec![b'x'; 4_000_001]).await;
    assert_eq!(
        (answer.status, answer.json()),
        (413, json!({ "error": error }))
    );

    let half = vec![b'x'; 2_000_000];
    let length = request("PUT", "/artifacts", &["Content-Length: 3000000"], &half);
    let mut chunks = request(
        "PUT",
        "/artifacts",
        &["Transfer-Encoding: chunked"],
        &chunked(&half, 70_000),
    );
    // Without the last chunk.
    chunks.truncate(chunks.len() - 5);
    for broken in [length, chunks] {
        let mut raw = Raw::connect(world.service.port).await;
        raw.send(broken).await;
        raw.half_close().await;
        let answer = raw.answer().await;
        assert_eq!(
            (answer.status, answer.json()),
            (400, json!({"error": "invalid request body"}))
        );
    }
    assert_eq!(world.count("SELECT count(*) FROM app.uploads").await, 0);
    let left = shell(
        scratch.path(),
        "find store data/spool -type f ! -name mark | wc -l",
    );
    assert_eq!(left.trim(), "0");

    // Bytes without a length, and none at all, are uploads as well.
    let mut raw = Raw::connect(world.service.port).await;
    let chunks = chunked(&half, 70_000);
    raw.send(request(
        "PUT",
        "/artifacts",
        &["Transfer-Encoding: chunked"],
        &chunks,
    ))
    .await;
    let answer = raw.answer().await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_eq!(answer.json()["sha256"], ContentHash::of(&half).as_str());
    let answer = put(&world, Vec::new()).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    let path = format!("/artifacts/{}", ContentHash::of(b""));
    assert_eq!(get(&world, &path, &[]).await.status, 200);
}
