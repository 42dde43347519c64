//! What a run begins with, uploaded, and what it leaves, downloaded.

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
use crate::tool_calls::{SEED, call, goal, run, stdout, world_with};

/// An archive as GNU tar makes it, of a folder with what a workspace can have.
fn archive(scratch: &Scratch) -> Vec<u8> {
    let made = shell(
        scratch.path(),
        "mkdir -p given/src given/none; cd given; echo one > src/a; printf '#!/bin/sh\necho ran\n' > run.sh; chmod 755 run.sh
        chmod 750 .; ln -s src/a link; ln -s /usr/bin system; ln src/a hard; touch -d '2001-02-03 04:05:06' src/a; head -c 3000000 /dev/urandom > large
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
async fn an_uploaded_archive_is_what_a_run_begins_with_and_the_whole_workspace_comes_back() {
    let scratch = Scratch::new("uploads_run");
    let archive = archive(&scratch);
    let hash = ContentHash::of(&archive);
    let intent = goal(json!({"workspace": hash.as_str()}), json!({}));
    let scripts = ["./run.sh; cat link hard; test system/env -ef /usr/bin/env; stat -c %a .; stat -c '%h %Y' src/a; wc -c < large; ls -d none
        rm large; echo two >> hard; touch -d '2011-01-01 00:00:00.123456789' run.sh; mkdir -p ü/$(printf %0120d 1); echo x > ü/$(printf %0120d 1)/f
        ln -s $(printf %0150d 2) far; ln ü/$(printf %0120d 1)/f same; chmod 700 .; ln -s /tmp/none absolute; ln -s ../../../none out"];
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
        format!("ran\none\none\n750\n2 {time}3000000\nnone\n")
    );
    let path = format!("/runs/{}/workspace", view["runId"].as_str().unwrap());
    let downloaded = get(&world, &path, &[]).await;
    assert_eq!(downloaded.status, 200, "{}", downloaded.text());
    assert_eq!(downloaded.header("content-type"), Some("application/x-tar"));
    scratch.file("left.tar", "");
    std::fs::write(scratch.path().join("left.tar"), &downloaded.body).unwrap();
    // The same is done to what was given: then both are the same, times included.
    let differs = shell(
        scratch.path(),
        "mkdir left; tar -xpf left.tar -C left; cd given; rm large; echo two >> hard; touch -d '2011-01-01 00:00:00.123456789' run.sh
        d=ü/$(printf %0120d 1); mkdir -p $d; echo x > $d/f; ln -s $(printf %0150d 2) far; ln $d/f same; chmod 700 .; ln -s /tmp/none absolute; ln -s ../../../none out
        list() { stat -c %a .; find . -mindepth 1 -printf '%P %y %m %n %l\n' | LC_ALL=C sort; stat -c %y run.sh; }
        list > ../given.txt; cd ../left; list > ../left.txt; cd ..; diff given.txt left.txt; diff -r --no-dereference given left",
    );
    assert_eq!(differs, "");
    let printed = artifacts(&world, &["workspace", view["runId"].as_str().unwrap()]).await;
    assert_eq!(printed.code, Some(0));
    assert_eq!(printed.stdout, String::from_utf8_lossy(&downloaded.body));
    assert_eq!(
        artifacts(&world, &["workspace", "run_x"]).await.code,
        Some(3)
    );
    // What was handed out is taken back.
    assert_eq!(put(&world, downloaded.body.to_vec()).await.status, 201);
    let again = ContentHash::of(&downloaded.body);
    let again = goal(json!({"workspace": again.as_str()}), json!({}));
    let key = kodo_planner::fixture_key(&kodo_contract::decode(&again).unwrap(), SEED);
    let shell = "stat -c %a .; readlink absolute out system; cat same; stat -c %y run.sh";
    let calls = json!([{"name": "exec", "args": {"shell": shell}}]);
    let response = json!({"prompt": "p", "toolCalls": calls, "responses": [], "diffs": []});
    let fixture = json!({"key": key, "schemaVersion": 1, "response": response});
    scratch.file(&format!("{key}.json"), &fixture.to_string());
    let view = run(&world, &again).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    assert_eq!(
        stdout(&view, "tool-001"),
        "700\n/tmp/none\n../../../none\n/usr/bin\nx\n2011-01-01 00:00:00.123456789 +0000\n"
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

#[tokio::test]
async fn a_run_without_a_workspace_says_so_and_a_conflict_is_told_with_its_path() {
    let scratch = Scratch::new("uploads_none");
    let none = crate::large::large("uploads_none", &scratch, &[]).await;
    let view = crate::large::run(&none).await;
    let path = format!("/runs/{}/workspace", view["runId"].as_str().unwrap());
    let answer = get(&none, &path, &[]).await;
    assert_eq!(
        (answer.status, answer.json()),
        (404, json!({"error": "run has no workspace"}))
    );
    let unknown = format!("/runs/{}/workspace", kodo_contract::RunId::generate());
    let answer = get(&none, &unknown, &[]).await;
    assert_eq!(
        (answer.status, answer.json()),
        (404, json!({"error": "run not found"}))
    );

    let scratch = Scratch::new("uploads_conflict");
    let intent = goal(json!({"files": {"a": "0"}}), json!({}));
    let calls = json!([
        call("one", "echo 1 > a; echo 1 > b", &[]),
        call("two", "echo 2 > a", &[]),
    ]);
    let world = world_with(&scratch, "uploads_conflict", &intent, &calls, &[]).await;
    let view = run(&world, &intent).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    let path = format!("/runs/{}/workspace", view["runId"].as_str().unwrap());
    let answer = get(&world, &path, &[]).await;
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert_eq!(
        answer.json()["error"],
        "workspace conflict: \"a\" was changed differently by tool call 1 and by tool call 2, neither of which came after the other"
    );
}

#[tokio::test]
async fn an_upload_that_no_intent_names_is_collected_and_one_that_is_named_stays() {
    let scratch = Scratch::new("uploads_gc");
    let (named, other) = (archive(&scratch), b"nobody names it".to_vec());
    let hash = ContentHash::of(&named);
    let intent = goal(json!({"workspace": hash.as_str()}), json!({}));
    let world = world(&scratch, "uploads_gc", &intent, &["./run.sh"]).await;
    for body in [&named, &other] {
        assert_eq!(put(&world, body.clone()).await.status, 201);
    }
    let id = world.intent(&intent.to_string()).await;
    let young = artifacts(&world, &["gc"]).await;
    assert_eq!(young.code, Some(0), "{young:?}");
    assert_eq!(world.count("SELECT count(*) FROM app.uploads").await, 2);
    let collected = artifacts(&world, &["gc", "--grace", "0"]).await;
    assert_eq!(collected.code, Some(0), "{collected:?}");
    let path = |hash| format!("/artifacts/{hash}");
    assert_eq!(get(&world, &path(hash), &[]).await.body, named);
    let gone = get(&world, &path(ContentHash::of(&other)), &[]).await;
    assert_eq!(gone.status, 404, "{}", gone.text());
    let files = shell(scratch.path(), "find store -type f ! -name mark | wc -l");
    assert_eq!(files.trim(), "1");
    // What was collected can be uploaded again, and is new.
    assert_eq!(put(&world, other).await.status, 201);

    let run = world.run(&id).await;
    let view = world.ended(&run).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    assert_invariants_hold(&world).await;
}
