//! Landlock: the kernel's own access control, over the file tree that the mounts have made. If a mistake in one of the two
//! opens something, the other still refuses it.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};

use super::sources::{DEVICES, SYSTEM, TERMINAL};
use crate::layout::WRITABLE;
use crate::wire::{Fault, Spec};

/// The newest version whose rules are used where the kernel has them: 6 keeps signals and abstract sockets in.
const WANTED: ABI = ABI::V6;
/// The oldest version that is accepted.
const NEEDED: ABI = ABI::V1;

/// Restricts this process and its children, for good.
pub(crate) fn restrict(spec: &Spec) -> Result<(), Fault> {
    let at = Fault::at("landlock");
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(NEEDED))
        .map_err(Fault::at("landlock"))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))
        .map_err(Fault::at("landlock"))?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)
        .map_err(Fault::at("landlock"))?
        .create()
        .map_err(Fault::at("landlock"))?;
    let all = AccessFs::from_all(WANTED);
    let read = AccessFs::from_read(WANTED);
    let list = AccessFs::ReadDir.into();
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let fixed = SYSTEM
        .iter()
        .map(|path| (*path, read))
        .chain(DEVICES.iter().map(|path| (*path, device)))
        .chain([
            ("/", list),
            ("/etc", read),
            ("/sys", read),
            // A job may write to its own files there, its name for instance.
            ("/proc", read | AccessFs::WriteFile),
            (TERMINAL, device),
            ("/dev/pts", device | AccessFs::ReadDir),
        ])
        .chain(WRITABLE.map(|(path, _)| (path, all)));
    let extra = spec.read_only.iter().map(|path| (path.as_str(), read));
    for (path, access) in fixed.chain(extra) {
        // This machine does not have every path of the list.
        let Ok(fd) = PathFd::new(path) else { continue };
        let access = if Path::new(path).is_dir() {
            access
        } else {
            access & AccessFs::from_file(WANTED)
        };
        rules = rules.add_rule(PathBeneath::new(fd, access)).map_err(&at)?;
    }
    let status = rules.restrict_self().map_err(&at)?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(Fault::new("landlock", "the kernel does not enforce it"));
    }
    Ok(())
}
