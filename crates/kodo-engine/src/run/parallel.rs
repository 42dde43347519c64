//! Runs futures that depend on each other: each begins once all that it depends on have succeeded.

use std::future::Future;

use futures_util::future::join_all;
use tokio::sync::{Semaphore, watch};

/// What has succeeded so far.
struct Progress {
    succeeded: Vec<bool>,
    /// One failed, so no other begins.
    failed: bool,
    /// How many outcomes that only have to be read were read.
    read: usize,
}

/// Polls each future once those whose indexes `dependencies` lists for it have succeeded, at most as many at once as
/// there are `slots`, if given. After a failure the running ones finish and no other begins.
///
/// Those that are marked as `replayed` have an outcome already, which they only read: they come first, in order, and need
/// no slot, so that they never wait behind work, and nothing begins that a recorded failure keeps back.
///
/// Returns the outcome of each, or `None` if it never began. A future may depend only on earlier ones, otherwise it
/// waits for ever.
pub(crate) async fn run_in_parallel<Work, T>(
    dependencies: &[Vec<usize>],
    work: Vec<Work>,
    replayed: &[bool],
    slots: Option<&Semaphore>,
    succeeded: impl Fn(&T) -> bool + Sync,
) -> Vec<Option<T>>
where
    Work: Future<Output = T>,
{
    let progress = watch::Sender::new(Progress {
        succeeded: vec![false; work.len()],
        failed: false,
        read: 0,
    });
    let all = replayed.iter().filter(|&&it| it).count();
    let drive = |(index, work): (usize, Work)| {
        let (progress, succeeded) = (&progress, &succeeded);
        let mut changes = progress.subscribe();
        let needs = dependencies.get(index).map_or(&[][..], Vec::as_slice);
        let replays = replayed.get(index) == Some(&true);
        let before = replayed.iter().take(index).filter(|&&it| it).count();
        async move {
            let ready = |now: &Progress| {
                let may = needs.iter().all(|&it| now.succeeded.get(it) == Some(&true));
                now.read == all && (now.failed || may)
            };
            let mut slot = None;
            // Waiting fails only if the sender is gone, which outlives every future here.
            if replays {
                drop(changes.wait_for(|now| now.read == before).await);
            } else {
                drop(changes.wait_for(ready).await);
                if let Some(slots) = slots
                    && !progress.borrow().failed
                {
                    // Fails only if the semaphore is closed, which nobody does.
                    slot = slots.acquire().await.ok();
                }
                if progress.borrow().failed {
                    return None;
                }
            }
            let outcome = work.await;
            drop(slot);
            let good = succeeded(&outcome);
            progress.send_modify(|now| {
                now.succeeded[index] = good;
                now.failed |= !good;
                now.read += usize::from(replays);
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
            &[],
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
        run_in_parallel(&needs, work.collect(), &[], Some(&slots), |()| true).await;
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
        let needs = vec![Vec::new(); 16];
        run_in_parallel(&needs, work.collect(), &[], Some(&slots), |()| true).await;
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
        let all = run_in_parallel(&needs, work.collect(), &[], Some(&slots), |good| *good).await;
        assert_eq!(all, [Some(false), Some(true), None, None]);
        assert_eq!(over.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn what_is_only_read_needs_no_slot_and_comes_before_what_is_done() {
        let log = Mutex::new(Vec::new());
        let work = (0..3).map(async |index: usize| {
            tokio::task::yield_now().await;
            log.lock().unwrap().push(index);
            index != 2
        });
        // Somebody else's long job has the only slot until the recorded outcomes are read.
        let slots = Semaphore::new(1);
        let long_job = slots.acquire().await.unwrap();
        let needs = dependencies(&[&[], &[], &[]]);
        let replayed = [false, true, true];
        let all = run_in_parallel(&needs, work.collect(), &replayed, Some(&slots), |good| {
            *good
        });
        let read_then_free = async {
            while log.lock().unwrap().len() < 2 {
                tokio::task::yield_now().await;
            }
            drop(long_job);
        };
        let (all, ()) = tokio::join!(all, read_then_free);
        // One of them failed, so the first call does not begin in this execution either.
        assert_eq!(all, [None, Some(true), Some(false)]);
        assert_eq!(*log.lock().unwrap(), [1, 2]);
    }
}
