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
pub(crate) async fn run(
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
        if blow.settled {
            settle(end, || worker.is_ready()).await;
        }
        sleep(blow.calm).await;
        if Instant::now() >= end {
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
    for blow in lane {
        if blow.settled {
            settle(end, || board.is_any_ready()).await;
        }
        sleep(blow.calm).await;
        if Instant::now() >= end {
            break;
        }
        let signal = match blow.fault {
            Fault::Disconnect => {
                postgres.disconnect().await?;
                board.broke(blow.fault);
                continue;
            }
            Fault::DatabaseKill => Signal::KILL,
            Fault::DatabaseFast => Signal::INT,
            _ => Signal::QUIT,
        };
        postgres.signal(signal)?;
        board.broke(blow.fault);
        sleep(blow.down).await;
        let from = Instant::now();
        postgres
            .up()
            .await
            .context("the database does not come back")?;
        board.told().databases.add(from.elapsed());
    }
    Ok(())
}

/// Waits for recovery, as long as there is time to break anything.
async fn settle(end: Instant, ready: impl Fn() -> bool) {
    while !ready() && Instant::now() < end {
        sleep(Duration::from_millis(20)).await;
    }
}
