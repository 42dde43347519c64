//! What plans and what carries out: the operator's OC and SBX.

use super::examination::Examination;
use super::finding::Finding;
use crate::settings::{DataFolder, LiveSettings, PlannerMode, PlannerSettings};

/// The fixture that is used where an intent has none of its own.
const DEFAULT_FIXTURE: &str = "default.json";

/// Says which planner and which sandbox a service would use here.
pub(crate) fn check(exam: &Examination) -> impl FnOnce() -> Vec<Finding> + Send + use<> {
    let settings = exam.settings.planner.clone();
    let data_dir = exam.settings.data_dir.clone();
    move || vec![planner(&settings, &data_dir)]
}

fn planner(settings: &PlannerSettings, data_dir: &DataFolder) -> Finding {
    let mode = match settings.mode {
        PlannerMode::Replay => return replay(settings),
        PlannerMode::Record => "record",
        PlannerMode::Live => "live",
    };
    let Some(live) = &settings.live else {
        return Finding::skipped("planner", format!("{mode}: no model is configured"));
    };
    if let LiveSettings::OpenCode(opencode) = live
        && let Some(missing) = crate::opencode::missing(opencode, data_dir)
    {
        let next = "bin/mise run oc:opencode:install".to_owned();
        return Finding::problem("planner", format!("{mode}: {missing}"), next);
    }
    // Whether the model answers is another question, and costs money to ask: the next command asks it.
    Finding::ok("planner", format!("{mode}, by {}", live.describe()))
        .then("bin/mise run oc:live:smoke".to_owned())
}

fn replay(settings: &PlannerSettings) -> Finding {
    let Some(folder) = &settings.fixtures_dir else {
        return Finding::ok("planner", "replay, by the fixtures that are built in");
    };
    let names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".json"))
        .collect();
    let shown = folder.display();
    if names.iter().any(|name| name == DEFAULT_FIXTURE) {
        return Finding::ok(
            "planner",
            format!("replay, by {} fixtures of {shown}", names.len()),
        );
    }
    Finding::warn(
        "planner",
        format!(
            "replay: {shown} has no {DEFAULT_FIXTURE}: a run whose intent has no fixture of its own fails"
        ),
        Some("unset OC_FIXTURES_DIR".to_owned()),
    )
}
