//! The store itself.

use std::fs;
use std::os::unix::fs::MetadataExt;

use futures_util::TryStreamExt;
use kodo_contract::ContentHash;
use kodo_dev::harness::Client;
use kodo_store::content::{ArtifactError, ArtifactStore, ObjectArtifacts, check};

use crate::conformance::{conforms, content, whole};
use crate::server::{BUCKET, Server, key_id, secret_key};

fn store(server: &Server) -> ObjectArtifacts {
    server.store(
        &format!("s3://{BUCKET}/some/prefix"),
        key_id(),
        secret_key(),
    )
}

#[tokio::test]
async fn a_bucket_that_verifies_signatures_conforms_with_a_prefix_and_without() {
    let server = Server::start("conforms").await;
    // It does verify them: what has none is refused.
    let unsigned = Client::new(server.port())
        .get(&format!("/{BUCKET}?list-type=2"))
        .await
        .unwrap();
    assert_eq!(unsigned.status, 403, "{}", unsigned.text());

    conforms(&store(&server)).await;
    conforms(&server.store(&format!("s3://{BUCKET}"), key_id(), secret_key())).await;
}

#[tokio::test]
async fn content_that_is_there_is_not_sent_again() {
    let server = Server::start("again").await;
    let store = store(&server);
    let hash = store.put(content(70_000)).await.unwrap();
    let text = hash.as_str();
    let below = server.objects().join("some/prefix/0123abcd/sha256");
    let file = below.join(&text[..2]).join(text);
    // Every write is a new file.
    let written = || fs::metadata(&file).unwrap().ino();
    let first = written();
    assert_eq!(store.put(content(70_000)).await, Ok(hash.clone()));
    assert_eq!(written(), first);

    fs::write(&file, b"cut").unwrap();
    store.put(content(70_000)).await.unwrap();
    assert_eq!(check(&store, &hash, 70_000).await, Ok(()), "mended");
}

#[tokio::test]
async fn a_listing_has_all_pages_and_nothing_of_others() {
    let server = Server::start("pages").await;
    let store = store(&server);
    let other = store.of_instance("fedc9876");
    other.put(content(70_000)).await.unwrap();
    let below = server.objects().join("some/prefix/0123abcd/sha256");
    let mut expected: Vec<ContentHash> = (0..2100_u32)
        .map(|at| ContentHash::of(&at.to_le_bytes()))
        .collect();
    for hash in &expected {
        let text = hash.as_str();
        let folder = below.join(&text[..2]);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(text), b"some").unwrap();
    }
    let listed: Vec<_> = store.list().try_collect().await.unwrap();
    assert!(listed.iter().all(|it| it.info.size == 4));
    let mut listed: Vec<ContentHash> = listed.into_iter().map(|it| it.hash).collect();
    listed.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    expected.sort_by(|one, other| one.as_str().cmp(other.as_str()));
    assert_eq!(listed, expected);
}

/// What each kind of request ends with, where content is asked for that is there with the right credentials.
async fn errors(store: &dyn ArtifactStore, hash: &ContentHash) -> Vec<ArtifactError> {
    vec![
        store.put(content(20)).await.unwrap_err(),
        store.head(hash).await.unwrap_err(),
        whole(store, hash, 70_000, None).await.unwrap_err(),
        whole(store, hash, 70_000, Some(1..2)).await.unwrap_err(),
        store.delete(hash).await.unwrap_err(),
        store.list().try_collect::<Vec<_>>().await.unwrap_err(),
    ]
}

#[tokio::test]
async fn a_wrong_secret_and_an_unknown_key_are_denied_and_the_store_says_why() {
    let server = Server::start("denied").await;
    let right = store(&server);
    let hash = right.put(content(70_000)).await.unwrap();
    let place = format!("s3://{BUCKET}/some/prefix");
    let wrong = format!("{}x", secret_key());
    for (id, secret, why) in [
        (key_id(), wrong.clone(), "SignatureDoesNotMatch"),
        ("NOBODY".to_owned(), secret_key(), "NotSignedUp"),
    ] {
        let errors = errors(&server.store(&place, id, secret), &hash).await;
        for error in &errors {
            assert_eq!(error.code(), "artifact_store_denied", "{error}");
            assert!(!error.to_string().contains(&secret_key()), "{error}");
        }
        // The answer to a HEAD has no body to say it in, and a write and a range begin with one.
        let said = errors.iter().filter(|it| it.to_string().contains(why));
        assert_eq!(said.count(), 3, "{errors:#?}");
    }
    assert_eq!(check(&right, &hash, 70_000).await, Ok(()), "untouched");
}

#[tokio::test]
async fn a_bucket_that_does_not_exist_is_said() {
    let server = Server::start("no_bucket").await;
    let elsewhere = server.store("s3://no-such-bucket", key_id(), secret_key());
    let nothing = ContentHash::of(b"nothing");
    // Only a listing: for a write this server makes the bucket, and to a read it says that the key is missing.
    let listed = elsewhere.list().try_collect::<Vec<_>>().await.unwrap_err();
    assert_eq!(listed.code(), "artifact_store_denied", "{listed}");
    assert!(listed.to_string().contains("NoSuchBucket"), "{listed}");
    assert!(!server.objects().with_file_name("no-such-bucket").exists());
    // In a bucket that is there, it is the content that is not.
    assert_eq!(
        whole(&store(&server), &nothing, 7, None).await,
        Err(ArtifactError::Missing)
    );
}

#[tokio::test]
async fn a_server_that_is_gone_is_unavailable_and_has_its_content_when_it_is_back() {
    let mut server = Server::start("gone").await;
    let store = store(&server);
    let hash = store.put(content(70_000)).await.unwrap();
    server.kill().await;
    for error in errors(&store, &hash).await {
        assert_eq!(error.code(), "artifact_store_unavailable", "{error}");
    }
    server.again().await;
    // By a connection that the old one had left open, too.
    assert_eq!(check(&store, &hash, 70_000).await, Ok(()));
}
