//! What one run costs: statements, transactions, durable commits. Counted, not timed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use kodo_dev::harness::Service;
use serde_json::json;

use crate::figures::{Figures, say};
use crate::proxy::Proxy;
use crate::runs::Ends;
use crate::stage::{Stage, stop, store_intent};
use crate::wire::Connection;

/// Runs that only warm up what is counted.
const WARM_UP: usize = 10;

/// Runs that are counted.
const RUNS: usize = 41;

/// After the end of a run, for what the service does behind it.
const SETTLE: Duration = Duration::from_millis(20);

/// Counts single runs, one after the other, and returns the durable commits of one.
///
/// Sweeps, the engine's polls and other users of the server come on top of a run's own now and then. They can
/// only add: of durable commits, of which every run has the same number, the least is the run's own. The
/// statements of a run may vary by themselves (whoever looks for its end may look twice), so there the median
/// is told.
pub(crate) async fn measure(stage: &Stage, figures: &Figures) -> anyhow::Result<usize> {
    say(&format!("statements and commits of a run, {RUNS} times"));
    let proxy = Proxy::start(&stage.server).await?;
    let options = stage
        .service()
        .env("DB_HOST", "127.0.0.1")
        .env("DB_PORT", proxy.port);
    let service = Service::start(&options).await?;
    let ends = Ends::follow(&service);
    let mut connection = Connection::open(service.port).await?;
    let request = store_intent(&mut connection).await?;
    for _ in 0..WARM_UP {
        ends.run(&mut connection, &request).await?;
    }

    let (mut statements, mut transactions, mut commits) = (Vec::new(), Vec::new(), Vec::new());
    let texts = proxy.counts().texts;
    for _ in 0..RUNS {
        let (before, written) = (proxy.counts(), stage.written_transactions().await?);
        ends.run(&mut connection, &request).await?;
        tokio::time::sleep(SETTLE).await;
        let after = proxy.counts();
        commits.push(stage.written_transactions().await? - written);
        statements.push(after.statements - before.statements);
        transactions.push(after.transactions - before.transactions);
    }
    list(&texts, &proxy.counts().texts);
    stop(service).await?;

    for counted in [&mut statements, &mut transactions] {
        counted.sort_unstable();
    }
    let commits = usize::try_from(commits.into_iter().min().unwrap_or_default())?;
    ensure!(commits > 0, "a run that commits nothing");
    figures.print(&json!({
        "figure": "cost",
        "clients": 1,
        "statementsPerRun": statements[RUNS / 2],
        "leastStatementsPerRun": statements[0],
        "transactionsPerRun": transactions[RUNS / 2],
        "durableCommitsPerRun": commits,
    }))?;
    Ok(commits)
}

/// Tells a person what the statements are: those that every other run has, or more often.
fn list(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) {
    for (text, count) in after {
        let times = count - before.get(text).copied().unwrap_or_default();
        let per_run = times as f64 / RUNS as f64;
        if per_run >= 0.5 {
            let words: Vec<&str> = text.split_whitespace().collect();
            let line: String = words.join(" ").chars().take(100).collect();
            say(&format!("  {per_run:4.1}  {line}"));
        }
    }
}
