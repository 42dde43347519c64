//! This machine's clock against the database's.

use std::time::{Duration, Instant};

use kodo_store::Store;

use super::examination::Examination;
use super::finding::Finding;

/// Durable sleeps end, and rows are dated, by either clock: half a second does not show, a few seconds do.
const NOTICEABLE: Duration = Duration::from_millis(1000);

/// From here on a durable sleep or a trace is plainly wrong.
const WRONG: Duration = Duration::from_secs(30);

/// How often it is asked; the fastest round trip tells most.
const TRIES: u32 = 3;

/// Compares, with the time that the question took taken into account.
pub(crate) async fn check(exam: &Examination, store: &Store) -> Vec<Finding> {
    let mut best: Option<(Duration, i64)> = None;
    for _ in 0..TRIES {
        let (asked, from) = (micros_now(), Instant::now());
        let facts = match store.server_facts().await {
            Ok(facts) => facts,
            Err(error) => return vec![Finding::skipped("clock", error.to_string())],
        };
        let trip = from.elapsed();
        let half = i64::try_from(trip.as_micros() / 2).unwrap_or_default();
        let skew = facts.clock_micros - (asked + half);
        if best.is_none_or(|(fastest, _)| trip < fastest) {
            best = Some((trip, skew));
        }
    }
    let (trip, skew) = best.unwrap_or_default();
    vec![judge(exam.settings.app.host.as_str(), trip, skew)]
}

fn judge(host: &str, trip: Duration, skew_micros: i64) -> Finding {
    // What cannot be told from the way of the answer is no skew.
    let sure = Duration::from_micros(skew_micros.unsigned_abs()).saturating_sub(trip / 2);
    let what = format!(
        "the database's clock is {:+.1} ms from this machine's, give or take {:.1} ms",
        skew_micros as f64 / 1000.0,
        trip.as_secs_f64() * 500.0
    );
    let mut next = "timedatectl timesync-status".to_owned();
    if !host.starts_with('/') {
        next += &format!("; ssh {host} timedatectl timesync-status");
    }
    if sure >= WRONG {
        Finding::problem("clock", what, next)
    } else if sure >= NOTICEABLE {
        Finding::warn("clock", what, Some(next))
    } else {
        Finding::ok("clock", what)
    }
}

fn micros_now() -> i64 {
    i64::try_from(kodo_contract::now().unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Level;

    #[test]
    fn only_a_skew_beyond_the_round_trip_counts() {
        let table = [
            (2, 400_000, Level::Ok),
            (2, -1_500_000, Level::Warn),
            (2, 40_000_000, Level::Problem),
            (2, -40_000_000, Level::Problem),
            // Asked over a line that took four seconds, a skew of 2.5 s is half a second at least.
            (4_000, 2_500_000, Level::Ok),
        ];
        for (trip_ms, skew, level) in table {
            let finding = judge("db", Duration::from_millis(trip_ms), skew);
            assert_eq!(finding.level, level, "{finding:?}");
        }
    }
}
