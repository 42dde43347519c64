//! Group commit: one writer of a database writes what many tasks want recorded.
//!
//! What is handed over while the writer's last transaction is under way goes into the next one, as one statement for
//! all rows of a kind. Whoever waits is told when its own row is durable, and nobody proceeds before. A lone entry is
//! written at once.
//!
//! An entry has a natural key, so that it can be written again: where the connection was lost in the middle, the group
//! is written once more, and what its first transaction committed changes nothing. An entry that the server refuses
//! fails alone: its group is split until it is found. So is one whose row somebody keeps locked, which then waits aside.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::{StoreError, session};

/// Most entries of a group, and most bytes, unless one entry alone has more.
const MOST_ENTRIES: usize = 512;
const MOST_BYTES: usize = 8 << 20;

/// Most entries that wait for the writer, and most bytes of them, unless one alone has more. Whoever comes then waits for room.
const WAITING: usize = 4096;
const WAITING_BYTES: u32 = 64 << 20;

/// Bound on one attempt to write a group. Waits for locks have a bound of their own (`session.rs`), so this is for a server, or
/// one session of it, that does not answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(20);

/// For how long, and how often, a group is written again after an error that passes by itself. Below the five seconds in which
/// a request is answered.
const AGAIN_FOR: Duration = Duration::from_secs(3);
const AGAIN_EVERY: Duration = Duration::from_millis(50);

/// For how long a group is searched for what keeps it from being written, and how many entries wait for locks aside.
const SEARCH: Duration = Duration::from_secs(4);
const ASIDE: usize = 4;

/// What one database's groups are made of, and how one is written.
pub trait Group: Send + Sync + 'static {
    /// What is handed over.
    type Entry: Send + Sync + 'static;
    /// What became of it.
    type Answer: Send + 'static;

    /// About how many bytes an entry sends.
    fn size(entry: &Self::Entry) -> usize;

    /// Writes entries in one transaction, and returns what became of each, in their order. Written again, an entry that
    /// is committed already changes nothing.
    ///
    /// # Errors
    /// As any statement; then nothing of the group is committed, or the connection was lost and all of it may be.
    fn write(
        &self,
        connection: &mut PgConnection,
        entries: &[&Self::Entry],
    ) -> impl Future<Output = Result<Vec<Self::Answer>, StoreError>> + Send;
}

struct Waiting<G: Group> {
    entry: G::Entry,
    /// The room that it takes among those that wait.
    _room: OwnedSemaphorePermit,
    told: oneshot::Sender<Result<G::Answer, StoreError>>,
}

/// The way to a writer. Cheap to clone. The writer starts with the first entry and ends with the last handle.
pub struct Journal<G: Group> {
    inner: Arc<Inner<G>>,
}

struct Inner<G: Group> {
    options: PgConnectOptions,
    group: Arc<G>,
    /// The way to the writer's task, once there is one.
    writer: Mutex<Option<mpsc::Sender<Waiting<G>>>>,
    room: Arc<Semaphore>,
}

impl<G: Group> Clone for Journal<G> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<G: Group> std::fmt::Debug for Journal<G> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Journal")
    }
}

impl<G: Group> Journal<G> {
    /// A journal that connects with these options once there is something to write.
    pub fn new(options: PgConnectOptions, group: G) -> Self {
        Self {
            inner: Arc::new(Inner {
                options,
                group: Arc::new(group),
                writer: Mutex::new(None),
                room: Arc::new(Semaphore::new(WAITING_BYTES as usize)),
            }),
        }
    }

    /// Writes an entry and returns once it is durable.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the server did not answer in time: the entry may be durable all the same.
    /// Otherwise as any statement.
    pub async fn write(&self, entry: G::Entry) -> Result<G::Answer, StoreError> {
        let writer = self.writer();
        let bytes = u32::try_from(G::size(&entry)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.inner.room).acquire_many_owned(bytes.min(WAITING_BYTES));
        let (tell, told) = oneshot::channel();
        let waiting = Waiting {
            entry,
            // Nobody closes the semaphore.
            _room: room.await.map_err(|_| gone())?,
            told: tell,
        };
        writer.send(waiting).await.map_err(|_| gone())?;
        told.await.unwrap_or_else(|_| Err(gone()))
    }
}

