//! The last steps before the job's own program: everything that confines a single process, the seccomp filter last, since
//! it forbids most of the other steps.

use std::ffi::CString;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use kodo_sandbox::Limits;
use rustix::process::{Resource, Rlimit, setrlimit, umask};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::seccomp::{Filters, Permitted};
use super::{landlock, seccomp, tree, users};
use crate::defence::{Defence, on};
use crate::layout::{JOB, USER};
use crate::sockets;
use crate::sys::{self, Strings};
use crate::wire::{Fault, Kernel, Spec};

/// The folders in which a program that is named without a path is looked for.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Bytes of memory that one process can lock.
const LOCKED: u64 = 64 * 1024;
/// The largest number of a capability that fits into the kernel's sets.
const LAST_CAPABILITY: u32 = 63;
/// The exit codes of shells for a program that cannot be run, and for one that does not exist.
const CANNOT_RUN: i32 = 126;
const NOT_FOUND: i32 = 127;

/// Prepared before the fork, so that little is left to fail after it.
pub(crate) struct Program<'a> {
    candidates: Vec<CString>,
    arguments: Strings,
    environment: Strings,
    filters: &'a Filters,
    kernel: Kernel,
    permitted: Permitted,
}

impl<'a> Program<'a> {
    pub(crate) fn prepare(
        spec: &Spec,
        filters: &'a Filters,
        kernel: Kernel,
    ) -> Result<Self, Fault> {
        let text = |text: String| CString::new(text).map_err(Fault::at("specification"));
        let mut environment = vec![
            ("PATH".to_owned(), PATH.to_owned()),
            ("HOME".to_owned(), JOB.to_owned()),
            ("TMPDIR".to_owned(), "/tmp".to_owned()),
            ("LANG".to_owned(), "C.UTF-8".to_owned()),
        ];
        #[cfg(feature = "weaken")]
        if !on(Defence::Environment) {
            #[expect(
                clippy::disallowed_methods,
                reason = "what a test sees leak when the defence is off"
            )]
            environment.extend(std::env::vars());
        }
        for (key, value) in &spec.env {
            environment.retain(|(known, _)| known != key);
            environment.push((key.clone(), value.clone()));
        }
        let path = environment
            .iter()
            .find(|(key, _)| key == "PATH")
            .map_or(PATH, |(_, value)| value);
        let named = spec
            .argv
            .first()
            .ok_or_else(|| Fault::new("specification", "argv is empty"))?;
        let candidates = if named.contains('/') {
            vec![text(named.clone())?]
        } else {
            path.split(':')
                .map(|folder| text(format!("{folder}/{named}")))
                .collect::<Result<_, _>>()?
        };
        let environment = environment
            .into_iter()
            .map(|(key, value)| text(format!("{key}={value}")))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            candidates,
            arguments: Strings::new(
                spec.argv
                    .iter()
                    .cloned()
                    .map(text)
                    .collect::<Result<_, _>>()?,
            ),
            environment: Strings::new(environment),
            filters,
            kernel,
            permitted: Permitted {
                // gVisor counts them with the job's memory.
                unnamed_files: !spec.watch || kernel.is_gvisor(),
                tracing: spec.tracing,
            },
        })
    }

    /// Becomes the program. Returns only if this process could not be confined; a program that cannot be run ends the
    /// process with the exit code of a shell.
    ///
    /// While it is explained what the job is refused, `init` gets the listener of the filter.
    pub(crate) fn start(&self, spec: &Spec, init: &UnixStream) -> Fault {
        match self.confine(spec, init) {
            Err(fault) => fault,
            Ok(()) => self.execute(spec),
        }
    }

    fn confine(&self, spec: &Spec, init: &UnixStream) -> Result<(), Fault> {
        if on(Defence::Session) {
            sys::new_session().map_err(Fault::at("session"))?;
        }
        umask(rustix::fs::Mode::from_raw_mode(0o022));
        // If memory runs out, the kernel kills the job and not the jail. Impossible without /proc.
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        let folder = tree::job_folder().join(&spec.cwd);
        std::env::set_current_dir(&folder).map_err(|error| {
            Fault::because("working-folder", format_args!("{:?}", spec.cwd), error)
        })?;
        if on(Defence::ResourceLimits) {
            limit_resources(spec, self.kernel)?;
        }
        if self.kernel.is_gvisor() {
            drop_bounding_set();
            rustix::thread::set_thread_groups(&[]).map_err(Fault::at("leave-root"))?;
            users::become_user(USER).map_err(Fault::at("leave-root"))?;
        }
        if on(Defence::Capabilities) {
            drop_capabilities()?;
        }
        #[cfg(feature = "weaken")]
        if !on(Defence::Capabilities) {
            keep_capabilities()?;
        }
        if on(Defence::NoNewPrivileges) {
            rustix::thread::set_no_new_privs(true).map_err(Fault::at("no-new-privileges"))?;
        }
        if on(Defence::Landlock) && !self.kernel.is_gvisor() {
            landlock::restrict(spec)?;
        }
        if on(Defence::Descriptors) {
            let marked = if self.kernel.is_gvisor() {
                sys::close_each_on_exec()
            } else {
                sys::close_from(3, true)
            };
            marked.map_err(Fault::at("descriptors"))?;
        }
        sys::reset_signals();
        if spec.explain && on(Defence::Seccomp) {
            let listener = seccomp::explaining(self.permitted)?;
            sockets::send(init, listener.as_fd()).map_err(Fault::at("seccomp"))?;
        } else if on(Defence::Seccomp) {
            self.filters.apply(self.permitted)?;
        }
        Ok(())
    }

    fn execute(&self, spec: &Spec) -> Fault {
        let mut code = NOT_FOUND;
        let mut reason = std::io::Error::from_raw_os_error(libc::ENOENT);
        for candidate in &self.candidates {
            let error = sys::execute(candidate, &self.arguments, &self.environment);
            if matches!(
                error.raw_os_error(),
                Some(libc::ENFILE | libc::EAGAIN | libc::EINTR)
            ) {
                return Fault::because("program", candidate.to_string_lossy(), error);
            }
            let absent = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR));
            if !absent {
                code = CANNOT_RUN;
                reason = error;
            } else if code == NOT_FOUND {
                reason = error;
            }
        }
        let program = spec.argv.first().map_or("", String::as_str);
        let _ = writeln!(std::io::stderr(), "{program}: {reason}");
        sys::exit_now(code)
    }
}

