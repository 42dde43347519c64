//! The room in the view of a run. A view has at most [`MAX_VIEW_BYTES`], and what is recorded is what it shows: so whoever
//! records a step knows what is taken, and what the steps that are still to come need at least.
//!
//! Only the execution that holds the run's claim adds steps, so it counts in memory, from what its claim says is recorded.

use std::sync::{Mutex, MutexGuard, PoisonError};

use kodo_contract::{MAX_VIEW_BYTES, RunId, json_size};
use serde_json::json;

use crate::failure::RunFailure;

/// What a step needs if all that it produced is in the artifact store: its entry with two times, and those of its output, of
/// what it printed on both streams.
pub(crate) const LEAST: u64 = 2048;

/// For the reason of a run that fails, which is an artifact that no step records.
const REASON: u64 = 32 * 1024;

/// The room of one run.
#[derive(Debug)]
pub(crate) struct ViewRoom(Mutex<Taken>);

#[derive(Debug)]
struct Taken {
    bytes: u64,
    /// Steps that are not recorded yet.
    awaited: u64,
}

/// Room that one step has, given back if it is dropped before [`Place::keep`].
#[derive(Debug)]
pub(crate) struct Place<'a> {
    room: &'a ViewRoom,
    pub(crate) bytes: u64,
    kept: bool,
}

impl ViewRoom {
    /// Of a run whose recorded steps take so much.
    pub(crate) fn new(bytes: u64) -> Self {
        Self(Mutex::new(Taken { bytes, awaited: 0 }))
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how many steps are not recorded yet.
    pub(crate) fn await_steps(&self, count: usize) {
        self.taken().awaited = count as u64;
    }

    /// Takes room for one step. `fit` gets the most that it may take, and returns what it does take.
    pub(crate) fn take(
        &self,
        fit: impl FnOnce(u64) -> Result<u64, RunFailure>,
    ) -> Result<Place<'_>, RunFailure> {
        let mut taken = self.taken();
        let others = taken.awaited.saturating_sub(1);
        let reserved = taken.bytes + REASON + others * LEAST;
        // Never less, so that a step can be recorded whatever older versions have recorded.
        let bytes = fit(MAX_VIEW_BYTES.saturating_sub(reserved).max(LEAST))?;
        taken.bytes += bytes;
        taken.awaited = others;
        Ok(Place {
            room: self,
            bytes,
            kept: false,
        })
    }
}

impl Place<'_> {
    /// The step was recorded.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if !self.kept {
            let mut taken = self.room.taken();
            taken.bytes -= self.bytes;
            taken.awaited += 1;
        }
    }
}

/// What a view takes without any step.
pub(crate) fn frame_size(run_id: &RunId, trace_id: Option<&str>) -> u64 {
    json_size(&json!({
        "runId": run_id, "status": "waiting_input", "steps": [], "artifacts": [], "traceId": trace_id,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(room: &ViewRoom, bytes: u64) -> (u64, Place<'_>) {
        let mut most = 0;
        let place = room.take(|it| {
            most = it;
            Ok(bytes.min(it))
        });
        (most, place.unwrap())
    }

    #[test]
    fn a_step_leaves_room_for_those_that_are_to_come() {
        let room = ViewRoom::new(1000);
        room.await_steps(3);
        let all = MAX_VIEW_BYTES - REASON - 1000;
        let (most, first) = take(&room, u64::MAX);
        assert_eq!(most, all - 2 * LEAST);
        first.keep();
        let (most, second) = take(&room, 48);
        assert_eq!(most, LEAST);
        second.keep();
        let (most, _) = take(&room, 0);
        assert_eq!(most, 2 * LEAST - 48);
    }

    #[test]
    fn what_was_not_recorded_gives_its_room_back() {
        let room = ViewRoom::new(0);
        room.await_steps(2);
        let (first, place) = take(&room, 5000);
        drop(place);
        let (again, _place) = take(&room, 5000);
        assert_eq!(first, again);
    }
}
