//! Waiting for a planner that is away.
//!
//! A planner sends its own requests again until its deadline. Beyond that, a failure that may pass by itself makes the run
//! wait here, within its step, with growing pauses. The moment of the first such failure is in the run's row, so that a
//! crash does not begin the wait anew. Meanwhile the run holds neither its place among the runs of the process nor a drain.

use std::time::Duration;

use kodo_planner::{PlanRequest, Planned};
use kodo_store::ClaimedRun;
use tokio::time::{Instant, sleep_until};

use crate::dispatch::dispatcher::Execution;
use crate::failure::RunFailure;
use crate::run::context::RunContext;
use crate::run::retry::retry_store;

/// The first pause, and the longest one. A provider may ask for a longer one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How often a waiting run looks whether it has been ended.
const LOOK: Duration = Duration::from_secs(1);

/// Asks the planner until it answers, for as long as a run waits for it (`OC_UNREACHABLE_MS`). `waits` is called before each
/// pause: whatever the run holds that it can get again, it gives back.
///
/// # Errors
/// The last failure; or that this execution is the run's no more, because the run was ended meanwhile.
pub(crate) async fn plan_patiently(
    ctx: &RunContext,
    execution: &Execution,
    claimed: &ClaimedRun,
    request: &PlanRequest<'_>,
    mut waits: impl FnMut(),
) -> Result<Planned, RunFailure> {
    let run_id = &claimed.id;
    let mut own = FIRST_PAUSE;
    let mut waiting = None;
    loop {
        let error = match ctx.planner.plan(request).await {
            Ok(planned) => return Ok(planned),
            Err(error) => error,
        };
        let Some(asked) = error.passes_after() else {
            return Err(error.into());
        };
        let away = retry_store(|| ctx.store.planner_is_away(run_id)).await?;
        let left = ctx.planner_patience.saturating_sub(away);
        if left.is_zero() || asked > left {
            let mut failure = RunFailure::from(error);
            let patience = ctx.planner_patience.as_millis();
            failure.message.push_str(&format!(
                "; a run waits {patience} ms for its planner, which OC_UNREACHABLE_MS sets"
            ));
            return Err(failure);
        }
        let pause = own.max(asked).min(left);
        own = (own * 2).min(LONGEST_PAUSE);
        tracing::warn!(
            run.id = %run_id,
            code = %error.code(),
            reason = %error,
            retry_in_ms = pause.as_millis() as u64,
            "the planner is away; the run waits for it"
        );
        waits();
        // The one before says nothing any more, and must not be dropped after this one.
        drop(waiting.take());
        waiting = Some(ctx.planner_away.waits(run_id, away, error.to_string()));
        wait(ctx, execution, claimed, pause).await?;
    }
}

/// Waits without holding anything.
async fn wait(
    ctx: &RunContext,
    execution: &Execution,
    claimed: &ClaimedRun,
    pause: Duration,
) -> Result<(), RunFailure> {
    let idle = ctx.drain.idle();
    execution.leave();
    let end = Instant::now() + pause;
    while Instant::now() < end {
        sleep_until(end.min(Instant::now() + LOOK)).await;
        // Without an answer, the next look finds it.
        if let Ok(false) = ctx.store.is_under_way(&claimed.id, claimed.epoch).await {
            return Err(RunFailure::superseded());
        }
    }
    execution.take_place().await;
    idle.go_on().await;
    Ok(())
}
