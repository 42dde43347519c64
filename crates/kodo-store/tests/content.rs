//! What every artifact store does, on a real folder and on a bucket behind real HTTP.

#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "helpers of tests fail as tests do"
)]

#[allow(
    dead_code,
    unreachable_pub,
    reason = "shared with the tests of the binary"
)]
#[path = "../../kodo/tests/it/bucket.rs"]
mod bucket;
#[path = "shared/conformance.rs"]
mod conformance;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use kodo_contract::{At, ContentHash, Node, NodeKind, Object, Snapshot, Tree, TreeBounds};
use kodo_store::content::{
    ArtifactError, ArtifactStore, ObjectArtifacts, Place, S3Access, check, read, read_into,
    tarball, unpack,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::bucket::{BUCKET, Bucket};
use crate::conformance::{conforms, content, whole};

fn folder(root: &Path) -> ObjectArtifacts {
    let place = Place::parse(root.to_str().unwrap()).unwrap();
    ObjectArtifacts::new(place, None)
        .unwrap()
        .of_instance("0123abcd")
}

async fn bucket(bucket: &Bucket, name: &str) -> ObjectArtifacts {
    at(bucket.start().await, name)
}

fn at(endpoint: String, name: &str) -> ObjectArtifacts {
    let access = S3Access {
        endpoint: Some(endpoint),
        region: "us-east-1".into(),
        access_key_id: "id".into(),
        secret_access_key: "key".into(),
        session_token: None,
        lent: None,
    };
    let place = Place::parse(&format!("s3://{name}/some/prefix")).unwrap();
    ObjectArtifacts::new(place, Some(&access))
        .unwrap()
        .of_instance("0123abcd")
}

#[tokio::test]
async fn a_folder_conforms_and_nobody_else_can_look_into_it() {
    let above = TempDir::new().unwrap();
    let root = above.path().join("data/artifacts");
    let store = folder(&root);
    conforms(&store).await;
    let mode = fs::metadata(&root).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn a_bucket_conforms() {
    let fake = Bucket::default();
    conforms(&bucket(&fake, BUCKET).await).await;
    let requests = fake.requests();
    let keys = "/bucket/some/prefix/0123abcd/sha256/";
    assert!(
        requests
            .iter()
            .all(|it| it.contains(keys) || it.contains("list-type=2")),
        "{requests:?}"
    );
}

#[tokio::test]
async fn of_a_range_nothing_else_is_read() {
    let fake = Bucket::default();
    let store = bucket(&fake, BUCKET).await;
    let bytes = content(3_000_000);
    let hash = store.put(bytes.clone()).await.unwrap();
    let before = fake.requests().len();
    let part = whole(&store, &hash, bytes.len(), Some(2_000_000..2_000_010)).await;
    assert_eq!(part.unwrap(), bytes[2_000_000..2_000_010]);
    let requests = fake.requests().split_off(before);
    let methods: Vec<&str> = requests
        .iter()
        .filter_map(|it| it.split(' ').next())
        .collect();
    // The answer to the second one was the range: more than was asked for is refused.
    assert_eq!(methods, ["HEAD", "GET"], "{requests:?}");
}

#[tokio::test]
async fn what_does_not_fit_its_hash_is_never_handed_on_whole() {
    let above = TempDir::new().unwrap();
    let store = folder(above.path());
    for length in [70_000, 3_000_000] {
        let bytes = content(length);
        let hash = store.put(bytes.clone()).await.unwrap();
        let text = hash.as_str();
        let file = above
            .path()
            .join("0123abcd/sha256")
            .join(&text[..2])
            .join(text);
        assert_eq!(fs::read(&file).unwrap(), bytes);

        // One bit, in the last byte: everything before it was right.
        let mut flipped = bytes.to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        fs::write(&file, &flipped).unwrap();
        let damaged = whole(&store, &hash, length, None).await.unwrap_err();
        assert!(matches!(damaged, ArtifactError::Damaged(_)), "{damaged}");
        let mut pieces = match read(&store, &hash, length as u64, None).await {
            Ok(pieces) => pieces,
            Err(error) => {
                assert!(length <= 1 << 20, "{error}");
                continue;
            }
        };
        let mut seen = 0;
        let error = loop {
            match pieces.try_next().await {
                Ok(piece) => seen += piece.expect("no end without an error").len(),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, ArtifactError::Damaged(_)) && seen < length);

        for wrong in [&bytes[..length - 1], b""] {
            fs::write(&file, wrong).unwrap();
            for range in [None, Some(0..10)] {
                let damaged = whole(&store, &hash, length, range).await.unwrap_err();
                assert!(matches!(damaged, ArtifactError::Damaged(_)), "{damaged}");
            }
        }
    }
}

#[tokio::test]
async fn content_of_another_length_is_written_anew() {
    let above = TempDir::new().unwrap();
    let store = folder(above.path());
    let hash = store.put(content(70_000)).await.unwrap();
    let text = hash.as_str();
    let file = above
        .path()
        .join("0123abcd/sha256")
        .join(&text[..2])
        .join(text);
    fs::write(&file, b"cut").unwrap();
    store.put(content(70_000)).await.unwrap();
    assert_eq!(check(&store, &hash, 70_000).await, Ok(()));
}

#[tokio::test]
async fn content_that_was_written_long_ago_is_written_anew() {
    let above = TempDir::new().unwrap();
    let store = folder(above.path());
    let hash = store.put(content(70_000)).await.unwrap();
    let text = hash.as_str();
    let file = above
        .path()
        .join("0123abcd/sha256")
        .join(&text[..2])
        .join(text);
    let written = || fs::metadata(&file).unwrap().modified().unwrap();
    let first = written();
    store.put(content(70_000)).await.unwrap();
    assert_eq!(written(), first, "it was there");

    let long_ago = first - Duration::from_secs(13 * 3600);
    fs::write(&file, vec![7; 70_000]).unwrap();
    fs::File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    store.put(content(70_000)).await.unwrap();
    assert!(written() > long_ago);
    assert_eq!(
        check(&store, &hash, 70_000).await,
        Ok(()),
        "what became of it is mended"
    );
}

#[tokio::test]
async fn product_databases_that_share_a_place_do_not_see_each_other() {
    let above = TempDir::new().unwrap();
    let one = folder(above.path());
    let other = one.of_instance("fedc9876");
    let hash = one.put(content(70_000)).await.unwrap();
    assert_eq!(other.head(&hash).await, Ok(None));
    assert_eq!(other.list().try_collect::<Vec<_>>().await, Ok(vec![]));
    other.delete(&hash).await.unwrap();
    assert!(one.head(&hash).await.unwrap().is_some());
}

#[tokio::test]
async fn what_a_dead_writer_left_is_no_content_and_is_swept() {
    let above = TempDir::new().unwrap();
    let store = folder(above.path());
    let hash = store.put(content(70_000)).await.unwrap();
    let text = hash.as_str();
    let folder = above.path().join("0123abcd/sha256").join(&text[..2]);
    let half = folder.join(format!("{text}#1"));
    fs::write(&half, b"half").unwrap();
    let old = std::time::SystemTime::from(kodo_contract::now()) - Duration::from_secs(2 * 3600);
    let written = fs::File::options().append(true).open(&half).unwrap();
    written.set_modified(old).unwrap();
    let young = folder.join(format!("{text}#2"));
    fs::write(&young, b"half").unwrap();
    assert_eq!(store.list().try_collect::<Vec<_>>().await.unwrap().len(), 1);
    let now = kodo_contract::now();
    assert_eq!(
        store
            .sweep(now - Duration::from_secs(3 * 3600), false)
            .await,
        Ok(0)
    );
    let later = now + Duration::from_secs(60);
    assert_eq!(store.sweep(later, true).await, Ok(1));
    assert!(half.exists());
    assert_eq!(store.sweep(later, false).await, Ok(1));
    assert!(!half.exists() && folder.join(text).exists());
    assert!(young.exists(), "somebody may be at work on it");
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_or_is_lost_says_so() {
    let above = TempDir::new().unwrap();
    let file = above.path().join("file");
    fs::write(&file, b"").unwrap();
    let store = folder(&file.join("artifacts"));
    let error = store.put(content(10)).await.unwrap_err();
    assert!(error.is_transient(), "{error}");
    assert!(store.head(&ContentHash::of(b"")).await.is_err());
}

#[tokio::test]
async fn a_store_that_fails_is_unavailable_and_one_that_refuses_is_denied() {
    let fake = Bucket::default();
    let store = bucket(&fake, BUCKET).await;
    let hash = store.put(content(10)).await.unwrap();
    for (status, code) in [
        (503, "artifact_store_unavailable"),
        (500, "artifact_store_unavailable"),
        (403, "artifact_store_denied"),
        (401, "artifact_store_denied"),
        // Credentials that have expired, another region than the bucket's.
        (400, "artifact_store_denied"),
        (301, "artifact_store_denied"),
    ] {
        fake.fail(Some(status));
        let errors = [
            store.put(content(20)).await.unwrap_err(),
            store.head(&hash).await.unwrap_err(),
            whole(&store, &hash, 10, None).await.unwrap_err(),
            store.delete(&hash).await.unwrap_err(),
            store.list().try_collect::<Vec<_>>().await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.code(), code, "{status}: {error}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
    fake.fail(None);
    assert_eq!(check(&store, &hash, 10).await, Ok(()));
}

#[tokio::test]
async fn what_a_bucket_says_decides_what_can_be_done_and_is_told() {
    let fake = Bucket::default();
    let store = bucket(&fake, BUCKET).await;
    let hash = store.put(content(10)).await.unwrap();
    for (status, code, becomes, told) in [
        (503, "SlowDown", "artifact_store_unavailable", false),
        (500, "InternalError", "artifact_store_unavailable", false),
        (507, "XMinioStorageFull", "artifact_store_full", true),
        // The clock of one of the two is wrong.
        (403, "RequestTimeTooSkewed", "artifact_store_denied", true),
        (
            400,
            "AuthorizationHeaderMalformed",
            "artifact_store_denied",
            true,
        ),
        (301, "PermanentRedirect", "artifact_store_denied", true),
        (400, "ExpiredToken", "artifact_store_denied", true),
    ] {
        fake.say(status, code);
        for error in [
            store.put(content(20)).await.unwrap_err(),
            whole(&store, &hash, 10, None).await.unwrap_err(),
            whole(&store, &hash, 10, Some(1..2)).await.unwrap_err(),
            store.list().try_collect::<Vec<_>>().await.unwrap_err(),
        ] {
            assert_eq!(error.code(), becomes, "{status} {code}: {error}");
            // The answer to a HEAD, with which some of these begin, has no body to say it in.
            let says = error.to_string().contains(code) || error.to_string().contains("HEAD");
            assert!(!told || says, "{status} {code}: {error}");
        }
    }
    fake.fail(None);
    assert_eq!(check(&store, &hash, 10).await, Ok(()));
}

/// A server whose answers end before their length.
async fn cutting(length: usize, sent: usize) -> ObjectArtifacts {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = vec![0; 8192];
                let _ = client.read(&mut request).await;
                let head = format!(
                    "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nLast-Modified: Fri, 02 Jan 2026 03:04:05 GMT\r\n\
                     Content-Length: {length}\r\n\r\n"
                );
                let _ = client.write_all(head.as_bytes()).await;
                if !request.starts_with(b"HEAD") {
                    let _ = client.write_all(&content(length)[..sent]).await;
                }
            });
        }
    });
    at(format!("http://{address}"), BUCKET)
}

