//! What executions write into the engine's tables: the row of a workflow when it begins, a checkpoint for each step, its
//! outcome. The rows have the shape that the engine's own SDKs give them, so that its tools read and steer them.
//!
//! Each row is fenced: column `owner_xid` of a workflow names the execution that carries it out, and a statement changes
//! nothing where it names another one. So what a worker writes that was stopped, and whose work was taken over, is
//! refused by the statement itself.

use std::collections::HashSet;
use std::sync::Arc;

use kodo_store::{Group, StoreError};
use sqlx::{Connection, PgConnection};

/// How often a workflow may be begun again before it is given up: the engine's own bound.
const MOST_RECOVERIES: i64 = 100;

/// The statuses of a workflow that is not over. One that was resumed while it runs is `ENQUEUED`.
const UNDER_WAY: [&str; 3] = ["PENDING", "ENQUEUED", "DELAYED"];

/// The writer's encoding of inputs, outputs and errors, as the engine's column names it.
pub(crate) const JSON: &str = "rust_serde";

/// The encoding of what every SDK of the engine reads.
pub(crate) const PORTABLE_JSON: &str = "portable_json";

/// Milliseconds since the epoch by the server's clock.
macro_rules! now_ms {
    () => {
        "(extract(epoch FROM now()) * 1000)::bigint"
    };
}

/// Which rows the beginning of a workflow may find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finds {
    /// None: it begins for the first time.
    Nothing,
    /// One that waits in a queue. Of two workers that take it, one succeeds.
    Queued,
    /// None, or one that is not over: whoever begins it has excluded every other worker.
    Unfinished,
}

impl Finds {
    fn statuses(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Queued => "ENQUEUED DELAYED",
            Self::Unfinished => "PENDING ENQUEUED DELAYED",
        }
    }
}

/// Which execution of which workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) workflow_id: String,
    /// The execution, in column `owner_xid`.
    pub(crate) owner: String,
}

/// A workflow that begins under an executor id.
#[derive(Debug, Clone)]
pub(crate) struct Begin {
    pub(crate) name: &'static str,
    pub(crate) input: String,
    pub(crate) executor_id: Arc<str>,
    pub(crate) finds: Finds,
}

/// A finished step.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoint {
    /// Its place in the workflow's history, from 0.
    pub(crate) function_id: i32,
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
    pub(crate) serialization: &'static str,
    /// Milliseconds since the epoch.
    pub(crate) started_at: i64,
    pub(crate) completed_at: i64,
}

/// How a step or a workflow ended, as JSON text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Output(String),
    Error(String),
}

impl Outcome {
    fn output(&self) -> Option<&str> {
        match self {
            Self::Output(text) => Some(text),
            Self::Error(_) => None,
        }
    }

    fn error(&self) -> Option<&str> {
        match self {
            Self::Output(_) => None,
            Self::Error(text) => Some(text),
        }
    }

    fn status(&self) -> &'static str {
        match self {
            Self::Output(_) => "SUCCESS",
            Self::Error(_) => "ERROR",
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Output(text) | Self::Error(text) => text.len(),
        }
    }
}

/// What one execution hands to the journal at once: one transaction has all of it.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) it: Arc<Owned>,
    /// Its beginning, if that is not recorded yet.
    pub(crate) begin: Option<Begin>,
    /// The steps that have ended since the last entry.
    pub(crate) checkpoints: Vec<Checkpoint>,
    /// How the workflow ended, if it has.
    pub(crate) end: Option<Outcome>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is recorded.
    Recorded {
        /// When the workflow's time is over, in milliseconds since the epoch: of one that has begun again, if a client gave
        /// it a bound.
        deadline: Option<i64>,
    },
    /// The workflow cannot begin. The name and the status of its row, if there is one.
    Refused(Option<(String, String)>),
    /// The workflow is not this execution's any more, or it is over: of what this entry says nothing counts.
    Lost,
}

const RECORDED: Answer = Answer::Recorded { deadline: None };

/// The system database's groups, for one product database.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) app_name: String,
    pub(crate) app_version: String,
}

impl Group for System {
    type Entry = Entry;
    type Answer = Answer;

    fn size(entry: &Entry) -> usize {
        let texts = entry.checkpoints.iter().map(|it| &it.outcome);
        let texts = texts.chain(&entry.end).map(|it| 256 + it.size());
        let begin = entry
            .begin
            .as_ref()
            .map_or(0, |begin| 256 + begin.input.len());
        begin + texts.sum::<usize>()
    }

