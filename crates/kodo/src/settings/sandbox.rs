//! The sandbox's settings (SBX).

use std::path::PathBuf;

use kodo_jail::{CgroupPolicy, JailConfig};

use super::Flags;

/// Which sandbox carries out tool calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SandboxMode {
    /// The one that runs nothing.
    Mock,
    /// The one that runs programs.
    Live,
}

impl SandboxMode {
    pub(super) fn load(flags: &Flags) -> anyhow::Result<Self> {
        let mode = flags.sbx_mode();
        mode.one_of(&["mock", "live"], &[])?;
        // One live provider so far: whichever of these words stands there, it is the one.
        let stronger = [
            ("gvisor", "gvisor provider"),
            ("microvm", "microvm provider"),
        ];
        flags
            .sbx_provider()
            .one_of(&["auto", "process"], &stronger)?;
        flags.sbx_min_isolation().one_of(&["process"], &stronger)?;
        Ok(match mode.value.as_str() {
            "live" => Self::Live,
            _ => Self::Mock,
        })
    }
}

/// Where secrets are.
pub(super) fn secrets_dir(flags: &Flags) -> anyhow::Result<Option<PathBuf>> {
    let raw = flags.sbx_secrets_dir();
    if raw.value.is_empty() {
        return Ok(None);
    }
    let folder = PathBuf::from(&raw.value);
    if !folder.is_absolute() || !folder.is_dir() {
        return raw.refuse("the absolute path of an existing folder");
    }
    Ok(Some(folder))
}

/// How the live sandbox jails.
pub(super) fn jail_config(flags: &Flags) -> anyhow::Result<JailConfig> {
    let raw = flags.sbx_cgroup();
    let cgroup = match raw.value.as_str() {
        "auto" => CgroupPolicy::Auto,
        "require" => CgroupPolicy::Require,
        path if path.starts_with('/') => CgroupPolicy::Below(path.into()),
        _ => return raw.refuse("auto, require, or the absolute path of a delegated cgroup"),
    };
    let raw = flags.sbx_read_only();
    let read_only: Vec<PathBuf> = raw
        .value
        .split(':')
        .filter(|it| !it.is_empty())
        .map(PathBuf::from)
        .collect();
    let good = |path: &PathBuf| path.is_absolute() && path.is_dir() && path.parent().is_some();
    if !read_only.iter().all(good) {
        return raw.refuse("a list of absolute paths of existing folders, with ':' between them,");
    }
    Ok(JailConfig {
        cgroup,
        read_only,
        ..JailConfig::default()
    })
}
