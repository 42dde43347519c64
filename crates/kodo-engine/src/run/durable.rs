//! One execution of a workflow and its durable steps, as every workflow of this crate makes them.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kodo_contract::{ErrorCode, Stopwatch, now};
use kodo_store::Journal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use tokio::sync::{Mutex as Turn, Notify};

use crate::drain::Drain;
use crate::failpoint;
use crate::failure::{RunFailure, encoded_failure, step_failure};
use crate::run::retry::retry_store;
use crate::sysdb::journal::{
    Answer, Begin, Checkpoint, Entry, JSON, Outcome, Owned, PORTABLE_JSON, System,
};
use crate::sysdb::system_db::RecordedStep;

/// Attempts of a step whose failure is retryable, and the pause before the second one, which doubles.
const MAX_ATTEMPTS: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// The engine's name for a durable sleep.
const SLEEP: &str = "DBOS.sleep";

/// Why the body of a workflow does not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Halt {
    /// The workflow fails, for this reason.
    Failed(RunFailure),
    /// The workflow is not this execution's any more, or it was cancelled: the execution ends without an outcome.
    Superseded,
}

impl From<RunFailure> for Halt {
    fn from(failure: RunFailure) -> Self {
        match failure.superseded {
            true => Self::Superseded,
            false => Self::Failed(failure),
        }
    }
}

/// One execution of a workflow.
pub(crate) struct Workflow {
    pub(crate) it: Arc<Owned>,
    journal: Journal<System>,
    /// What is not on its way yet.
    pending: Mutex<Pending>,
    /// How long what is to be recorded waits for more, before it is handed over. A
    /// step that took less does not wait for its checkpoint: its effect is recorded, and a run of quick steps needs one
    /// transaction in the system database.
    linger: Duration,
    /// Held by whoever writes, so that what an execution records is written in order.
    writing: Turn<()>,
    /// Told when there is something to write.
    more: Notify,
    /// What earlier executions recorded, by place.
    history: HashMap<i32, RecordedStep>,
    /// The place of the next step.
    next: AtomicI32,
}

#[derive(Default)]
struct Pending {
    begin: Option<Begin>,
    checkpoints: Vec<Checkpoint>,
}

impl Workflow {
    /// An execution that begins with what it records first, or has begun.
    pub(crate) fn new(
        it: Arc<Owned>,
        journal: Journal<System>,
        linger: Duration,
        begin: Option<Begin>,
        history: HashMap<i32, RecordedStep>,
    ) -> Self {
        let more = Notify::new();
        more.notify_one();
        Self {
            it,
            journal,
            pending: Mutex::new(Pending {
                begin,
                checkpoints: Vec::new(),
            }),
            linger,
            writing: Turn::new(()),
            more,
            history,
            next: AtomicI32::new(0),
        }
    }

    /// Writes what is to be recorded, as long as it is polled. Returns only if the workflow is not this execution's any more.
    pub(crate) async fn keep_writing(&self) -> Result<Halt, RunFailure> {
        loop {
            self.more.notified().await;
            tokio::time::sleep(self.linger).await;
            if !self.write(None).await? {
                return Ok(Halt::Superseded);
            }
        }
    }

    /// Writes what is to be recorded, and the outcome, if given. Returns false if the workflow is not this execution's any
    /// more.
    async fn write(&self, end: Option<Outcome>) -> Result<bool, RunFailure> {
        let _turn = self.writing.lock().await;
        let pending = std::mem::take(&mut *self.pending());
        if pending.begin.is_none() && pending.checkpoints.is_empty() && end.is_none() {
            return Ok(true);
        }
        let entry = Entry {
            it: Arc::clone(&self.it),
            begin: pending.begin,
            checkpoints: pending.checkpoints,
            end,
        };
        let answer = retry_store(|| self.journal.write(entry.clone())).await?;
        for checkpoint in entry.checkpoints.iter().filter(|it| it.name != SLEEP) {
            failpoint(&format!("{}:checkpointed", checkpoint.name));
        }
        Ok(matches!(answer, Answer::Recorded { .. }))
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        // Nothing panics while the lock is held.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The workflow's id.
    pub(crate) fn id(&self) -> &str {
        &self.it.workflow_id
    }

    /// Whether an earlier execution recorded a step of this name.
    pub(crate) fn has_recorded(&self, name: &str) -> bool {
        self.history.values().any(|step| step.name == name)
    }

    /// Runs `body` as the durable step `name`. It is not run again once its checkpoint is recorded. It is run again after
    /// a crash before the checkpoint, and with bounded backoff after a failure that is marked retryable.
    ///
    /// This call, not the first poll, gives the step its place in the workflow's history: steps that are made one after
    /// the other and then polled together have the same places in a later execution, in whatever order they end.
    pub(crate) fn step<'a, T, F, Fut>(
        &'a self,
        drain: &'a Drain,
        name: &'a str,
        body: F,
    ) -> impl Future<Output = Result<T, Halt>> + Send + 'a
    where
        T: Serialize + DeserializeOwned + Send + 'a,
        F: FnMut() -> Fut + Send + 'a,
        Fut: Future<Output = Result<T, RunFailure>> + Send + 'a,
    {
        let place = self.next.fetch_add(1, Ordering::Relaxed);
        async move {
            let _running = drain.begin_step().await;
            let outcome = match self.recorded(place, name)? {
                Some(step) => {
                    failpoint(&format!("{name}:checkpointed"));
                    step.outcome()
                }
                None => self.perform(place, name, body).await?,
            };
            outcome.map_err(Halt::Failed)
        }
    }