    async fn write(
        &self,
        connection: &mut PgConnection,
        entries: &[&Entry],
    ) -> Result<Vec<Answer>, StoreError> {
        let mut transaction = connection.begin().await?;
        let mut answers = vec![RECORDED; entries.len()];
        let new = self.begin(&mut transaction, entries, &mut answers).await?;
        self.checkpoint(&mut transaction, entries, &new, &mut answers)
            .await?;
        end(&mut transaction, entries, &new, &mut answers).await?;
        transaction.commit().await?;
        Ok(answers)
    }
}

/// The values of one column of a statement's rows.
fn column<'a, R, T>(rows: &'a [R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

impl System {
    /// Begins those that begin. Returns which of the entries have a new row, which then also says how they ended.
    async fn begin(
        &self,
        connection: &mut PgConnection,
        entries: &[&Entry],
        answers: &mut [Answer],
    ) -> Result<Vec<bool>, StoreError> {
        let begins: Vec<(usize, &Entry, &Begin)> = entries
            .iter()
            .enumerate()
            .filter_map(|(place, entry)| Some((place, *entry, entry.begin.as_ref()?)))
            .collect();
        let mut is_new = vec![false; entries.len()];
        let made: Vec<(usize, &Entry, &Begin)> = begins
            .iter()
            .copied()
            .filter(|(.., begin)| begin.finds != Finds::Queued)
            .collect();
        if !made.is_empty() {
            let new: HashSet<(String, String)> = sqlx::query_as(concat!(
                "INSERT INTO dbos.workflow_status
                     (workflow_uuid, inputs, name, executor_id, owner_xid, status, output, error, completed_at,
                      application_version, application_name, created_at, updated_at, recovery_attempts, priority,
                      serialization)
                 SELECT a.id, a.input, a.name, a.executor_id, a.owner, coalesce(a.ended, 'PENDING'), a.output, a.error,
                        CASE WHEN a.ended IS NOT NULL THEN ",
                now_ms!(),
                " END, $9, $10, ",
                now_ms!(),
                ", ",
                now_ms!(),
                ", 1, 0, $11
                 FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[])
                     AS a (id, input, name, executor_id, owner, ended, output, error)
                 ON CONFLICT DO NOTHING
                 RETURNING workflow_uuid, owner_xid"
            ))
            .bind(column(&made, |(_, it, _)| it.it.workflow_id.as_str()))
            .bind(column(&made, |(.., begin)| begin.input.as_str()))
            .bind(column(&made, |(.., begin)| begin.name))
            .bind(column(&made, |(.., begin)| &*begin.executor_id))
            .bind(column(&made, |(_, it, _)| it.it.owner.as_str()))
            .bind(column(&made, |(_, it, _)| it.end.as_ref().map(Outcome::status)))
            .bind(column(&made, |(_, it, _)| it.end.as_ref().and_then(Outcome::output)))
            .bind(column(&made, |(_, it, _)| it.end.as_ref().and_then(Outcome::error)))
            .bind(&self.app_version)
            .bind(&self.app_name)
            .bind(JSON)
            .fetch_all(&mut *connection)
            .await?
            .into_iter()
            .collect();
            for (place, entry, _) in &made {
                let it = (entry.it.workflow_id.clone(), entry.it.owner.clone());
                is_new[*place] = new.contains(&it);
            }
        }
        let found: Vec<(usize, &Entry, &Begin)> = begins
            .into_iter()
            .filter(|(place, ..)| !is_new[*place])
            .collect();
        if !found.is_empty() {
            self.begin_again(connection, &found, answers).await?;
        }
        Ok(is_new)
    }

    /// Begins workflows that have rows.
    async fn begin_again(
        &self,
        connection: &mut PgConnection,
        begins: &[(usize, &Entry, &Begin)],
        answers: &mut [Answer],
    ) -> Result<(), StoreError> {
        let ids = column(begins, |(_, it, _)| it.it.workflow_id.as_str());
        // One that was begun too often is given up, as the engine does it.
        sqlx::query(concat!(
            "UPDATE dbos.workflow_status w
             SET status = CASE WHEN w.recovery_attempts <= $7 THEN 'PENDING' ELSE 'MAX_RECOVERY_ATTEMPTS_EXCEEDED' END,
                 recovery_attempts = w.recovery_attempts + 1,
                 executor_id = a.executor_id, owner_xid = a.owner, updated_at = ",
            now_ms!(),
            ",
                 application_version = $5, application_name = coalesce(w.application_name, $6),
                 queue_name = CASE WHEN w.recovery_attempts <= $7 THEN w.queue_name END,
                 deduplication_id = CASE WHEN w.recovery_attempts <= $7 THEN w.deduplication_id END,
                 started_at_epoch_ms = CASE WHEN w.recovery_attempts <= $7 THEN ",
            now_ms!(),
            " END,
                 workflow_deadline_epoch_ms = coalesce(w.workflow_deadline_epoch_ms, ",
            now_ms!(),
            " + w.workflow_timeout_ms)
             FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $8::text[])
                 AS a (id, name, executor_id, owner, statuses)
             WHERE w.workflow_uuid = a.id AND w.name = a.name AND w.status = ANY(string_to_array(a.statuses, ' '))
               AND w.owner_xid IS DISTINCT FROM a.owner"
        ))
        .bind(&ids)
        .bind(column(begins, |(.., begin)| begin.name))
        .bind(column(begins, |(.., begin)| &*begin.executor_id))
        .bind(column(begins, |(_, it, _)| it.it.owner.as_str()))
        .bind(&self.app_version)
        .bind(&self.app_name)
        .bind(MOST_RECOVERIES)
        .bind(column(begins, |(.., begin)| begin.finds.statuses()))
        .execute(&mut *connection)
        .await?;
        type Row = (String, Option<String>, String, Option<String>, Option<i64>);
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT workflow_uuid, name, status, owner_xid, workflow_deadline_epoch_ms FROM dbos.workflow_status
             WHERE workflow_uuid = ANY($1)",
        )
        .bind(&ids)
        .fetch_all(connection)
        .await?;
        for (place, entry, _) in begins {
            let row = rows.iter().find(|row| row.0 == entry.it.workflow_id);
            let ended = entry.end.as_ref().map(Outcome::status);
            answers[*place] = match row {
                // Begun just now, or before, and the answer to that was lost: then it may be over as well.
                Some((_, _, status, owner, deadline))
                    if owner.as_deref() == Some(&entry.it.owner)
                        && (UNDER_WAY.contains(&status.as_str())
                            || ended == Some(status.as_str())) =>
                {
                    let deadline = *deadline;
                    Answer::Recorded { deadline }
                }
                other => Answer::Refused(other.map(|(_, name, status, ..)| {
                    (name.clone().unwrap_or_default(), status.clone())
                })),
            };
        }
        Ok(())
    }

    async fn checkpoint(
        &self,
        connection: &mut PgConnection,
        entries: &[&Entry],
        is_new: &[bool],
        answers: &mut [Answer],
    ) -> Result<(), StoreError> {
        let places = (0..entries.len()).filter(|place| is_recorded(&answers[*place]));
        let checkpoints: Vec<(usize, &Entry, &Checkpoint)> = places
            .flat_map(|place| {
                let entry = entries[place];
                entry.checkpoints.iter().map(move |it| (place, entry, it))
            })
            .collect();
        if checkpoints.is_empty() {
            return Ok(());
        }
        // The workflow's row is locked, so that whoever cancels it or takes it over waits for this commit, or is waited for.
        // A row of this transaction nobody else sees.
        let recorded: Vec<bool> = sqlx::query_scalar(
            "WITH asked AS (
                 SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::text[],
                                      $8::bigint[], $9::bigint[], $12::bool[], $13::text[]) WITH ORDINALITY
                     AS a (id, owner, function_id, name, output, error, serialization, started_at, completed_at, is_new,
                           ended, n)
             ), mine AS (
                 SELECT w.workflow_uuid, w.owner_xid, w.status FROM dbos.workflow_status w
                 WHERE (w.workflow_uuid, w.owner_xid) IN (SELECT a.id, a.owner FROM asked a WHERE NOT a.is_new)
                 FOR SHARE
             ), fits AS (
                 SELECT a.*, a.is_new OR EXISTS (
                     SELECT FROM mine m WHERE m.workflow_uuid = a.id AND m.owner_xid = a.owner
                                          -- It is over already if the answer to that was lost.
                                          AND (m.status = ANY($11) OR m.status = a.ended)) AS is_mine
                 FROM asked a
             ), written AS (
                 INSERT INTO dbos.operation_outputs
                     (workflow_uuid, function_id, function_name, output, error, serialization, started_at_epoch_ms,
                      completed_at_epoch_ms, application_name)
                 SELECT f.id, f.function_id, f.name, f.output, f.error, f.serialization, f.started_at, f.completed_at, $10
                 FROM fits f WHERE f.is_mine
                 ON CONFLICT (workflow_uuid, function_id) DO NOTHING
             )
             SELECT f.is_mine FROM fits f ORDER BY f.n",
        )
        .bind(column(&checkpoints, |(_, it, _)| it.it.workflow_id.as_str()))
        .bind(column(&checkpoints, |(_, it, _)| it.it.owner.as_str()))
        .bind(column(&checkpoints, |(.., it)| it.function_id))
        .bind(column(&checkpoints, |(.., it)| it.name.as_str()))
        .bind(column(&checkpoints, |(.., it)| it.outcome.output()))
        .bind(column(&checkpoints, |(.., it)| it.outcome.error()))
        .bind(column(&checkpoints, |(.., it)| it.serialization))
        .bind(column(&checkpoints, |(.., it)| it.started_at))
        .bind(column(&checkpoints, |(.., it)| it.completed_at))
        .bind(&self.app_name)
        .bind(UNDER_WAY)
        .bind(column(&checkpoints, |(place, ..)| is_new[*place]))
        .bind(column(&checkpoints, |(_, it, _)| it.end.as_ref().map(Outcome::status)))
        .fetch_all(connection)
        .await?;
        for ((place, ..), recorded) in checkpoints.iter().zip(recorded) {
            if !recorded {
                answers[*place] = Answer::Lost;
            }
        }
        Ok(())
    }
}

