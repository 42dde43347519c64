//! The provider: where a job is asked for.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use kodo_sandbox::{JobResult, JobSpec, Sandbox, SandboxError};
use tokio::sync::oneshot;

use crate::cgroup::{CgroupPolicy, Place};
use crate::enclosure::Enclosure;
use crate::spare::{self, Errand, Spares};

/// Users of the machine that jobs are where the service is user 0: each job another one, so that no two share
/// what the kernel counts by user. Far above what distributions hand out.
const FIRST_USER: u32 = 1_986_000_000;
const USERS: u32 = 65_536;
/// `nobody`, where a container maps no such user.
const NOBODY: u32 = 65_534;

/// A user of the machine that nothing else is, for a program of this process where that is user 0; `None` where it is
/// an ordinary user already.
#[must_use]
pub fn unprivileged_user() -> Option<u32> {
    let root = rustix::process::geteuid().is_root();
    root.then(|| FIRST_USER + std::process::id() % USERS)
}

/// The provider's name where nothing is between the jail and the job.
const NAME: &str = "process";

/// How the helper is started.
#[derive(Clone, Debug)]
pub struct Helper {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    #[cfg(feature = "weaken")]
    pub(crate) keep_environment: bool,
}

impl Default for Helper {
    /// This very program, which calls [`be_the_helper_if_asked`](crate::be_the_helper_if_asked).
    fn default() -> Self {
        Self {
            program: PathBuf::from("/proc/self/exe"),
            arguments: vec![crate::helper::ARGUMENT.into()],
            #[cfg(feature = "weaken")]
            keep_environment: false,
        }
    }
}

impl Helper {
    /// Another program that is the helper, for tests and benchmarks.
    #[doc(hidden)]
    #[must_use]
    pub fn program(program: PathBuf, arguments: Vec<OsString>) -> Self {
        Self {
            program,
            arguments,
            #[cfg(feature = "weaken")]
            keep_environment: false,
        }
    }
}

/// How jobs are jailed.
#[derive(Clone, Debug, Default)]
pub struct JailConfig {
    /// How memory and processes are bounded.
    pub cgroup: CgroupPolicy,
    /// Further folders of the machine that jobs can read, and run programs of: toolchains outside of `/usr`.
    pub read_only: Vec<PathBuf>,
    /// How the helper is started.
    pub helper: Helper,
    /// Helpers that are kept started for jobs to come, from the first job on: a process each, that waits. None without
    /// configuration.
    pub ready: usize,
}

/// The provider `process`.
#[derive(Clone, Debug)]
pub struct Jail {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: JailConfig,
    pub(crate) place: Result<Place, String>,
    /// What is between it and a job.
    pub(crate) enclosure: Option<Enclosure>,
    pub(crate) spares: Spares,
    next_user: AtomicU32,
}

impl Jail {
    /// A jail. Whether this machine can hold a job is seen when there is one, or by [`Jail::try_out`].
    #[must_use]
    pub fn new(config: JailConfig) -> Self {
        Self::make(config, None)
    }

    /// A jail with something in it that brings a kernel of its own for each job. A job is in that, and all of it in the
    /// jail's namespaces, for as long as the job lasts.
    pub(crate) fn around(config: JailConfig, enclosure: Enclosure) -> Self {
        Self::make(config, Some(enclosure))
    }

    fn make(config: JailConfig, enclosure: Option<Enclosure>) -> Self {
        let place = Place::find(&config.cgroup);
        Self {
            inner: Arc::new(Inner {
                config,
                place,
                enclosure,
                spares: Spares::default(),
                // Two services on one machine begin at different users.
                next_user: AtomicU32::new(std::process::id()),
            }),
        }
    }

    /// Runs a job that does nothing, in all that holds a job.
    ///
    /// # Errors
    /// Why this machine, or this configuration, cannot hold a job.
    pub async fn try_out(&self) -> Result<JobResult, SandboxError> {
        self.run(&JobSpec::new(["/bin/sh", "-c", "exit 0"])).await
    }
}

impl Inner {
    pub(crate) fn provider(&self) -> &'static str {
        self.enclosure.as_ref().map_or(NAME, |it| it.provider)
    }

    /// The users that the next job can be.
    pub(crate) fn next_users(&self) -> Vec<u32> {
        let next = self.next_user.fetch_add(1, Ordering::Relaxed) % USERS;
        vec![FIRST_USER + next, NOBODY]
    }
}

#[async_trait]
impl Sandbox for Jail {
    fn name(&self) -> &'static str {
        self.inner.provider()
    }

    async fn run(&self, spec: &JobSpec) -> Result<JobResult, SandboxError> {
        spec.check()?;
        if spec.network {
            return Err(SandboxError::Refused {
                mechanism: "network".to_owned(),
                reason: "a network was asked for, and this provider gives none".to_owned(),
            });
        }
        let (answer, answered) = oneshot::channel();
        // Open as long as somebody waits for the result.
        let (held, waited_for): (OwnedFd, OwnedFd) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
                .map(|(read, write)| (write, read))
                .map_err(|error| SandboxError::Unavailable {
                    reason: format!("no pipe: {error}"),
                })?;
        let errand = Errand {
            spec: spec.clone(),
            waited_for,
            answer,
        };
        spare::run(&self.inner, errand).map_err(|error| SandboxError::Unavailable {
            reason: format!("no thread: {error}"),
        })?;
        let result = answered.await;
        drop(held);
        result.unwrap_or_else(|_| {
            Err(SandboxError::Unavailable {
                reason: "the thread of the job broke off".to_owned(),
            })
        })
    }
}