    /// Sleeps durably: the wake-up time is a checkpoint, so that a restart sleeps only the rest.
    pub(crate) async fn sleep(&self, length: Duration) -> Result<(), Halt> {
        let place = self.next.fetch_add(1, Ordering::Relaxed);
        failpoint("DBOS.sleep:before");
        let wake_at = match self.recorded(place, SLEEP)? {
            Some(step) => step.outcome::<i64>().map_err(Halt::Failed)?,
            None => {
                let asleep = now();
                let wake_at = milliseconds(asleep + length);
                self.record(Checkpoint {
                    function_id: place,
                    name: SLEEP.to_owned(),
                    outcome: Outcome::Output(wake_at.to_string()),
                    serialization: PORTABLE_JSON,
                    started_at: milliseconds(asleep),
                    // The recorded duration of the step is the sleep.
                    completed_at: wake_at,
                });
                self.catch_up().await?;
                wake_at
            }
        };
        let left = u64::try_from(wake_at - milliseconds(now())).unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(left)).await;
        failpoint("DBOS.sleep:checkpointed");
        Ok(())
    }

    /// Records how the workflow ended. Returns false if it is not this execution's any more.
    pub(crate) async fn end<T: Serialize>(
        &self,
        outcome: &Result<T, RunFailure>,
    ) -> Result<bool, RunFailure> {
        let outcome = match outcome {
            Ok(output) => Outcome::Output(encoded(output)?),
            Err(failure) => Outcome::Error(encoded_failure(failure)),
        };
        self.write(Some(outcome)).await
    }

    /// What is recorded at a place of the history.
    fn recorded(&self, place: i32, name: &str) -> Result<Option<&RecordedStep>, Halt> {
        match self.history.get(&place) {
            Some(step) if step.name != name => Err(Halt::Failed(RunFailure::new(
                ErrorCode::WorkflowDiverged,
                format!(
                    "the run's history has {:?} as its step {place} where this version has {name:?}; run it with the \
                     version that started it, or start a new run",
                    step.name
                ),
            ))),
            recorded => Ok(recorded),
        }
    }

    async fn perform<T, F, Fut>(
        &self,
        place: i32,
        name: &str,
        mut body: F,
    ) -> Result<Result<T, RunFailure>, Halt>
    where
        T: Serialize,
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, RunFailure>>,
    {
        let watch = Stopwatch::start();
        let mut pause = FIRST_PAUSE;
        let mut attempt = 1;
        let outcome = loop {
            failpoint(&format!("{name}:before"));
            let outcome = Box::pin(body()).await;
            failpoint(&format!("{name}:committed"));
            match outcome {
                Err(failure) if failure.superseded => return Err(Halt::Superseded),
                Err(failure) if failure.retryable && attempt < MAX_ATTEMPTS => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                    attempt += 1;
                }
                outcome => break outcome.map_err(|failure| failure.in_step(name)),
            }
        };
        let recorded = match &outcome {
            Ok(output) => Outcome::Output(encoded(output)?),
            Err(failure) => Outcome::Error(encoded_failure(failure)),
        };
        self.record(Checkpoint {
            function_id: place,
            name: name.to_owned(),
            outcome: recorded,
            serialization: JSON,
            started_at: milliseconds(watch.started_at()),
            completed_at: milliseconds(watch.now()),
        });
        if watch.now() - watch.started_at() >= self.linger {
            self.catch_up().await?;
        }
        Ok(outcome)
    }

    fn record(&self, checkpoint: Checkpoint) {
        self.pending().checkpoints.push(checkpoint);
        self.more.notify_one();
    }

    /// Returns once everything is recorded.
    pub(crate) async fn catch_up(&self) -> Result<(), Halt> {
        match self.write(None).await? {
            true => Ok(()),
            false => Err(Halt::Superseded),
        }
    }
}

impl RecordedStep {
    /// How the step ended.
    fn outcome<T: DeserializeOwned>(&self) -> Result<T, RunFailure> {
        if let Some(error) = &self.error {
            return Err(step_failure(error).in_step(&self.name));
        }
        // A step without a value has none in the column, or the value that says so.
        let text = self.output.as_deref().unwrap_or("null");
        serde_json::from_str(text).map_err(|error| {
            let what = format!(
                "the checkpoint of step {} cannot be read: {error}",
                self.name
            );
            RunFailure::new(ErrorCode::EngineError, what)
        })
    }
}

fn encoded<T: Serialize>(value: &T) -> Result<String, RunFailure> {
    serde_json::to_string(value).map_err(|error| {
        RunFailure::new(
            ErrorCode::EngineError,
            format!("it cannot be recorded: {error}"),
        )
    })
}

fn milliseconds(time: OffsetDateTime) -> i64 {
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}
