//! What the journal of the product database writes: a transaction of at most one statement for each kind of row.

use std::mem::discriminant;

use sqlx::{Connection, PgConnection};

use super::claims::{self, Claim, ClaimRow};
use super::intents::{self, IntentRow};
use super::outcomes::{self, EndRow};
use super::runs::{self, RunRow, Stored};
use super::steps::{self, Recorded, StepRow};
use crate::StoreError;
use crate::journal::Group;

/// What is handed to the journal.
#[derive(Debug)]
pub(crate) enum Entry {
    Intent(IntentRow),
    Run(RunRow),
    Claim(ClaimRow),
    Step(StepRow),
    End(EndRow),
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Whether it is stored; otherwise its key was taken.
    Intent(bool),
    Run(Stored),
    Claim(Result<Claim, StoreError>),
    Step(Recorded),
    /// The run whose row changed.
    End(Option<String>),
}

/// The product database's groups.
#[derive(Debug)]
pub(crate) struct Product;

impl Group for Product {
    type Entry = Entry;
    type Answer = Answer;

    fn size(entry: &Entry) -> usize {
        match entry {
            Entry::Intent(row) => row.size(),
            Entry::Step(row) => row.size(),
            Entry::Run(_) | Entry::Claim(_) => 512,
            Entry::End(row) => row.size(),
        }
    }

    async fn write(
        &self,
        connection: &mut PgConnection,
        entries: &[&Entry],
    ) -> Result<Vec<Answer>, StoreError> {
        let first = entries.first().map(|entry| discriminant(*entry));
        // A statement alone is a transaction.
        if entries
            .iter()
            .all(|entry| Some(discriminant(*entry)) == first)
        {
            return write_kinds(connection, entries).await;
        }
        let mut transaction = connection.begin().await?;
        let answers = write_kinds(&mut transaction, entries).await?;
        transaction.commit().await?;
        Ok(answers)
    }
}

/// One statement for each kind that there is. Answers in the order of the entries.
async fn write_kinds(
    connection: &mut PgConnection,
    entries: &[&Entry],
) -> Result<Vec<Answer>, StoreError> {
    let mut answers: Vec<(usize, Answer)> = Vec::with_capacity(entries.len());
    macro_rules! write {
        ($kind:ident, $statement:path) => {
            let picked = entries.iter().enumerate();
            let (places, rows): (Vec<usize>, Vec<_>) = picked
                .filter_map(|(place, entry)| match entry {
                    Entry::$kind(row) => Some((place, row)),
                    _ => None,
                })
                .unzip();
            if !rows.is_empty() {
                let written = $statement(connection, &rows).await?;
                answers.extend(
                    places
                        .into_iter()
                        .zip(written.into_iter().map(Answer::$kind)),
                );
            }
        };
    }
    write!(Intent, intents::insert);
    write!(Run, runs::insert);
    write!(Claim, claims::take);
    write!(Step, steps::record);
    write!(End, outcomes::end);
    answers.sort_unstable_by_key(|(place, _)| *place);
    match answers.len() == entries.len() {
        true => Ok(answers.into_iter().map(|(_, answer)| answer).collect()),
        false => Err(another_answer()),
    }
}

/// The values of one column of a statement's rows.
pub(crate) fn column<'a, R, T>(rows: &'a [R], value: impl Fn(&'a R) -> T) -> Vec<T> {
    rows.iter().map(value).collect()
}

/// The writer answered to something else: a fault of this crate.
pub(crate) fn another_answer() -> StoreError {
    StoreError::Corrupt("the journal answered to another entry".to_owned())
}