impl<G: Group> Journal<G> {
    /// The way to the writer. One that has ended, which only a panic does while there is a handle, is replaced: whoever
    /// waited for it is told that nothing is known of the entry.
    fn writer(&self) -> mpsc::Sender<Waiting<G>> {
        // Nothing panics while the lock is held.
        let mut writer = self
            .inner
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &*writer {
            Some(writer) if !writer.is_closed() => writer.clone(),
            _ => {
                let (sender, receiver) = mpsc::channel(WAITING);
                let (options, group) = (self.inner.options.clone(), Arc::clone(&self.inner.group));
                tokio::spawn(work(options, group, receiver));
                writer.insert(sender).clone()
            }
        }
    }
}

fn gone() -> StoreError {
    StoreError::Unavailable(sqlx::Error::WorkerCrashed)
}

/// Writes one group after the other until every handle is gone.
async fn work<G: Group>(
    options: PgConnectOptions,
    group: Arc<G>,
    mut entries: mpsc::Receiver<Waiting<G>>,
) {
    let mut writer = Writer {
        options,
        group,
        connection: None,
        aside: Arc::new(Semaphore::new(ASIDE)),
    };
    // One that did not fit into the group before.
    let mut left = None;
    loop {
        let first = match left.take() {
            Some(first) => first,
            None => match entries.recv().await {
                Some(first) => first,
                None => break,
            },
        };
        let mut round = Round::of(first);
        left = round.fill(&mut entries);
        writer.write(round.entries).await;
    }
    if let Some(connection) = writer.connection {
        let _ = tokio::time::timeout(Duration::from_secs(1), connection.close()).await;
    }
}

/// The entries of the next group.
struct Round<G: Group> {
    entries: Vec<Waiting<G>>,
    bytes: usize,
}

impl<G: Group> Round<G> {
    fn of(first: Waiting<G>) -> Self {
        Self {
            bytes: G::size(&first.entry),
            entries: vec![first],
        }
    }

    /// Adds an entry, or gives it back if it does not fit.
    fn add(&mut self, next: Waiting<G>) -> Option<Waiting<G>> {
        let size = G::size(&next.entry);
        if self.entries.len() >= MOST_ENTRIES || self.bytes + size > MOST_BYTES {
            return Some(next);
        }
        self.bytes += size;
        self.entries.push(next);
        None
    }

    /// Adds what waits. Returns what does not fit.
    fn fill(&mut self, entries: &mut mpsc::Receiver<Waiting<G>>) -> Option<Waiting<G>> {
        while let Ok(next) = entries.try_recv() {
            if let Some(left) = self.add(next) {
                return Some(left);
            }
        }
        None
    }
}

struct Writer<G: Group> {
    options: PgConnectOptions,
    group: Arc<G>,
    connection: Option<PgConnection>,
    /// Permits to wait for a lock beside the groups.
    aside: Arc<Semaphore>,
}

impl<G: Group> Writer<G> {
    /// Writes a group. What is refused fails alone, and what somebody keeps locked is written aside: the group is split
    /// until it is found, at most for [`SEARCH`].
    async fn write(&mut self, round: Vec<Waiting<G>>) {
        let begun = Instant::now();
        let mut parts = vec![round];
        while let Some(mut part) = parts.pop() {
            // Whoever gave up was told that nothing is known of the entry, and may have handed it over again.
            part.retain(|waiting| !waiting.told.is_closed());
            if part.is_empty() {
                continue;
            }
            let entries: Vec<&G::Entry> = part.iter().map(|waiting| &waiting.entry).collect();
            let error = match self.patiently(&entries, begun).await {
                Ok(answers) => {
                    for (waiting, answer) in part.into_iter().zip(answers) {
                        waiting.tell(Ok(answer));
                    }
                    continue;
                }
                Err(error) => error,
            };
            let locked = is_locked(&error);
            if part.len() > 1 && (locked || !error.is_transient()) && begun.elapsed() < SEARCH {
                let other = part.split_off(part.len() / 2);
                parts.extend([other, part]);
                continue;
            }
            if locked
                && part.len() == 1
                && let Some(waiting) = part.pop()
            {
                self.write_aside(waiting, error);
                continue;
            }
            if error.is_transient() {
                tracing::warn!(%error, entries = part.len(), "a group of rows could not be written");
            }
            // Of several, nobody knows whose fault it is.
            match (part.len(), part.pop()) {
                (1, Some(waiting)) => waiting.tell(Err(error)),
                (_, last) => {
                    for waiting in part.into_iter().chain(last) {
                        waiting.tell(Err(same(&error)));
                    }
                }
            }
        }
    }

