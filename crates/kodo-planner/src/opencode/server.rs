//! Keeps one OpenCode running for all plans: starts it when a plan needs it, and again after it has ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout};

use crate::failure::Failure;
use crate::retry::backoff;

use super::config::OpenCodeConfig;
use super::running::{Running, away, unavailable};

/// How long a start may take. On an idle machine it takes six seconds, and the first prompt as many again.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// The pause after the first start that failed.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The most plans at the same time. Further plans wait for their turn, which their deadline begins with.
const MAX_CONCURRENT: usize = 8;

/// The OpenCode of a planner.
#[derive(Debug)]
pub(crate) struct Server {
    config: Arc<OpenCodeConfig>,
    state: Arc<Mutex<State>>,
    permits: Semaphore,
}

#[derive(Debug)]
enum State {
    /// There is none. So many starts have failed since the last one that worked; the next one must not begin earlier.
    Down(u32, Instant),
    Up(Arc<Running>),
}

impl Server {
    pub(crate) fn new(config: OpenCodeConfig) -> Self {
        Self {
            config: Arc::new(config),
            state: Arc::new(Mutex::new(State::Down(0, Instant::now()))),
            permits: Semaphore::new(MAX_CONCURRENT),
        }
    }

    pub(crate) fn config(&self) -> &OpenCodeConfig {
        &self.config
    }

    /// Waits until one more plan may be made at the same time.
    pub(crate) async fn permit(&self) -> Result<SemaphorePermit<'_>, Failure> {
        let permit = self.permits.acquire().await;
        permit.map_err(|_| unavailable("it was given up"))
    }

    /// Returns the OpenCode that runs, or starts one.
    pub(crate) async fn running(&self) -> Result<Arc<Running>, Failure> {
        let state = Arc::clone(&self.state).lock_owned().await;
        let (failures, not_before) = match &*state {
            State::Up(running) if running.take_plan() => return Ok(Arc::clone(running)),
            State::Up(_) => (0, Instant::now()),
            State::Down(failures, not_before) => (*failures, *not_before),
        };
        sleep_until(not_before).await;
        // In a task of its own: if the caller stops waiting, the start goes on, and the next plan finds its result.
        let start = tokio::spawn(start(Arc::clone(&self.config), state, failures));
        start
            .await
            .unwrap_or_else(|_| Err(unavailable("its start broke off")))
    }
}

async fn start(
    config: Arc<OpenCodeConfig>,
    mut state: OwnedMutexGuard<State>,
    failures: u32,
) -> Result<Arc<Running>, Failure> {
    // An OpenCode that ran before ends with its last plan.
    *state = State::Down(failures, Instant::now());
    let began = Instant::now();
    let started = timeout(START_TIMEOUT, Running::start(&config)).await;
    let started = started.unwrap_or_else(|_| {
        let seconds = START_TIMEOUT.as_secs();
        Err(away(&format!("it was not ready within {seconds} s")))
    });
    match started {
        Ok(running) => {
            let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(took_ms, "OpenCode is ready");
            let running = Arc::new(running);
            running.take_plan();
            *state = State::Up(Arc::clone(&running));
            Ok(running)
        }
        Err(failure) => {
            tracing::warn!(error = %failure, "OpenCode could not be started");
            let pause = backoff(FIRST_PAUSE, failures, "opencode");
            *state = State::Down(failures.saturating_add(1), Instant::now() + pause);
            Err(failure)
        }
    }
}
