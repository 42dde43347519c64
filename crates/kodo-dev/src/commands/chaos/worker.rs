//! One service of the soak: started, killed, asked to end, started again.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kodo_dev::harness::{Client, Service, ServiceOptions};
use rustix::process::Signal;
use tokio::time::Instant;

use super::board::Board;
use super::schedule::Fault;

/// How long a service may drain: its grace period, what closing takes, and a machine that is busy.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// How soon a drain is cut short by SIGKILL.
const INTO_THE_DRAIN: Duration = Duration::from_millis(20);

/// Pause between two looks at a service's readiness.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// A service that is up or down.
pub(crate) struct Worker {
    index: usize,
    options: ServiceOptions,
    board: Arc<Board>,
    log: PathBuf,
    service: Option<Service>,
    generation: u64,
}

impl Worker {
    /// One that is down. What it will log goes to a file of `folder`.
    pub(crate) fn new(
        index: usize,
        options: ServiceOptions,
        board: Arc<Board>,
        folder: &std::path::Path,
    ) -> Self {
        Self {
            index,
            options,
            board,
            log: folder.join(format!("service-{}.log", index + 1)),
            service: None,
            generation: 0,
        }
    }

    /// Starts the process and waits until its ports are bound, not until it is ready: the next fault may meet it on
    /// its way there.
    pub(crate) async fn start(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let service = Service::spawn(&self.options)
            .await
            .with_context(|| format!("service {} does not start", self.index + 1))?;
        self.generation += 1;
        self.keep_log(&service)?;
        self.board
            .set_service(self.index, Some((service.port, self.generation)));
        tokio::spawn(measure(
            Arc::clone(&self.board),
            self.index,
            self.generation,
            service.client(),
            started,
        ));
        self.service = Some(service);
        Ok(())
    }

    /// Waits until it is ready.
    pub(crate) async fn ready(&mut self) -> anyhow::Result<()> {
        if let Some(service) = &mut self.service {
            service.ready().await?;
        }
        Ok(())
    }

    /// Whether it has been ready since it was started.
    pub(crate) fn is_ready(&self) -> bool {
        self.board.is_ready(self.index)
    }

    /// Breaks it in one of the ways of a service. Afterwards it is down.
    pub(crate) async fn suffer(&mut self, fault: Fault) -> anyhow::Result<()> {
        let Some(mut service) = self.service.take() else {
            return Ok(());
        };
        if let Ok(status) = service.wait(Duration::ZERO).await {
            self.ended_by_itself(&format!("ended by itself: {status}"));
            self.board.set_service(self.index, None);
            return Ok(());
        }
        match fault {
            Fault::Terminate => {
                service.signal(Signal::TERM)?;
                match service.wait(DRAIN_TIMEOUT).await {
                    Ok(status) if status.success() => {}
                    Ok(status) => self.ended_by_itself(&format!("answered SIGTERM with {status}")),
                    Err(_) => self.ended_by_itself(&format!(
                        "did not end within {DRAIN_TIMEOUT:?} of SIGTERM"
                    )),
                }
            }
            Fault::TerminateAndKill => {
                service.signal(Signal::TERM)?;
                tokio::time::sleep(INTO_THE_DRAIN).await;
                service.kill9().await?;
            }
            _ => service.kill9().await?,
        }
        self.board.set_service(self.index, None);
        Ok(())
    }

    fn ended_by_itself(&self, how: &str) {
        self.board.wrong(format!(
            "service {} {how}; its log is {}",
            self.index + 1,
            self.log.display()
        ));
    }

    /// Copies what the service logs to the file, from its first line on.
    fn keep_log(&self, service: &Service) -> anyhow::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| self.log.display().to_string())?;
        let mut lines = service.follow_log();
        // Taken after the follower was set: a line may be in both, none is in neither.
        let early = service.log();
        let board = Arc::clone(&self.board);
        let name = self.index + 1;
        file.write_all(early.as_bytes())?;
        tokio::spawn(async move {
            while let Some(line) = lines.recv().await {
                if early.lines().any(|known| known == line) {
                    continue;
                }
                if line.contains("panicked") {
                    board.wrong(format!("service {name} panicked: {line}"));
                }
                write_line(&mut file, &line);
            }
        });
        Ok(())
    }
}

/// A log that cannot be written is no reason to stop a soak.
fn write_line(file: &mut File, line: &str) {
    let _ = writeln!(file, "{line}");
}

/// Times how long a start takes until the service is ready, if it gets there.
async fn measure(board: Arc<Board>, index: usize, generation: u64, client: Client, from: Instant) {
    while board.is_generation(index, generation) {
        if client
            .get("/readyz")
            .await
            .is_ok_and(|answer| answer.status == 200)
        {
            board.set_ready(index);
            // The first start recovers nothing.
            if generation > 1 {
                board.told().restarts.add(from.elapsed());
            }
            return;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
