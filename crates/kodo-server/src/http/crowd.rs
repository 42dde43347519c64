//! The connections of one server: at most so many, so that clients cannot use up the descriptors that the database and the
//! sandbox need. One more takes the place of the one that has been idle longest; if all are being answered, it waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::refused_head::Exchange;

/// The open connections. A handle: cheap to clone.
#[derive(Clone)]
pub(crate) struct Crowd {
    most: usize,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    members: Mutex<Members>,
    left: Notify,
}

#[derive(Default)]
struct Members {
    /// By the order in which they were accepted.
    open: BTreeMap<u64, Member>,
    next: u64,
}

struct Member {
    exchange: Exchange,
    /// Cancelled when somebody else takes the place.
    evicted: CancellationToken,
}

/// A place among the open connections, until it is dropped.
pub(crate) struct Place {
    id: u64,
    shared: Arc<Shared>,
    pub(crate) exchange: Exchange,
    pub(crate) evicted: CancellationToken,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.members().open.remove(&self.id);
        self.shared.left.notify_one();
    }
}

impl Shared {
    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Crowd {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            shared: Arc::default(),
        }
    }

    /// A place for one more connection.
    pub(crate) async fn place(&self) -> Place {
        loop {
            let left = self.shared.left.notified();
            if let Some(place) = self.try_place() {
                return place;
            }
            left.await;
        }
    }

    fn try_place(&self) -> Option<Place> {
        let mut members = self.shared.members();
        if members.open.len() >= self.most {
            // The first that is accepted is the first that has to go: it has had its time to send a request.
            let idle = members.open.iter().find(|(_, it)| it.exchange.is_quiet());
            let id = *idle?.0;
            members.open.remove(&id)?.evicted.cancel();
        }
        let id = members.next;
        members.next += 1;
        let (exchange, evicted) = (Exchange::default(), CancellationToken::new());
        members.open.insert(
            id,
            Member {
                exchange: exchange.clone(),
                evicted: evicted.clone(),
            },
        );
        Some(Place {
            id,
            shared: Arc::clone(&self.shared),
            exchange,
            evicted,
        })
    }
}
