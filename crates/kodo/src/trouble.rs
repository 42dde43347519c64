//! What is wrong with a database, as every command and the start say it: the cause, and what mends it.

use std::error::Error;

use anyhow::anyhow;
use kodo_engine::{InspectError, RebindError, system_trouble, system_trouble_of};
use kodo_store::{MarkError, Part, StoreError, Trouble};

use crate::settings::Settings;

/// Looks why a database is of no use; `None` if it is of use.
pub(crate) async fn look(settings: &Settings, part: Part) -> Option<Trouble> {
    match part {
        Part::Product => settings.app.trouble(part).await,
        Part::System => system_trouble(&settings.system, settings.work.engine_schema_accept).await,
    }
}

/// What is wrong if a statement has failed so.
pub(crate) async fn of(settings: &Settings, part: Part, error: &StoreError) -> Trouble {
    match part {
        Part::Product => settings.app.trouble_of(part, error).await,
        Part::System => {
            let accepted = settings.work.engine_schema_accept;
            system_trouble_of(&settings.system, error, accepted).await
        }
    }
}

/// The error of a command with the trouble of its database in the place of the bare error of a statement. `part` is the
/// database that the command works on, unless the error says which one it was.
pub(crate) async fn explained(
    settings: &Settings,
    part: Part,
    error: anyhow::Error,
) -> anyhow::Error {
    let mut above = Vec::new();
    for cause in error.chain() {
        let Some((found, of)) = store_error(cause, part) else {
            above.push(cause.to_string());
            continue;
        };
        let trouble = self::of(settings, of, found).await;
        let error = anyhow!(trouble);
        return above.into_iter().rev().fold(error, anyhow::Error::context);
    }
    error
}

/// The error of a statement that this one is, and of which database.
fn store_error<'a>(error: &'a (dyn Error + 'static), part: Part) -> Option<(&'a StoreError, Part)> {
    if let Some(error) = error.downcast_ref::<StoreError>() {
        return Some((error, part));
    }
    match error.downcast_ref() {
        Some(InspectError::Store(error)) => return Some((error, Part::System)),
        Some(InspectError::Product(error)) => return Some((error, Part::Product)),
        _ => {}
    }
    if let Some(MarkError::Rows(error)) = error.downcast_ref() {
        return Some((error, Part::Product));
    }
    match error.downcast_ref() {
        Some(RebindError::Store(error)) => Some((error, Part::Product)),
        _ => None,
    }
}
