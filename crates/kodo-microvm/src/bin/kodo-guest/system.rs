//! What a system needs before there is one: file systems, drivers, control groups, the port.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount, mount_move};
use rustix::system::{RebootCommand, finit_module, reboot};

/// Where jobs' control groups are made.
pub(crate) const GROUPS: &str = "/sys/fs/cgroup";
/// Drivers, in the order in which they need each other; one file name a line.
const MODULES: &str = "/modules/order";
/// How long a device may take to appear once its driver is there.
const PATIENCE: Duration = Duration::from_secs(20);
/// Where the system's disk is mounted before it is the root.
const NEW_ROOT: &str = "/new";

/// Makes the system and opens the port.
pub(crate) fn start() -> io::Result<File> {
    for folder in ["/sys", "/dev", NEW_ROOT] {
        fs::create_dir_all(folder)?;
    }
    let closed = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    // The kernel mounts it by itself in some configurations.
    if !Path::new("/dev/null").exists() {
        mount("devtmpfs", "/dev", "devtmpfs", MountFlags::NOSUID, None)?;
    }
    mount("sysfs", "/sys", "sysfs", closed, None)?;
    drivers()?;
    new_root(&appears("vda")?)?;
    mount("proc", "/proc", "proc", closed, None)?;
    mount("cgroup2", GROUPS, "cgroup2", closed, None)?;
    fs::write(format!("{GROUPS}/cgroup.subtree_control"), "+memory +pids")?;
    File::options()
        .read(true)
        .write(true)
        .open(appears("vport")?)
}

fn drivers() -> io::Result<()> {
    for name in fs::read_to_string(MODULES)?.lines() {
        let file = File::open(Path::new("/modules").join(name))?;
        match finit_module(file.as_fd(), c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(io::Error::other(format!("{name}: {error}"))),
        }
    }
    Ok(())
}

/// Moves into the system's disk. The tree that a kernel starts with could not be left by `pivot_root`, which the
/// jail needs.
fn new_root(disk: &Path) -> io::Result<()> {
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
    mount(disk, NEW_ROOT, "ext4", flags, None)?;
    for folder in ["/dev", "/sys"] {
        mount_move(folder, format!("{NEW_ROOT}{folder}"))?;
    }
    std::env::set_current_dir(NEW_ROOT)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    std::env::set_current_dir("/")
}

/// Waits for a device whose name begins like this.
fn appears(prefix: &str) -> io::Result<PathBuf> {
    let began = Instant::now();
    loop {
        for entry in fs::read_dir("/dev")?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                return Ok(entry.path());
            }
        }
        if began.elapsed() > PATIENCE {
            let what = format!("the device {prefix} does not appear");
            return Err(io::Error::other(what));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Ends the machine. The emulator ends with it.
pub(crate) fn power_off() -> ! {
    // What is in the port is on its way: the device takes it in order, before the reset.
    let _ = reboot(RebootCommand::Restart);
    loop {
        thread::park();
    }
}
