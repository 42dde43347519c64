//! What all uploads on their way may have together, so that clients can fill neither the disk nor the memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::ApiError;

/// Uploads that are received at the same time; further ones wait. Each has a piece of its body in memory.
const AT_ONCE: usize = 64;

/// The room of all uploads. A handle: cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct UploadRoom {
    most: u64,
    taken: Arc<AtomicU64>,
    turns: Arc<Semaphore>,
}

/// What one upload has of it, until this is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    room: UploadRoom,
    bytes: u64,
    _turn: OwnedSemaphorePermit,
}

impl UploadRoom {
    pub(crate) fn new(most: u64) -> Self {
        Self {
            most,
            taken: Arc::default(),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// A share without any bytes yet.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] if it is no upload's turn to end within `patience`.
    pub(crate) async fn share(&self, patience: Duration) -> Result<Share, ApiError> {
        let turn = tokio::time::timeout(patience, Arc::clone(&self.turns).acquire_owned());
        let Ok(Ok(turn)) = turn.await else {
            let cause = format!("{AT_ONCE} uploads are on their way");
            return Err(ApiError::Unavailable(cause));
        };
        Ok(Share {
            room: self.clone(),
            bytes: 0,
            _turn: turn,
        })
    }
}

impl Share {
    /// Makes it so large at least.
    ///
    /// # Errors
    /// [`ApiError::Unavailable`] if the others leave less.
    pub(crate) fn grow_to(&mut self, bytes: u64) -> Result<(), ApiError> {
        let more = bytes.saturating_sub(self.bytes);
        let most = self.room.most;
        let grown = |taken: u64| taken.checked_add(more).filter(|all| *all <= most);
        let taken = &self.room.taken;
        if taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown)
            .is_err()
        {
            return Err(ApiError::Unavailable(format!(
                "all uploads on their way have at most {most} bytes together (MAX_UPLOADS_TOGETHER_BYTES)"
            )));
        }
        self.bytes += more;
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn uploads_share_one_room_and_give_it_back() {
        let room = UploadRoom::new(100);
        let mut first = room.share(LONG).await.unwrap();
        let mut second = room.share(LONG).await.unwrap();
        first.grow_to(60).unwrap();
        first.grow_to(40).unwrap();
        second.grow_to(40).unwrap();
        let error = second.grow_to(41).unwrap_err();
        assert!(
            matches!(&error, ApiError::Unavailable(why) if why.contains("MAX_UPLOADS_TOGETHER_BYTES"))
        );
        drop(first);
        second.grow_to(100).unwrap();
        assert!(second.grow_to(u64::MAX).is_err());
    }

    #[tokio::test]
    async fn one_more_waits_for_the_end_of_another() {
        let room = UploadRoom::new(100);
        let mut all = Vec::new();
        for _ in 0..AT_ONCE {
            all.push(room.share(LONG).await.unwrap());
        }
        let refused = room.share(Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(refused, ApiError::Unavailable(_)));
        let (share, ()) = tokio::join!(room.share(LONG), async { drop(all.pop()) });
        share.unwrap();
    }
}
