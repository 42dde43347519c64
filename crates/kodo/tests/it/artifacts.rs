//! Artifacts by content: large ones in the store, once for all runs; small ones in their rows; all of them by their hash.

use hyper::Method;
use kodo_contract::ContentHash;
use serde_json::{Value, json};

use crate::bucket::{BUCKET, Bucket};
use crate::large::{artifacts, get, large, left, printed, run};
use crate::proof::assert_invariants_hold;
use crate::scratch::Scratch;
use crate::support::DEMO_INTENT;

fn hash(content: &str) -> String {
    ContentHash::of(content.as_bytes()).into_string()
}

#[tokio::test]
async fn large_content_is_stored_once_for_all_runs_and_small_stays_in_its_row() {
    let scratch = Scratch::new("artifacts_once");
    let world = large("artifacts_once", &scratch, &[]).await;
    let view = run(&world).await;
    assert_eq!(view["status"], "succeeded", "{view:#}");
    assert_eq!(run(&world).await["status"], "succeeded");

    // The step says where its content is, and has none of it.
    let output = &view["steps"][1]["output"];
    assert!(output.to_string().len() < 80_000);
    let stdout = output["stdout"].as_str().unwrap();
    assert!(stdout.starts_with("line 0\n") && stdout.ends_with("line 19999\n"));
    assert!(stdout.contains(&format!("the whole is artifact {}]", hash(&printed()))));
    let file =
        json!({"name": "large.txt", "sha256": hash(&left()), "size": left().len(), "stored": true});
    assert_eq!(output["files"][0], file);
    assert_eq!(output["files"][1]["content"], "tiny\n");
    let stored: Vec<&Value> = view["artifacts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|it| it["inline"]["stored"] == true)
        .collect();
    let hashes: Vec<&Value> = stored.iter().map(|it| &it["sha256"]).collect();
    assert!(hashes.contains(&&json!(hash(&printed()))) && hashes.contains(&&json!(hash(&left()))));
    // The plan has all of it, too; its diff; what was printed; a file.
    assert_eq!(stored.len(), 4, "{stored:#?}");
    assert_eq!(
        world
            .count("SELECT count(*) FROM app.artifacts WHERE stored_bytes IS NOT NULL")
            .await,
        8
    );

    let listed = get(
        &world,
        &format!("/runs/{}/artifacts", view["runId"].as_str().unwrap()),
        &[],
    )
    .await;
    assert_eq!(listed.status, 200, "{}", listed.text());
    let listed = listed.json();
    let listed = listed["artifacts"].as_array().unwrap();
    let kinds: Vec<&str> = listed
        .iter()
        .map(|it| it["kind"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        ["plan", "diff", "stdout", "stderr", "file", "file"]
            .map(|kind| kind)
            .to_vec()
    );
    for one in listed {
        // What the list says of it is what is answered.
        let answer = get(
            &world,
            &format!("/artifacts/{}", one["sha256"].as_str().unwrap()),
            &[],
        )
        .await;
        assert_eq!(answer.status, 200, "{one}");
        assert_eq!(answer.header("content-type"), one["mediaType"].as_str());
        assert_eq!(Some(answer.body.len() as u64), one["size"].as_u64());
        assert_eq!(one["sha256"], ContentHash::of(&answer.body).as_str());
    }
    assert_eq!(
        get(&world, &format!("/artifacts/{}", hash("tiny\n")), &[])
            .await
            .text(),
        "tiny\n"
    );

    assert_invariants_hold(&world).await;
    let verified = artifacts(&world, &["verify", "-o", "json"]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    let verified: Value = serde_json::from_str(&verified.stdout).unwrap();
    assert_eq!(
        (
            &verified["artifacts"],
            &verified["stored"],
            &verified["objects"]
        ),
        (&json!(12), &json!(8), &json!(4))
    );
    let table = artifacts(&world, &["list", view["runId"].as_str().unwrap()]).await;
    assert!(
        table.stdout.contains("large.txt  131072  store"),
        "{table:?}"
    );
    let got = artifacts(&world, &["get", &hash(&printed())]).await;
    assert_eq!((got.code, got.stdout), (Some(0), printed()));
    assert_eq!(
        artifacts(&world, &["get", &hash("nothing")]).await.code,
        Some(3)
    );
}

#[tokio::test]
async fn content_is_answered_as_http_has_it_and_never_as_a_page_of_ours() {
    let scratch = Scratch::new("artifacts_http");
    let world = large("artifacts_http", &scratch, &[]).await;
    run(&world).await;
    for (content, stored) in [(left(), true), ("tiny\n".to_owned(), false)] {
        let hash = hash(&content);
        let (path, etag, size) = (
            format!("/artifacts/{hash}"),
            format!("\"{hash}\""),
            content.len(),
        );
        let whole = get(&world, &path, &[]).await;
        assert_eq!(
            (whole.status, whole.text()),
            (200, content.clone()),
            "{stored}"
        );
        for (name, value) in [
            ("content-type", "text/plain; charset=utf-8"),
            ("content-length", &size.to_string()),
            ("etag", &etag),
            ("accept-ranges", "bytes"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; sandbox"),
            ("content-disposition", "attachment"),
        ] {
            assert_eq!(whole.header(name), Some(value), "{name}");
        }
        assert!(
            whole
                .header("repr-digest")
                .unwrap()
                .starts_with("sha-256=:")
        );

        let part = get(&world, &path, &[("range", "bytes=1-3")]).await;
        assert_eq!((part.status, part.text().as_str()), (206, &content[1..4]));
        assert_eq!(
            part.header("content-range"),
            Some(format!("bytes 1-3/{size}").as_str())
        );
        let tail = get(&world, &path, &[("range", "bytes=-2"), ("if-range", &etag)]).await;
        assert_eq!(
            (tail.status, tail.text().as_str()),
            (206, &content[size - 2..])
        );
        let other = get(
            &world,
            &path,
            &[("range", "bytes=1-3"), ("if-range", "\"x\"")],
        )
        .await;
        assert_eq!((other.status, other.body.len()), (200, size));
        let behind = get(&world, &path, &[("range", &format!("bytes={size}-"))]).await;
        assert_eq!(
            (behind.status, behind.text().as_str()),
            (416, r#"{"error":"range not satisfiable"}"#)
        );
        assert_eq!(
            behind.header("content-range"),
            Some(format!("bytes */{size}").as_str())
        );
        let known = get(&world, &path, &[("if-none-match", &etag)]).await;
        assert_eq!((known.status, known.body.len()), (304, 0));

        let head = world
            .client
            .send(Method::HEAD, &path, &[], "")
            .await
            .unwrap();
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(
            head.header("content-length"),
            Some(size.to_string().as_str())
        );
    }
    let unknown = get(&world, &format!("/artifacts/{}", hash("nothing")), &[]).await;
    assert_eq!(
        (unknown.status, unknown.text().as_str()),
        (404, r#"{"error":"artifact not found"}"#)
    );
    let nobody = get(
        &world,
        &format!("/runs/run_{}/artifacts", "0".repeat(32)),
        &[],
    )
    .await;
    assert_eq!(
        (nobody.status, nobody.text().as_str()),
        (404, r#"{"error":"run not found"}"#)
    );
}

#[tokio::test]
async fn a_bucket_does_what_a_folder_does_and_a_run_waits_for_one_that_fails() {
    let scratch = Scratch::new("artifacts_bucket");
    let bucket = Bucket::default();
    let more = [
        ("ARTIFACT_STORE", format!("s3://{BUCKET}/of/tests")),
        ("AWS_ENDPOINT_URL", bucket.start().await),
        ("AWS_ACCESS_KEY_ID", "id".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", "key".to_owned()),
    ];
    let world = large("artifacts_bucket", &scratch, &more).await;
    bucket.fail(Some(503));
    let intent = world.intent(DEMO_INTENT).await;
    let waiting = world.run(&intent).await;
    crate::support::until("the store was asked", || async {
        !bucket.requests().is_empty()
    })
    .await;
    assert_eq!(
        world.count("SELECT count(*) FROM app.artifacts").await,
        0,
        "content first, then the row"
    );
    bucket.fail(None);
    assert_eq!(world.ended(&waiting).await["status"], "succeeded");

    // And the mark.
    assert_eq!(bucket.keys().len(), 5, "{:?}", bucket.keys());
    let path = format!("/artifacts/{}", hash(&left()));
    assert_eq!(get(&world, &path, &[]).await.text(), left());
    assert_eq!(
        get(&world, &path, &[("range", "bytes=16-19")]).await.text(),
        "0123"
    );
    bucket.fail(Some(503));
    let away = get(&world, &path, &[]).await;
    assert_eq!(
        (away.status, away.text().as_str()),
        (503, r#"{"error":"unavailable"}"#)
    );
    assert_eq!(artifacts(&world, &["verify"]).await.code, Some(2));
    bucket.fail(None);
    assert_eq!(artifacts(&world, &["verify"]).await.code, Some(0));
}
