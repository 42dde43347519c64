//! Wires OpenCode up: the settings, the program, and the jail, of which the planner knows nothing.

mod jailed;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kodo_jail::{lifeline_command, unprivileged_user};
use kodo_planner::{
    LiveModel, OpenCodeConfig, OpenCodeMissing, OpenCodePlace, OpenCodePlanner, UnjailedOpenCode,
    find_opencode,
};

use crate::environment;
use crate::settings::{DataFolder, OpenCodeSettings, OpenCodeSetup, Settings};

use jailed::JailedOpenCode;

/// The planner of these settings. OpenCode is ready when this returns.
///
/// # Errors
/// What is missing, and what to do about it.
pub(crate) async fn planner(
    settings: &Settings,
    opencode: OpenCodeSettings,
) -> anyhow::Result<Arc<dyn LiveModel>> {
    let place = match opencode.setup {
        OpenCodeSetup::Attach {
            url,
            user,
            password,
        } => OpenCodePlace::Attached {
            url,
            user,
            password,
        },
        OpenCodeSetup::Start {
            program,
            jail,
            endpoint,
            secret,
            first_pause,
        } => {
            let program = find(program.as_deref(), &settings.data_dir)?;
            OpenCodePlace::Started {
                launcher: match jail {
                    true => Arc::new(JailedOpenCode::new(program, settings.live.jail.clone())),
                    false => Arc::new(unjailed(program)),
                },
                endpoint,
                secret,
                first_pause,
            }
        }
    };
    let planner = OpenCodePlanner::new(OpenCodeConfig {
        place,
        version: opencode.version,
        model: opencode.model,
        deadline: opencode.deadline,
        max_tokens: opencode.max_tokens,
        policy: opencode.policy,
    });
    planner.start().await?;
    Ok(Arc::new(planner))
}

/// What this machine lacks to start OpenCode, if these settings start one.
pub(crate) fn missing(opencode: &OpenCodeSettings, data_dir: &DataFolder) -> Option<String> {
    match &opencode.setup {
        OpenCodeSetup::Start { program, .. } => {
            let found = find(program.as_deref(), data_dir);
            found.err().map(|missing| missing.to_string())
        }
        OpenCodeSetup::Attach { .. } => None,
    }
}

/// Finds the program: the named one, otherwise one on the path or in the data folder.
fn find(named: Option<&Path>, data_dir: &DataFolder) -> Result<PathBuf, OpenCodeMissing> {
    let path = environment::variable("PATH").unwrap_or_default();
    find_opencode(named, &path, data_dir.path())
}

/// Starts OpenCode outside of the jail, as another user if this process is user 0. It ends with this process.
fn unjailed(program: PathBuf) -> UnjailedOpenCode {
    tracing::warn!(
        "OC_OPENCODE_JAIL=false: OpenCode has this machine's network and files in reach"
    );
    let user = unprivileged_user();
    let command = move || lifeline_command(Path::new("/proc/self/exe"), &program, user);
    UnjailedOpenCode::new(user, command)
}
