//! What a worker that is launched waits for too long: the start of a run, one of its periodic checks. Told in the log and by
//! `/readyz`, with who keeps it waiting, as far as the server says so.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kodo_store::{StoreError, waits_for};

use crate::workers::shared::Shared;

/// What is awaited for longer is told. Longer than a server stalls in a checkpoint.
const TOLD_AFTER: Duration = Duration::from_secs(5);

/// What is awaited for longer is told also if the server says that nothing waits there. Before that, it may be this machine
/// that has no time.
const TOLD_ANYWAY_AFTER: Duration = Duration::from_secs(15);

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Bound on asking the server.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// Why something does not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stall {
    /// The worker itself waits: nothing begins, or nothing is looked after.
    Worker(String),
    /// Sessions of this product database wait for a lock: some steps do not go on.
    Sessions(String),
}

/// What this worker waits for, each with the moment since which it does, and what was found out about it.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    since: Mutex<HashMap<String, Instant>>,
    stall: Mutex<Option<Stall>>,
}

impl Awaited {
    /// Says that something is awaited, if that was not said before.
    pub(crate) fn begin(&self, what: &str) {
        let mut all = lock(&self.since);
        all.entry(what.to_owned()).or_insert_with(Instant::now);
    }

    /// Says that it goes on, however long it takes as a whole.
    pub(crate) fn goes_on(&self, what: &str) {
        lock(&self.since).insert(what.to_owned(), Instant::now());
    }

    /// Says that it is over.
    pub(crate) fn end(&self, what: &str) {
        lock(&self.since).remove(what);
    }

    /// Says that something is awaited until the returned value is dropped.
    pub(crate) fn until_dropped(&self, what: String) -> AwaitedHere<'_> {
        self.begin(&what);
        AwaitedHere {
            awaited: self,
            what,
        }
    }

    /// Forgets everything, because the launch is over.
    pub(crate) fn clear(&self) {
        lock(&self.since).clear();
        *lock(&self.stall) = None;
    }

    /// Why something does not go on, if that is so.
    pub(crate) fn stall(&self) -> Option<Stall> {
        lock(&self.stall).clone()
    }

    /// What has been awaited for longest, and for how long, if that is too long.
    fn overdue(&self) -> Option<(String, Duration)> {
        let all = lock(&self.since);
        let (what, since) = all.iter().min_by_key(|(_, since)| **since)?;
        let waited = since.elapsed();
        (waited >= TOLD_AFTER).then(|| (what.clone(), waited))
    }
}

/// Something that is awaited for as long as this is there.
pub(crate) struct AwaitedHere<'a> {
    awaited: &'a Awaited,
    what: String,
}

impl Drop for AwaitedHere<'_> {
    fn drop(&mut self) {
        self.awaited.end(&self.what);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while the lock is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks for as long as it is polled.
pub(crate) async fn watch(shared: &Shared) -> Infallible {
    let mut told = None;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let overdue = shared.awaited.overdue();
        let looked = tokio::time::timeout(ASK_TIMEOUT, why(shared, overdue.is_some())).await;
        let (key, why) = looked
            .unwrap_or_else(|_| Ok(None))
            .unwrap_or_default()
            .map_or((String::new(), None), |(key, why)| (key, Some(why)));
        let (key, stall) = match (overdue, why) {
            (Some((what, waited)), why) if why.is_some() || waited >= TOLD_ANYWAY_AFTER => {
                let why = why.unwrap_or_else(|| "the server does not say what for".to_owned());
                let reason = format!("{what} has taken {} s: {why}", waited.as_secs());
                (Some((what, key)), Some(Stall::Worker(reason)))
            }
            (_, Some(why)) => {
                let reason = format!("a session of kodo {why}");
                (Some((String::new(), key)), Some(Stall::Sessions(reason)))
            }
            (_, None) => (None, None),
        };
        // The same is told once: the seconds in it change with every look.
        if key != told {
            match &stall {
                Some(Stall::Worker(reason)) => {
                    tracing::warn!(reason, "the workflow engine stands still");
                }
                Some(Stall::Sessions(reason)) => tracing::warn!(reason, "steps do not go on"),
                None => tracing::info!("nothing is waited for any more"),
            }
            told = key;
        }
        *lock(&shared.awaited.stall) = stall;
    }
}

/// Who keeps sessions of ours waiting, in a key that stays the same meanwhile and in words. What a session waits for
/// otherwise is asked only if the worker itself waits: a long statement is no stall by itself.
async fn why(shared: &Shared, worker: bool) -> Result<Option<(String, String)>, StoreError> {
    let product = shared.ctx.store.database();
    let (blockers, waits) = match worker {
        true => shared.system_db.held_up(&product, TOLD_AFTER).await?,
        false => (
            shared.system_db.blockers(&product, TOLD_AFTER).await?,
            Vec::new(),
        ),
    };
    if let Some(waits) = waits_for(&blockers) {
        let pids: Vec<i32> = blockers.iter().map(|blocker| blocker.pid).collect();
        return Ok(Some((format!("{pids:?}"), waits)));
    }
    let words = format!("sessions of kodo wait for {}", waits.join(", "));
    Ok((!waits.is_empty()).then_some((waits.join(" "), words)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_begun_again_is_awaited_since_the_first_time() {
        let awaited = Awaited::default();
        awaited.begin("a");
        let first = lock(&awaited.since)["a"];
        awaited.begin("a");
        awaited.begin("b");
        assert_eq!(lock(&awaited.since)["a"], first);
        awaited.end("a");
        assert_eq!(lock(&awaited.since).len(), 1);
        assert_eq!(awaited.overdue(), None);
        let long_ago = Instant::now().checked_sub(TOLD_AFTER).unwrap();
        lock(&awaited.since).insert("b".to_owned(), long_ago);
        assert_eq!(awaited.overdue().unwrap().0, "b");
    }
}