fn is_recorded(answer: &Answer) -> bool {
    matches!(answer, Answer::Recorded { .. })
}

/// Ends the workflows that have rows of before. One that this execution has ended already counts as ended now: the answer
/// to that was lost.
async fn end(
    connection: &mut PgConnection,
    entries: &[&Entry],
    is_new: &[bool],
    answers: &mut [Answer],
) -> Result<(), StoreError> {
    let ends: Vec<(usize, &Entry, &Outcome)> = entries
        .iter()
        .enumerate()
        .filter(|(place, _)| !is_new[*place] && is_recorded(&answers[*place]))
        .filter_map(|(place, entry)| Some((place, *entry, entry.end.as_ref()?)))
        .collect();
    if ends.is_empty() {
        return Ok(());
    }
    let ended: Vec<bool> = sqlx::query_scalar(concat!(
        "WITH asked AS (
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY
                 AS a (id, owner, status, output, error, n)
         ), ended AS (
             UPDATE dbos.workflow_status w
             SET status = a.status, output = a.output, error = a.error, deduplication_id = NULL,
                 updated_at = ",
        now_ms!(),
        ", completed_at = ",
        now_ms!(),
        "
             FROM asked a
             WHERE w.workflow_uuid = a.id AND w.owner_xid = a.owner AND w.status = ANY($6)
             RETURNING w.workflow_uuid, w.owner_xid
         )
         SELECT EXISTS (SELECT FROM ended e WHERE e.workflow_uuid = a.id AND e.owner_xid = a.owner)
             OR EXISTS (SELECT FROM dbos.workflow_status w
                        WHERE w.workflow_uuid = a.id AND w.owner_xid = a.owner AND w.status = a.status)
         FROM asked a ORDER BY a.n"
    ))
    .bind(column(&ends, |(_, it, _)| it.it.workflow_id.as_str()))
    .bind(column(&ends, |(_, it, _)| it.it.owner.as_str()))
    .bind(column(&ends, |(.., outcome)| outcome.status()))
    .bind(column(&ends, |(.., outcome)| outcome.output()))
    .bind(column(&ends, |(.., outcome)| outcome.error()))
    .bind(UNDER_WAY)
    .fetch_all(connection)
    .await?;
    for ((place, ..), ended) in ends.iter().zip(ended) {
        if !ended {
            answers[*place] = Answer::Lost;
        }
    }
    Ok(())
}
