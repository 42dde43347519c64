//! `kodo workflow steps ID`

use kodo_engine::{InspectError, Inspector};

use super::cell_time;
use crate::cli::Format;
use crate::output::json;
use crate::table;

/// The checkpoints of one workflow, in order.
pub(crate) async fn run(
    inspector: &mut Inspector,
    id: &str,
    format: Format,
) -> Result<String, InspectError> {
    let steps = inspector.steps(id).await?;
    if format == Format::Json {
        return Ok(json(&steps));
    }
    if steps.is_empty() {
        return Ok("no step is recorded yet\n".to_owned());
    }
    let rows: Vec<Vec<String>> = steps
        .iter()
        .map(|step| {
            vec![
                step.function_id.to_string(),
                step.name.clone(),
                if step.error.is_null() { "ok" } else { "error" }.to_owned(),
                cell_time(step.started_at.as_ref()),
                cell_time(step.completed_at.as_ref()),
            ]
        })
        .collect();
    Ok(table::render(
        &["STEP", "NAME", "OUTCOME", "STARTED", "RECORDED"],
        &rows,
    ))
}