fn limit_resources(spec: &Spec, kernel: Kernel) -> Result<(), Fault> {
    let limits = &spec.limits;
    // The jail's own two processes are counted with the job's in its user namespace. If a cgroup limits processes too, its
    // limit is to be reached first, since it counts what it refuses. In gVisor the jail's processes are another user's.
    let own = match (kernel.is_gvisor(), spec.watch) {
        (true, _) => 0,
        (false, true) => 2,
        (false, false) => 16,
    };
    let mut table = vec![
        (Resource::Nproc, limits.processes + own),
        (Resource::Nofile, limits.open_files),
        (Resource::Fsize, limits.disk_bytes),
        (Resource::Core, 0),
        (Resource::Memlock, LOCKED),
    ];
    if spec.watch && !kernel.is_gvisor() {
        // A second limit for one process that allocates faster than the watch can see.
        let most = limits.memory_bytes.saturating_mul(2) + (64 << 20);
        table.push((Resource::Data, most));
    }
    table
        .into_iter()
        .try_for_each(|(resource, most)| limit(resource, most))
}

/// How many files a process of the job can have open: its limit, unless this process's own is lower.
pub(crate) fn open_files(limits: &Limits) -> u64 {
    let highest = rustix::process::getrlimit(Resource::Nofile).maximum;
    highest.map_or(limits.open_files, |it| it.min(limits.open_files))
}

/// Raises the highest number of open files that the job can be given, as far as this process may: only the machine's user 0
/// can, before it has become another one.
pub(crate) fn raise_open_files(most: u64) {
    let now = rustix::process::getrlimit(Resource::Nofile);
    if now.maximum.is_some_and(|maximum| maximum < most) {
        let maximum = Some(most);
        // If it fails, the job's limit is the lower one, as its result says.
        let _ = setrlimit(Resource::Nofile, Rlimit { maximum, ..now });
    }
}

/// Limits a resource of this process and of its children.
pub(crate) fn limit(resource: Resource, most: u64) -> Result<(), Fault> {
    let rlimit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    let lowered = rustix::process::getrlimit(resource)
        .maximum
        .is_some_and(|maximum| maximum < most);
    // The hard limit is lower already, and raising it would fail.
    if lowered {
        return Ok(());
    }
    setrlimit(resource, rlimit).map_err(Fault::at("resource-limits"))
}

/// The capabilities of the namespace's owner, kept over the exec, which would drop them by itself.
#[cfg(feature = "weaken")]
fn keep_capabilities() -> Result<(), Fault> {
    let at = Fault::at("capabilities");
    let mut sets = rustix::thread::capabilities(None).map_err(&at)?;
    sets.inheritable = sets.permitted;
    rustix::thread::set_capabilities(None, sets).map_err(&at)?;
    for one in sets.permitted.iter() {
        rustix::thread::configure_capability_in_ambient_set(one, true).map_err(&at)?;
    }
    Ok(())
}

fn drop_bounding_set() {
    for number in 0..=LAST_CAPABILITY {
        let one = CapabilitySet::from_bits_retain(1 << number);
        // EINVAL: the kernel has no further capability.
        if rustix::thread::remove_capability_from_bounding_set(one).is_err() {
            break;
        }
    }
}

fn drop_capabilities() -> Result<(), Fault> {
    drop_bounding_set();
    // Fails on kernels that are too old for ambient capabilities.
    let _ = rustix::thread::clear_ambient_capability_set();
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none).map_err(Fault::at("capabilities"))?;
    match rustix::thread::capabilities(None) {
        Ok(left) if left.effective.is_empty() && left.permitted.is_empty() => Ok(()),
        Ok(_) => Err(Fault::new("capabilities", "the kernel kept some")),
        Err(error) => Err(Fault::at("capabilities")(error)),
    }
}
