//! Starts OpenCode in the jail that holds jobs, with a network that nobody else is in.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use kodo_jail::{Jail, JailConfig, JailedService, JailedServiceSpec, hint_for};
use kodo_planner::{MODEL_PROXY_PORT, OpenCodeLauncher, OpenCodeProcess, Start, Stream};
use kodo_sandbox::{JobSpec, Limits};

/// The folder of a jail that a program may write to.
const HOME: &str = "/job";

/// The port of its API, in a network that it has for itself.
const API_PORT: u16 = 4096;

const MIB: u64 = 1 << 20;

/// Starts OpenCode in a jail.
#[derive(Debug)]
pub(crate) struct JailedOpenCode {
    program: PathBuf,
    jail: Jail,
}

impl JailedOpenCode {
    pub(crate) fn new(program: PathBuf, config: JailConfig) -> Self {
        Self {
            program,
            jail: Jail::new(config),
        }
    }
}

/// OpenCode takes half a gigabyte of memory, its program a fifth of one on disk, and each session a little more.
fn limits() -> Limits {
    Limits {
        // Has no effect on a program that stays.
        wall: Duration::from_secs(1),
        memory_bytes: 2048 * MIB,
        processes: 256,
        disk_bytes: 1024 * MIB,
        kept_bytes: 16 * 1024,
        ..Limits::default()
    }
}

#[async_trait]
impl OpenCodeLauncher for JailedOpenCode {
    async fn launch(&self, start: Start) -> Result<Box<dyn OpenCodeProcess>, String> {
        let mut job = JobSpec::new(start.arguments(API_PORT));
        job.env = start.environment(Path::new(HOME)).into_iter().collect();
        for (name, content) in start.files(MODEL_PROXY_PORT) {
            job = job.file(&name, content);
        }
        job.limits = limits();
        let spec = JailedServiceSpec {
            job,
            program: self.program.clone(),
            port: MODEL_PROXY_PORT,
        };
        let service = self.jail.start_service(spec).await.map_err(|error| {
            let hint = hint_for(&error).map_or_else(String::new, |hint| format!("; {hint}"));
            format!(
                "it cannot be jailed: {error}{hint}; OC_OPENCODE_JAIL=false runs it with this machine's network and \
                 files in reach"
            )
        })?;
        Ok(Box::new(Jailed(service)))
    }
}

#[derive(Debug)]
struct Jailed(JailedService);

#[async_trait]
impl OpenCodeProcess for Jailed {
    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.0.connect(API_PORT).await?))
    }

    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(self.0.accept().await?))
    }

    async fn ended(&self) -> String {
        self.0.ended().await
    }
}
