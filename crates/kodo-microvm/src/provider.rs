//! The provider: where a job is asked for.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use kodo_sandbox::{JobResult, JobSpec, Sandbox, SandboxError};
use tokio::sync::{Semaphore, oneshot};

use crate::acceleration::{Acceleration, MECHANISM as KVM, probe_kvm};
use crate::emulator::Launcher;
use crate::images::MECHANISM as IMAGES;
use crate::machine::{Machine, Plan, Work};
use crate::pool::Pool;
use crate::wire::Ready;

/// The provider's name.
pub(crate) const NAME: &str = "microvm";
/// What a machine needs beside its job: kernel, first process, page tables.
const OWN_MIB: u64 = 128;
const MIB: u64 = 1 << 20;
/// How often a machine that died while it waited is replaced by another one.
const ATTEMPTS: usize = 3;

/// How machines are made.
#[derive(Clone, Debug)]
pub struct MicroVmConfig {
    /// What `sbx:microvm:build` has made.
    pub folder: PathBuf,
    /// Who executes the guest's instructions.
    pub acceleration: Acceleration,
    /// Machines that are kept ready.
    pub ready: usize,
    /// Jobs at the same time. Further ones wait.
    pub most: usize,
    /// Memory of a machine. A job that needs more gets one of its own, which it has to wait for.
    pub memory_mib: u64,
    /// How this program is started again to become the emulator.
    pub launcher: Launcher,
}

impl Default for MicroVmConfig {
    fn default() -> Self {
        Self {
            folder: PathBuf::from(".data/microvm"),
            acceleration: Acceleration::Kvm,
            ready: 1,
            most: 4,
            memory_mib: 768,
            launcher: Launcher::default(),
        }
    }
}

/// The provider `microvm`.
#[derive(Clone)]
pub struct MicroVm {
    pool: Arc<Pool<Machine>>,
    plan: Plan,
    permits: Arc<Semaphore>,
    memory_mib: u64,
}

impl MicroVm {
    /// Finds what machines are made of, proves that KVM works where it is to be used, and begins to boot those
    /// that are kept ready.
    ///
    /// # Errors
    /// [`SandboxError::Refused`], naming what is missing.
    pub async fn start(config: MicroVmConfig) -> Result<Self, SandboxError> {
        let plan = Plan::of(&config)?;
        if config.acceleration == Acceleration::Kvm {
            let config = config.clone();
            tokio::task::spawn_blocking(move || probe_kvm(&config))
                .await
                .map_err(|error| SandboxError::Unavailable {
                    reason: error.to_string(),
                })??;
        }
        let alike = plan.clone();
        let boots = move || {
            let machine = Machine::boot(&alike)?;
            tracing::debug!(booted_in = ?machine.booted_in(), "a machine has come up");
            Ok(machine)
        };
        let pool = Arc::new(Pool::new(Arc::new(boots), config.ready));
        pool.fill();
        Ok(Self {
            pool,
            plan,
            permits: Arc::new(Semaphore::new(config.most.max(1))),
            memory_mib: config.memory_mib,
        })
    }

    /// Waits until one of the machines that are kept ready has come up, for whoever wants to measure jobs and not
    /// kernels.
    #[doc(hidden)]
    pub async fn ready(&self) {
        self.pool.one_is_up().await;
    }

    /// Runs a job that does nothing.
    ///
    /// # Errors
    /// Why there is no machine.
    pub async fn try_out(&self) -> Result<JobResult, SandboxError> {
        self.run(&JobSpec::new(["/bin/sh", "-c", "exit 0"])).await
    }

    /// A machine for this job.
    async fn machine(&self, spec: &JobSpec) -> Result<Machine, SandboxError> {
        let needed = needed_mib(spec);
        if needed <= self.memory_mib {
            let machine = self.pool.take().await;
            self.pool.fill();
            return machine;
        }
        let plan = self.plan.with_memory(needed);
        tokio::task::spawn_blocking(move || Machine::boot(&plan))
            .await
            .map_err(|error| SandboxError::Unavailable {
                reason: error.to_string(),
            })?
    }
}

/// What to do about a job that was refused for want of a machine, in a sentence without a capital and a full stop.
#[must_use]
pub fn hint_for(error: &SandboxError) -> Option<&'static str> {
    match error {
        SandboxError::Refused { mechanism, .. } if mechanism == IMAGES => Some(
            "run `bin/mise run sbx:microvm:build`, or name the folder that it has filled with SBX_MICROVM_DIR",
        ),
        SandboxError::Refused { mechanism, .. } if mechanism == KVM => Some(
            "use a machine whose processor virtualises, or ask for software emulation, which is many times slower, \
             with SBX_MICROVM_ACCEL=tcg",
        ),
        _ => None,
    }
}

/// What a job takes of a machine's memory: its own, what goes in and what comes out, twice each on the way.
fn needed_mib(spec: &JobSpec) -> u64 {
    let limits = &spec.limits;
    let given: u64 = spec
        .files
        .iter()
        .map(|file| file.content.len() as u64)
        .sum();
    let carried = given
        .saturating_add(limits.returned_bytes)
        .saturating_add(limits.kept_bytes.saturating_mul(2))
        .saturating_mul(2);
    limits.memory_bytes.saturating_add(carried).div_ceil(MIB) + OWN_MIB
}

/// What holds a job from outside, in words.
pub(crate) fn enforced(
    acceleration: Acceleration,
    ready: &Ready,
    memory_mib: u64,
) -> BTreeMap<&'static str, String> {
    let kernel: String = ready.kernel.chars().take(64).collect();
    BTreeMap::from([
        (
            "machine",
            format!("one of its own, {memory_mib} MiB, by QEMU with {acceleration}"),
        ),
        ("kernel", format!("one of its own, Linux {kernel}")),
        ("network", "the machine has no network device".to_owned()),
        (
            "emulator",
            "an ordinary user, Landlock, its own list of system calls".to_owned(),
        ),
        (
            "wall",
            "the first process of the jail in the machine; then the machine is switched off"
                .to_owned(),
        ),
        ("output", "the first process of the machine".to_owned()),
    ])
}

#[async_trait]
impl Sandbox for MicroVm {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn run(&self, spec: &JobSpec) -> Result<JobResult, SandboxError> {
        spec.check()?;
        if spec.network {
            return Err(SandboxError::Refused {
                mechanism: "network".to_owned(),
                reason: "a network was asked for, and this provider gives none".to_owned(),
            });
        }
        let unavailable = |reason: String| SandboxError::Unavailable { reason };
        let _permit = self
            .permits
            .acquire()
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        let (answer, answered) = oneshot::channel();
        // Open as long as somebody waits for the result.
        let (held, waited_for): (OwnedFd, OwnedFd) =
            rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
                .map(|(read, write)| (write, read))
                .map_err(|error| unavailable(format!("no pipe: {error}")))?;
        let mut work = Box::new(Work {
            spec: spec.clone(),
            answer,
            waited_for,
        });
        for _ in 0..ATTEMPTS {
            match self.machine(spec).await?.order(work) {
                Ok(()) => {
                    let result = answered.await;
                    drop(held);
                    return result.unwrap_or_else(|_| {
                        Err(unavailable(
                            "the thread of the machine broke off".to_owned(),
                        ))
                    });
                }
                Err(back) => work = back,
            }
        }
        Err(unavailable("machines end before a job begins".to_owned()))
    }
}
