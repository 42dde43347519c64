//! Which planner this process has.

use std::sync::Arc;

use kodo_planner::{
    LiveModel, LivePlanner, OpenCodeConfig, OpenCodePlace, OpenCodePlanner, Planner, RecordPlanner,
    ReplayPlanner,
};

use crate::opencode::{JailedOpenCode, UnjailedOpenCode, find};
use crate::settings::{LiveSettings, OpenCodeSettings, OpenCodeSetup, PlannerMode, Settings};

/// The planner that is configured. One that needs something on this machine has it before this returns.
///
/// # Errors
/// What is missing, and what to do about it.
pub(crate) async fn of(settings: &Settings) -> anyhow::Result<Arc<dyn Planner>> {
    let planner = &settings.planner;
    Ok(match planner.mode {
        PlannerMode::Replay => Arc::new(ReplayPlanner::new(planner.fixtures_dir.clone())),
        PlannerMode::Live => live(settings).await?,
        PlannerMode::Record => {
            Arc::new(RecordPlanner::new(live(settings).await?, planner.folder()?))
        }
    })
}

/// The live planner that is configured, whatever the mode is.
///
/// # Errors
/// As [`of`].
pub(crate) async fn live(settings: &Settings) -> anyhow::Result<Arc<dyn LiveModel>> {
    match settings.planner.model()? {
        LiveSettings::OpenAi(config) => Ok(Arc::new(LivePlanner::new(config))),
        LiveSettings::OpenCode(opencode) => {
            let planner = OpenCodePlanner::new(config(settings, opencode)?);
            planner.start().await?;
            Ok(Arc::new(planner))
        }
    }
}

fn config(settings: &Settings, opencode: OpenCodeSettings) -> anyhow::Result<OpenCodeConfig> {
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
                    false => {
                        tracing::warn!(
                            "OC_OPENCODE_JAIL=false: OpenCode has this machine's network and files in reach"
                        );
                        Arc::new(UnjailedOpenCode::new(program, "/proc/self/exe"))
                    }
                },
                endpoint,
                secret,
                first_pause,
            }
        }
    };
    Ok(OpenCodeConfig {
        place,
        version: opencode.version,
        model: opencode.model,
        deadline: opencode.deadline,
        max_tokens: opencode.max_tokens,
        policy: opencode.policy,
    })
}
