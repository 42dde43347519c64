//! What all jobs of one jail share: its configuration, where their cgroups are made, and the users that they become.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::cgroup::{CgroupPolicy, Hierarchy, NoCgroups};
use super::enclosure::Enclosure;
use super::token::token;
use crate::layout::HELPER_ARGUMENT;

/// Users of the machine that jobs become if the service is user 0: each job another one, so that no two share what the
/// kernel counts by user. Far above what distributions hand out.
const FIRST_USER: u32 = 1_986_000_000;
const USERS: u32 = 65_536;
/// `nobody`, for a container that maps no such user.
const NOBODY: u32 = 65_534;

/// A user of the machine that nothing else is, for a program that this process starts while it is user 0; `None` if it is
/// an ordinary user already.
#[must_use]
pub fn unprivileged_user() -> Option<u32> {
    let root = rustix::process::geteuid().is_root();
    root.then(|| FIRST_USER + token() as u32 % USERS)
}

type Found = Result<Arc<Hierarchy>, NoCgroups>;

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
        Self::program("/proc/self/exe".into(), vec![HELPER_ARGUMENT.into()])
    }
}

impl Helper {
    /// Another program as the helper, for tests.
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
    /// How memory and processes are limited.
    pub cgroup: CgroupPolicy,
    /// Further folders of the machine that jobs can read and run programs of: toolchains outside of `/usr`.
    pub read_only: Vec<PathBuf>,
    /// Whether jobs may trace their own processes, as debuggers do. The default is that they may not.
    pub tracing: bool,
    /// Whether the result of each job says, as `refused` of what enforced it, what the job was refused and by which rule. It makes jobs
    /// slower. The default is not.
    pub explain: bool,
    /// How long a job that the kernel is too short of something to start is tried again. The default is not at all.
    pub patience: Duration,
    /// How the helper is started.
    pub helper: Helper,
    /// Helpers that are kept started for jobs to come, from the first job on: a process each, which waits. The default is
    /// none.
    pub ready: usize,
}

/// What all jobs of one jail share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: JailConfig,
    /// Where the jobs' cgroups are made, or why none can be made.
    cgroups: Mutex<Found>,
    /// What runs between the jail and the job, if anything does.
    pub(crate) enclosure: Option<Enclosure>,
    next_user: AtomicU32,
}

impl Shared {
    pub(crate) fn new(config: JailConfig, enclosure: Option<Enclosure>) -> Self {
        let cgroups = Hierarchy::find(&config.cgroup);
        Self {
            config,
            cgroups: Mutex::new(cgroups.map(Arc::new)),
            enclosure,
            // Two services on one machine begin at different users.
            next_user: AtomicU32::new(token() as u32),
        }
    }

    /// Where cgroups are made. Looks again if what hindered it the last time passes by itself: a job is never confined in
    /// a weaker way for that.
    pub(crate) fn cgroups(&self) -> Found {
        // What the lock guards is replaced as a whole.
        let mut found = self.cgroups.lock().unwrap_or_else(PoisonError::into_inner);
        if found.as_ref().is_err_and(|it| it.passes) {
            *found = Hierarchy::find(&self.config.cgroup).map(Arc::new);
        }
        found.clone()
    }

    /// The provider's name.
    pub(crate) fn provider(&self) -> &'static str {
        self.enclosure.as_ref().map_or("process", |it| it.provider)
    }

    /// The users that the next job can become, in order of preference.
    pub(crate) fn next_users(&self) -> Vec<u32> {
        let next = self.next_user.fetch_add(1, Ordering::Relaxed) % USERS;
        vec![FIRST_USER + next, NOBODY]
    }
}
