//! Which runs of this process wait for a planner that is away, for whoever asks how the service is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kodo_contract::{RunId, Timestamp, now};
use time::OffsetDateTime;

/// Since when each run has waited, and why its last try got no answer.
type Waits = HashMap<RunId, (OffsetDateTime, String)>;

/// The runs that wait. A handle: cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct PlannerAway(Arc<Mutex<Waits>>);

/// One run waits, until this is dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    runs: PlannerAway,
    run: RunId,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.runs.lock().remove(&self.run);
    }
}

impl PlannerAway {
    /// Says that a run has waited for so long, and why.
    pub(crate) fn waits(&self, run: &RunId, away: Duration, reason: String) -> Waiting {
        self.lock().insert(run.clone(), (now() - away, reason));
        Waiting {
            runs: self.clone(),
            run: run.clone(),
        }
    }

    /// The waits in a sentence; `None` if there are none.
    pub(crate) fn warning(&self) -> Option<String> {
        let waits = self.lock();
        let (since, reason) = waits.values().min()?;
        let since = Timestamp::from(*since);
        let runs = match waits.len() {
            1 => "1 run waits".to_owned(),
            count => format!("{count} runs wait"),
        };
        Some(format!("{runs} for the planner since {since}: {reason}"))
    }

    fn lock(&self) -> MutexGuard<'_, Waits> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_that_began_first_is_told_while_there_is_one() {
        let away = PlannerAway::default();
        assert_eq!(away.warning(), None);
        let (one, other) = (RunId::generate(), RunId::generate());
        let first = away.waits(&one, Duration::from_secs(60), "refused".to_owned());
        let second = away.waits(&other, Duration::ZERO, "reset".to_owned());
        let said = away.warning().unwrap();
        assert!(
            said.starts_with("2 runs wait for the planner since ") && said.ends_with(": refused"),
            "{said}"
        );
        drop(first);
        assert!(away.warning().unwrap().starts_with("1 run waits"));
        drop(second);
        assert_eq!(away.warning(), None);
    }
}
