//! Carries a schedule out: a lane for each service and one for the database, beside each other.

use std::time::Duration;

use anyhow::Context;
use futures_util::future::try_join_all;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::board::Board;
use super::postgres::Postgres;
use super::schedule::{Blow, Fault, Schedule};
use super::worker::Worker;

/// Breaks things for `length`; afterwards everything is up again, if not ready yet.
pub(super) async fn run(
    schedule: &Schedule,
    workers: &mut [Worker],
    postgres: &Postgres,
    board: &Board,
    length: Duration,
) -> anyhow::Result<()> {
    let end = Instant::now() + length;
    let services = workers
        .iter_mut()
        .zip(&schedule.workers)
        .map(|(worker, lane)| service(worker, lane, board, end));
    tokio::try_join!(
        try_join_all(services),
        database(postgres, &schedule.database, board, end)
    )?;
    tokio::time::sleep_until(end).await;
    Ok(())
}

async fn service(
    worker: &mut Worker,
    lane: &[Blow],
    board: &Board,
    end: Instant,
) -> anyhow::Result<()> {
    for blow in lane {
        if !is_due(blow, end, || worker.is_ready()).await {
            break;
        }
        worker.suffer(blow.fault).await?;
        board.broke(blow.fault);
        sleep(blow.down).await;
        worker.start().await?;
    }
    Ok(())
}

async fn database(
    postgres: &Postgres,
    lane: &[Blow],
    board: &Board,
    end: Instant,
) -> anyhow::Result<()> {
    let is_any_ready = || board.told().services.iter().flatten().any(|up| up.ready);
    for blow in lane {
        if !is_due(blow, end, is_any_ready).await {
            break;
        }
        let signal = match blow.fault {
            Fault::Disconnect => None,
            Fault::DatabaseKill => Some(Signal::KILL),
            Fault::DatabaseFast => Some(Signal::INT),
            _ => Some(Signal::QUIT),
        };
        match signal {
            Some(signal) => postgres.signal(signal)?,
            None => postgres.disconnect().await?,
        }
        board.broke(blow.fault);
        if signal.is_some() {
            sleep(blow.down).await;
            let up = postgres.up().await;
            up.context("the database does not come back")?;
        }
    }
    Ok(())
}

/// Waits for a blow's time, before that perhaps for the recovery from the last one. Returns whether there is still time to
/// break anything.
async fn is_due(blow: &Blow, end: Instant, ready: impl Fn() -> bool) -> bool {
    while blow.settled && !ready() && Instant::now() < end {
        sleep(Duration::from_millis(20)).await;
    }
    sleep(blow.calm).await;
    Instant::now() < end
}