#[tokio::test]
async fn an_answer_that_ends_early_is_no_content_and_may_be_whole_later() {
    for (length, sent) in [
        (10, 0),
        (10, 9),
        (3_000_000, 1_500_000),
        (3_000_000, 2_999_999),
    ] {
        let store = cutting(length, sent).await;
        let hash = ContentHash::of(&content(length));
        let error = whole(&store, &hash, length, None).await.unwrap_err();
        assert_eq!(
            error.code(),
            "artifact_store_unavailable",
            "{sent} of {length}: {error}"
        );
        let file = Arc::new(tempfile::tempfile().unwrap());
        let into = read_into(&store, &hash, length as u64, None, &file, 0).await;
        assert_eq!(into.unwrap_err().code(), "artifact_store_unavailable");
    }
}

#[tokio::test]
async fn nothing_is_content_only_under_the_hash_of_nothing() {
    let above = TempDir::new().unwrap();
    let store = folder(&above.path().join("store"));
    let hash = ContentHash::of(b"something");
    let empty = Arc::new(tempfile::tempfile().unwrap());
    store.put_file(empty, 0..0, &hash).await.unwrap();
    let error = whole(&store, &hash, 0, None).await.unwrap_err();
    assert_eq!(error.code(), "artifact_damaged", "{error}");
    let nothing = store.put(content(0)).await.unwrap();
    assert_eq!(whole(&store, &nothing, 0, None).await, Ok(vec![]));
}

