//! One service of the soak: started, killed, asked to end, started again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kodo_dev::harness::{Service, ServiceOptions};
use rustix::process::Signal;
use tokio::task::JoinSet;

use super::board::{Board, Up};
use super::schedule::Fault;

/// How long a service may drain: its grace period, what closing takes, and a machine that is busy.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// How soon a drain is cut short by SIGKILL.
const INTO_THE_DRAIN: Duration = Duration::from_millis(20);

/// Pause between two looks at a service's readiness.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// A service that is up or down.
pub(super) struct Worker {
    index: usize,
    options: ServiceOptions,
    board: Arc<Board>,
    service: Option<Service>,
    /// Looks whether the service of now is ready. There is none before the first start.
    watch: Option<JoinSet<()>>,
}

impl Worker {
    /// One that is down. What it will log goes to a file of `folder`.
    pub(super) fn new(
        index: usize,
        mut options: ServiceOptions,
        board: Arc<Board>,
        folder: &Path,
    ) -> Self {
        options.log_file = Some(folder.join(format!("service-{}.log", index + 1)));
        Self {
            index,
            options,
            board,
            service: None,
            watch: None,
        }
    }

    /// Starts the process and waits until its ports are bound, not until it is ready: the next fault may meet it on
    /// its way there.
    pub(super) async fn start(&mut self) -> anyhow::Result<()> {
        let service = Service::spawn(&self.options)
            .await
            .with_context(|| format!("service {} does not start", self.index + 1))?;
        self.say(Some(Up {
            port: service.port,
            ready: false,
        }));
        let (board, index, client) = (Arc::clone(&self.board), self.index, service.client());
        // The first start recovers nothing.
        let again = self.watch.is_some();
        let watch = self.watch.insert(JoinSet::new());
        watch.spawn(async move {
            while !matches!(client.get("/readyz").await, Ok(answer) if answer.status == 200) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            let mut told = board.told();
            if let Some(up) = &mut told.services[index] {
                up.ready = true;
            }
            told.restarts += u64::from(again);
        });
        self.service = Some(service);
        Ok(())
    }

    /// Waits until it is ready.
    pub(super) async fn ready(&mut self) -> anyhow::Result<()> {
        match &mut self.service {
            Some(service) => service.ready().await,
            None => Ok(()),
        }
    }

    /// Whether it has been ready since it was started.
    pub(super) fn is_ready(&self) -> bool {
        self.board.service(self.index).is_some_and(|up| up.ready)
    }

    /// Breaks it in one of the ways of a service. Afterwards it is down.
    pub(super) async fn suffer(&mut self, fault: Fault) -> anyhow::Result<()> {
        let Some(mut service) = self.service.take() else {
            return Ok(());
        };
        if let Ok(status) = service.wait(Duration::ZERO).await {
            self.wrong(&format!("ended by itself: {status}"));
        } else if fault == Fault::Terminate {
            service.signal(Signal::TERM)?;
            match service.wait(DRAIN_TIMEOUT).await {
                Ok(status) if status.success() => {}
                Ok(status) => self.wrong(&format!("answered SIGTERM with {status}")),
                Err(_) => {
                    self.wrong(&format!("did not end within {DRAIN_TIMEOUT:?} of SIGTERM"));
                }
            }
        } else {
            if fault == Fault::TerminateAndKill {
                service.signal(Signal::TERM)?;
                tokio::time::sleep(INTO_THE_DRAIN).await;
            }
            service.kill9().await?;
        }
        if let Some(watch) = &mut self.watch {
            watch.abort_all();
        }
        self.say(None);
        Ok(())
    }

    fn say(&self, up: Option<Up>) {
        self.board.told().services[self.index] = up;
    }

    fn wrong(&self, how: &str) {
        let log = self.options.log_file.as_deref().unwrap_or(Path::new("-"));
        self.board.wrong(format!(
            "service {} {how}; its log is {}",
            self.index + 1,
            log.display()
        ));
    }

    /// Looks for panics in all that its processes have logged.
    pub(super) fn look_for_panics(&self) -> anyhow::Result<()> {
        let log = self.options.log_file.as_ref().map(std::fs::read);
        let log = log.transpose()?.unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        for line in log.lines().filter(|line| line.contains("panicked")) {
            self.wrong(&format!("panicked: {line}"));
        }
        Ok(())
    }
}
