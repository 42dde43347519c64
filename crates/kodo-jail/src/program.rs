//! The last steps before the job's own program: everything that binds a process, from the mildest to the one
//! after which nothing else could be done.

use std::ffi::CString;
use std::io::Write;

use rustix::process::{Resource, Rlimit, setrlimit, umask};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::defence::{Defence, on};
use crate::seccomp::Filters;
use crate::sys::{self, Strings};
use crate::tree::JOB;
use crate::wire::{Fault, Kernel, Spec};
use crate::{helper, landlock, tree};

/// Where programs are looked for that are named without a path.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Open files of one process.
const OPEN_FILES: u64 = 1024;
/// Memory that one process can lock.
const LOCKED: u64 = 64 * 1024;
/// The last capability that any kernel so far has.
const LAST_CAPABILITY: u32 = 63;
/// What shells say of a program that is there and cannot be run, and of one that is not there.
const CANNOT_RUN: i32 = 126;
const NOT_FOUND: i32 = 127;

/// What is ready before the fork, so that little is left to fail after it.
pub(crate) struct Program<'a> {
    candidates: Vec<CString>,
    arguments: Strings,
    environment: Strings,
    filters: &'a Filters,
    kernel: Kernel,
    unnamed_files: bool,
}

impl<'a> Program<'a> {
    pub(crate) fn prepare(
        spec: &Spec,
        filters: &'a Filters,
        kernel: Kernel,
    ) -> Result<Self, Fault> {
        let text =
            |text: String| CString::new(text).map_err(|error| Fault::new("specification", error));
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
            // gVisor counts them with the rest.
            unnamed_files: !spec.watch || kernel.is_gvisor(),
        })
    }

    /// Becomes the program. Returns only where a defence could not be put up; a program that cannot be run
    /// ends the process as a shell would.
    pub(crate) fn start(&self, spec: &Spec) -> Fault {
        match self.bind(spec) {
            Err(fault) => fault,
            Ok(()) => self.execute(spec),
        }
    }

    fn bind(&self, spec: &Spec) -> Result<(), Fault> {
        if on(Defence::Session) {
            sys::new_session().map_err(Fault::at("session"))?;
        }
        umask(rustix::fs::Mode::from_raw_mode(0o022));
        // Should memory run out, the job goes and not what guards it. Without /proc it cannot be said.
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
        let folder = tree::job_folder().join(&spec.cwd);
        std::env::set_current_dir(&folder).map_err(|error| {
            Fault::new("working-folder", format_args!("{:?}: {error}", spec.cwd))
        })?;
        if on(Defence::ResourceLimits) {
            bound_resources(spec, self.kernel)?;
        }
        if self.kernel.is_gvisor() {
            drop_bounding_set();
            rustix::thread::set_thread_groups(&[]).map_err(Fault::at("leave-root"))?;
            helper::become_user(tree::USER).map_err(Fault::at("leave-root"))?;
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
        if on(Defence::Seccomp) {
            self.filters.apply(self.unnamed_files)?;
        }
        Ok(())
    }

    fn execute(&self, spec: &Spec) -> ! {
        let mut code = NOT_FOUND;
        let mut reason = std::io::Error::from_raw_os_error(libc::ENOENT);
        for candidate in &self.candidates {
            let error = sys::execute(candidate, &self.arguments, &self.environment);
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

fn bound_resources(spec: &Spec, kernel: Kernel) -> Result<(), Fault> {
    let limits = &spec.limits;
    // The two processes of the jail itself are counted with the job's, here inside its user namespace. Where
    // a cgroup bounds processes too, it is to be asked first, since it counts what it refuses.
    // In gVisor they are another user's.
    let own = match (kernel.is_gvisor(), spec.watch) {
        (true, _) => 0,
        (false, true) => 2,
        (false, false) => 16,
    };
    let mut table = vec![
        (Resource::Nproc, limits.processes + own),
        (Resource::Nofile, OPEN_FILES),
        (Resource::Fsize, limits.disk_bytes),
        (Resource::Core, 0),
        (Resource::Memlock, LOCKED),
    ];
    if spec.watch && !kernel.is_gvisor() {
        // What watching cannot see in time: one process that takes much at once.
        let most = limits.memory_bytes.saturating_mul(2) + (64 << 20);
        table.push((Resource::Data, most));
    }
    table
        .into_iter()
        .try_for_each(|(resource, most)| bound(resource, most))
}

/// Bounds a resource of this process and of all that come from it.
pub(crate) fn bound(resource: Resource, most: u64) -> Result<(), Fault> {
    let limit = Rlimit {
        current: Some(most),
        maximum: Some(most),
    };
    let lowered = rustix::process::getrlimit(resource)
        .maximum
        .is_some_and(|maximum| maximum < most);
    // A machine that allows less is no reason to ask for more, which would fail.
    if lowered {
        return Ok(());
    }
    setrlimit(resource, limit).map_err(Fault::at("resource-limits"))
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
        // Beyond the kernel's last one it says EINVAL.
        if rustix::thread::remove_capability_from_bounding_set(one).is_err() {
            break;
        }
    }
}

fn drop_capabilities() -> Result<(), Fault> {
    drop_bounding_set();
    // Fails where there are no ambient ones, on kernels of long ago.
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
        Err(error) => Err(Fault::new("capabilities", error)),
    }
}
