//! Runs futures that depend on each other: each begins once all that it depends on have succeeded.

use std::future::Future;

use futures_util::future::join_all;
use tokio::sync::{Semaphore, watch};

/// What has succeeded so far.
struct Progress {
    succeeded: Vec<bool>,
    /// One failed, so no other begins.
    failed: bool,
}

/// Polls each future once those whose indexes `dependencies` lists for it have succeeded, at most as many at once as
/// there are `slots`, if given. After a failure the running ones finish and no other begins.
///
/// Returns the outcome of each, or `None` if it never began. A future may depend only on earlier ones, otherwise it
/// waits for ever.
pub(crate) async fn run_in_parallel<Work, T>(
    dependencies: &[Vec<usize>],
    work: Vec<Work>,
    slots: Option<&Semaphore>,
    succeeded: impl Fn(&T) -> bool + Sync,
) -> Vec<Option<T>>
where
    Work: Future<Output = T>,
{
    let progress = watch::Sender::new(Progress {
        succeeded: vec![false; work.len()],
        failed: false,
    });
    let drive = |(index, work): (usize, Work)| {
        let (progress, succeeded) = (&progress, &succeeded);
        let mut changes = progress.subscribe();
        let needs = dependencies.get(index).map_or(&[][..], Vec::as_slice);
        async move {
            let ready = |now: &Progress| {
                now.failed || needs.iter().all(|&it| now.succeeded.get(it) == Some(&true))
            };
            // Fails only if the sender is gone, which outlives every future here.
            drop(changes.wait_for(ready).await);
            // Fails only if the semaphore is closed, which nobody does.
            let _slot = match slots {
                Some(slots) => slots.acquire().await.ok(),
                None => None,
            };
            if progress.borrow().failed {
                return None;
            }
            let outcome = work.await;
            let good = succeeded(&outcome);
            progress.send_modify(|now| {
                now.succeeded[index] = good;
                now.failed |= !good;
            });
            Some(outcome)
        }
    };
    join_all(work.into_iter().enumerate().map(drive)).await
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    fn dependencies(all: &[&[usize]]) -> Vec<Vec<usize>> {
        all.iter().map(|it| it.to_vec()).collect()
    }

    #[tokio::test]
    async fn work_without_dependencies_runs_at_the_same_time() {
        let met = [Notify::new(), Notify::new()];
        // Each waits for the other.
        let work = (0..2).map(async |index: usize| {
            met[1 - index].notify_one();
            met[index].notified().await;
            index
        });
        let slots = Semaphore::new(2);
        let all = run_in_parallel(
            &dependencies(&[&[], &[]]),
            work.collect(),
            Some(&slots),
            |_| true,
        )
        .await;
        assert_eq!(all, [Some(0), Some(1)]);
    }

    #[tokio::test]
    async fn work_begins_after_all_that_it_depends_on() {
        let log = Mutex::new(Vec::new());
        let go = Notify::new();
        let work = (0..4).map(async |index: usize| {
            if index == 0 {
                go.notified().await;
            }
            log.lock().unwrap().push(index);
            if index == 2 {
                go.notify_one();
            }
        });
        let slots = Semaphore::new(4);
        let needs = dependencies(&[&[], &[], &[1], &[0, 2]]);
        run_in_parallel(&needs, work.collect(), Some(&slots), |()| true).await;
        assert_eq!(*log.lock().unwrap(), [1, 2, 0, 3]);
    }

    #[tokio::test]
    async fn no_more_run_at_once_than_there_are_slots() {
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = (0..16).map(async |_| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            now.fetch_sub(1, Ordering::SeqCst);
        });
        let slots = Semaphore::new(3);
        run_in_parallel(&vec![Vec::new(); 16], work.collect(), Some(&slots), |()| {
            true
        })
        .await;
        assert_eq!(most.load(Ordering::SeqCst), 3);
    }

    #[tokio::test]
    async fn after_a_failure_what_runs_finishes_and_nothing_begins() {
        let (began, over) = (Notify::new(), AtomicUsize::new(0));
        let work = (0..4).map(async |index: usize| {
            match index {
                0 => began.notified().await,
                1 => {
                    began.notify_one();
                    // Lets the other one fail first.
                    tokio::task::yield_now().await;
                }
                _ => {}
            }
            over.fetch_add(1, Ordering::SeqCst);
            index != 0
        });
        // The third depends on nothing, and there is no slot for it before the failure.
        let slots = Semaphore::new(2);
        let needs = dependencies(&[&[], &[], &[], &[0]]);
        let all = run_in_parallel(&needs, work.collect(), Some(&slots), |good| *good).await;
        assert_eq!(all, [Some(false), Some(true), None, None]);
        assert_eq!(over.load(Ordering::SeqCst), 2);
    }
}
