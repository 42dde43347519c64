//! The provider: where a job is asked for.

use std::sync::Arc;

use async_trait::async_trait;
use kodo_sandbox::provider::Request;
use kodo_sandbox::{JobResult, JobSpec, Sandbox, SandboxError};
use tokio::sync::Semaphore;

use crate::config::{Acceleration, MicroVmConfig, NAME};
use crate::images::MECHANISM as IMAGES;
use crate::kvm::{MECHANISM as KVM, probe_kvm};
use crate::machine::Machine;
use crate::plan::Plan;
use crate::pool::Pool;

/// Memory of a machine on top of its job's, in MiB: kernel, init, page tables.
const OWN_MIB: u64 = 128;
const MIB: u64 = 1 << 20;
/// How often a machine that ended while it waited is replaced by another one.
const ATTEMPTS: usize = 3;

/// The provider `microvm`.
#[derive(Clone)]
pub struct MicroVm {
    pool: Arc<Pool<Machine>>,
    plan: Plan,
    permits: Arc<Semaphore>,
    memory_mib: u64,
}

impl MicroVm {
    /// Finds the images, checks that KVM works if it is to be used, and begins to boot the machines that are kept ready.
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
        let of_the_pool = plan.clone();
        let boots = move || {
            let machine = Machine::boot(&of_the_pool)?;
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

    /// Waits until one of the machines that are kept ready has come up, to measure jobs without the boot.
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

/// What to do about a refusal of this provider: a sentence without a capital and a full stop.
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

/// The memory that a job's machine needs, in MiB: the job's limit, and twice what is sent in and out.
fn needed_mib(spec: &JobSpec) -> u64 {
    let limits = &spec.limits;
    let given = spec.given().bytes();
    let kept = limits.kept_bytes.saturating_mul(2);
    let carried = match &spec.workspace {
        None => given
            .saturating_add(limits.returned_bytes)
            .saturating_add(kept)
            .saturating_mul(2),
        // What it was given stays beside the job; what it leaves is copied when the job's own memory is free again, apart
        // from its files, which count as such.
        Some(_) => {
            let files = limits.disk_bytes.min(limits.memory_bytes);
            let left = files.saturating_mul(2).saturating_sub(limits.memory_bytes);
            given
                .saturating_add(left)
                .saturating_add(kept.saturating_mul(2))
        }
    };
    limits.memory_bytes.saturating_add(carried).div_ceil(MIB) + OWN_MIB
}

#[async_trait]
impl Sandbox for MicroVm {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn run(&self, spec: &JobSpec) -> Result<JobResult, SandboxError> {
        spec.check_without_network()?;
        let unavailable = |reason: String| SandboxError::Unavailable { reason };
        let _permit = self
            .permits
            .acquire()
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        let (request, result) = Request::new(spec)?;
        let mut request = Box::new(request);
        for _ in 0..ATTEMPTS {
            match self.machine(spec).await?.hand_over(request) {
                Ok(()) => return result.wait().await,
                Err(back) => request = back,
            }
        }
        Err(unavailable("machines end before a job begins".to_owned()))
    }
}
