//! Paths, users and hidden arguments that the service's side and the inside of a jail agree on.

/// The job's folder.
pub(crate) const JOB: &str = "/job";
/// The folders that a job can write to, all in one bounded file system, with their permissions.
pub(crate) const WRITABLE: [(&str, u32); 5] = [
    (JOB, 0o755),
    ("/tmp", 0o1777),
    ("/var/tmp", 0o1777),
    ("/dev/shm", 0o1777),
    ("/run", 0o755),
];
/// Folders in `/run` where programs of the distributions expect to make files.
pub(crate) const IN_RUN: [&str; 2] = ["lock", "postgresql"];
/// The user that a job is, as it sees itself.
pub(crate) const USER: u32 = 1000;

/// In the file tree of an enclosure: its program, its state, its bundle (as OCI has it), and the job's tree in that.
pub(crate) const ENCLOSURE: &str = "/enclosure";
pub(crate) const STATE: &str = "/state";
pub(crate) const BUNDLE: &str = "/bundle";
pub(crate) const BUNDLE_ROOT: &str = "rootfs";
/// In the job's tree inside an enclosure: our own program, which is the init process there.
pub(crate) const GUEST: &str = "/guest";

/// The hidden arguments that make a program the jail's helper, the init process inside gVisor, and a program that dies with
/// the service.
pub(crate) const HELPER_ARGUMENT: &str = "jail-init";
pub(crate) const GUEST_ARGUMENT: &str = "jail-guest";
pub(crate) const LIFELINE_ARGUMENT: &str = "jail-lifeline";