#[tokio::test]
async fn a_bucket_that_does_not_exist_is_no_missing_content() {
    let fake = Bucket::default();
    let elsewhere = bucket(&fake, "no-such-bucket").await;
    let hash = ContentHash::of(b"");
    for error in [
        elsewhere.put(content(10)).await.unwrap_err(),
        whole(&elsewhere, &hash, 10, None).await.unwrap_err(),
        check(&elsewhere, &hash, 10).await.unwrap_err(),
        elsewhere.delete(&hash).await.unwrap_err(),
        elsewhere.list().try_collect::<Vec<_>>().await.unwrap_err(),
    ] {
        assert_eq!(error.code(), "artifact_store_denied", "{error}");
        assert!(error.to_string().contains("NoSuchBucket"), "{error}");
    }
}

#[tokio::test]
async fn a_store_that_is_not_there_is_unavailable() {
    let access = S3Access {
        // Nothing listens on the port of tcpmux.
        endpoint: Some("http://127.0.0.1:1".into()),
        region: "us-east-1".into(),
        access_key_id: "id".into(),
        secret_access_key: "key".into(),
        session_token: None,
        lent: None,
    };
    let place = Place::parse("s3://bucket").unwrap();
    let store = ObjectArtifacts::new(place, Some(&access))
        .unwrap()
        .of_instance("0123abcd");
    let error = store.put(content(10)).await.unwrap_err();
    assert_eq!(error.code(), "artifact_store_unavailable", "{error}");
}

