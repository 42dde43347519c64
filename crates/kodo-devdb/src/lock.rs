//! One at a time: whoever brings the database up or down holds this lock.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::error::DevDbError;

/// Longer than anything a holder does: a download, an `initdb` and a start on a slow machine.
const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// Held until it is dropped, or until the process is gone, whichever way that happens.
///
/// Children do not inherit it: files opened by std are closed on exec.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Waits for the lock file `path`, whose folder must exist.
    pub(crate) async fn acquire(path: &Path) -> Result<Self, DevDbError> {
        Self::acquire_within(path, DEADLINE).await
    }

    async fn acquire_within(path: &Path, deadline: Duration) -> Result<Self, DevDbError> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .map_err(DevDbError::at(path))?;
        let end = Instant::now() + deadline;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(source)) => return Err(DevDbError::at(path)(source)),
                Err(TryLockError::WouldBlock) if Instant::now() >= end => {
                    return Err(DevDbError::Locked {
                        path: path.to_owned(),
                        seconds: deadline.as_secs(),
                    });
                }
                Err(TryLockError::WouldBlock) => {
                    if !told {
                        tracing::info!(
                            "waiting for another process that is bringing the database up or down"
                        );
                        told = true;
                    }
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_second_one_waits_and_gives_up_with_the_name_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".lock");
        let first = Lock::acquire(&path).await.unwrap();
        let error = Lock::acquire_within(&path, Duration::from_millis(120))
            .await
            .unwrap_err();
        assert!(error.to_string().contains(".lock"), "{error}");
        drop(first);
        Lock::acquire_within(&path, Duration::ZERO).await.unwrap();
    }
}
