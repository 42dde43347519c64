//! What plans and what carries out: the operator's OC and SBX.

use super::Patient;
use super::finding::Finding;

/// The fixture that is used where an intent has none of its own.
const DEFAULT_FIXTURE: &str = "default.json";

/// Says which planner and which sandbox a service would use here. Other modes bring their own checks here.
pub(crate) fn check(patient: &Patient) -> impl FnOnce() -> Vec<Finding> + Send + use<> {
    let fixtures = patient.settings.oc_fixtures_dir.clone();
    move || {
        let planner = match fixtures {
            None => Finding::ok("planner", "replay, by the fixtures that are built in"),
            Some(folder) => {
                let names: Vec<String> = std::fs::read_dir(&folder)
                    .into_iter()
                    .flatten()
                    .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                    .filter(|name| name.ends_with(".json"))
                    .collect();
                let shown = folder.display();
                if names.iter().any(|name| name == DEFAULT_FIXTURE) {
                    Finding::ok(
                        "planner",
                        format!("replay, by {} fixtures of {shown}", names.len()),
                    )
                } else {
                    Finding::warn(
                        "planner",
                        format!(
                            "replay: {shown} has no {DEFAULT_FIXTURE}: a run whose intent has no fixture of its own fails"
                        ),
                        Some("unset OC_FIXTURES_DIR".to_owned()),
                    )
                }
            }
        };
        vec![
            planner,
            Finding::ok(
                "sandbox",
                "mock: tool calls are answered and not carried out",
            ),
        ]
    }
}
