//! Taking defences off, for tests that prove that an attack succeeds where the defence against it is missing.
//!
//! Compiled only with the feature `weaken`. A process is weakened as a whole and once, at its start, before it has
//! children: they inherit the switches by `fork`.

use std::ffi::OsString;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::defence::Defence;
use crate::host::shared::Helper;

#[cfg(not(debug_assertions))]
compile_error!(
    "the feature `weaken` takes the jail's defences off: it is for tests, and a release build must not have it"
);

/// In every binary that is built with the feature, whatever else it uses, and in no other: task `test:release` looks for it.
const MARKER: &str = "kodo-jail:weaken:this-binary-can-take-defences-off";

/// A bit for each defence that is off.
static OFF: AtomicU32 = AtomicU32::new(0);

const _: () = assert!(Defence::ALL.len() <= u32::BITS as usize);

/// Whether a defence is on.
pub(crate) fn on(defence: Defence) -> bool {
    OFF.load(Ordering::Relaxed) & (1 << defence as u32) == 0
}

/// Keeps [`MARKER`] in the binary.
pub(crate) fn mark() {
    std::hint::black_box(MARKER);
}

/// Takes the named defences off.
pub(crate) fn take_off(names: &[OsString]) {
    for defence in Defence::ALL {
        if names.iter().any(|name| name == defence.as_str()) {
            OFF.fetch_or(1 << *defence as u32, Ordering::Relaxed);
        }
    }
}

impl Helper {
    /// The same, started with this process's environment, which a helper does not have otherwise.
    #[must_use]
    pub fn with_environment(mut self) -> Self {
        self.keep_environment = true;
        self
    }
}