/// The snapshot of a tree whose files have these contents, all in one object.
async fn snapshot(store: &ObjectArtifacts, tree: Tree, contents: &[&[u8]]) -> Snapshot {
    let packed = contents.concat();
    let size = packed.len() as u64;
    let sha256 = store.put(packed.into()).await.unwrap();
    let mut snapshot = Snapshot::default().after(tree, None);
    snapshot.objects.push(Object { sha256, size });
    for kept in snapshot.entries.values_mut() {
        let Some((hash, 1..)) = kept.node.content() else {
            continue;
        };
        let index = contents.iter().position(|it| ContentHash::of(it) == *hash);
        let before = &contents[..index.unwrap()];
        let offset = before.iter().map(|it| it.len() as u64).sum();
        kept.at = Some(At { object: 0, offset });
    }
    assert!(snapshot.is_whole());
    snapshot
}

#[tokio::test]
async fn the_archive_of_a_snapshot_is_the_tree_again_with_whatever_names_and_times() {
    let above = TempDir::new().unwrap();
    let store = folder(above.path());
    let large = content(3_000_000);
    let contents: [&[u8]; 3] = [b"one", &large, &[7; 512]];
    let file = |content: &[u8]| NodeKind::File {
        sha256: ContentHash::of(content),
        size: content.len() as u64,
    };
    let deep = format!("d/{}", "n".repeat(150));
    let mut tree: Tree = [
        (&b"before"[..], NodeKind::HardLink("d/f".into()), 0o755, 5),
        (b"d", NodeKind::Folder, 0o700, -1_500_000_000),
        (b"d/f", file(b"one"), 0o755, 5),
        (deep.as_bytes(), NodeKind::Folder, 0o755, 1_000_000_000),
        (
            b"d/\xff\n\"'",
            file(&large),
            0o600,
            1_234_567_890_123_456_789,
        ),
        (b"block", file(&[7; 512]), 0o444, -1),
        (b"none", file(b""), 0o644, 0),
        (
            b"link",
            NodeKind::Symlink(deep.as_str().into()),
            0o777,
            999_999_999,
        ),
        (
            "ü".as_bytes(),
            NodeKind::Symlink("d/\u{fc}".into()),
            0o777,
            0,
        ),
        (b"system", NodeKind::Symlink("/usr/lib".into()), 0o777, 0),
        (b"out", NodeKind::Symlink("../../etc".into()), 0o777, 0),
    ]
    .into_iter()
    .map(|(path, kind, mode, time)| {
        (
            kodo_contract::TreePath::new(path),
            Node::new(kind, mode, time),
        )
    })
    .collect();
    tree.set_root(0o1700);
    let snapshot = snapshot(&store, tree.clone(), &contents).await;
    let stored: Arc<dyn ArtifactStore> = Arc::new(store.clone());
    let archive: Vec<_> = tarball(Arc::clone(&stored), snapshot.clone())
        .try_collect()
        .await
        .unwrap();
    let bounds = TreeBounds {
        entries: 100,
        bytes: 10_000_000,
    };
    let unpacked = unpack(&*archive.concat(), &bounds, 42, |content, _| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        Ok(ContentHash::of(&bytes))
    });
    assert_eq!(unpacked.unwrap(), tree);

    // Content that was spoiled is never handed on whole, and the archive has no end.
    let hash = snapshot.objects[0].sha256.as_str();
    let place = above
        .path()
        .join("0123abcd/sha256")
        .join(&hash[..2])
        .join(hash);
    let mut spoiled = fs::read(&place).unwrap();
    spoiled[3 + 1_000_000] ^= 1;
    fs::write(&place, spoiled).unwrap();
    let mut pieces = tarball(stored, snapshot);
    let mut seen = 0;
    let error = loop {
        match pieces.try_next().await {
            Ok(piece) => seen += piece.expect("no end without an error").len(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ArtifactError::Damaged(_)), "{error}");
    assert!(seen < archive.concat().len());
}
