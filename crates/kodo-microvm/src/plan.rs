//! How one machine is started: the user of its emulator, and the arguments of QEMU.

use std::ffi::OsString;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use kodo_sandbox::SandboxError;

use crate::config::{Acceleration, MicroVmConfig};
use crate::emulator::{Launcher, Start};
use crate::images::Images;

/// Users of the machine that emulators become if the service is user 0: each another one, different from those of the jail.
/// Far above what distributions hand out.
const FIRST_USER: u32 = 1_985_900_000;
const USERS: u32 = 65_536;
/// `nobody`, for a container that maps no such user.
const NOBODY: u32 = 65_534;
/// How a machine is to be made.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) launcher: Launcher,
    images: Images,
    pub(crate) acceleration: Acceleration,
    pub(crate) memory_mib: u64,
    /// How long it may take to come up.
    pub(crate) boot: Duration,
}

impl Plan {
    pub(crate) fn of(config: &MicroVmConfig) -> Result<Self, SandboxError> {
        Ok(Self {
            launcher: config.launcher.clone(),
            images: Images::find(&config.folder)?,
            acceleration: config.acceleration,
            memory_mib: config.memory_mib,
            boot: config.acceleration.boot(),
        })
    }

    /// The same with more memory.
    pub(crate) fn with_memory(&self, memory_mib: u64) -> Self {
        Self {
            memory_mib,
            ..self.clone()
        }
    }

    /// The emulator's command, with the next user.
    pub(crate) fn start(&self) -> Start {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT
            .fetch_add(1, Ordering::Relaxed)
            .wrapping_add(std::process::id());
        Start {
            parent: i32::try_from(std::process::id()).unwrap_or(0),
            users: vec![FIRST_USER + next % USERS, NOBODY],
            groups: self.acceleration.groups(),
            program: self.images.emulator.clone(),
            arguments: self.arguments(),
            libraries: self.images.libraries.clone(),
            read: vec![self.images.folder.clone()],
        }
    }

    /// The arguments of QEMU: one processor, one port, a console that it only writes to, a disk that it only reads; no
    /// network, no monitor, and none of the machine's configuration files.
    fn arguments(&self) -> Vec<OsString> {
        let mut all: Vec<OsString> = Vec::new();
        let mut add = |words: &[&str]| all.extend(words.iter().map(OsString::from));
        add(&[
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-monitor",
            "none",
        ]);
        add(&[
            "-sandbox",
            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        ]);
        add(&[
            "-machine",
            "q35,usb=off,sata=off,smbus=off,vmport=off,graphics=off",
            "-smp",
            "1",
        ]);
        add(&["-m", &self.memory_mib.to_string()]);
        let mut boot = "console=ttyS0 quiet loglevel=3 panic=-1 oops=panic reboot=t rdinit=/init random.trust_cpu=on".to_owned();
        match self.acceleration {
            Acceleration::Kvm => add(&["-accel", "kvm", "-cpu", "host"]),
            Acceleration::Tcg => {
                add(&["-accel", "tcg,tb-size=128", "-cpu", "max"]);
                // Mitigations are for speculation of a real processor, which does not execute the guest here.
                boot.push_str(" mitigations=off nokaslr no_timer_check tsc=reliable");
            }
        }
        add(&["-append", &boot]);
        add(&[
            "-chardev",
            "socket,id=port,fd=0",
            "-device",
            "virtio-serial-pci,max_ports=2",
        ]);
        add(&["-device", "virtserialport,chardev=port,name=kodo"]);
        add(&[
            "-chardev",
            "socket,id=console,fd=1",
            "-serial",
            "chardev:console",
        ]);
        let mut disk = OsString::from("id=system,format=raw,readonly=on,if=none,file=");
        // A comma ends a value; two of them are one.
        disk.push(self.images.system.to_string_lossy().replace(',', ",,"));
        all.extend(["-drive".into(), disk]);
        all.extend(["-device".into(), "virtio-blk-pci,drive=system".into()]);
        for folder in self.images.firmware().into_iter().flatten() {
            all.extend(["-L".into(), folder.into()]);
        }
        all.extend(["-kernel".into(), self.images.kernel.clone().into()]);
        all.extend(["-initrd".into(), self.images.tree.clone().into()]);
        all
    }
}
