//! What every artifact store does.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use kodo_contract::ContentHash;
use kodo_store::content::{ArtifactError, ArtifactStore, check, read, read_into};

/// Content that no two calls share a piece of.
pub fn content(length: usize) -> Bytes {
    (0..length)
        .map(|at| (at % 251) as u8 ^ (at / 251) as u8)
        .collect()
}

pub async fn whole(
    store: &dyn ArtifactStore,
    hash: &ContentHash,
    size: usize,
    range: Option<std::ops::Range<u64>>,
) -> Result<Vec<u8>, ArtifactError> {
    let pieces = read(store, hash, size as u64, range).await?;
    Ok(pieces.try_collect::<Vec<Bytes>>().await?.concat())
}

/// One suite for every store.
pub async fn conforms(store: &dyn ArtifactStore) {
    let nothing = ContentHash::of(b"nothing");
    assert_eq!(store.head(&nothing).await, Ok(None));
    assert_eq!(
        whole(store, &nothing, 7, None).await,
        Err(ArtifactError::Missing)
    );
    assert_eq!(store.list().try_collect::<Vec<_>>().await, Ok(vec![]));
    assert_eq!(store.delete(&nothing).await, Ok(()));

    for length in [0, 1, 65_536, 1 << 20, (1 << 20) + 1, 3_000_000] {
        let bytes = content(length);
        let hash = store.put(bytes.clone()).await.unwrap();
        assert_eq!(hash, ContentHash::of(&bytes));
        assert_eq!(store.put(bytes.clone()).await, Ok(hash.clone()), "again");
        let held = store.head(&hash).await.unwrap().unwrap();
        assert_eq!(held.size, length as u64);
        assert_eq!(whole(store, &hash, length, None).await.unwrap(), bytes);
        assert_eq!(check(store, &hash, length as u64).await, Ok(()));
        if length > 1 {
            let end = length as u64;
            for range in [0..1, 1..end, end - 1..end, 0..end] {
                let part = whole(store, &hash, length, Some(range.clone()))
                    .await
                    .unwrap();
                assert_eq!(part, bytes[range.start as usize..range.end as usize]);
            }
        }
    }
    files(store).await;
    let mut listed: Vec<_> = store.list().try_collect().await.unwrap();
    listed.sort_by_key(|it| it.info.size);
    let sizes: Vec<u64> = listed.iter().map(|it| it.info.size).collect();
    assert_eq!(sizes, [0, 1, 65_536, 1 << 20, (1 << 20) + 1, 3_000_000]);
    for one in listed {
        store.delete(&one.hash).await.unwrap();
        assert_eq!(store.head(&one.hash).await, Ok(None));
    }
}

/// Content from a file, of every length around a part of an upload, comes back into a file as it was.
async fn files(store: &dyn ArtifactStore) {
    const PART: usize = 5 << 20;
    for length in [0, 1, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 1] {
        // Not at its beginning.
        let bytes = content(length + 7);
        let hash = ContentHash::of(&bytes[7..]);
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.write_all_at(&bytes, 0).unwrap();
        let range = 7..bytes.len() as u64;
        let put = store.put_file(Arc::clone(&file), range, &hash).await;
        assert_eq!(put, Ok(()), "{length}");
        let back = Arc::new(tempfile::tempfile().unwrap());
        let size = length as u64;
        read_into(store, &hash, size, None, &back, 3).await.unwrap();
        let mut read = vec![0; length];
        back.read_exact_at(&mut read, 3).unwrap();
        assert!(read == bytes[7..], "{length}");
        store.delete(&hash).await.unwrap();
    }
    // As it was.
    store.put(content(0)).await.unwrap();
    store.put(content(1)).await.unwrap();
}