    /// Writes an entry on a connection of its own, which waits for the lock that somebody has. If enough wait already, it is
    /// told at once that it could not be written.
    fn write_aside(&self, waiting: Waiting<G>, locked: StoreError) {
        let Ok(permit) = Arc::clone(&self.aside).try_acquire_owned() else {
            waiting.tell(Err(locked));
            return;
        };
        let (options, group) = (self.options.clone(), Arc::clone(&self.group));
        tokio::spawn(async move {
            let writing = async {
                let mut connection = session::patient_writer(options).await?;
                let written = group.write(&mut connection, &[&waiting.entry]).await;
                let _ = connection.close().await;
                written
            };
            let written = tokio::time::timeout(WRITE_TIMEOUT, writing).await;
            let answer = match written.unwrap_or_else(|_| Err(silent())) {
                Ok(mut answers) => answers.pop().ok_or_else(gone),
                Err(error) => Err(error),
            };
            if let Err(error) = &answer {
                tracing::warn!(%error, "a row that somebody keeps locked could not be written");
            }
            drop(permit);
            waiting.tell(answer);
        });
    }

    /// Writes a group, again and again while it fails for a reason that passes by itself, but for a lock.
    async fn patiently(
        &mut self,
        entries: &[&G::Entry],
        begun: Instant,
    ) -> Result<Vec<G::Answer>, StoreError> {
        loop {
            let written = self.once(entries).await;
            let again = matches!(&written, Err(error) if error.is_transient() && !is_locked(error));
            // The connection may have been dead for long, or the group was the victim of a deadlock.
            if !again || begun.elapsed() + AGAIN_EVERY >= AGAIN_FOR {
                return written;
            }
            tokio::time::sleep(AGAIN_EVERY).await;
        }
    }

    /// Writes a group, on the connection that is there or on a new one.
    async fn once(&mut self, entries: &[&G::Entry]) -> Result<Vec<G::Answer>, StoreError> {
        let writing = async {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => session::writer(self.options.clone()).await?,
            };
            let written = self.group.write(&mut connection, entries).await;
            // A connection on which something failed may be in a transaction, or lost.
            if written.is_ok() {
                self.connection = Some(connection);
            }
            written
        };
        let written = tokio::time::timeout(WRITE_TIMEOUT, writing).await;
        written.unwrap_or_else(|_| Err(silent()))
    }
}

impl<G: Group> Waiting<G> {
    fn tell(self, answer: Result<G::Answer, StoreError>) {
        // Whoever handed it over may not wait any more.
        let _ = self.told.send(answer);
    }
}

/// Whether a statement waited too long for a lock (55P03, lock not available).
fn is_locked(error: &StoreError) -> bool {
    error.sqlstate().as_deref() == Some("55P03")
}

fn silent() -> StoreError {
    let text = format!("no answer within {WRITE_TIMEOUT:?}");
    StoreError::Unavailable(io::Error::new(io::ErrorKind::TimedOut, text).into())
}

/// An error for another entry of the group that it kept from being written.
fn same(error: &StoreError) -> StoreError {
    StoreError::Unavailable(io::Error::other(error.to_string()).into())
}
