//! Binds a product database to another system database, once it is certain that no worker works on it.

use std::time::{Duration, Instant};

use kodo_store::{Binding, DatabaseConfig, Store, StoreError};

use crate::sysdb::inspect::{InspectError, Inspector};
use crate::workers::lease::TAKEOVER_AFTER;

/// Pause between two checks of slots whose holders may live.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// Why a product database was not bound to another system database.
#[derive(Debug, thiserror::Error)]
pub enum RebindError {
    /// The product database does not answer, or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system database that it is bound to cannot be read.
    #[error("system database {system}: {error}")]
    Inspect {
        /// The system database.
        system: String,
        /// Why.
        #[source]
        error: InspectError,
    },
    /// There is no such system database.
    #[error(
        "there is no database {0:?}, and a mistyped name is the likelier reason: SYS_DB_NAME names the system database; a new \
         one is made by hand (CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C')"
    )]
    NoSystem(String),
    /// A worker holds a slot.
    #[error(
        "{executor_id} works on {product} from {system}: stop it first (`kodo doctor` says where it is)"
    )]
    Busy {
        /// The slot's executor id.
        executor_id: String,
        /// The product database.
        product: String,
        /// The system database from which it works.
        system: String,
    },
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rebound {
    /// It belongs to the system database now. Before, it belonged to none that still exists, or to this one.
    Bound,
    /// It belonged to another system database before. What is recorded there is given up.
    Moved {
        /// The name of the other one.
        from: String,
    },
}

/// Binds a product database to a system database, which has to exist. If it is bound to another one, no worker may hold a slot there. A slot
/// that was not released has to stay free for as long as a takeover would wait, because its holder may live although
/// its session is gone.
///
/// # Errors
/// As [`RebindError`] says; nothing is changed then.
pub async fn rebind(
    store: &Store,
    product: &DatabaseConfig,
    system: &DatabaseConfig,
) -> Result<Rebound, RebindError> {
    match system.connect("kodo-rebind").await {
        Err(error) if error.is_no_database() => {
            return Err(RebindError::NoSystem(system.database.clone()));
        }
        other => drop(other?),
    }
    let mut turn = store.turn_to_bind().await?;
    let from = match turn.binding().await? {
        Binding::To(bound) if bound != system.database => bound,
        Binding::CopyOf { system: theirs, .. } if theirs == system.database => theirs,
        _ => {
            drop(turn);
            store.bind(system).await?;
            return Ok(Rebound::Bound);
        }
    };
    let seen_by = |error: InspectError| match error {
        InspectError::Product(error) => RebindError::Store(error),
        error => RebindError::Inspect {
            system: from.clone(),
            error,
        },
    };
    let instance = store.instance().await?;
    let mut there = Inspector::connect(&product.with_database(&from))
        .await
        .map_err(seen_by)?;
    let begun = Instant::now();
    loop {
        let workers = there.workers(store, &instance).await.map_err(seen_by)?;
        if let Some(worker) = workers.iter().find(|worker| worker.held) {
            return Err(RebindError::Busy {
                executor_id: worker.executor_id.clone(),
                product: product.database.clone(),
                system: from,
            });
        }
        if workers.iter().all(|worker| worker.dead) || begun.elapsed() >= TAKEOVER_AFTER {
            break;
        }
        tokio::time::sleep(CHECK_EVERY).await;
    }
    turn.take_slots_away().await?;
    turn.bind(system).await?;
    Ok(Rebound::Moved { from })
}
