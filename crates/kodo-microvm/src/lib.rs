//! SBX, provider `microvm`: a virtual machine for each job.
//!
//! QEMU boots a Linux kernel of its own with a small first process, `kodo-guest`, which puts the job into the
//! jail of `kodo-jail` inside the machine. So a job has to get out of the jail, then out of a kernel that it
//! shares with nobody, then out of an emulator that is an ordinary user without a network, without a monitor,
//! without files that it may write, and under its own filter of system calls. [`MicroVm`] is the provider,
//! [`be_the_emulator_if_asked`] what a program that has one calls first in `main`.
//!
//! A machine runs one job and is thrown away. Some are kept ready, so that a job does not wait for a kernel to
//! boot. All of them end with the process that started them, however that ends.

mod channel;
mod config;
mod emulator;
mod images;
mod kvm;
mod machine;
mod outcome;
mod plan;
mod pool;
mod provider;
#[doc(hidden)]
pub mod wire;

pub use config::{Acceleration, MicroVmConfig};
pub use emulator::{Launcher, be_the_emulator_if_asked};
pub use images::Images;
pub use kvm::probe_kvm;
pub use provider::{MicroVm, hint_for};
