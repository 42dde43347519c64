//! Closed-loop load: so many clients, each of which asks again as soon as it has its answer.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

/// Not counted, at the start of each window: connections open, statements are prepared, caches fill.
const WARM_UP: Duration = Duration::from_millis(500);

/// One client.
pub(crate) trait Client: Send + 'static {
    /// Does the thing whose time counts, once.
    fn once(&mut self) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// What a load did.
#[derive(Debug)]
pub(crate) struct Load {
    /// How long each counted one took, shortest first.
    latencies: Vec<Duration>,
    /// How long was counted.
    window: Duration,
    /// How many there were in all, warm-up included.
    pub(crate) total: usize,
}

impl Load {
    /// Puts load on for a window, after a warm-up. The first failure of a client ends it.
    pub(crate) async fn put<C: Client>(clients: Vec<C>, window: Duration) -> anyhow::Result<Self> {
        let from = Instant::now() + WARM_UP;
        let until = from + window;
        let mut running = JoinSet::new();
        for mut client in clients {
            running.spawn(async move {
                let mut samples = Vec::new();
                let mut asked = Instant::now();
                while asked < until {
                    client.once().await?;
                    let answered = Instant::now();
                    samples.push((answered, answered - asked));
                    asked = answered;
                }
                anyhow::Ok(samples)
            });
        }
        let mut load = Self {
            latencies: Vec::new(),
            window,
            total: 0,
        };
        while let Some(samples) = running.join_next().await {
            let samples = samples??;
            load.total += samples.len();
            // What ended after the window began inside it, but counting it would count more than a window.
            let counted = samples.iter().filter(|(at, _)| (from..until).contains(at));
            load.latencies.extend(counted.map(|(_, took)| *took));
        }
        load.latencies.sort_unstable();
        anyhow::ensure!(
            !load.latencies.is_empty(),
            "nothing came to its end within {window:?}"
        );
        Ok(load)
    }

    /// How many there were in a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.window.as_secs_f64()
    }

    /// How many were counted.
    pub(crate) fn counted(&self) -> usize {
        self.latencies.len()
    }

    /// The latency that so many percent did not exceed (nearest rank), in milliseconds.
    pub(crate) fn percentile_ms(&self, percent: usize) -> f64 {
        let rank = (self.latencies.len() * percent).div_ceil(100).max(1);
        self.latencies[rank - 1].as_secs_f64() * 1000.0
    }
}
